"""When to stop asking a store that does not answer, and when to try it again."""

from __future__ import annotations

from typing import Final

FAILURES: Final = 5
PAUSE_US: Final = 1_000_000


class Breaker:
    """Open: the store is not asked. It opens after so many failures in a row.

    Failures are in a row if each belongs to a question that was asked after the one before had
    failed: one slow moment fails many questions that are under way, and is one failure. Questions
    are numbered in the order in which they are asked.

    While it is open, one probe is due in each pause. The first success closes it.
    """

    def __init__(self, *, failures: int = FAILURES, pause_us: int = PAUSE_US) -> None:
        self.is_open = False
        self._limit = failures
        self._pause_us = pause_us
        self._failures = 0
        self._failed_at = -1
        self._probe_at_us = 0

    def failed(self, now_us: int, *, question: int, newest: int) -> bool:
        """Note that a question failed, where newest was asked last. True if this opens it."""
        if question > self._failed_at:
            self._failures += 1
            self._failed_at = newest
        self._probe_at_us = now_us + self._pause_us
        if self.is_open or self._failures < self._limit:
            return False
        self.is_open = True
        return True

    def succeeded(self) -> bool:
        """Note a success. True if this closes it."""
        was_open, self.is_open, self._failures = self.is_open, False, 0
        return was_open

    def takes_probe(self, now_us: int) -> bool:
        """Whether it is time for a probe; the next one is due a pause later."""
        if not self.is_open or now_us < self._probe_at_us:
            return False
        self._probe_at_us = now_us + self._pause_us
        return True
