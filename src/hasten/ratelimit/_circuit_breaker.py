"""A circuit breaker, which decides when a failing store is not called, and when it is probed."""

from __future__ import annotations

from typing import Final, TypeAlias

FAILURES: Final = 5
PAUSE_US: Final = 1_000_000


HasOpened: TypeAlias = bool
HasClosed: TypeAlias = bool


class CircuitBreaker:
    """A circuit breaker for the calls of a store. While it is open, the store must not be called.

    The breaker opens after several consecutive failures. A failed call counts only if it began
    after the previous failure was recorded: a short outage fails many concurrent calls at once, and
    they count as one failure. For this, callers number their calls in the order of their beginning.

    While the breaker is open, callers may send one probe per pause. The first success closes it.
    """

    def __init__(self, *, failures: int = FAILURES, pause_us: int = PAUSE_US) -> None:
        self.is_open = False
        self._limit = failures
        self._pause_us = pause_us
        self._failures = 0
        self._failed_at = -1
        self._probe_at_us = 0

    def record_failure(
        self, now_us: int, *, failed_call_number: int, last_started_call_number: int
    ) -> HasOpened:
        """Record that a call failed. Returns whether this failure opens the breaker.

        failed_call_number is the number of the failed call, last_started_call_number that of the
        latest call that has begun, whether it has ended or not.
        """
        if failed_call_number > self._failed_at:
            self._failures += 1
            self._failed_at = last_started_call_number
        self._probe_at_us = now_us + self._pause_us
        if self.is_open or self._failures < self._limit:
            return False
        self.is_open = True
        return True

    def record_success(self) -> HasClosed:
        """Record that a call succeeded. Returns whether this closes the breaker."""
        was_open, self.is_open, self._failures = self.is_open, False, 0
        return was_open

    def start_probe_if_due(self, now_us: int) -> bool:
        """Return whether the caller should probe the store now.

        If so, the next probe is due one pause later.
        """
        if not self.is_open or now_us < self._probe_at_us:
            return False
        self._probe_at_us = now_us + self._pause_us
        return True
