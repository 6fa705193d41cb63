"""streaq."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import timedelta
from typing import Any, ClassVar

from benchmarks.jobs_redis.asynchronous import OnUvloop, running


class Streaq(OnUvloop):
    title = "streaq"
    remark = "keeps no results; at least once"
    packages = ("streaq", "coredis")
    environment = "streaq"
    parts = frozenset({"enqueue", "bulk", "drain", "pickup", "memory"})
    settings: ClassVar = {"enqueue": ("100 tasks",), "drain": ("10 at once",)}
    share = 0.03

    async def open(self) -> None:
        logging.disable(logging.INFO)
        self._worker, self._task = self._make(concurrency=10)
        self._exit = contextlib.AsyncExitStack()
        await self._exit.enter_async_context(self._worker)

    def _make(self, concurrency: int) -> tuple[Any, Any]:
        from streaq import Worker

        worker: Any = Worker(redis_url=self.location, concurrency=concurrency, handle_signals=False)

        async def noop(number: int) -> None:
            self.ran(number)

        return worker, worker.task(ttl=0, name="noop")(noop)

    async def close(self) -> None:
        await self._exit.aclose()

    async def add(self, number: int) -> None:
        await self._task.enqueue(number)

    def add_many(self, numbers: Sequence[int], *, delayed: bool) -> Awaitable[object]:
        tasks = [self._task.enqueue(number) for number in numbers]
        if delayed:
            tasks = [task.start(delay=timedelta(days=1)) for task in tasks]
        added: Awaitable[object] = self._worker.enqueue_many(tasks)
        return added

    @contextlib.asynccontextmanager
    async def working(self, concurrency: int) -> AsyncIterator[None]:
        worker, _ = self._make(concurrency)
        async with running(worker.run_async()):
            yield


CONTESTANT = Streaq
