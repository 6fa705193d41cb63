"""`JobsClock`: the clock of a `JobsTester`, which the jobs themselves can move."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from hasten.testing._manual_clock import ManualClock

is_job_of_test: Final = ContextVar("hasten_is_job_of_test", default=False)
"""Whether the code runs in a job that a `JobsTester` runs."""


class JobsClock(ManualClock):
    """A `ManualClock` that moves by itself when a job waits for it.

    Nobody else can move it then: the test waits until the job has ended.
    """

    async def sleep_until(self, due_ms: int) -> None:
        """Wait until the clock shows due_ms or later. In a job, set the clock to this time."""
        if is_job_of_test.get():
            self.move_to(due_ms)
        else:
            await super().sleep_until(due_ms)

    def move_to(self, now_ms: int) -> None:
        """Advance the time to now_ms, unless it is later already, and wake those who sleep."""
        with self._lock:
            due = self._move_to(max(now_ms, self._now_ms))
        for sleeper in due:
            sleeper.wake()

    def set_back_to(self, now_ms: int) -> None:
        """Set the time to an earlier one, for another try from the same state."""
        with self._lock:
            self._now_ms = now_ms
