"""Waiting for work: a worker blocks on the marker of its queue, as BullMQ's workers do.

A marker wakes one worker, so a popped marker must not be lost. A caller may be cancelled at any
time, because its worker stops or claims anyway. The blocked call cannot be cancelled, because Redis
may already have popped the marker: it continues in the background and puts the marker back.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from hasten._logs import get_logger
from hasten._redis.listener import Listener, closed_error
from hasten._redis.server import Server
from hasten.errors import StoreError

logger = get_logger("hasten.redis")

# If a blocked call gets no reply for longer than this, the server hangs.
BLOCK_SECONDS: Final = 10.0

# How long `close` waits for a blocked call: a server that hangs must not block the shutdown.
END_SECONDS: Final = 1.0


class MarkerWaiter:
    """The blocked call of one worker on one queue. Belongs to one event loop."""

    def __init__(self, server: Server, base: str, connection_name: str | None) -> None:
        self._server = server
        self._marker = base + "marker"
        self._listener: Listener = server.make_listener(key=self._marker, name=connection_name)
        self._call: asyncio.Task[float | None] | None = None
        self._callers = 0
        self._closed = False

    async def open(self) -> None:
        """Connect, so that BullMQ finds the worker by the name of its connection."""
        if self._call is not None and not self._call.done():
            return  # an earlier call is still blocked, so it is connected
        await self._listener.command("PING", seconds=BLOCK_SECONDS)

    async def until_marked(self) -> float | None:
        """Wait for a marker, and return its score: 0, or when a job is due, in ms.

        Returns None after a while without a marker. Concurrent callers share the result.
        """
        if self._call is None:
            self._call = asyncio.create_task(self._pop())
        call = self._call
        self._callers += 1
        try:
            await asyncio.wait([call])
        finally:
            self._callers -= 1
            if call.done() and self._call is call:
                self._call = None
        if self._closed:
            raise closed_error(self._server.address)
        return call.result()

    async def _pop(self) -> float | None:
        try:
            popped = await self._listener.command(
                "BZPOPMIN", self._marker, int(BLOCK_SECONDS), seconds=BLOCK_SECONDS
            )
        except StoreError:
            if self._callers:
                raise
            self._call = None
            return None
        if not self._callers:
            self._call = None
            if popped is not None:
                await self._put_back()
        return None if popped is None else float(popped[2])

    async def _put_back(self) -> None:
        """Set the marker again, to wake another worker."""
        try:
            await self._server.command("ZADD", self._marker, 0, "0", key=self._marker)
        except StoreError as error:
            # All workers, BullMQ's too, look for work every few seconds anyway.
            logger.debug("cannot set the marker again: %s", error)

    async def close(self) -> None:
        """End the blocked call, and close the connection."""
        self._closed = True
        call, self._call = self._call, None
        if call is not None:
            await self._end(call)
        await self._listener.close()

    async def _end(self, call: asyncio.Task[float | None]) -> None:
        """Unblock the call, and set the marker again if it was just popped."""
        deadline = asyncio.get_running_loop().time() + END_SECONDS
        while not call.done() and asyncio.get_running_loop().time() < deadline:
            await self._listener.unblock()  # without effect before the call reaches the server
            await asyncio.wait([call], timeout=0.01)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError, StoreError):
            if await call is not None:
                await self._put_back()
