"""Single connections, and a small pool of them for each server that one event loop talks to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple

from redis import exceptions as foreign
from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection

from hasten._redis_address import Address

Part = bytes | str | int | float
"""A command, or one of its arguments."""

# A connection that has been idle for longer than this may have been closed by the server, or by
# something on the way: it is looked at before it is used.
TRUSTED_SECONDS: Final = 0.1


class Place(NamedTuple):
    """Where one server listens; port 0 for a Unix socket, whose path is the host then."""

    host: str
    port: int


class Link:
    """A connection with one request at a time under way."""

    def __init__(self, address: Address, place: Place, name: str | None = None) -> None:
        self.place = place
        self._connection = _connection(address, place, name)
        self._loop = asyncio.get_running_loop()
        self._used_at = 0.0

    @property
    def is_open(self) -> bool:
        return bool(self._connection.is_connected)

    async def open(self) -> None:
        """Connect, if it is not; find out whether it still is."""
        connection = self._connection
        if connection.is_connected and self._loop.time() - self._used_at > TRUSTED_SECONDS:
            # Its name before redis 8 was can_read_destructive.
            look = getattr(connection, "can_read", None) or connection.can_read_destructive
            try:
                dirty = await look()
            except (foreign.RedisError, OSError):
                dirty = True
            if dirty:
                await self.close()
        if not connection.is_connected:
            await connection.connect()

    async def request(self, *parts: Part) -> Any:
        """Send a command and return its answer, texts as bytes. Broken off, it closes itself."""
        connection = self._connection
        await connection.send_packed_command(connection.pack_command(*parts), check_health=False)
        return await self.receive()

    async def send(self, commands: Sequence[Sequence[Part]]) -> None:
        """Send commands in one write; `receive` once for each of them, in their order."""
        packed = self._connection.pack_commands(commands)
        await self._connection.send_packed_command(packed, check_health=False)

    async def receive(self) -> Any:
        answer = await self._connection.read_response(disable_decoding=True)
        self._used_at = self._loop.time()
        return answer

    async def close(self) -> None:
        with contextlib.suppress(foreign.RedisError, OSError):
            await self._connection.disconnect(nowait=True)


class Pool:
    """The connections of one event loop to one server."""

    def __init__(self, address: Address, place: Place) -> None:
        self._address = address
        self._place = place
        self._free = asyncio.Semaphore(address.connections)
        self._idle: list[Link] = []
        self._closed = False

    @contextlib.asynccontextmanager
    async def borrow(self) -> AsyncIterator[Link]:
        async with self._free:
            link = self._idle.pop() if self._idle else Link(self._address, self._place)
            try:
                yield link
            finally:
                if link.is_open and not self._closed:
                    self._idle.append(link)
                else:
                    await link.close()

    async def close(self) -> None:
        self._closed = True
        idle, self._idle = self._idle, []
        for link in idle:
            await link.close()


def _connection(address: Address, place: Place, name: str | None) -> Any:
    """A connection of the library, unopened. It sets no limits of its own to reading: we do."""
    settings: dict[str, Any] = {
        "db": address.db,
        "username": address.username,
        "password": address.password,
        "client_name": name,
        "protocol": 2,
        "socket_timeout": None,
        "socket_connect_timeout": address.timeout,
    }
    if address.path is not None:
        return UnixDomainSocketConnection(path=address.path, **settings)
    settings |= {"host": place.host, "port": place.port, "socket_keepalive": True}
    if address.tls is not None:
        return SSLConnection(**settings | address.tls)
    return Connection(**settings)
