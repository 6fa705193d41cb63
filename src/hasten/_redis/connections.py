"""Single connections to a server, and the pool of connections to a server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple

from redis import exceptions as foreign
from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection

from hasten._store_url import RedisAddress

Part = bytes | str | int | float
"""A command, or one of its arguments."""

# A connection that has been idle for longer than this may have been closed by the server or the
# network, so it is checked before the next request.
TRUSTED_SECONDS: Final = 0.1


class Endpoint(NamedTuple):
    """The address of a server: host and port. For a Unix socket, host is its path and port is 0."""

    host: str
    port: int


class Link:
    """One connection of the `redis` library, without that library's retries and time-outs.

    name is the name of the connection on the server (CLIENT SETNAME).
    """

    def __init__(self, address: RedisAddress, endpoint: Endpoint, name: str | None = None) -> None:
        self.endpoint = endpoint
        self._connection = _make_connection(address, endpoint, name)
        self._loop = asyncio.get_running_loop()
        self._used_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the connection is open, as far as the client knows."""
        return bool(self._connection.is_connected)

    async def open(self) -> None:
        """Connect, unless the connection is already open and usable."""
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
        """Send a command and return its reply. Strings in the reply are bytes."""
        connection = self._connection
        await connection.send_packed_command(connection.pack_command(*parts), check_health=False)
        return await self.receive()

    async def send(self, commands: Sequence[Sequence[Part]]) -> None:
        """Send commands in one write. The caller must then call `receive` once per command."""
        packed = self._connection.pack_commands(commands)
        await self._connection.send_packed_command(packed, check_health=False)

    async def receive(self) -> Any:
        """Return the next reply. Raises `redis.exceptions.ResponseError` for an error reply."""
        answer = await self._connection.read_response(disable_decoding=True)
        self._used_at = self._loop.time()
        return answer

    async def close(self) -> None:
        with contextlib.suppress(foreign.RedisError, OSError):
            await self._connection.disconnect(nowait=True)


class Pool:
    """The connections of one event loop to one server. The URL limits their number."""

    def __init__(self, address: RedisAddress, endpoint: Endpoint) -> None:
        self._address = address
        self._endpoint = endpoint
        self._free = asyncio.Semaphore(address.connections)
        self._idle: list[Link] = []
        self._closed = False

    @contextlib.asynccontextmanager
    async def borrow(self) -> AsyncIterator[Link]:
        """Lend a connection, which may not be open yet. Waits while all connections are in use."""
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


def _make_connection(address: RedisAddress, endpoint: Endpoint, name: str | None) -> Any:
    """Make a connection object of `redis` without connecting.

    It has no read time-out, because `Client` and `BlockingConnection` limit the time of each
    request.
    """
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
