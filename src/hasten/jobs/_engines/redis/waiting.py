"""How a worker waits for work: blocked on the marker of its queue, as BullMQ's workers are.

A marker wakes one worker, so one that has been popped must not be lost. Who waits here can be
cancelled at any moment (its worker stops, or looks for work on its own); the blocked call cannot,
for Redis may have popped already. It goes on by itself, then, and gives back what it pops.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from hasten._logs import get_logger
from hasten._redis.listener import Listener, closed
from hasten._redis.server import Server
from hasten.errors import StoreError

logger = get_logger("hasten.redis")

# A call that is blocked for longer than this without an answer shows that the server hangs.
BLOCK_SECONDS: Final = 10.0

# How long the end of a blocked call is waited for: a server that hangs must hold up nobody.
END_SECONDS: Final = 1.0


class Waiter:
    """One worker's blocked call on one queue. Belongs to one event loop."""

    def __init__(self, server: Server, base: str, connection_name: str | None) -> None:
        self._server = server
        self._marker = base + "marker"
        self._listener: Listener = server.listener(key=self._marker, name=connection_name)
        self._call: asyncio.Task[float | None] | None = None
        self._callers = 0
        self._closed = False

    async def open(self) -> None:
        """Connect, so that the worker is known by its connection's name."""
        if self._call is not None and not self._call.done():
            return  # it is connected: an earlier call is still blocked there
        await self._listener.command("PING", seconds=BLOCK_SECONDS)

    async def until_marked(self) -> float | None:
        """The score of the marker that was popped: 0, or when a job is due, in ms.

        None if none came for a while. Several who wait at once share the answer.
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
            raise closed(self._server.address)
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
                await self._give_back()
        return None if popped is None else float(popped[2])

    async def _give_back(self) -> None:
        """Wake another worker in our stead; it learns of delayed jobs when it claims."""
        try:
            await self._server.command("ZADD", self._marker, 0, "0", key=self._marker)
        except StoreError as error:
            # Workers look for work by themselves every few seconds, BullMQ's too.
            logger.debug("a marker could not be given back: %s", error)

    async def close(self) -> None:
        self._closed = True
        call, self._call = self._call, None
        if call is not None:
            await self._end(call)
        await self._listener.close()

    async def _end(self, call: asyncio.Task[float | None]) -> None:
        """Let the blocked call return, and give back what it may just have popped."""
        deadline = asyncio.get_running_loop().time() + END_SECONDS
        while not call.done() and asyncio.get_running_loop().time() < deadline:
            await self._listener.unblock()  # in vain while it is on its way to the server
            await asyncio.wait([call], timeout=0.01)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError, StoreError):
            if await call is not None:
                await self._give_back()
