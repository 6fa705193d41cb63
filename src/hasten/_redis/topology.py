"""Which server has a key: the one of the URL, the master that Sentinel names, or a cluster's node.

Each belongs to one event loop. What it has found it believes until it is told to `doubt`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol

from redis import exceptions as foreign
from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from hasten._redis.connections import Part, Place
from hasten._redis_address import Address, Kind


class Topology(Protocol):
    async def place_of(self, key: Part) -> Place:
        """Where the server is that has this key. Raises errors of the library."""

    async def places(self) -> list[Place]:
        """All servers that take writes."""

    def doubt(self) -> None:
        """Find out anew at the next question."""

    async def close(self) -> None: ...


def topology(address: Address) -> Topology:
    match address.kind:
        case Kind.SINGLE:
            return _Single(address)
        case Kind.SENTINEL:
            return _Sentinels(address)
        case Kind.CLUSTER:
            return _Cluster(address)


class _Single:
    def __init__(self, address: Address) -> None:
        self._place = Place(address.path, 0) if address.path else Place(*address.nodes[0])

    async def place_of(self, key: Part) -> Place:
        return self._place

    async def places(self) -> list[Place]:
        return [self._place]

    def doubt(self) -> None:
        """Its name is looked up anew with each connection."""

    async def close(self) -> None: ...


class _Sentinels:
    def __init__(self, address: Address) -> None:
        self._address = address
        self._master: Place | None = None
        self._asking = asyncio.Lock()

    async def place_of(self, key: Part) -> Place:
        async with self._asking:
            if self._master is None:
                self._master = await self._ask()
            return self._master

    async def places(self) -> list[Place]:
        return [await self.place_of("")]

    def doubt(self) -> None:
        self._master = None

    async def _ask(self) -> Place:
        """The master, by the first Sentinel that knows one."""
        address = self._address
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            list(address.nodes),
            sentinel_kwargs=_settings(address)
            | {"username": address.sentinel_username, "password": address.sentinel_password},
        )
        try:
            return Place(*await sentinel.discover_master(address.service))
        finally:
            for client in sentinel.sentinels:
                with contextlib.suppress(foreign.RedisError, OSError):
                    await client.aclose()

    async def close(self) -> None: ...


class _Cluster:
    """The library's map of slots and nodes; nothing is sent through its own connections."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._map: RedisCluster | None = None
        self._known = list(address.nodes)
        self._doubted = False
        self._asking = asyncio.Lock()

    async def place_of(self, key: Part) -> Place:
        node = (await self._ask()).get_node_from_key(key)  # type: ignore[arg-type]  # bytes do as well
        if node is None:
            raise foreign.ClusterDownError("Hash slot not served")
        return Place(str(node.host), int(node.port))

    async def places(self) -> list[Place]:
        return [Place(str(n.host), int(n.port)) for n in (await self._ask()).get_primaries()]

    def doubt(self) -> None:
        self._doubted = True

    async def _ask(self) -> RedisCluster:
        async with self._asking:
            if self._map is None or self._doubted:
                await self.close()
                self._map = await self._draw()
                self._doubted = False
            return self._map

    async def _draw(self) -> RedisCluster:
        """Any node knows them all: those of the URL, or those that they named before."""
        nodes: list[Any] = [ClusterNode(host, port) for host, port in self._known]
        drawn = RedisCluster(
            startup_nodes=nodes,
            username=self._address.username,
            password=self._address.password,
            require_full_coverage=False,
            retry=Retry(NoBackoff(), 0),
            **_settings(self._address),
        )
        try:
            await drawn.initialize()
        except BaseException:
            await drawn.aclose()
            raise
        known = [(str(node.host), int(node.port)) for node in drawn.get_nodes()]
        self._known = list(dict.fromkeys([*self._address.nodes, *known]))
        return drawn

    async def close(self) -> None:
        drawn, self._map = self._map, None
        if drawn is not None:
            with contextlib.suppress(foreign.RedisError, OSError):
                await drawn.aclose()


def _settings(address: Address) -> dict[str, Any]:
    """What the library's own clients are told about their connections."""
    settings: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": address.timeout,
        "socket_connect_timeout": address.timeout,
    }
    if address.tls is not None:
        settings |= {"ssl": True, **address.tls}
    return settings
