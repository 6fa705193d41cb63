"""Finding the server that has a key: the server of the URL, Sentinel's master or a cluster node.

A topology belongs to one event loop. It caches the endpoints that it finds until
`forget_endpoints` is called.
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

from hasten._redis.connections import Endpoint, Part
from hasten._store_url import RedisAddress, ServerKind


class Topology(Protocol):
    """Finds the servers that a URL leads to, and the server that has a key."""

    async def endpoint_of(self, key: Part) -> Endpoint:
        """Return the endpoint of the server that has the key. Raises exceptions of `redis`."""

    async def writable_endpoints(self) -> list[Endpoint]:
        """Return the endpoints of all servers that accept writes."""

    def forget_endpoints(self) -> None:
        """Discard the cached endpoints. The next call looks them up again."""

    async def close(self) -> None: ...


def make_topology(address: RedisAddress) -> Topology:
    """Make the topology for the kind of an address: one server, Sentinel or a cluster."""
    match address.kind:
        case ServerKind.SINGLE:
            return _SingleServerTopology(address)
        case ServerKind.SENTINEL:
            return _SentinelTopology(address)
        case ServerKind.CLUSTER:
            return _ClusterTopology(address)


class _SingleServerTopology:
    """The topology of a URL that names one server, or a Unix socket."""

    def __init__(self, address: RedisAddress) -> None:
        self._endpoint = Endpoint(address.path, 0) if address.path else Endpoint(*address.nodes[0])

    async def endpoint_of(self, key: Part) -> Endpoint:
        return self._endpoint

    async def writable_endpoints(self) -> list[Endpoint]:
        return [self._endpoint]

    def forget_endpoints(self) -> None:
        """Do nothing: the endpoint is fixed, and each new connection resolves the host name."""

    async def close(self) -> None: ...


class _SentinelTopology:
    """The topology of a URL that names Sentinels: the master that they know has all keys."""

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self._master: Endpoint | None = None
        self._lookup = asyncio.Lock()

    async def endpoint_of(self, key: Part) -> Endpoint:
        async with self._lookup:
            if self._master is None:
                self._master = await self._find_master()
            return self._master

    async def writable_endpoints(self) -> list[Endpoint]:
        return [await self.endpoint_of("")]

    def forget_endpoints(self) -> None:
        self._master = None

    async def _find_master(self) -> Endpoint:
        """Return the endpoint of the master, as reported by the first reachable Sentinel."""
        address = self._address
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            list(address.nodes),
            sentinel_kwargs=_connection_settings(address)
            | {"username": address.sentinel_username, "password": address.sentinel_password},
        )
        try:
            return Endpoint(*await sentinel.discover_master(address.service))
        finally:
            for client in sentinel.sentinels:
                with contextlib.suppress(foreign.RedisError, OSError):
                    await client.aclose()

    async def close(self) -> None: ...


class _ClusterTopology:
    """The topology of a cluster. It uses the slot map of `redis`, but not its connections."""

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self._map: RedisCluster | None = None
        self._known = list(address.nodes)
        self._is_stale = False
        self._lookup = asyncio.Lock()

    async def endpoint_of(self, key: Part) -> Endpoint:
        node = (await self._get_slot_map()).get_node_from_key(key)  # type: ignore[arg-type]  # bytes are accepted, too
        if node is None:
            raise foreign.ClusterDownError("Hash slot not served")
        return Endpoint(str(node.host), int(node.port))

    async def writable_endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(str(n.host), int(n.port)) for n in (await self._get_slot_map()).get_primaries()
        ]

    def forget_endpoints(self) -> None:
        self._is_stale = True

    async def _get_slot_map(self) -> RedisCluster:
        """Return the cached slot map, or load it if there is none or it is stale."""
        async with self._lookup:
            if self._map is None or self._is_stale:
                await self.close()
                self._map = await self._load_slot_map()
                self._is_stale = False
            return self._map

    async def _load_slot_map(self) -> RedisCluster:
        """Load the map of hash slots to nodes, from a node of the URL or a node found earlier."""
        nodes: list[Any] = [ClusterNode(host, port) for host, port in self._known]
        loaded = RedisCluster(
            startup_nodes=nodes,
            username=self._address.username,
            password=self._address.password,
            require_full_coverage=False,
            retry=Retry(NoBackoff(), 0),
            **_connection_settings(self._address),
        )
        try:
            await loaded.initialize()
        except BaseException:
            await loaded.aclose()
            raise
        known = [(str(node.host), int(node.port)) for node in loaded.get_nodes()]
        self._known = list(dict.fromkeys([*self._address.nodes, *known]))
        return loaded

    async def close(self) -> None:
        loaded, self._map = self._map, None
        if loaded is not None:
            with contextlib.suppress(foreign.RedisError, OSError):
                await loaded.aclose()


def _connection_settings(address: RedisAddress) -> dict[str, Any]:
    """Return the settings of the Sentinel and cluster clients of `redis`."""
    settings: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": address.timeout,
        "socket_connect_timeout": address.timeout,
    }
    if address.tls is not None:
        settings |= {"ssl": True, **address.tls}
    return settings
