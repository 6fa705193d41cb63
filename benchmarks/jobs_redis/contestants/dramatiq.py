"""dramatiq."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from benchmarks.queues import load
from benchmarks.queues.contestant import PythonContestant
from benchmarks.queues.load import Cost


class Dramatiq(PythonContestant):
    title = "dramatiq"
    remark = (
        "in threads, no results; looks for jobs at least every 20 ms (default 1,000); at least once"
    )
    packages = ("dramatiq", "redis")
    environment = "dramatiq"
    parts = frozenset({"enqueue", "drain", "pickup", "memory"})
    settings: ClassVar = {"enqueue": ("8 threads",), "drain": ("32 threads",)}
    share = 0.05

    def __init__(self, location: str) -> None:
        import dramatiq
        from dramatiq.brokers.redis import RedisBroker

        logging.disable(logging.INFO)
        self._broker: Any = RedisBroker(url=location)
        self._ran: Callable[[int], None] = _ignore
        self._actor: Any = dramatiq.actor(self._noop, actor_name="noop", broker=self._broker)

    def _noop(self, number: int) -> None:
        self._ran(number)

    def fill(self, count: int) -> None:
        self.enqueue(count, "8 threads")

    def enqueue(self, count: int, setting: str) -> Cost:
        return load.from_threads(self._actor.send, count, threads=load.amount(setting))

    def lone(self, count: int) -> list[float]:
        self._actor.send(0)
        return load.one_by_one(self._actor.send, count)

    def drain(self, count: int, setting: str) -> Cost:
        tally = load.LocalTally(count)
        self._ran = tally.ran
        self._work(load.amount(setting), tally.wait)
        return tally.cost()

    def send(self, pauses: Sequence[float]) -> None:
        for pause in pauses:
            time.sleep(pause)
            self._actor.send(load.clock_ns())

    def receive(self, count: int, ready: Callable[[], None]) -> list[float]:
        waits = load.Waits(count)
        self._ran = waits.ran
        self._work(8, waits.wait, ready)
        return waits.ms()

    def _work(
        self, threads: int, until: Callable[[], None], ready: Callable[[], None] | None = None
    ) -> None:
        import dramatiq

        # The pauses of an idle worker grow up to worker_timeout, by default a second.
        worker: Any = dramatiq.Worker(self._broker, worker_threads=threads, worker_timeout=20)
        worker.start()
        if ready is not None:
            ready()
        until()
        worker.stop()


def _ignore(number: int) -> None:
    """Do nothing. In a process that only adds jobs, no job runs."""


CONTESTANT = Dramatiq
