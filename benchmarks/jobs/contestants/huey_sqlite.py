"""huey with its SQLite storage."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.queues import load
from benchmarks.queues.contestant import PythonContestant
from benchmarks.queues.load import Cost


class HueySqlite(PythonContestant):
    title = "huey"
    remark = "fsync=True: each commit is flushed to the disk, like those of hasten"
    packages = ("huey",)
    parts = frozenset({"enqueue", "lone", "drain", "pickup"})
    settings: ClassVar = {
        # Threads share one connection behind a lock. 2 and 100 threads were not measurably faster.
        "enqueue": ("1 thread", "8 threads"),
        # Processes share the file, and sleep while they wait for its lock, so more than two were
        # slower. Greenlets (with gevent) only help tasks that wait, and the task does not wait.
        "drain": ("1 thread", "2 threads", "1 process", "2 processes"),
    }
    share = 0.2

    # With huey's default, None, SQLite decides. Most builds of SQLite also flush each commit.
    fsync = True

    def __init__(self, location: str) -> None:
        from huey import SqliteHuey

        logging.disable(logging.INFO)  # huey logs two lines for each job
        # results=False: adding a job creates no result object. Nothing else changes, because huey
        # does not store None. The default cache of 8 MB was as fast as one of 64 MB.
        self._huey = SqliteHuey(
            "bench", filename=str(Path(location) / "huey.db"), fsync=self.fsync, results=False
        )
        self._ran: Callable[[int], None] = _ignore
        self._task: Any = self._huey.task()(self._noop)

    def _noop(self, number: int) -> None:
        self._ran(number)

    def fill(self, count: int) -> None:
        # huey cannot add many jobs at once. This inserts the same rows in one transaction.
        storage = self._huey.storage
        rows = (
            (self._huey.name, self._huey.serialize_task(self._task.s(number)), 0)
            for number in range(count)
        )
        with storage.db(commit=True) as cursor:
            cursor.executemany("INSERT INTO task (queue, data, priority) VALUES (?, ?, ?)", rows)

    def enqueue(self, count: int, setting: str) -> Cost:
        self._task(0)  # opens the file
        return load.from_threads(self._task, count, threads=load.amount(setting))

    def lone(self, count: int) -> list[float]:
        self._task(0)
        return load.one_by_one(self._task, count)

    def drain(self, count: int, setting: str) -> Cost:
        forks = "process" in setting
        tally = load.ForkedTally(count) if forks else load.LocalTally(count)
        self._ran = tally.ran
        consumer = self._consumer(load.amount(setting), "process" if forks else "thread")
        consumer.start()
        tally.wait()
        consumer.stop(graceful=True)
        return tally.cost()

    def send(self, pauses: Sequence[float]) -> None:
        for pause in pauses:
            time.sleep(pause)
            self._task(load.clock_ns())

    def receive(self, count: int, ready: Callable[[], None]) -> list[float]:
        waits = load.Waits(count)
        self._ran = waits.ran
        consumer = self._consumer(1, "thread")
        consumer.start()
        ready()
        waits.wait()
        consumer.stop(graceful=True)
        return waits.ms()

    def _consumer(self, workers: int, kind: str) -> Any:
        return self._huey.create_consumer(
            workers=workers,
            worker_type=kind,
            periodic=False,
            check_worker_health=False,
            # An idle worker polls every 10 ms. huey's default is every 100 ms, growing to 10 s.
            initial_delay=0.01,
            max_delay=0.01,
            backoff=1,
        )


def _ignore(number: int) -> None:
    """Do nothing. In a process that only adds jobs, no job runs."""


CONTESTANT = HueySqlite
