"""What a handler raises to steer its own job."""

from __future__ import annotations

from hasten._durations import Duration, to_ms


class RetryAfter(Exception):
    """Run this job again after a while; no attempt is used up.

    delay is a `Duration`: what a server said in `Retry-After`, for instance. Less than
    0.1 s is taken for 0.1 s. In an exception group it counts if the group holds nothing else.
    """

    def __init__(self, delay: Duration) -> None:
        self.delay_ms = to_ms("RetryAfter", delay)
        super().__init__(delay)  # what it is made of again, by pickle and copy

    def __str__(self) -> str:
        return f"try again after {self.delay_ms / 1000:g} s"


class Unrecoverable(Exception):
    """Fail this job for good: no further attempt would help."""
