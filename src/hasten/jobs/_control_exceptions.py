"""Exceptions that a handler raises to decide what happens to its job."""

from __future__ import annotations

from hasten._durations import Duration, to_ms


class RetryAfter(Exception):
    """Run this job again after a delay; no attempt is used up.

    delay is a `Duration`, for instance the value of a `Retry-After` header. A delay below 0.1 s
    counts as 0.1 s. In an exception group it counts only if the group holds nothing else.
    """

    def __init__(self, delay: Duration) -> None:
        self.delay_ms = to_ms("RetryAfter", delay)
        super().__init__(delay)  # pickle and copy create the exception from it again

    def __str__(self) -> str:
        return f"try again after {self.delay_ms / 1000:g} s"


class Unrecoverable(Exception):
    """Fail this job for good: another attempt would not help."""
