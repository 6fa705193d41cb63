"""A connection of one's own, for commands that block until something happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from redis import exceptions as foreign

from hasten._redis import troubles
from hasten._redis.client import Client
from hasten._redis.connections import Link, Part
from hasten._redis_address import Address
from hasten.errors import StoreError, StoreUnavailable


def closed(address: Address) -> StoreError:
    return StoreUnavailable(address.shown, "it has been closed")


class Listener:
    """Belongs to the event loop of its client, and to one caller at a time.

    key says which server of a cluster it is connected to, name is the connection's name there.
    """

    def __init__(self, address: Address, client: Client, key: str, name: str | None) -> None:
        self._address = address
        self._client = client
        self._key = key
        self._name = name
        self._link: Link | None = None
        self._id: int | None = None  # of the connection, at the server
        client.listeners.add(self)

    async def command(self, *parts: Part, seconds: float = 0.0) -> Any:
        """Run a command that may block for so many seconds, at the server.

        One that is answered much later than that shows that the server hangs. Raises `StoreError`.
        """
        (answer,) = await self.commands(parts, seconds=seconds)
        return answer

    async def commands(self, *commands: Sequence[Part], seconds: float = 0.0) -> list[Any]:
        """Run commands, sent in one write, as `command` does."""
        if self._client.is_closed:
            raise closed(self._address)
        try:
            async with asyncio.timeout(self._address.timeout):
                link = await self._open()
            async with asyncio.timeout(seconds + self._address.timeout):
                return await _answers(link, commands)
        except troubles.FOREIGN as error:
            if self._client.is_closed:
                raise closed(self._address) from error
            if not troubles.is_answer(error):
                await self.close()
                raise troubles.unreachable(
                    self._address.shown, error, self._address.timeout
                ) from error
            if troubles.is_moved(error):
                self._client.doubt()
                await self.close()
                # As if nothing had come: the next call goes to the right server.
                return [None for _ in commands]
            ours = troubles.answered(self._address.shown, error)
            if troubles.doubts_topology(ours):
                self._client.doubt()
                await self.close()
            raise ours from error
        except BaseException:
            await self.close()  # an answer may be on its way to nobody
            raise

    async def _open(self) -> Link:
        place = await self._client.place_of(self._key)
        link = self._link
        if link is not None and link.place != place:
            await self.close()
            link = None
        if link is None:
            link = self._link = Link(self._address, place, self._name)
        was_open = link.is_open
        await link.open()
        if not was_open:
            self._id = await link.request("CLIENT", "ID")
        return link

    async def unblock(self) -> None:
        """Let a blocked command return at once, as if its time were over. Never raises."""
        link, id = self._link, self._id
        if link is not None and id is not None:
            with contextlib.suppress(StoreError, *troubles.FOREIGN):
                await self._client.request_at(link.place, "CLIENT", "UNBLOCK", id)

    async def close(self) -> None:
        link, self._link, self._id = self._link, None, None
        if link is not None:
            await link.close()


async def _answers(link: Link, commands: Sequence[Sequence[Part]]) -> list[Any]:
    """The answers to commands. All are received before one that is an error is raised."""
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
