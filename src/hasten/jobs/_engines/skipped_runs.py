"""The warning about scheduled jobs that a worker skips because croniter is not installed."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Final

from hasten._logs import get_logger
from hasten._repeated_errors import LOG_INTERVAL_SECONDS

logger: Final = get_logger("hasten.schedules")


class SkippedScheduledJobs:
    """Counts the scheduled jobs that claims have skipped. Logs a warning per queue once a minute.

    A scheduler has only one pending job, so each queue has at most as many ids as schedulers.
    """

    def __init__(self) -> None:
        self._ids: dict[str, set[str]] = {}  # by queue: jobs skipped since the last warning
        self._logged_at: dict[str, float] = {}

    def add(self, queue: str, ids: Iterable[str]) -> None:
        """Count jobs that a claim has skipped. Logs a warning if none was logged for a minute."""
        skipped = self._ids.setdefault(queue, set())
        skipped.update(ids)
        now = monotonic()
        if now - self._logged_at.get(queue, -LOG_INTERVAL_SECONDS) < LOG_INTERVAL_SECONDS:
            return
        self._logged_at[queue] = now
        logger.warning(
            "queue %s: scheduled jobs left to other workers: %d. Their cron patterns need "
            "croniter: pip install 'hasten[schedules]'",
            queue, len(skipped),
        )  # fmt: skip
        skipped.clear()
