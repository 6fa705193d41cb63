"""Measure how late an event loop runs its timers."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final

TICK_SECONDS: Final = 1.0
TICKS_KEPT: Final = 5


class LoopLag:
    """The delay of an event loop, measured with a timer. It may be read from any thread."""

    def __init__(self) -> None:
        self._lags: deque[float] = deque(maxlen=TICKS_KEPT)
        self._due = time.monotonic() + TICK_SECONDS
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start to measure the running event loop."""
        self._schedule(asyncio.get_running_loop())

    def stop(self) -> None:
        """Measure no more. Call it in the event loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def largest_recent_seconds(self) -> float:
        """Return the largest of the last `TICKS_KEPT` delays, which are measured once a second.

        It grows while the loop is blocked.
        """
        overdue = 0.0 if self._timer is None else time.monotonic() - self._due
        return max(0.0, overdue, *self._lags.copy())  # `copy` is atomic: the loop adds to it

    def currently_blocked_seconds(self) -> float:
        """Return for how long the loop has been blocked until now; 0 if it is not blocked."""
        return 0.0 if self._timer is None else max(0.0, time.monotonic() - self._due)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = time.monotonic() + TICK_SECONDS
        self._timer = loop.call_later(TICK_SECONDS, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._lags.append(max(0.0, time.monotonic() - self._due))
        self._schedule(loop)
