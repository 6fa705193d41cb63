"""Connections to one server, and a small pool of them for each event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple

from redis import exceptions as foreign
from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection

from hasten._store_url import Address

Part = bytes | str | int | float
"""A command, or one of its arguments."""

# A connection that was idle for longer may have been closed by the server or by the network: it is
# checked before it is used.
TRUSTED_SECONDS: Final = 0.1


class Endpoint(NamedTuple):
    """The host and port of a server; the path and 0 for a Unix socket."""

    host: str
    port: int


class Link:
    """A connection with one request in progress at a time."""

    def __init__(self, address: Address, endpoint: Endpoint, name: str | None = None) -> None:
        self.endpoint = endpoint
        self._connection = _connection(address, endpoint, name)
        self._loop = asyncio.get_running_loop()
        self._used_at = 0.0

    @property
    def is_open(self) -> bool:
        return bool(self._connection.is_connected)

    async def open(self) -> None:
        """Connect, unless the connection is open and still usable."""
        connection = self._connection
        if connection.is_connected and self._loop.time() - self._used_at > TRUSTED_SECONDS:
            # redis before version 8 calls it can_read_destructive.
            has_data = getattr(connection, "can_read", None) or connection.can_read_destructive
            try:
                dirty = await has_data()
            except (foreign.RedisError, OSError):
                dirty = True
            if dirty:
                await self.close()
        if not connection.is_connected:
            await connection.connect()

    async def request(self, *parts: Part) -> Any:
        """Send a command and return its reply, with texts as bytes."""
        connection = self._connection
        await connection.send_packed_command(connection.pack_command(*parts), check_health=False)
        return await self.receive()

    async def send(self, commands: Sequence[Sequence[Part]]) -> None:
        """Send commands in one write. Call `receive` once for each of them, in their order."""
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

    def __init__(self, address: Address, endpoint: Endpoint) -> None:
        self._address = address
        self._endpoint = endpoint
        self._free = asyncio.Semaphore(address.connections)
        self._idle: list[Link] = []
        self._closed = False

    @contextlib.asynccontextmanager
    async def borrow(self) -> AsyncIterator[Link]:
        async with self._free:
            link = self._idle.pop() if self._idle else Link(self._address, self._endpoint)
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


def _connection(address: Address, endpoint: Endpoint, name: str | None) -> Any:
    """Return an unopened connection of the library. It has no read time-out: the client has one."""
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
    settings |= {"host": endpoint.host, "port": endpoint.port, "socket_keepalive": True}
    if address.tls is not None:
        return SSLConnection(**settings | address.tls)
    return Connection(**settings)
