"""Time-outs that allow for a busy event loop.

A busy event loop may read a response late although the response arrived in time. So a time-out is
divided into slices, each with its own timer. If the timer of a slice fires on time, the loop was
not busy and would have read a response: the slice counts. If the timer fires late, the slice is
repeated. A loop that is always late cannot wait forever: after `MAX_FACTOR` times the time-out, the
wait ends in any case.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Final

SLICES: Final = 10

MAX_FACTOR: Final = 40

# The timer of a slice is on time if it fires late by less than this fraction of the slice.
MAX_LATENESS: Final = 0.25

# After the last slice, the loop gets this many iterations to deliver a response that it has already
# read to the waiting task.
GRACE_TURNS: Final = 4


class _TimeoutSlices:
    """A time-out divided into slices. A slice does not count if the event loop was blocked in it.

    All times are in seconds of `loop.time()`.
    """

    def __init__(self, seconds: float, now: float) -> None:
        self.length: Final = seconds / SLICES
        self._left = SLICES
        self._ends_at = now + MAX_FACTOR * seconds
        self._due = now + self.length

    def end_slice_and_check_expired(self, now: float) -> bool:
        """End the current slice and start the next one. Return whether the time-out has expired."""
        if now - self._due < MAX_LATENESS * self.length:
            self._left -= 1
        self._due = now + self.length
        return self._left <= 0 or now >= self._ends_at


async def done_within(future: asyncio.Future[Any], seconds: float) -> bool:
    """Wait for a future, and return whether it was done within this time. Never cancels it.

    The time in which the event loop was busy is not counted.
    """
    loop = asyncio.get_running_loop()
    slices = _TimeoutSlices(seconds, loop.time())
    while True:
        await asyncio.wait({future}, timeout=slices.length)
        if future.done():
            return True
        if slices.end_slice_and_check_expired(loop.time()):
            break
    for _ in range(GRACE_TURNS):
        await asyncio.sleep(0)
        if future.done():
            return True
    return False


class TimeoutExcludingBlockedTime:
    """A variant of `asyncio.timeout` that does not count time in which the event loop was busy.

    Use it with `async with`, which raises `TimeoutError` when the time is over.
    """

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._slices = _TimeoutSlices(seconds, self._loop.time())
        self._grace = GRACE_TURNS
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.Handle | None = None

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._timer = self._loop.call_later(self._slices.length, self._end_slice)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _end_slice(self) -> None:
        if self._slices.end_slice_and_check_expired(self._loop.time()):
            self._expire_after_grace_turns()
        else:
            self._timer = self._loop.call_later(self._slices.length, self._end_slice)

    def _expire_after_grace_turns(self) -> None:
        """Let the time-out expire after a few more turns of the event loop."""
        self._grace -= 1
        if self._grace:
            self._timer = self._loop.call_soon(self._expire_after_grace_turns)
        else:
            self._timeout.reschedule(self._loop.time())
