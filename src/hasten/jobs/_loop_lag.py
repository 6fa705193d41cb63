"""Measure how late an event loop runs its timers, and log when it is blocked."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final

from hasten._logs import get_logger

logger = get_logger("hasten.worker")

TICK_SECONDS: Final = 1.0
TICKS_KEPT: Final = 5

# A loop that is blocked for so long is logged. While it is, the worker starts no jobs.
LOGGED_SECONDS: Final = 3.0


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


class BlockedLoopLog:
    """Logs when an event loop is blocked, and when it is no longer."""

    def __init__(self, worker: str, lag: LoopLag) -> None:
        self._worker = worker
        self._lag = lag
        self._was_blocked = False

    def update(self) -> None:
        """Log a change since the last call. Call it every few seconds, in another thread."""
        seconds = self._lag.currently_blocked_seconds()
        if seconds >= LOGGED_SECONDS and not self._was_blocked:
            self._was_blocked = True
            logger.warning(
                "worker %s: the event loop has been blocked for %.0f s by code that does not await",
                self._worker, seconds,
            )  # fmt: skip
        elif seconds < LOGGED_SECONDS and self._was_blocked:
            self._was_blocked = False
            logger.warning(
                "worker %s: the event loop is no longer blocked; it was for up to %.0f s",
                self._worker, self._lag.largest_recent_seconds(),
            )  # fmt: skip
