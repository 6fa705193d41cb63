"""BullMQ's own port to Python."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, ClassVar, Final

from benchmarks.jobs_redis.asynchronous import OnUvloop

DAY_MS: Final = 86_400_000


class BullmqPython(OnUvloop):
    title = "BullMQ, Python"
    remark = "keeps no completed jobs, else defaults: events, locks, at least once"
    packages = ("bullmq", "redis")
    environment = "bullmq"
    parts = frozenset({"enqueue", "bulk", "drain", "pickup", "memory"})
    settings: ClassVar = {
        "enqueue": ("100 tasks",),
        # It waits on the set of all running jobs, so a higher concurrency is slower.
        "drain": ("10 at once",),
    }
    share = 0.05

    async def open(self) -> None:
        from bullmq import Queue

        self._queue: Any = Queue("bench", {"connection": self.location})

    async def close(self) -> None:
        await self._queue.close()

    def add(self, number: int) -> Awaitable[object]:
        added: Awaitable[object] = self._queue.add("noop", {"number": number}, {})
        return added

    def add_many(self, numbers: Sequence[int], *, delayed: bool) -> Awaitable[object]:
        options = {"delay": DAY_MS} if delayed else {}
        added: Awaitable[object] = self._queue.addBulk(
            [{"name": "noop", "data": {"number": n}, "opts": dict(options)} for n in numbers]
        )
        return added

    @contextlib.asynccontextmanager
    async def working(self, concurrency: int) -> AsyncIterator[None]:
        from bullmq import Worker

        async def noop(job: Any, _: str) -> None:
            self.ran(job.data["number"])

        options: Any = {
            "connection": self.location,
            "concurrency": concurrency,
            "removeOnComplete": True,
        }
        worker = Worker("bench", noop, options)
        try:
            yield
        finally:
            await worker.close(force=True)


CONTESTANT = BullmqPython
