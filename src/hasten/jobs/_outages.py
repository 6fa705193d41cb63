"""Log the failures of a store: when they begin and end and how many there were, not each one."""

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
"""After this time the same error is logged again, with the number of failed calls."""

MAX_TEXTS: Final = 100  # of different errors, kept to log each only once


class Outage:
    """The failures of one store, for one worker. Safe to use from any thread.

    All services of all queues in the store share it, so that a store that is unavailable is logged
    once, and not by each of them.
    """

    def __init__(self, store: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._failing: set[str] = set()  # activities whose latest call failed
        self._logged_at: dict[str, float] = {}  # by the text of the error
        self._since = 0.0
        self._calls = 0
        self._last_failure = -math.inf  # when a call last failed or was slow
        self._is_open = False  # the failure is logged, and its end is not logged yet

    def failed(self, activity: str, error: StoreError) -> None:
        """Report a call that failed and will be repeated. activity: "settle jobs of queue mail"."""
        now, text = self._monotonic(), str(error)
        with self._lock:
            self._last_failure = now
            if not self._failing and not self._is_open:
                self._since, self._calls = now, 0
            self._failing.add(activity)
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

    def was_slow(self) -> None:
        """Report a call that took so long that leases may have run out meanwhile."""
        self._last_failure = self._monotonic()

    def seconds_without_failure(self) -> float:
        """Return how long all calls have worked and been fast; infinity if they always have."""
        return self._monotonic() - self._last_failure

    def succeeded(self, activity: str) -> None:
        """Report a call that worked, or a service that has nothing to do any more.

        Cheap while no activity fails.
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
