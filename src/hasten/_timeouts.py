"""Timeouts that do not count the time for which the event loop itself was late.

A busy event loop reads an answer late, however soon it came. So a timeout is waited for in slices:
a slice counts for its own length, whenever the event loop comes to its end. Between two ends there
is always a turn in which an answer that has come can be read.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Final

SLICES: Final = 10

# Turns of the event loop in which what has been read may reach whoever waits for it.
GRACE_TURNS: Final = 4


async def done_within(future: asyncio.Future[Any], seconds: float) -> bool:
    """Wait for a future for so long at most, and return whether it is done. Does not cancel it."""
    for _ in range(SLICES):
        await asyncio.wait({future}, timeout=seconds / SLICES)
        if future.done():
            return True
    for _ in range(GRACE_TURNS):
        await asyncio.sleep(0)
        if future.done():
            return True
    return False


class LoopTimeout:
    """`asyncio.timeout`, of which time that the event loop was late is no part."""

    def __init__(self, seconds: float) -> None:
        self._slice = seconds / SLICES
        self._left = SLICES
        self._loop = asyncio.get_running_loop()
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.Handle | None = None

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._timer = self._loop.call_later(self._slice, self._tick)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if self._timer is not None:
            self._timer.cancel()
        return await self._timeout.__aexit__(kind, error, trace)

    def _tick(self) -> None:
        self._left -= 1
        if self._left > 0:
            self._timer = self._loop.call_later(self._slice, self._tick)
        elif self._left > -GRACE_TURNS:
            self._timer = self._loop.call_soon(self._tick)
        else:
            self._timeout.reschedule(self._loop.time())
