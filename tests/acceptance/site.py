"""A folder with a store, the processes that use it, and the ledger of their runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from hasten.jobs import Job, Queue
from hasten.jobs._record import JobRecord
from hasten.jobs._states import State
from tests.acceptance.app import QUEUE
from tests.patience import DEADLINE_SECONDS

ROOT: Final = Path(__file__).parent.parent.parent

"""For each condition that is waited for: far more than it takes, far less than for ever."""


class AnyTask(Protocol):
    @property
    def name(self) -> str: ...


class Entry(NamedTuple):
    """A line of the ledger."""

    job_id: str
    pid: int
    parent: int
    what: str
    at_ns: int


class Program:
    """A process of the application."""

    def __init__(self, site: Site, role: str, options: Iterable[str], url: str) -> None:
        self._output = site.folder / f"{len(site.programs)} {role}.out"
        self._log = self._output.with_suffix(".log")
        with self._output.open("w") as output, self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.acceptance.app", role, *options],
                cwd=ROOT,
                env={**os.environ, "HASTEN_URL": url, "LEDGER": str(site.ledger)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                start_new_session=True,  # a group of its own, to be killed with all its children
            )
        self.pid = self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status as in a shell, or None while it runs."""
        code = self._process.poll()
        return 128 - code if code is not None and code < 0 else code

    @property
    def is_running(self) -> bool:
        return self.status is None

    @property
    def said(self) -> list[str]:
        """The complete lines of its standard output."""
        return self._output.read_text().rpartition("\n")[0].splitlines()

    @property
    def log(self) -> str:
        """Its standard error."""
        return self._log.read_text()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, and not to its children."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill the process, and wait for its end."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Kill the process and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


class Site:
    """A folder with a store, and the processes that use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = folder / "ledger"
        self.gate = folder / "gate"
        self.programs: list[Program] = []
        self.move_store(folder / "jobs.db")

    def move_store(self, path: Path) -> None:
        """Use another file. Call it before the first use."""
        self.store = path
        self.use(f"sqlite:///{path}")

    def use(self, url: str) -> None:
        """Use another store. Call it before the first use."""
        self.url = url
        self.queue = Queue(QUEUE, self.url, keep_completed=True, keep_failed=True)

    def start(self, role: str, *options: str, url: str | None = None) -> Program:
        """Start `python -m tests.acceptance.app role options`."""
        program = Program(self, role, options, url or self.url)
        self.programs.append(program)
        return program

    async def start_worker(self, *options: str, url: str | None = None) -> Program:
        """Start a worker and wait until it serves."""
        worker = self.start("work", *options, url=url)
        await self.until(lambda: f"serves {QUEUE}" in worker.log)
        return worker

    async def add(self, task: AnyTask, **data: object) -> Job[Any]:
        """Add a job of a task of the application."""
        return await self.queue.add(task.name, data)

    def check_store(self) -> None:
        """Check the integrity of a SQLite file."""
        if self.url.startswith("sqlite"):
            with contextlib.closing(sqlite3.connect(self.store)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    async def close(self) -> None:
        for program in self.programs:
            program.end()
        await self.queue.aclose()

    def open_gate(self) -> None:
        """Let the `hold` tasks end."""
        self.gate.touch()

    def entries(self) -> list[Entry]:
        """Return the entries of the ledger."""
        if not self.ledger.exists():
            return []
        lines = self.ledger.read_text().rpartition("\n")[0].splitlines()
        return [
            Entry(job_id, int(pid), int(parent), what, int(at_ns))
            for job_id, pid, parent, what, at_ns in map(str.split, lines)
        ]

    def seen(self, what: str, *jobs: Job[Any]) -> bool:
        """Return whether the ledger has an entry of this kind for all these jobs."""
        found = {entry.job_id for entry in self.entries() if entry.what == what}
        return found >= {job.id for job in jobs}

    def of(self, job: Job[Any], what: str) -> list[Entry]:
        """Return the entries of this kind for a job."""
        return [entry for entry in self.entries() if entry.what == what and entry.job_id == job.id]

    async def until(
        self, condition: Callable[[], object], *, seconds: float = DEADLINE_SECONDS
    ) -> None:
        """Wait until a condition holds."""

        async def ask() -> bool:
            return bool(condition())

        await self.until_true(ask, seconds=seconds)

    async def until_true(
        self, condition: Callable[[], Awaitable[bool]], *, seconds: float = DEADLINE_SECONDS
    ) -> None:
        """Like `until`, for an asynchronous condition."""
        try:
            async with asyncio.timeout(seconds):
                while not await condition():
                    # Another process gives no signal here, so poll.
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"not within {seconds:g} s\n{self.story()}") from None

    async def until_started(self, *jobs: Job[Any]) -> None:
        """Wait until runs of all these jobs have started."""
        await self.until(lambda: self.seen("start", *jobs))

    async def until_entries(self, count: int) -> None:
        """Wait until the ledger has that many lines."""
        await self.until(lambda: len(self.entries()) >= count)

    async def until_ended(self, program: Program, *, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until a process has ended."""
        await self.until(lambda: not program.is_running, seconds=seconds)

    async def until_settled(self, count: int, *, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until this many jobs have finished, and no job is unfinished."""

        async def settled() -> bool:
            counts = await self.queue.counts()
            finished = counts[State.COMPLETED] + counts[State.FAILED]
            return finished == count == sum(counts.values())

        await self.until_true(settled, seconds=seconds)

    async def records(self, state: State = State.COMPLETED) -> list[JobRecord]:
        """All jobs in a state."""
        return [job.record for job in await self.queue.jobs(state, limit=1_000_000)]

    def story(self) -> str:
        """Return the logs of all programs, and the end of the ledger."""
        logs = (f"{one.pid} (status {one.status}):\n{one.log}" for one in self.programs)
        return "\n".join([*logs, f"ledger: {self.entries()[-20:]}"])


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in {"Z", "X"}


class Runs:
    """The runs of each job, from the ledger."""

    def __init__(self, site: Site, died_ns: dict[int, int] | None = None) -> None:
        """died_ns has the time of death of each killed process, by pid."""
        self._died_ns = died_ns or {}
        self._by_job: dict[str, list[Entry]] = defaultdict(list)
        for entry in site.entries():
            self._by_job[entry.job_id].append(entry)

    def starts(self, job_id: str) -> int:
        return sum(entry.what == "start" for entry in self._by_job[job_id])

    def check(self, jobs: Iterable[JobRecord]) -> None:
        """Check that each job ran to its end, and again only after its worker had died."""
        for job in jobs:
            entries = self._by_job[job.id]
            story = f"job {job.id}: {entries}, {job}"
            starts = [entry for entry in entries if entry.what == "start"]
            assert any(entry.what == "end" for entry in entries), story
            # The store's count of claims: a killed worker may have claimed it without starting it.
            assert len(starts) <= job.attempts_started, story
            assert job.crashes == job.attempts_started - 1, story
            assert job.attempts_made == 1, story
            for before, after in pairwise(starts):
                assert before.pid in self._died_ns, story
                assert before.pid != after.pid, story
                assert self._died_ns[before.pid] < after.at_ns, story


def random_moments() -> random.Random:
    """Return random numbers. A failing test names the seed."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    return random.Random(seed)
