"""Log errors that may occur in every request, each at most once a minute."""

from __future__ import annotations

import logging
import sys
from time import monotonic
from typing import Final

EVERY_SECONDS: Final = 60.0


class RepeatedErrors:
    """A log that writes each kind of error at most once a minute, and counts the others."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._seen: dict[str, tuple[float, int]] = {}

    def exception(self, what: str) -> None:
        """Log what failed, with the exception that is being handled."""
        now = monotonic()
        logged_at, repetitions = self._seen.get(what, (float("-inf"), 0))
        if now - logged_at < EVERY_SECONDS:
            self._seen[what] = logged_at, repetitions + 1
            return
        self._seen[what] = now, 0
        repeated = f" ({repetitions} more times since the last log line)" if repetitions else ""
        self._logger.error("%s%s", what, repeated, exc_info=sys.exc_info())
