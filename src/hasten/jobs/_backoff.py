"""The delay before the next attempt.

The arithmetic is BullMQ's, so a job waits equally long in Python and Node. Pure: the random number
is an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hasten._checks import check_number
from hasten._durations import MAX_MS, Duration, to_ms

DEFAULT_CAP: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same delay before each attempt, a `Duration`.

    jitter is the random share of the delay, 0 to 1: with 0.5 a delay of 10 s becomes one of 5 to
    10 s. It spreads the retries of jobs that failed together.
    """

    delay: Duration
    jitter: float = 0.0

    def __post_init__(self) -> None:
        to_ms("backoff", self.delay)
        check_number("jitter", self.jitter, 0, 1)


@dataclass(frozen=True, slots=True)
class Exponential:
    """A delay that doubles: delay, then 2, 4, 8… times delay, but at most cap.

    delay and cap are `Duration`s; None is no cap. For jitter see `Fixed`.
    """

    delay: Duration = 1.0
    cap: Duration | None = DEFAULT_CAP
    jitter: float = 0.5

    def __post_init__(self) -> None:
        to_ms("backoff", self.delay)
        if self.cap is not None:
            to_ms("backoff cap", self.cap)
        check_number("jitter", self.jitter, 0, 1)


@dataclass(frozen=True, slots=True)
class Custom:
    """A function of the task computes the delay. Only this name is stored."""

    name: str = "custom"


Backoff = Fixed | Exponential | Custom

BackoffFunction = Callable[[int, BaseException], Duration | None]
"""Returns the delay before the next attempt, or None for no further attempt. The arguments are the
number of the failed attempt (from 1) and its error."""


def delay_ms(backoff: Fixed | Exponential | None, *, attempt: int, random: float) -> int:
    """Return the delay in ms after attempt number `attempt` (from 1) has failed.

    random is in [0, 1). Without a backoff the delay is 0.
    """
    match backoff:
        case None:
            return 0
        case Fixed(delay, jitter):
            return _with_jitter(to_ms("backoff", delay), jitter, random)
        case Exponential(delay, cap, jitter):
            # From 2^42 on every delay exceeds any limit: avoid huge integers.
            doubled = to_ms("backoff", delay) * 2 ** min(attempt - 1, 42)
            limit = MAX_MS if cap is None else to_ms("backoff cap", cap)
            return _with_jitter(min(doubled, limit), jitter, random)


def _with_jitter(delay: int, jitter: float, random: float) -> int:
    if jitter == 0:
        return delay
    return int(random * delay * jitter + delay * (1 - jitter))
