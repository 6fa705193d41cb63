"""The loops that add jobs, and the counters of jobs that ran. All contestants use them."""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypedDict

# The clock for pick-up times. All processes of a machine have the same.
clock_ns = time.monotonic_ns


class Cost(TypedDict):
    """The elapsed time and the processor time that a number of jobs has taken."""

    jobs: int
    seconds: float
    cpu_seconds: float


def amount(setting: str) -> int:
    """Return the number in a setting such as "100 threads"."""
    return int(setting.partition(" ")[0])


class Meter:
    """Measures elapsed time and processor time since its creation."""

    def __init__(self) -> None:
        self._cpu = time.process_time()
        self._clock = time.perf_counter()

    def read(self, jobs: int) -> Cost:
        seconds = time.perf_counter() - self._clock
        return Cost(jobs=jobs, seconds=seconds, cpu_seconds=time.process_time() - self._cpu)


async def from_tasks(call: Callable[[int], Awaitable[object]], count: int, tasks: int) -> Cost:
    """Call an async function with each number below count, from several concurrent tasks."""
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            await call(number)

    meter = Meter()
    await asyncio.gather(*(caller() for _ in range(tasks)))
    return meter.read(count)


def from_threads(call: Callable[[int], object], count: int, threads: int) -> Cost:
    """Call a function with each number below count, from several threads."""
    numbers = iter(range(count))

    def caller() -> None:
        for number in numbers:
            call(number)

    if threads == 1:
        meter = Meter()
        caller()
        return meter.read(count)
    meter = Meter()
    started = [threading.Thread(target=caller) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return meter.read(count)


async def one_by_one_awaited(call: Callable[[int], Awaitable[object]], count: int) -> list[float]:
    """Call an async function with each number below count. Return the time of each call in ms."""
    taken: list[float] = []
    for number in range(count):
        start = time.perf_counter()
        await call(number)
        taken.append((time.perf_counter() - start) * 1e3)
    return taken


def one_by_one(call: Callable[[int], object], count: int) -> list[float]:
    """Call a function with each number below count. Return the time of each call in ms."""
    taken: list[float] = []
    for number in range(count):
        start = time.perf_counter()
        call(number)
        taken.append((time.perf_counter() - start) * 1e3)
    return taken


class Tally(Protocol):
    """Counts jobs, and measures the time from the start of the first to the end of the last one."""

    def ran(self, number: int) -> None:
        """Count a job. The task calls this with its number."""

    def wait(self) -> None:
        """Return when all jobs have run."""

    def cost(self) -> Cost:
        """Return the time that the jobs have taken. Call this after the worker has stopped."""


class LocalTally:
    """Counts the jobs of a worker in this process, also if it has several threads.

    A job that runs more than once is counted once.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._seen: set[int] = set()
        self._done = threading.Event()
        self._meter = Meter()
        self._cost = Cost(jobs=0, seconds=0.0, cpu_seconds=0.0)

    def ran(self, number: int) -> None:
        seen = self._seen
        if not seen:
            self._meter = Meter()
        seen.add(number)
        if len(seen) == self._count and not self._done.is_set():
            self._cost = self._meter.read(self._count)
            self._done.set()

    def wait(self) -> None:
        self._done.wait()

    def cost(self) -> Cost:
        return self._cost


class ForkedTally:
    """Counts the jobs of a worker that forks processes.

    The processor time is that of this process and its children, from the start of the counting.
    """

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("fork")
        self._count = count
        self._ran = context.Value("q", 0)
        self._first = context.Value("d", 0.0)
        self._last = context.Value("d", 0.0)
        self._done = context.Event()
        self._cpu = _cpu_of_all()

    def ran(self, number: int) -> None:
        with self._ran.get_lock():
            if self._ran.value == 0:
                self._first.value = time.monotonic()
            self._ran.value += 1
            if self._ran.value == self._count:
                self._last.value = time.monotonic()
                self._done.set()

    def wait(self) -> None:
        self._done.wait()

    def cost(self) -> Cost:
        seconds = self._last.value - self._first.value
        return Cost(jobs=self._count, seconds=seconds, cpu_seconds=_cpu_of_all() - self._cpu)


def _cpu_of_all() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class Waits:
    """Measures how long jobs have waited. The number of a job is the time when it was added.

    The first job is not measured, because its sender has to open the store.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._ms: list[float] = []
        self._done = threading.Event()

    def ran(self, number: int) -> None:
        self._ms.append((clock_ns() - number) / 1e6)
        if len(self._ms) > self._count:
            self._done.set()

    def wait(self) -> None:
        self._done.wait()

    def ms(self) -> list[float]:
        return self._ms[1:]
