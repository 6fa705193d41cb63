"""A dedicated connection for commands that block until something happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from redis import exceptions as foreign

from hasten._redis import errors
from hasten._redis.client import Client
from hasten._redis.connections import Link, Part
from hasten._store_url import Address
from hasten.errors import StoreError, StoreUnavailable


def closed(address: Address) -> StoreError:
    return StoreUnavailable(address.shown, "the store is closed")


class Listener:
    """Belongs to the event loop of its client, and to one caller at a time.

    key selects the server of a cluster. name is the name of the connection on the server.
    """

    def __init__(self, address: Address, client: Client, key: str, name: str | None) -> None:
        self._address = address
        self._client = client
        self._key = key
        self._name = name
        self._link: Link | None = None
        self._id: int | None = None  # of the connection, on the server
        client.listeners.add(self)

    async def command(self, *parts: Part, seconds: float = 0.0) -> Any:
        """Run a command that may block on the server for this many seconds.

        Raises `StoreError`, also if the reply is much later: then the server hangs.
        """
        (answer,) = await self.commands(parts, seconds=seconds)
        return answer

    async def commands(self, *commands: Sequence[Part], seconds: float = 0.0) -> list[Any]:
        """Run several commands, sent in one write, like `command`."""
        if self._client.is_closed:
            raise closed(self._address)
        try:
            async with asyncio.timeout(self._address.timeout):
                link = await self._open()
            async with asyncio.timeout(seconds + self._address.timeout):
                return await _replies(link, commands)
        except errors.FOREIGN as error:
            if self._client.is_closed:
                raise closed(self._address) from error
            if not errors.is_error_reply(error):
                await self.close()
                raise errors.unreachable(
                    self._address.shown, error, self._address.timeout
                ) from error
            if errors.is_moved(error):
                self._client.invalidate()
                await self.close()
                # Return empty replies: the next call goes to the right server.
                return [None for _ in commands]
            ours = errors.error_of_reply(self._address.shown, error)
            if errors.suggests_failover(ours):
                self._client.invalidate()
                await self.close()
            raise ours from error
        except BaseException:
            await self.close()  # a reply may still arrive that no caller waits for
            raise

    async def _open(self) -> Link:
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
        """Let a blocked command return at once, as if it had timed out. Never raises."""
        link, id = self._link, self._id
        if link is not None and id is not None:
            with contextlib.suppress(StoreError, *errors.FOREIGN):
                await self._client.request_at(link.endpoint, "CLIENT", "UNBLOCK", id)

    async def close(self) -> None:
        link, self._link, self._id = self._link, None, None
        if link is not None:
            await link.close()


async def _replies(link: Link, commands: Sequence[Sequence[Part]]) -> list[Any]:
    """Return the replies to commands. All are received before an error is raised."""
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
