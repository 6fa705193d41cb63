"""The clock protocol, and the system clock.

Components read a `Clock`; engines and pure functions get the time as an argument. Times are whole
milliseconds since the epoch. Tests use `hasten.testing.ManualClock`: one object for queues, limits,
load shedding and stores.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

from hasten._checks import is_whole_number
from hasten.errors import InvalidOption


@runtime_checkable
class Clock(Protocol):
    """A source of the time: the system clock, or `hasten.testing.ManualClock` in tests."""

    def now_ms(self) -> int:
        """Return the time in whole milliseconds since the epoch."""

    async def sleep_until(self, due_ms: int) -> None:
        """Return once `now_ms()` has reached due_ms; at once if it has."""

    async def sleep(self, seconds: float) -> None:
        """Return after this much time, even if the wall clock is changed meanwhile."""


@runtime_checkable
class FineClock(Clock, Protocol):
    """A clock with a resolution below a millisecond, for limits."""

    def now_ns(self) -> int:
        """Return the time in nanoseconds since the epoch."""


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep_until(self, due_ms: int) -> None:
        # In slices, to notice if the wall clock is set forward.
        while (left_ms := due_ms - self.now_ms()) > 0:
            await asyncio.sleep(min(left_ms, 60_000) / 1000)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


SYSTEM_CLOCK: Final = SystemClock()


def check_clock(clock: object) -> Clock:
    """Return a valid clock. Raises `InvalidOption`."""
    expected = (
        "an object with now_ms(), the whole milliseconds since the epoch, sleep_until() and "
        "sleep(), such as hasten.testing.ManualClock()"
    )
    if isinstance(clock, type) or not isinstance(clock, Clock):
        raise InvalidOption("clock", clock, expected)
    now_ms: object = clock.now_ms()
    if not is_whole_number(now_ms):
        raise InvalidOption("clock", clock, f"{expected}; its now_ms() returns {now_ms!r}")
    return clock


def now_ns_of(clock: Clock | None) -> Callable[[], int]:
    """Return the function that reads a clock in nanoseconds; without one, the monotonic timer."""
    if clock is None:
        return time.monotonic_ns
    if isinstance(clock, FineClock):
        return clock.now_ns
    return lambda: clock.now_ms() * 1_000_000
