"""taskiq with its broker on Redis streams."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Coroutine
from typing import Any, ClassVar, TypeVar

from benchmarks.jobs_redis.asynchronous import OnUvloop, exit_on_failure

T = TypeVar("T")


class Taskiq(OnUvloop):
    title = "taskiq"
    remark = "RedisStreamBroker, no results; at least once; the stream is never trimmed"
    packages = ("taskiq", "taskiq-redis")
    environment = "taskiq"
    parts = frozenset({"enqueue", "drain", "pickup", "memory"})
    settings: ClassVar = {"enqueue": ("100 tasks",), "drain": ("100 at once",)}
    share = 0.05

    async def open(self) -> None:
        from taskiq_redis import RedisStreamBroker

        self._broker: Any = RedisStreamBroker(self.location)

        async def noop(number: int) -> None:
            self.ran(number)

        self._task = self._broker.register_task(noop, "noop")
        await self._broker.startup()

    async def close(self) -> None:
        """Do nothing. The connections are closed when the process ends."""

    def loop(self, work: Coroutine[Any, Any, T]) -> T:
        # If its worker is cancelled at the wrong moment, it waits forever: do not cancel it.
        import uvloop

        result: T = uvloop.new_event_loop().run_until_complete(work)
        return result

    def add(self, number: int) -> Awaitable[object]:
        added: Awaitable[object] = self._task.kiq(number)
        return added

    @contextlib.asynccontextmanager
    async def working(self, concurrency: int) -> AsyncIterator[None]:
        from taskiq.api import run_receiver_task

        worker = run_receiver_task(self._broker, max_async_tasks=concurrency)
        self._worker: Any = asyncio.create_task(worker)
        self._worker.add_done_callback(exit_on_failure)
        yield


CONTESTANT = Taskiq
