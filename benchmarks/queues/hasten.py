"""The base class of the contestants of hasten, for all engines."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, ClassVar

from benchmarks.queues.asynchronous import AsyncContestant


class Hasten(AsyncContestant):
    title = "hasten"
    worker_options: ClassVar[dict[str, Any]] = {}

    def __init__(self, location: str) -> None:
        from hasten.jobs import Queue, Worker

        super().__init__(location)
        self._queue = Queue("bench", self.url())
        self._worker = Worker

        @self._queue.task
        async def noop(number: int) -> None:
            self.ran(number)

        self._task = noop
        self._later = noop.using(delay=timedelta(days=1))

    @abstractmethod
    def url(self) -> str:
        """Return the URL of the store at `self.location`."""

    async def open(self) -> None:
        await self._queue.counts()

    async def close(self) -> None:
        await self._queue.aclose()

    def add(self, number: int) -> Awaitable[object]:
        return self._task.enqueue(number)

    def add_many(self, numbers: Sequence[int], *, delayed: bool) -> Awaitable[object]:
        task = self._later if delayed else self._task
        return task.enqueue_many(map(task.args, numbers))

    def working(self, concurrency: int) -> AbstractAsyncContextManager[object]:
        return self._worker(self._queue, concurrency=concurrency, **self.worker_options)
