"""The delay between a failed attempt of a job and the next one.

It is computed as in BullMQ, so a job waits equally long in Python and Node. The functions are pure:
the caller passes the random number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hasten._checks import check_number
from hasten._durations import MAX_MS, Duration, to_nearest_ms

DEFAULT_CAP: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same delay, a `Duration`, before each attempt.

    jitter is the part of the delay that is random, 0 to 1: with 0.5 a delay of 10 s becomes a
    random one of 5 to 10 s. So jobs that failed at the same moment are not all retried at the same
    moment.
    """

    delay: Duration
    jitter: float = 0.0

    def __post_init__(self) -> None:
        to_nearest_ms("backoff", self.delay)
        check_number("jitter", self.jitter, 0, 1)


@dataclass(frozen=True, slots=True)
class Exponential:
    """A delay that doubles after each attempt: delay, 2 · delay, 4 · delay and so on, up to cap.

    delay and cap are `Duration`s. A cap of None means no limit. jitter is explained in `Fixed`.
    """

    delay: Duration = 1.0
    cap: Duration | None = DEFAULT_CAP
    jitter: float = 0.5

    def __post_init__(self) -> None:
        to_nearest_ms("backoff", self.delay)
        if self.cap is not None:
            to_nearest_ms("backoff cap", self.cap)
        check_number("jitter", self.jitter, 0, 1)


@dataclass(frozen=True, slots=True)
class Custom:
    """The backoff of a task whose delays are computed by a function.

    The function cannot be stored with a job, so only a name is stored. The worker calls the
    function that its own definition of the task has.
    """

    name: str = "custom"


Backoff = Fixed | Exponential | Custom

BackoffFunction = Callable[[int, BaseException], Duration | None]
"""A function that computes the delay before the next attempt, or returns None to make no more.

Its arguments are the number of the failed attempt (from 1) and the error."""


def retry_delay_ms(
    backoff: Fixed | Exponential | None, *, failed_attempt: int, random: float
) -> int:
    """Return the delay in ms after an attempt has failed.

    failed_attempt is the number of the attempt, from 1. random is a random number in [0, 1).
    Without a backoff the delay is 0.
    """
    match backoff:
        case None:
            return 0
        case Fixed(delay, jitter):
            return _shorten_randomly(to_nearest_ms("backoff", delay), jitter, random)
        case Exponential(delay, cap, jitter):
            # A factor of 2^42 exceeds every limit. A larger one would only make huge integers.
            doubled = to_nearest_ms("backoff", delay) * 2 ** min(failed_attempt - 1, 42)
            limit = MAX_MS if cap is None else to_nearest_ms("backoff cap", cap)
            return _shorten_randomly(min(doubled, limit), jitter, random)


def _shorten_randomly(delay_ms: int, jitter: float, random: float) -> int:
    """Return a delay in ms, of which the fraction jitter is multiplied by the random number."""
    if jitter == 0:
        return delay_ms
    return int(random * delay_ms * jitter + delay_ms * (1 - jitter))
