"""Large amounts: nothing is lost, nothing grows, and nothing keeps other users waiting.

`HASTEN_SCALE` is the size, as a share of the whole. What is asserted are results, and how much
transactions and scripts do; times are shown in a table at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from hasten.jobs import Queue, State, Worker
from hasten.jobs._engine import EVENT_BYTES
from hasten.jobs._options import JobOptions
from tests.acceptance.figures import Figures, scaled
from tests.acceptance.site import ROOT
from tests.contract.measured import Measured, measure, measured_connections
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.soak

MB = 1024 * 1024
ADDED_AT_ONCE = 10_000


class Store:
    """A store, and what it has done so far."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.file = folder / "jobs.db"
        self.server = RedisServer(folder / "redis").start() if kind == "redis" else None
        self.url = self.server.url if self.server else f"sqlite:///{self.file}"

    def queue(self, name: str = "mail", **options: Any) -> Queue:
        return Queue(name, self.url, **options)

    @contextlib.contextmanager
    def counted(self, figures: Figures, scenario: str, what: str) -> Iterator[None]:
        """Record and check the maximum work of a transaction, or the average of a script."""
        if self.server is None:
            measure()
            yield
            rows, pages = max(Measured.rows, default=0), max(Measured.pages, default=0)
            assert rows < 3_000, what
            assert pages < 5_000, what
            figures.add(scenario, self.kind, f"{what}: most rows of a transaction", f"{rows:,}")
            return
        with self.server.client() as client:
            client.config_resetstat()
            yield
            stats: dict[str, Any] = client.info("commandstats")
        calls = {name: of["calls"] for name, of in stats.items() if "config" not in name}
        scripts = calls.get("cmdstat_evalsha", 0) + calls.get("cmdstat_eval", 0)
        commands = sum(calls.values()) / max(scripts, 1)
        assert commands < 8_000, what
        figures.add(scenario, self.kind, f"{what}: commands of a script", f"{commands:,.0f}")

    def close(self) -> None:
        if self.server is not None:
            self.server.kill()


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with measured_connections():
        store = Store(request.param, tmp_path)
        yield store
        store.close()


@pytest.fixture
async def queue(store: Store) -> AsyncIterator[Queue]:
    queue = store.queue()
    yield queue
    await queue.aclose()


async def fill(
    queue: Queue, count: int, figures: Figures | None = None, *, delay: float = 0
) -> None:
    """Add jobs with the numbers from 0 on."""
    job_options: JobOptions = {"delay": delay}
    for first in range(0, count, ADDED_AT_ONCE):
        numbers = range(first, min(first + ADDED_AT_ONCE, count))
        await queue.add_many([("run", {"number": number}, job_options) for number in numbers])
        if figures is not None and first % (50 * ADDED_AT_ONCE) == 0:
            figures.progress(f"added {numbers.stop:,} of {count:,}")


async def until_all(ran: bytearray, figures: Figures) -> None:
    """Wait until each number has run, while there is progress."""
    left, last, told = ran.count(0), time.monotonic(), time.monotonic()
    while left:
        await asyncio.sleep(0.05)
        now = ran.count(0)
        if now < left:
            left, last = now, time.monotonic()
        assert time.monotonic() - last < 60, f"{left:,} jobs do not run"
        if time.monotonic() - told > 10:
            told = time.monotonic()
            figures.progress(f"{len(ran) - left:,} of {len(ran):,} have run")


async def until_stored(queue: Queue) -> None:
    """Wait until no job runs."""
    async with asyncio.timeout(60):
        while (await queue.counts())[State.ACTIVE]:
            await asyncio.sleep(0.05)


async def test_a_million_jobs_pass_through(queue: Queue, store: Store, figures: Figures) -> None:
    count = scaled(1_000_000)
    scenario = f"{count:,} jobs"
    ran = bytearray(count)

    @queue.task
    async def run(number: int) -> None:
        ran[number] += 1

    with figures.timed(scenario, store.kind, "add", count), store.counted(figures, scenario, "add"):
        await fill(queue, count, figures)
    with figures.timed(scenario, store.kind, "run", count), store.counted(figures, scenario, "run"):
        async with Worker(queue):
            await until_all(ran, figures)
    assert ran == bytearray([1]) * count  # each job ran once
    counts = await queue.counts()
    assert sum(counts.values()) == counts[State.COMPLETED] <= 1_000
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures.add(scenario, store.kind, "peak memory of this process", f"{peak:,.0f} MB")


class OtherWriter:
    """See `tests.acceptance.other_writer`."""

    def __init__(self, store: Store, figures: Figures, scenario: str) -> None:
        self._store = store
        self._figures = figures
        self._scenario = scenario
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance.other_writer", store.url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._longest()  # the other program has written

    def _longest(self) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()

    @contextlib.contextmanager
    def beside(self, what: str) -> Iterator[None]:
        """Report its longest wait, and the work of the store."""
        self._longest()
        began = time.monotonic()
        with self._store.counted(self._figures, self._scenario, what):
            yield
        taken = time.monotonic() - began
        self._figures.add(
            self._scenario,
            self._store.kind,
            f"{what}: took, longest wait of another writer",
            f"{taken:,.2f} s, {self._longest()} ms",
        )

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


async def test_two_million_wait(queue: Queue, store: Store, figures: Figures) -> None:
    count = scaled(2_000_000)
    scenario = f"{count:,} waiting"
    await fill(queue, count, figures)
    ids = [job.id for job in await queue.jobs(State.WAITING, offset=count // 2, limit=100)]
    other = OtherWriter(store, figures, scenario)
    try:
        with other.beside("get 100 jobs"):
            for id in ids:
                assert await queue.get(id) is not None
        with other.beside("counts"):
            assert (await queue.counts())[State.WAITING] == count
        with other.beside("cancel 10 jobs from the middle"):
            for id in ids[:10]:
                assert await queue.cancel(id)
        with other.beside("retry 10 jobs"):
            await queue.retry(*ids[:10])
        ran: list[int] = []

        @queue.task
        async def run(number: int) -> None:
            ran.append(number)

        some = min(count // 4, 20_000)
        with other.beside(f"run {some:,} jobs"):
            async with Worker(queue):
                while len(ran) < some:
                    await asyncio.sleep(0.02)
        assert len(ran) == len(set(ran))
        left = count - len(ran)
        some = left // 4
        with other.beside(f"clean {some:,} jobs"):
            assert len(await queue.clean(State.WAITING, older_than=0, limit=some)) == some
        left -= some
        with other.beside(f"drain {left:,} jobs"):
            assert await queue.drain() == left
        assert (await queue.counts())[State.WAITING] == 0
        await fill(queue, count // 4, figures, delay=3600)
        ids = [job.id for job in await queue.jobs(State.DELAYED, limit=count // 4)]
        with other.beside(f"promote {len(ids):,} jobs"):
            await queue.promote(*ids)
        with other.beside(f"obliterate {len(ids):,} jobs"):
            await queue.obliterate()
        assert sum((await queue.counts()).values()) == 0
    finally:
        other.close()


async def test_a_million_jobs_are_due_at_once(queue: Queue, store: Store, figures: Figures) -> None:
    count = scaled(1_000_000)
    scenario = f"{count:,} due at once"
    ran = bytearray(count)

    @queue.task
    async def run(number: int) -> None:
        ran[number] += 1

    await fill(queue, count, figures, delay=0.1)
    other = OtherWriter(store, figures, scenario)
    try:
        with other.beside("run"):
            async with Worker(queue):
                await until_all(ran, figures)
    finally:
        other.close()
    assert ran == bytearray([1]) * count


async def test_four_hundred_queues_share_a_worker(store: Store, figures: Figures) -> None:
    each = max(50, scaled(400_000) // 400)
    count = 400 * each
    scenario = f"{count:,} jobs in 400 queues"
    ran = bytearray(count)
    done = [0] * 400
    at_first_end: list[int] = []
    queues = [store.queue(f"q{number}") for number in range(400)]
    for place, queue in enumerate(queues):

        @queue.task(name="run")
        async def run(number: int, place: int = place) -> None:
            ran[place * each + number] += 1
            done[place] += 1
            if done[place] == each and not at_first_end:
                at_first_end.extend(done)
            await asyncio.sleep(0.001)

    for queue in queues:
        await fill(queue, each)
    with figures.timed(scenario, store.kind, "run", count):
        async with Worker(*queues):
            await until_all(ran, figures)
    assert ran == bytearray([1]) * count
    assert min(at_first_end) >= 1  # no queue waits until another one is finished
    figures.add(
        scenario, store.kind, "done in the last queue when the first one was at its end",
        f"{min(at_first_end)} of {each}",
    )  # fmt: skip
    for queue in queues:
        await queue.aclose()


async def test_large_results_do_not_pile_up(queue: Queue, store: Store, figures: Figures) -> None:
    count = scaled(3_000)
    scenario = f"{count:,} results of 900 kB, not kept"
    ran = bytearray(count)

    @queue.task
    async def run(number: int) -> str:
        ran[number] += 1
        return "x" * 900_000

    await fill(queue, count, figures)
    with figures.timed(scenario, store.kind, "run", count), store.counted(figures, scenario, "run"):
        async with Worker(queue, keep_completed=False):
            await until_all(ran, figures)
            await until_stored(queue)
    assert ran == bytearray([1]) * count
    assert sum((await queue.counts()).values()) == 0
    if store.server is not None:
        with store.server.client() as client:
            events = client.memory_usage("bull:mail:events", samples=0) or 0
            used = int(client.info("memory")["used_memory"])
    else:
        with contextlib.closing(sqlite3.connect(store.file)) as connection:
            (events,) = connection.execute("SELECT sum(bytes) FROM hasten_events").fetchone()
        used = sum(path.stat().st_size for path in store.file.parent.glob("jobs.db*"))
    assert events < 1.5 * EVENT_BYTES
    figures.add(scenario, store.kind, "events that remain", f"{events / MB:,.0f} MiB")
    figures.add(scenario, store.kind, "what the store takes then", f"{used / MB:,.0f} MiB")
