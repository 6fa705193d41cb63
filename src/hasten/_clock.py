"""The protocol of a clock, and the system clock.

Queues, workers and limits read the time from the `Clock` of their store. Store operations and pure
functions read no clock: they receive the time as an argument. Times are whole milliseconds since
the epoch. Tests replace the system clock by `hasten.testing.ManualClock`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

from hasten._checks import is_int_not_bool
from hasten.errors import InvalidOption


@runtime_checkable
class Clock(Protocol):
    """A source of the time: the system clock, or `hasten.testing.ManualClock` in tests."""

    def now_ms(self) -> int:
        """Return the time in whole milliseconds since the epoch."""

    async def sleep_until(self, due_ms: int) -> None:
        """Wait until `now_ms()` is due_ms or later. Returns at once if due_ms has passed."""

    async def sleep(self, seconds: float) -> None:
        """Wait for this many seconds, even if the wall clock is set to another time meanwhile."""


@runtime_checkable
class NanosecondClock(Clock, Protocol):
    """A clock that also has the time in nanoseconds, so that limits can count more precisely."""

    def now_ns(self) -> int:
        """Return the time in nanoseconds since the epoch."""


class SystemClock:
    """The clock of the operating system."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep_until(self, due_ms: int) -> None:
        # Sleep for at most a minute at a time, to notice when the wall clock is set forward.
        while (left_ms := due_ms - self.now_ms()) > 0:
            await asyncio.sleep(min(left_ms, 60_000) / 1000)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


SYSTEM_CLOCK: Final = SystemClock()


def check_clock(clock: object) -> Clock:
    """Return the clock if it has the methods of `Clock`. Raises `InvalidOption`."""
    expected = (
        "an object with now_ms(), the whole milliseconds since the epoch, sleep_until() and "
        "sleep(), such as hasten.testing.ManualClock()"
    )
    if isinstance(clock, type) or not isinstance(clock, Clock):
        raise InvalidOption("clock", clock, expected)
    now_ms: object = clock.now_ms()
    if not is_int_not_bool(now_ms):
        raise InvalidOption("clock", clock, f"{expected}; its now_ms() returns {now_ms!r}")
    return clock


def make_now_ns(clock: Clock | None) -> Callable[[], int]:
    """Return a function that returns the time of the clock in nanoseconds.

    If the clock has only milliseconds, they are multiplied. Without a clock, the function is
    `time.monotonic_ns`, which does not jump when the wall clock is set.
    """
    if clock is None:
        return time.monotonic_ns
    if isinstance(clock, NanosecondClock):
        return clock.now_ns
    return lambda: clock.now_ms() * 1_000_000
