"""SAQ."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Any, ClassVar

from benchmarks.jobs_redis.asynchronous import OnUvloop, running


class Saq(OnUvloop):
    title = "SAQ"
    remark = (
        "keeps no results; retries=3 for at least once (default 1: a killed worker's job is lost)"
    )
    packages = ("saq",)
    environment = "saq"
    parts = frozenset({"enqueue", "drain", "pickup", "memory"})
    settings: ClassVar = {"enqueue": ("100 tasks",), "drain": ("100 at once",)}
    share = 0.05

    async def open(self) -> None:
        from saq import Queue

        logging.disable(logging.INFO)
        self._queue: Any = Queue.from_url(self.location)
        await self._queue.connect()

    async def close(self) -> None:
        await self._queue.disconnect()

    def add(self, number: int) -> Awaitable[object]:
        added: Awaitable[object] = self._queue.enqueue("noop", number=number, retries=3, ttl=-1)
        return added

    @contextlib.asynccontextmanager
    async def working(self, concurrency: int) -> AsyncIterator[None]:
        from saq import Worker

        async def noop(_: Any, *, number: int) -> None:
            self.ran(number)

        worker: Any = Worker(self._queue, functions=[("noop", noop)], concurrency=concurrency)
        async with running(worker.start()):
            yield


CONTESTANT = Saq
