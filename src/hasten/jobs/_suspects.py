"""Which of the jobs that a dead worker was running has killed it?

All of them count a crash, and all are first in line again, so the next worker would run the same
ones together, and after some deaths the innocent would fail with the guilty. Hence a worker runs
jobs that the next death would fail one at a time: it takes the first, puts the others of that kind
back, and begins when that is stored. If it dies now, only one of them was with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from hasten.jobs._record import JobRecord
from hasten.jobs._run import Run

# The others come again after this: a suspect that is innocent may run for long, and another
# worker may have nothing better to do.
PAUSE_MS: Final = 250


class Suspects:
    """The suspect that a worker runs, or is about to, and those that have to be stored first."""

    def __init__(self, crash_limit: int) -> None:
        # With a limit of one there is no second look at anybody.
        self._crashes = max(1, crash_limit - 1)
        self._run: Run | None = None
        self._begin: Callable[[], None] | None = None  # until it has begun
        self._unsettled: set[str] = set()

    def is_suspect(self, job: JobRecord) -> bool:
        """Whether one more crash would fail the job. One that is to fail anyway does not run."""
        return job.crashes >= self._crashes and job.deferred_failure is None

    def take(self, run: Run, begin: Callable[[], None]) -> bool:
        """Make this the suspect to run. False if there is one already: put this one back."""
        if self._run is None:
            self._run, self._begin = run, begin
            return True
        if self._begin is not None:
            self._unsettled.add(run.lease.job.id)
        return False

    def settled(self, ids: Iterable[str]) -> None:
        if self._unsettled:
            self._unsettled.difference_update(ids)

    @property
    def is_waiting(self) -> bool:
        """Whether there is a suspect that has not begun. Nothing is to be claimed until it has."""
        return self._begin is not None

    def begin(self) -> bool:
        """Begin with the suspect, if there is one and those that came with it are stored."""
        if self._begin is None or self._unsettled:
            return False
        begin, self._begin = self._begin, None
        begin()
        return True

    def ended(self, run: Run) -> None:
        if run is self._run:
            self._run = self._begin = None
            self._unsettled.clear()
