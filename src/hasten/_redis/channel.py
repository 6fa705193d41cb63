"""A pipelined connection: many requests in progress, with replies in the order of requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis import exceptions as foreign

from hasten._redis.connections import Link, Part


class Channel:
    """Sends each request at once, without waiting for the replies to earlier ones.

    Requests are applied in their order, which several connections do not promise, and a distant
    server is kept as busy as a near one. Belongs to one event loop. opened is called with the link
    before its first request.
    """

    def __init__(self, link: Link, opened: Callable[[Link], Awaitable[None]]) -> None:
        self._link = link
        self._opened = opened
        self._sending = asyncio.Lock()
        self._latest: asyncio.Future[None] | None = None  # done after the latest reply
        self._breaks = 0  # how many times the connection broke

    async def request(self, commands: Sequence[Sequence[Part]]) -> list[Any]:
        """Send commands in one write and return their replies.

        An error reply is in its position in the list. Raises `NotSent` if there is no connection.
        Raises other errors of the library if the connection breaks, or if a caller that waits for
        a reply is cancelled: then all requests in progress fail.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sent, breaks = False, 0
        try:
            async with self._sending:
                before = await self._prepare()
                self._latest, breaks, sent = turn, self._breaks, True
                await self._link.send(commands)
            if before is not None:
                await asyncio.shield(before)
            if breaks == self._breaks:
                return [await self._receive() for _ in commands]
        except BaseException:
            if sent and breaks == self._breaks:
                await self._break()
            raise
        finally:
            turn.set_result(None)
        # The connection that is open now never got these commands.
        raise foreign.ConnectionError("the connection broke before the reply")

    async def _prepare(self) -> asyncio.Future[None] | None:
        """Open the connection if needed. Return the pending turn before this one, or None."""
        before = self._latest
        if before is not None and not before.done() and self._link.is_open:
            return before
        was_open = self._link.is_open
        try:
            await self._link.open()
            if not was_open:
                await self._opened(self._link)
        except (foreign.RedisError, OSError) as error:
            raise NotSent from error
        return None

    async def _receive(self) -> Any:
        try:
            return await self._link.receive()
        except foreign.ResponseError as error:
            return error

    async def _break(self) -> None:
        self._breaks += 1
        await self._link.close()  # replies may still arrive that no caller waits for

    async def close(self) -> None:
        await self._link.close()


class NotSent(foreign.ConnectionError):
    """There is no connection, and nothing was sent. The cause has the reason."""
