"""A pipelined connection: it sends requests without waiting for the replies to earlier ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis import exceptions as foreign

from hasten._redis.connections import Link, Part


class PipelinedConnection:
    """One connection that pipelines: it sends each request without waiting for earlier replies.

    A pool of connections would not guarantee that the server applies requests in the order in which
    they were made. Waiting for each reply would limit the rate by the network latency. It
    belongs to one event loop. It calls on_open with the connection each time it has connected,
    before the first request.
    """

    def __init__(self, link: Link, on_open: Callable[[Link], Awaitable[None]]) -> None:
        self._link = link
        self._on_open = on_open
        self._sending = asyncio.Lock()
        self._latest: asyncio.Future[None] | None = None  # done after its replies
        self._breaks = 0  # how many times the connection was lost

    async def request(self, commands: Sequence[Sequence[Part]]) -> list[Any]:
        """Send commands in one write and return their replies, in the order of the commands.

        The reply to a failed command is the exception. Raises `NotSent` if the connection cannot be
        opened, and another exception of `redis` or the operating system if the connection breaks
        later.

        Cancelling a caller that waits for replies also closes the connection, because its replies
        would be read by the next caller: all requests in progress then fail.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sent, breaks = False, 0
        try:
            async with self._sending:
                before = await self._open_and_get_previous_turn()
                self._latest, breaks, sent = turn, self._breaks, True
                await self._link.send(commands)
            if before is not None:
                await asyncio.shield(before)
            if breaks == self._breaks:
                return [await self._receive() for _ in commands]
        except BaseException:
            if sent and breaks == self._breaks:
                await self._close_broken()
            raise
        finally:
            turn.set_result(None)
        # The connection broke while this request waited. Its replies will not arrive: a connection
        # that is open now is a new one.
        raise foreign.ConnectionError("connection closed before the reply arrived")

    async def _open_and_get_previous_turn(self) -> asyncio.Future[None] | None:
        """Connect if needed. Return a future that is done when the previous request is complete.

        Returns None if no earlier request is still waiting for replies.
        """
        before = self._latest
        if before is not None and not before.done() and self._link.is_open:
            return before
        was_open = self._link.is_open
        try:
            await self._link.open()
            if not was_open:
                await self._on_open(self._link)
        except (foreign.RedisError, OSError) as error:
            raise NotSent from error
        return None

    async def _receive(self) -> Any:
        """Receive one reply. An error reply is returned as an exception, not raised."""
        try:
            return await self._link.receive()
        except foreign.ResponseError as error:
            return error

    async def _close_broken(self) -> None:
        """Close the connection, so that all requests in progress fail."""
        self._breaks += 1
        await self._link.close()  # replies of failed requests may still arrive

    async def close(self) -> None:
        await self._link.close()


class NotSent(foreign.ConnectionError):
    """The connection could not be opened, so nothing was sent. `__cause__` is the reason."""
