"""Log errors that could occur in every request, but each at most once a minute."""

from __future__ import annotations

import logging
import sys
from time import monotonic
from typing import Final

LOG_INTERVAL_SECONDS: Final = 60.0


class ThrottledErrorLog:
    """A logger that logs each kind of error at most once a minute.

    The errors between two log lines are counted, and the next line has their number.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._seen: dict[str, tuple[float, int]] = {}

    def exception(self, message: str) -> None:
        """Log an error with the traceback of the exception that is being handled.

        message is the message. Errors with the same message are of one kind.
        """
        now = monotonic()
        logged_at, repetitions = self._seen.get(message, (float("-inf"), 0))
        if now - logged_at < LOG_INTERVAL_SECONDS:
            self._seen[message] = logged_at, repetitions + 1
            return
        self._seen[message] = now, 0
        repeated = f" ({repetitions} more times since the last log line)" if repetitions else ""
        self._logger.error("%s%s", message, repeated, exc_info=sys.exc_info())
