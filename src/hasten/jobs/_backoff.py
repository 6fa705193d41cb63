"""How long to wait before the next attempt.

The arithmetic is BullMQ's, so that a job waits equally long whichever language runs it. Pure: the
random number comes in as an argument.
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
    """The same wait before each attempt: delay, a `Duration`.

    jitter is the share of it that is drawn at random, 0 to 1: with 0.5 a wait of 10 s becomes
    one of 5 to 10 s. It spreads the retries of jobs that failed together.
    """

    delay: Duration
    jitter: float = 0.0

    def __post_init__(self) -> None:
        to_ms("backoff", self.delay)
        check_number("jitter", self.jitter, 0, 1)


@dataclass(frozen=True, slots=True)
class Exponential:
    """A wait that doubles: delay, then 2, 4, 8… times delay, never more than cap.

    delay and cap are `Duration`s; no cap if None. jitter as in `Fixed`.
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
    """The task has a function for it. Stored by this name; the worker asks its own task."""

    name: str = "custom"


Backoff = Fixed | Exponential | Custom

BackoffFunction = Callable[[int, BaseException], Duration | None]
"""Given the number of the attempt that failed (from 1) and its error, return how long to
wait before the next one, or None to give up."""


def delay_ms(backoff: Fixed | Exponential | None, *, attempt: int, random: float) -> int:
    """The wait in ms after attempt number `attempt` (from 1) has failed.

    random is in [0, 1). None means to try again at once.
    """
    match backoff:
        case None:
            return 0
        case Fixed(delay, jitter):
            return _with_jitter(to_ms("backoff", delay), jitter, random)
        case Exponential(delay, cap, jitter):
            # Past 2^42 every delay of a ms and more is over any limit: no huge integers.
            doubled = to_ms("backoff", delay) * 2 ** min(attempt - 1, 42)
            limit = MAX_MS if cap is None else to_ms("backoff cap", cap)
            return _with_jitter(min(doubled, limit), jitter, random)


def _with_jitter(delay: int, jitter: float, random: float) -> int:
    if jitter == 0:
        return delay
    return int(random * delay * jitter + delay * (1 - jitter))
