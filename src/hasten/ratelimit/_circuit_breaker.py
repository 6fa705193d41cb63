"""When to stop calling a store that does not respond, and when to try it again."""

from __future__ import annotations

from typing import Final

FAILURES: Final = 5
PAUSE_US: Final = 1_000_000


class CircuitBreaker:
    """A circuit breaker. While it is open, the store is not called.

    It opens after several failures in a row. Failures are in a row if each belongs to a call that
    began after the previous failure: a short outage fails many concurrent calls and counts as one
    failure. Calls are numbered in the order in which they begin.

    While it is open, one probe is due in each pause. The first success closes it.
    """

    def __init__(self, *, failures: int = FAILURES, pause_us: int = PAUSE_US) -> None:
        self.is_open = False
        self._limit = failures
        self._pause_us = pause_us
        self._failures = 0
        self._failed_at = -1
        self._probe_at_us = 0

    def record_failure(self, now_us: int, *, call: int, newest: int) -> bool:
        """Record a failed call. newest is the last call so far. Returns whether this opens it."""
        if call > self._failed_at:
            self._failures += 1
            self._failed_at = newest
        self._probe_at_us = now_us + self._pause_us
        if self.is_open or self._failures < self._limit:
            return False
        self.is_open = True
        return True

    def record_success(self) -> bool:
        """Record a success. Returns whether this closes it."""
        was_open, self.is_open, self._failures = self.is_open, False, 0
        return was_open

    def start_probe_if_due(self, now_us: int) -> bool:
        """Return whether a probe is due now. The next one is due a pause later."""
        if not self.is_open or now_us < self._probe_at_us:
            return False
        self._probe_at_us = now_us + self._pause_us
        return True
