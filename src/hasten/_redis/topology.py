"""Which server has a key: the one of the URL, the master that Sentinel names, or a cluster's node.

A topology belongs to one event loop. It caches what it finds until `invalidate`.
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
from hasten._store_url import Address, ServerKind


class Topology(Protocol):
    async def endpoint_of(self, key: Part) -> Endpoint:
        """Return the endpoint of the server that has this key. Raises errors of the library."""

    async def endpoints(self) -> list[Endpoint]:
        """Return all servers that accept writes."""

    def invalidate(self) -> None:
        """Look it up again before the next use."""

    async def close(self) -> None: ...


def topology(address: Address) -> Topology:
    match address.kind:
        case ServerKind.SINGLE:
            return _Single(address)
        case ServerKind.SENTINEL:
            return _Sentinels(address)
        case ServerKind.CLUSTER:
            return _Cluster(address)


class _Single:
    def __init__(self, address: Address) -> None:
        self._endpoint = Endpoint(address.path, 0) if address.path else Endpoint(*address.nodes[0])

    async def endpoint_of(self, key: Part) -> Endpoint:
        return self._endpoint

    async def endpoints(self) -> list[Endpoint]:
        return [self._endpoint]

    def invalidate(self) -> None:
        """Do nothing: each connection resolves the host name again."""

    async def close(self) -> None: ...


class _Sentinels:
    def __init__(self, address: Address) -> None:
        self._address = address
        self._master: Endpoint | None = None
        self._lookup = asyncio.Lock()

    async def endpoint_of(self, key: Part) -> Endpoint:
        async with self._lookup:
            if self._master is None:
                self._master = await self._find()
            return self._master

    async def endpoints(self) -> list[Endpoint]:
        return [await self.endpoint_of("")]

    def invalidate(self) -> None:
        self._master = None

    async def _find(self) -> Endpoint:
        """Return the master that the first reachable Sentinel names."""
        address = self._address
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            list(address.nodes),
            sentinel_kwargs=_settings(address)
            | {"username": address.sentinel_username, "password": address.sentinel_password},
        )
        try:
            return Endpoint(*await sentinel.discover_master(address.service))
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
        self._is_stale = False
        self._lookup = asyncio.Lock()

    async def endpoint_of(self, key: Part) -> Endpoint:
        node = (await self._find()).get_node_from_key(key)  # type: ignore[arg-type]  # bytes do as well
        if node is None:
            raise foreign.ClusterDownError("Hash slot not served")
        return Endpoint(str(node.host), int(node.port))

    async def endpoints(self) -> list[Endpoint]:
        return [Endpoint(str(n.host), int(n.port)) for n in (await self._find()).get_primaries()]

    def invalidate(self) -> None:
        self._is_stale = True

    async def _find(self) -> RedisCluster:
        async with self._lookup:
            if self._map is None or self._is_stale:
                await self.close()
                self._map = await self._load_slot_map()
                self._is_stale = False
            return self._map

    async def _load_slot_map(self) -> RedisCluster:
        """Load the map of slots from a known node: one of the URL, or one found before."""
        nodes: list[Any] = [ClusterNode(host, port) for host, port in self._known]
        loaded = RedisCluster(
            startup_nodes=nodes,
            username=self._address.username,
            password=self._address.password,
            require_full_coverage=False,
            retry=Retry(NoBackoff(), 0),
            **_settings(self._address),
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


def _settings(address: Address) -> dict[str, Any]:
    """Return the connection settings for the library's own clients."""
    settings: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": address.timeout,
        "socket_connect_timeout": address.timeout,
    }
    if address.tls is not None:
        settings |= {"ssl": True, **address.tls}
    return settings
