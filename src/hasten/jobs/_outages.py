"""Log when a store begins to fail and when it works again, instead of each failed call."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final

from hasten._logs import get_logger
from hasten.errors import StoreError

logger = get_logger("hasten.worker")

REMIND_SECONDS: Final = 60.0
"""How long after an error the same error is logged again, with the number of failed calls."""

MAX_TEXTS: Final = 100  # how many different errors to remember, so that each is not logged again


class OutageLog:
    """Records the failures of one store for one worker, and logs them. Thread-safe.

    All services of all queues in the store share this object, so that they do not log the same
    outage several times. An activity is a phrase for the log, such as "settle jobs of queue mail".
    """

    def __init__(self, store: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._failing: set[str] = set()  # the activities whose latest call has failed
        self._last_text = ""
        self._logged_at: dict[str, float] = {}  # when each error was logged last, by its text
        self._since = 0.0
        self._calls = 0
        self._last_failure = -math.inf  # when a call last failed or was slow
        self._is_open = False  # a failure was logged, and its end was not logged yet

    def record_failure(self, activity: str, error: StoreError) -> None:
        """Record a failed call of an activity, which the caller will repeat.

        Logs it, unless the same error was logged in the last minute.
        """
        now, text = self._monotonic(), str(error)
        with self._lock:
            self._last_failure = now
            if not self._failing and not self._is_open:
                self._since, self._calls = now, 0
            self._failing.add(activity)
            self._last_text = text
            self._calls += 1
            if now - self._logged_at.get(text, -REMIND_SECONDS) < REMIND_SECONDS:
                return
            if len(self._logged_at) >= MAX_TEXTS:
                self._logged_at.clear()
            self._logged_at[text] = now
            calls, seconds, self._is_open = self._calls, now - self._since, True
        if calls == 1:
            logger.error("store unavailable, retrying: cannot %s: %s", activity, text)
        else:
            logger.error(
                "store unavailable for %.0f s (failed calls: %d), retrying: cannot %s: %s",
                seconds, calls, activity, text,
            )  # fmt: skip

    def record_slow_call_as_failure(self) -> None:
        """Count a call as a failure because leases may have expired while it was in progress."""
        self._last_failure = self._monotonic()

    def seconds_since_failure(self) -> float:
        """Return for how long no call has failed or been slow; infinity if none ever has."""
        return self._monotonic() - self._last_failure

    def current_failure(self) -> tuple[str, float] | None:
        """Return the last error and for how many seconds calls have failed; None if none fails."""
        with self._lock:
            if not self._failing:
                return None
            return self._last_text, self._monotonic() - self._since

    def record_success(self, activity: str) -> None:
        """Record that the latest call of an activity succeeded, or that it has nothing to do.

        Logs the end of an outage. Fast while no activity fails.
        """
        if activity not in self._failing:
            return
        with self._lock:
            self._failing.discard(activity)
            if self._failing:
                return
            was_open, self._is_open = self._is_open, False
            calls, seconds = self._calls, self._monotonic() - self._since
        if was_open:
            logger.warning(
                "%s: store available again after %.1f s (failed calls: %d)",
                self._store, seconds, calls,
            )  # fmt: skip
