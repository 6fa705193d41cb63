"""Time-outs that do not count the time for which the event loop itself was late.

A busy event loop reads a response late, however early it arrived, and needs some turns to pass it
to the waiting task. So the wait consists of slices, and only slices that end on time count: in
those a response would have been read. If the event loop is never on time, the wait ends after
`MOST` times as long.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Final

SLICES: Final = 10

MOST: Final = 40

# A slice ends on time if it is late by less than this part of its length.
ON_TIME: Final = 0.25

# Turns of the event loop in which a response that was read can reach the waiting task.
GRACE_TURNS: Final = 4


class _Slices:
    """The remaining slices of a time-out. Times are those of the event loop."""

    def __init__(self, seconds: float, now: float) -> None:
        self.length: Final = seconds / SLICES
        self._left = SLICES
        self._ends_at = now + MOST * seconds
        self._due = now + self.length

    def end_one(self, now: float) -> bool:
        """End a slice and start the next. Return whether it was the last one."""
        if now - self._due < ON_TIME * self.length:
            self._left -= 1
        self._due = now + self.length
        return self._left <= 0 or now >= self._ends_at


async def done_within(future: asyncio.Future[Any], seconds: float) -> bool:
    """Wait for a future at most this long, and return whether it is done. Never cancels it."""
    loop = asyncio.get_running_loop()
    slices = _Slices(seconds, loop.time())
    while True:
        await asyncio.wait({future}, timeout=slices.length)
        if future.done():
            return True
        if slices.end_one(loop.time()):
            break
    for _ in range(GRACE_TURNS):
        await asyncio.sleep(0)
        if future.done():
            return True
    return False


class LoopTimeout:
    """A variant of `asyncio.timeout` that does not count the time that the loop was late."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._slices = _Slices(seconds, self._loop.time())
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
        if self._slices.end_one(self._loop.time()):
            self._end_turn()
        else:
            self._timer = self._loop.call_later(self._slices.length, self._end_slice)

    def _end_turn(self) -> None:
        self._grace -= 1
        if self._grace:
            self._timer = self._loop.call_soon(self._end_turn)
        else:
            self._timeout.reschedule(self._loop.time())
