"""Totals of the runs of jobs since a process has started, as plain data that can be added up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

# The upper bounds of the histograms, in seconds. Each is included in its bucket.
BOUNDS: Final = (0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)

# The value of the label task for jobs whose task no worker of the process knows. Other programs
# choose the names of such jobs, so there may be any number of them.
UNKNOWN_TASK: Final = "(unknown)"

COMPLETED: Final = "completed"
FAILED: Final = "failed"  # for good, after a run
NOT_RUN: Final = "not_run"  # failed without a run: it has expired, or its task is unknown
RETRIED: Final = "retried"
POSTPONED: Final = "postponed"
PARKED: Final = "parked"  # the job waits for its children
HANDED_BACK: Final = "handed_back"
LOST: Final = "lost"  # the worker has lost the lease of the job

# The outcomes of runs that count as attempts.
ATTEMPTS: Final = frozenset({COMPLETED, FAILED, RETRIED})


class Histogram(msgspec.Struct):
    """How many values are in each bucket, and the sum of all values.

    A bucket has the values above the bound before it, up to and including its own bound in
    `BOUNDS`. The last one has the values above all bounds.
    """

    counts: list[int]
    total: float = 0.0


class RunTotals(msgspec.Struct):
    """The runs of one task that had the same outcome."""

    queue: str
    task: str
    outcome: str
    run: Histogram  # how long the runs took, in seconds
    wait: Histogram  # how long the jobs were ready before their first run, in seconds
    count: int = 0  # how many have ended, including those that were stopped before their start


class QueueTotals(msgspec.Struct):
    """What a process has counted for a queue as a whole, and not for each task."""

    queue: str
    reclaimed: int = 0  # jobs of dead workers that were taken back
    lost_leases: int = 0
    dropped_slots: int = 0  # slots of schedules that got no run


class Totals(msgspec.Struct):
    """All totals of a process."""

    runs: list[RunTotals] = []
    queues: list[QueueTotals] = []


def empty_histogram() -> Histogram:
    """Return a histogram without values."""
    return Histogram([0] * (len(BOUNDS) + 1))


def add_totals(all_totals: Iterable[Totals]) -> Totals:
    """Add up the totals of several processes."""
    runs: dict[tuple[str, str, str], RunTotals] = {}
    queues: dict[str, QueueTotals] = {}
    for totals in all_totals:
        for each in totals.runs:
            key = (each.queue, each.task, each.outcome)
            if key not in runs:
                runs[key] = RunTotals(*key, empty_histogram(), empty_histogram())
            runs[key].count += each.count
            _add_histogram(runs[key].run, each.run)
            _add_histogram(runs[key].wait, each.wait)
        for of_queue in totals.queues:
            so_far = queues.setdefault(of_queue.queue, QueueTotals(of_queue.queue))
            so_far.reclaimed += of_queue.reclaimed
            so_far.lost_leases += of_queue.lost_leases
            so_far.dropped_slots += of_queue.dropped_slots
    return Totals(list(runs.values()), list(queues.values()))


def _add_histogram(so_far: Histogram, other: Histogram) -> None:
    so_far.counts = [a + b for a, b in zip(so_far.counts, other.counts, strict=True)]
    so_far.total += other.total
