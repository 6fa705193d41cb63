"""arq."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Any, ClassVar

from benchmarks.jobs_redis.asynchronous import OnUvloop, running


class Arq(OnUvloop):
    title = "arq"
    remark = "keeps no results; polls every 20 ms (default 500); at least once"
    packages = ("arq",)
    environment = "arq"
    parts = frozenset({"enqueue", "drain", "pickup", "memory"})
    settings: ClassVar = {
        "enqueue": ("100 tasks",),
        # arq also takes this many jobs with each poll.
        "drain": ("500 at once",),
    }
    share = 0.05

    async def open(self) -> None:
        from arq import create_pool
        from arq.connections import RedisSettings

        logging.disable(logging.INFO)
        self._settings: Any = RedisSettings.from_dsn(self.location)
        self._pool: Any = await create_pool(self._settings)

    async def close(self) -> None:
        await self._pool.aclose()

    def add(self, number: int) -> Awaitable[object]:
        added: Awaitable[object] = self._pool.enqueue_job("noop", number)
        return added

    @contextlib.asynccontextmanager
    async def working(self, concurrency: int) -> AsyncIterator[None]:
        from arq.worker import Worker, func

        async def noop(_: dict[str, Any], number: int) -> None:
            self.ran(number)

        worker: Any = Worker(
            [func(noop, name="noop")],
            redis_settings=self._settings,
            max_jobs=concurrency,
            poll_delay=0.02,
            keep_result=0,
            handle_signals=False,
        )
        async with running(worker.async_run()):
            yield


CONTESTANT = Arq
