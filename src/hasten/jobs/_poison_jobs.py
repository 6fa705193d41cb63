"""Find the job that crashes its workers, without failing the jobs that ran beside it.

All jobs that a dead worker was running count a crash, and all are first in line again. If the next
worker ran them together once more, the harmless ones would soon fail together with the poison job.
A job that one more crash would fail is a suspect. A worker runs one suspect at a time: it takes
one, hands the others back, and starts the one when that is stored. If the worker dies then, only
one suspect counts a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from hasten.jobs._capacity import Capacity
from hasten.jobs._record import JobRecord
from hasten.jobs._run import Run

# The suspects that are handed back are delayed this long: the one that runs may take long, and
# another worker may have capacity for them.
PAUSE_MS: Final = 250


class PoisonJobs:
    """Makes a worker run suspects one at a time, over all its queues. on_start: one has started."""

    def __init__(self, crash_limit: int, capacity: Capacity, on_start: Callable[[], None]) -> None:
        self._capacity = capacity
        self._crashes = max(1, crash_limit - 1)  # a limit of 1 fails a job at its first crash
        self._on_start = on_start
        self._run: Run | None = None  # the suspect that runs, or waits to start
        self._start: Callable[[], None] | None = None  # until it has started
        self._unsettled: set[str] = set()  # suspects to be handed back before it starts
        self._is_stopped = False

    @property
    def block_claims(self) -> bool:
        """Whether a suspect waits to start. Until it has, no jobs are claimed."""
        return self._start is not None

    def is_suspect(self, job: JobRecord) -> bool:
        """Return whether one more crash would fail the job.

        A job with a deferred failure is not a suspect: it fails without being run.
        """
        return job.crashes >= self._crashes and job.deferred_failure is None

    def take(self, run: Run, start: Callable[[], None]) -> bool:
        """Make this the suspect to run. False if there is one already: hand this one back."""
        if self._run is None:
            self._run, self._start = run, start
            return True
        if self._start is not None:
            self._unsettled.add(run.lease.job.id)
        return False

    def settled(self, ids: Iterable[str]) -> None:
        """Record that the outcomes of these jobs are stored."""
        if self._unsettled:
            self._unsettled.difference_update(ids)

    def start_next(self) -> None:
        """Start the suspect that waits, once the others are handed back.

        A claim that is under way may bring other suspects, so it waits for that, too.
        """
        if self._start is None or self._unsettled or self._capacity.claims or self._is_stopped:
            return
        start, self._start = self._start, None
        start()
        self._on_start()

    def stop(self) -> None:
        """Start no more suspects: the worker stops, and hands back the one that waits."""
        self._is_stopped = True

    def ended(self, run: Run) -> None:
        """Record that a run has ended. It can be any run of the worker."""
        if run is self._run:
            self._run = self._start = None
            self._unsettled.clear()
