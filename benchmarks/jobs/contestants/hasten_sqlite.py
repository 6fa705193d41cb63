"""hasten with its SQLite engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from benchmarks.jobs import load
from benchmarks.jobs.contestant import Contestant
from benchmarks.jobs.load import Cost

T = TypeVar("T")

CHUNK = 1_000


class HastenSqlite(Contestant):
    title = "hasten"
    remark = "defaults: all but claims is flushed, finished jobs are kept with results and events"
    packages = ("hasten", "msgspec")
    parts = frozenset({"enqueue", "bulk", "lone", "drain", "pickup", "pickup_here", "depth"})
    settings: ClassVar = {
        "enqueue": ("100 tasks",),
        "drain": ("50 at once", "100 at once", "200 at once", "500 at once"),
    }

    def __init__(self, folder: Path) -> None:
        from hasten.jobs import Queue, Worker

        self._queue = Queue("bench", f"sqlite:///{folder / 'hasten.db'}")
        self._worker = Worker
        self._ran: Callable[[int], None] = _ignore

        @self._queue.task
        async def noop(number: int) -> None:
            self._ran(number)

        self._task = noop

    def fill(self, count: int) -> None:
        self._run(self._bulk(count))

    def fill_delayed(self, count: int) -> None:
        async def fill() -> None:
            task = self._task.using(delay=timedelta(days=1))
            for chunk in _chunks(count):
                await task.enqueue_many(chunk)

        self._run(fill())

    def bulk(self, count: int) -> Cost:
        return self._run(self._bulk(count))

    async def _bulk(self, count: int) -> Cost:
        await self._queue.counts()  # opens the file
        meter = load.Meter()
        for chunk in _chunks(count):
            await self._task.enqueue_many(chunk)
        return meter.read(count)

    def enqueue(self, count: int, setting: str) -> Cost:
        async def enqueue() -> Cost:
            await self._queue.counts()
            return await load.from_tasks(self._task.enqueue, count, tasks=load.amount(setting))

        return self._run(enqueue())

    def lone(self, count: int) -> list[float]:
        async def lone() -> list[float]:
            await self._task.enqueue(0)
            return await load.one_by_one_awaited(self._task.enqueue, count)

        return self._run(lone())

    def drain(self, count: int, setting: str) -> Cost:
        tally = load.LocalTally(count)
        self._ran = tally.ran
        self._run(self._work(tally.wait, concurrency=load.amount(setting)))
        return tally.cost()

    def send(self, pauses: Sequence[float]) -> None:
        self._run(self._send(pauses))

    async def _send(self, pauses: Sequence[float]) -> None:
        for pause in pauses:
            await asyncio.sleep(pause)
            await self._task.enqueue(load.clock_ns())

    def receive(self, count: int, ready: Callable[[], None]) -> list[float]:
        waits = load.Waits(count)
        self._ran = waits.ran
        self._run(self._work(waits.wait, ready=ready))
        return waits.ms()

    def pick_up(self, pauses: Sequence[float]) -> list[float]:
        waits = load.Waits(len(pauses) - 1)
        self._ran = waits.ran

        async def pick_up() -> None:
            async with self._worker(self._queue):
                await self._send(pauses)
                await asyncio.to_thread(waits.wait)

        self._run(pick_up())
        return waits.ms()

    async def _work(
        self, until: Callable[[], None], *, ready: Callable[[], None] | None = None, **options: Any
    ) -> None:
        async with self._worker(self._queue, **options):
            if ready is not None:
                ready()
            await asyncio.to_thread(until)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        async def run() -> T:
            try:
                return await work
            finally:
                await self._queue.close()

        return asyncio.run(run())


def _chunks(count: int) -> list[list[dict[str, object]]]:
    numbers = range(count)
    return [
        [{"number": number} for number in numbers[start : start + CHUNK]]
        for start in range(0, count, CHUNK)
    ]


def _ignore(number: int) -> None:
    """What the task does in a process that only adds jobs."""


CONTESTANT = HastenSqlite
