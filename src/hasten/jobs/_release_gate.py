"""Hand back jobs that need a newer release of the application than this worker has."""

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


class AppReleaseGate:
    """Decides which jobs a worker hands back because they need a newer application release."""

    def __init__(
        self, release: str | None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._release = release
        self._monotonic = monotonic
        self._window_ends = 0.0
        self._handed_back = 0
        self._logged: set[tuple[str, str]] = set()

    def find_postponement_ms(self, queue: str, task: str, min_release: str) -> int | None:
        """Return for how long to postpone a job, None if this worker may run it.

        min_release is the lowest release of the application that can run the job.
        """
        if not is_release(min_release):  # written by another program
            return None
        if self._release is not None and is_at_least(self._release, min_release):
            return None
        self._log(queue, task, min_release)
        now = self._monotonic()
        if now >= self._window_ends:
            self._window_ends, self._handed_back = now + WINDOW_SECONDS, 0
        self._handed_back += 1
        return min(FIRST_PAUSE_MS + self._handed_back * PAUSE_PER_JOB_MS, LAST_PAUSE_MS)

    def _log(self, queue: str, task: str, min_release: str) -> None:
        """Log the first job of each task and release."""
        if (task, min_release) in self._logged or len(self._logged) >= 1_000:
            return
        self._logged.add((task, min_release))
        own = "has no release (set Worker(release=…))"
        if self._release is not None:
            own = f"is of release {self._release}"
        logger.warning(
            "queue %s: jobs of task %s need a worker of release %s or later, and this worker %s: "
            "they are handed back for other workers",
            queue, task, min_release, own,
        )  # fmt: skip
