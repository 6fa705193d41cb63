"""The warning about runs of cron schedulers that a worker without croniter skips."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Final

from hasten._logs import get_logger
from hasten._repeated_errors import LOG_INTERVAL_SECONDS

logger: Final = get_logger("hasten.redis")


class SkippedRuns:
    """The skipped runs of each queue. They are logged at most once a minute.

    A scheduler has one pending run, so there are no more ids than schedulers.
    """

    def __init__(self) -> None:
        self._ids: dict[str, set[str]] = {}  # by queue: since the last warning
        self._logged_at: dict[str, float] = {}

    def add(self, queue: str, ids: Iterable[str]) -> None:
        """Add runs that a claim has just skipped; log how many if a warning is due."""
        skipped = self._ids.setdefault(queue, set())
        skipped.update(ids)
        now = monotonic()
        if now - self._logged_at.get(queue, -LOG_INTERVAL_SECONDS) < LOG_INTERVAL_SECONDS:
            return
        self._logged_at[queue] = now
        logger.warning(
            "queue %s: jobs left to other workers: %d, because the cron patterns of their "
            "schedulers need croniter: pip install 'hasten[schedules]'",
            queue, len(skipped),
        )  # fmt: skip
        skipped.clear()
