"""Count the runs of a worker and measure how long they wait and run.

This is done for each job, so it uses lists and dicts, which are faster than the classes of a
metrics library.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping
from typing import Final

from hasten.jobs import _run_totals as totals
from hasten.jobs._built_in_tasks import BUILT_IN_TASKS
from hasten.jobs._options import decode_options
from hasten.jobs._record import (
    Completed,
    Failed,
    JobRecord,
    Outcome,
    Parked,
    Postponed,
    Released,
    Retry,
)
from hasten.jobs._run import Run
from hasten.jobs._run_totals import BOUNDS, Histogram, RunTotals, empty_histogram

_OUTCOMES: Final[Mapping[type, str]] = {
    Completed: totals.COMPLETED,
    Failed: totals.FAILED,
    Retry: totals.RETRIED,
    Postponed: totals.POSTPONED,
    Parked: totals.PARKED,
    Released: totals.HANDED_BACK,
    type(None): totals.LOST,
}

# A new run has this weight in the average run time of its queue, so that the average is that of
# about the last hundred runs.
WEIGHT: Final = 0.01


class RunCounters:
    """Counts runs: a `RunObserver`. The event loop of the worker updates it, any thread reads it.

    tasks are the tasks of each queue by name.
    """

    def __init__(self, tasks: Mapping[str, Collection[str]]) -> None:
        self._tasks = tasks
        self._totals: dict[tuple[str, str, str], RunTotals] = {}
        self._averages: dict[str, float] = {}  # the average run time by queue

    def started(self, run: Run) -> None:
        """Do nothing: runs are counted when they end."""

    def ended(self, run: Run, outcome: Outcome | None) -> None:
        """Add a run to the totals of its task and outcome, with its wait and run times.

        outcome is None if the worker has lost the lease. Such a run is counted as lost.
        """
        job = run.lease.job
        name = _OUTCOMES[type(outcome)]
        if type(outcome) is Failed and not outcome.counts:
            name = totals.NOT_RUN
        found = self._totals.get((job.queue, job.name, name))
        if found is None:
            found = self._get_or_make_totals(job.queue, job.name, name)
        found.count += 1
        if job.attempts_started <= 1 and job.started_ms is not None:
            _observe(found.wait, _ms_ready_before_first_run(job, job.started_ms) / 1000)
        if run.has_begun and name is not totals.NOT_RUN:
            seconds = run.elapsed_seconds()
            _observe(found.run, seconds)
            average = self._averages.get(job.queue)
            self._averages[job.queue] = (
                seconds if average is None else average + WEIGHT * (seconds - average)
            )

    def _get_or_make_totals(self, queue: str, task: str, outcome: str) -> RunTotals:
        """Return the totals to count a run of a task in. All unknown tasks share theirs."""
        if task not in self._tasks.get(queue, ()) and task not in BUILT_IN_TASKS:
            task = totals.UNKNOWN_TASK
        key = (queue, task, outcome)
        found = self._totals.get(key)
        if found is None:
            found = self._totals[key] = RunTotals(*key, empty_histogram(), empty_histogram())
        return found

    def run_totals(self) -> list[RunTotals]:
        """Return copies of the totals of all tasks and outcomes. Safe to call from any thread."""
        return [
            RunTotals(
                each.queue,
                each.task,
                each.outcome,
                _copy(each.run),
                _copy(each.wait),
                each.count,
            )
            for each in list(self._totals.values())
        ]

    def moving_average_run_seconds(self, queue: str) -> float | None:
        """Return how long the recent runs of a queue took on average: see `WEIGHT`.

        None before the first has ended.
        """
        return self._averages.get(queue)


def _ms_ready_before_first_run(job: JobRecord, started_ms: int) -> int:
    """Return for how long a job was ready before its first run, which began at started_ms."""
    delay_ms = 0
    if '"delay"' in job.opts:
        try:
            delay_ms = decode_options(job.opts).delay_ms
        except ValueError:  # the job fails because of that
            delay_ms = 0
    return max(0, started_ms - job.created_ms - delay_ms)


def _observe(histogram: Histogram, seconds: float) -> None:
    """Count one duration in a histogram."""
    histogram.counts[bisect_left(BOUNDS, seconds)] += 1
    histogram.total += seconds


def _copy(histogram: Histogram) -> Histogram:
    return Histogram(histogram.counts.copy(), histogram.total)
