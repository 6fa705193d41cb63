"""Exceptions that a handler raises to postpone its job or to fail it for good."""

from __future__ import annotations

from hasten._durations import Duration, to_nearest_ms


class RetryAfter(Exception):
    """Run this job again after a delay. The run does not count as an attempt.

    delay is a `Duration`, for instance the value of a `Retry-After` header. The shortest delay is
    0.1 s. An exception group postpones the job only if it contains no other exceptions.
    """

    def __init__(self, delay: Duration) -> None:
        self.delay_ms = to_nearest_ms("RetryAfter", delay)
        super().__init__(delay)  # the argument from which pickle and copy recreate the exception

    def __str__(self) -> str:
        return f"try again after {self.delay_ms / 1000:g} s"


class Unrecoverable(Exception):
    """Fail this job for good, even if it has attempts left."""


class WaitForChildren(BaseException):
    """End this run, and run the job again when its children have ended.

    Raised by `ctx.children.wait()`. It is no subclass of Exception, so that `except Exception` in a
    handler does not catch it.
    """

    def __str__(self) -> str:
        return "the run ends here, and the job runs again when its children have ended"
