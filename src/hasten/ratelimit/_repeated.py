"""Errors that may happen with each request: the log has a line of them now and then."""

from __future__ import annotations

import sys
from time import monotonic
from typing import Final

from hasten._logs import get_logger

logger = get_logger("hasten.ratelimit")

EVERY_SECONDS: Final = 60.0


class RepeatedErrors:
    """Logs each kind of error once a minute, and how often it happened in between."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, int]] = {}

    def exception(self, what: str) -> None:
        """Log what failed, with the exception that is being handled."""
        now = monotonic()
        logged_at, missed = self._seen.get(what, (float("-inf"), 0))
        if now - logged_at < EVERY_SECONDS:
            self._seen[what] = logged_at, missed + 1
            return
        self._seen[what] = now, 0
        since = f" (and {missed} times since the last line)" if missed else ""
        logger.error("%s%s", what, since, exc_info=sys.exc_info())
