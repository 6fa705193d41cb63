"""Return jobs that need a newer release of the code than this worker has."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from hasten._logs import get_logger
from hasten.jobs._releases import is_at_least, is_release

logger = get_logger("hasten.worker")

# A job that needs a newer worker is offered again after this time. The more such jobs a worker has
# met within a minute, the longer it hands them back for: otherwise a backlog of them would keep the
# old workers busy.
FIRST_PAUSE_MS: Final = 5_000
LAST_PAUSE_MS: Final = 60_000
PAUSE_PER_JOB_MS: Final = 10
WINDOW_SECONDS: Final = 60.0


class ReleaseGate:
    """Decides which jobs a worker hands back because they need a newer release of the code."""

    def __init__(
        self, release: str | None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._release = release
        self._monotonic = monotonic
        self._window_ends = 0.0
        self._handed_back = 0
        self._logged: set[tuple[str, str]] = set()

    def pause_ms(self, queue: str, task: str, since: str) -> int | None:
        """Return how long to hand a job back for, None if this worker may run it."""
        if not is_release(since):  # written by another program
            return None
        if self._release is not None and is_at_least(self._release, since):
            return None
        self._log(queue, task, since)
        now = self._monotonic()
        if now >= self._window_ends:
            self._window_ends, self._handed_back = now + WINDOW_SECONDS, 0
        self._handed_back += 1
        return min(FIRST_PAUSE_MS + self._handed_back * PAUSE_PER_JOB_MS, LAST_PAUSE_MS)

    def _log(self, queue: str, task: str, since: str) -> None:
        """Log the first job of each task and release."""
        if (task, since) in self._logged or len(self._logged) >= 1_000:
            return
        self._logged.add((task, since))
        own = "has no release (set Worker(release=…))"
        if self._release is not None:
            own = f"is of release {self._release}"
        logger.warning(
            "queue %s: jobs of task %s need a worker of release %s or later, and this worker %s: "
            "they are handed back for other workers",
            queue, task, since, own,
        )  # fmt: skip
