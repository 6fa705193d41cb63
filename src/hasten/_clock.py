"""Where the time comes from.

Shells ask a `Clock`; everything below them is handed the time as an argument. Times are whole
milliseconds since the epoch. `hasten.testing.ManualClock` is the clock that tests move by hand.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol


class Clock(Protocol):
    def now_ms(self) -> int: ...

    async def sleep_until(self, due_ms: int) -> None:
        """Return once `now_ms()` has reached due_ms; at once if it has."""

    async def sleep(self, seconds: float) -> None:
        """Return after this much time has passed, however the wall clock is set meanwhile."""


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep_until(self, due_ms: int) -> None:
        # In slices, so that a wall clock that is set forward is noticed.
        while (left_ms := due_ms - self.now_ms()) > 0:
            await asyncio.sleep(min(left_ms, 60_000) / 1000)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


SYSTEM_CLOCK: Final = SystemClock()
