"""A dedicated connection for commands that block on the server, such as BZPOPMIN and XREAD."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from redis import exceptions as foreign

from hasten._redis import errors
from hasten._redis.client import Client
from hasten._redis.connections import Link, Part
from hasten._store_url import RedisAddress
from hasten.errors import StoreError, StoreUnavailable


def store_closed_error(address: RedisAddress) -> StoreError:
    """Return the error for a call after the store was closed."""
    return StoreUnavailable(address.shown, "the store is closed")


class BlockingConnection:
    """A connection of its own for blocking commands. Belongs to the event loop of its client.

    Only one caller may use it at a time. In a cluster it connects to the server that has the key.
    name is the name of the connection on the server.
    """

    def __init__(self, address: RedisAddress, client: Client, key: str, name: str | None) -> None:
        self._address = address
        self._client = client
        self._key = key
        self._name = name
        self._link: Link | None = None
        self._id: int | None = None  # the server's id of the connection, for CLIENT UNBLOCK
        client.listeners.add(self)

    async def run_command(self, *parts: Part, block_seconds: float = 0.0) -> Any:
        """Run a command that may block on the server, and return its reply.

        block_seconds is for how long it may block, 0 if it does not block. The command contains
        this time, too. Raises `StoreError`, also if there is no reply within block_seconds plus the
        URL's time-out.
        """
        (answer,) = await self.run_commands(parts, block_seconds=block_seconds)
        return answer

    async def run_commands(
        self, *commands: Sequence[Part], block_seconds: float = 0.0
    ) -> list[Any]:
        """Run several commands, sent in one write, and return their replies; see `run_command`.

        Raises the first error reply as `StoreError`. Returns None for each command if another node
        of the cluster has the key now.
        """
        if self._client.is_closed:
            raise store_closed_error(self._address)
        try:
            async with asyncio.timeout(self._address.timeout):
                link = await self._open()
            async with asyncio.timeout(block_seconds + self._address.timeout):
                return await _send_and_receive(link, commands)
        except errors.FOREIGN as error:
            if self._client.is_closed:
                raise store_closed_error(self._address) from error
            if not errors.is_error_reply(error):
                await self.close()
                raise errors.connection_error(
                    self._address.shown, error, self._address.timeout
                ) from error
            if errors.is_moved(error):
                self._client.forget_endpoints()
                await self.close()
                # Return empty replies, as after a time-out: the caller repeats the call, which then
                # connects to the right server.
                return [None for _ in commands]
            ours = errors.error_from_reply(self._address.shown, error)
            if errors.suggests_failover(ours):
                self._client.forget_endpoints()
                await self.close()
            raise ours from error
        except BaseException:
            await self.close()  # its reply may still arrive, and is not for the next caller
            raise

    async def _open(self) -> Link:
        """Return an open connection to the server that has the key."""
        endpoint = await self._client.endpoint_of(self._key)
        link = self._link
        if link is not None and link.endpoint != endpoint:
            await self.close()
            link = None
        if link is None:
            link = self._link = Link(self._address, endpoint, self._name)
        was_open = link.is_open
        await link.open()
        if not was_open:
            self._id = await link.request("CLIENT", "ID")
        return link

    async def unblock(self) -> None:
        """Make a blocked command return at once, as if it had timed out. Raises no `StoreError`."""
        link, id = self._link, self._id
        if link is not None and id is not None:
            with contextlib.suppress(StoreError, *errors.FOREIGN):
                await self._client.request_at(link.endpoint, "CLIENT", "UNBLOCK", id)

    async def close(self) -> None:
        link, self._link, self._id = self._link, None, None
        if link is not None:
            await link.close()


async def _send_and_receive(link: Link, commands: Sequence[Sequence[Part]]) -> list[Any]:
    """Send commands and return their replies.

    Raises the first error reply, after all replies have been received.
    """
    await link.send(commands)
    answers: list[Any] = []
    for _ in commands:
        try:
            answers.append(await link.receive())
        except foreign.ResponseError as error:
            answers.append(error)
    for answer in answers:
        if isinstance(answer, foreign.ResponseError):
            raise answer
    return answers
