"""The base class of contestants that use asyncio.

It implements the verbs, the operations that are measured, with a few methods of each library.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar

from benchmarks.queues import load
from benchmarks.queues.contestant import PythonContestant
from benchmarks.queues.load import Cost

T = TypeVar("T")

CHUNK: Final = 1_000

# The concurrency of workers where it does not matter, because jobs arrive one at a time.
CONCURRENCY: Final = 100


class AsyncContestant(PythonContestant):
    """A contestant whose library uses asyncio. Its task has to call `self.ran` with its number."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.ran: Callable[[int], None] = _ignore

    # What each library defines --------------------------------------------------------------------

    @abstractmethod
    async def open(self) -> None:
        """Connect to the store, so that connecting is not measured with the first job."""

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    def add(self, number: int) -> Awaitable[object]: ...

    @abstractmethod
    def working(self, concurrency: int) -> AbstractAsyncContextManager[object]:
        """Return a context in which a worker runs."""

    def add_many(self, numbers: Sequence[int], *, delayed: bool) -> Awaitable[object]:
        """Add jobs with one call. If delayed is set, they are due in a day."""
        raise NotImplementedError

    def loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(work)

    # The verbs ------------------------------------------------------------------------------------

    def fill(self, count: int) -> None:
        if type(self).add_many is AsyncContestant.add_many:
            self.enqueue(count, f"{CONCURRENCY} tasks")
        else:
            self._run(self._bulk(count, delayed=False))

    def fill_delayed(self, count: int) -> None:
        self._run(self._bulk(count, delayed=True))

    def bulk(self, count: int) -> Cost:
        return self._run(self._bulk(count, delayed=False))

    async def _bulk(self, count: int, *, delayed: bool) -> Cost:
        meter = load.Meter()
        for start in range(0, count, CHUNK):
            await self.add_many(range(start, min(start + CHUNK, count)), delayed=delayed)
        return meter.read(count)

    def enqueue(self, count: int, setting: str) -> Cost:
        return self._run(load.from_tasks(self.add, count, tasks=load.amount(setting)))

    def lone(self, count: int) -> list[float]:
        async def lone() -> list[float]:
            await self.add(0)
            return await load.one_by_one_awaited(self.add, count)

        return self._run(lone())

    def drain(self, count: int, setting: str) -> Cost:
        tally = load.LocalTally(count)
        self.ran = tally.ran
        self._run(self._work(tally.wait, concurrency=load.amount(setting)))
        return tally.cost()

    def send(self, pauses: Sequence[float]) -> None:
        self._run(self._send(pauses))

    async def _send(self, pauses: Sequence[float]) -> None:
        for pause in pauses:
            await asyncio.sleep(pause)
            await self.add(load.clock_ns())

    def receive(self, count: int, ready: Callable[[], None]) -> list[float]:
        waits = load.Waits(count)
        self.ran = waits.ran
        self._run(self._work(waits.wait, ready=ready))
        return waits.ms()

    def pick_up(self, pauses: Sequence[float]) -> list[float]:
        waits = load.Waits(len(pauses) - 1)
        self.ran = waits.ran

        async def pick_up() -> None:
            async with self.working(CONCURRENCY):
                await self._send(pauses)
                await asyncio.to_thread(waits.wait)

        self._run(pick_up())
        return waits.ms()

    async def _work(
        self,
        until: Callable[[], None],
        *,
        ready: Callable[[], None] | None = None,
        concurrency: int = CONCURRENCY,
    ) -> None:
        async with self.working(concurrency):
            if ready is not None:
                ready()
            await asyncio.to_thread(until)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        async def run() -> T:
            await self.open()
            try:
                return await work
            finally:
                await self.close()

        return self.loop(run())


def _ignore(number: int) -> None:
    """Do nothing. In a process that only adds jobs, no job runs."""
