from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.interop.peer import Peer
from tests.interop.shared_queue import SharedQueue
from tests.servers.redis import RedisServer, shared_redis


@pytest.fixture(scope="session")
def server() -> RedisServer:
    return shared_redis()


@pytest.fixture(scope="session")
def lasting_peer(server: RedisServer) -> Iterator[Peer]:
    peer = Peer(server.port)
    yield peer
    peer.kill()


@pytest.fixture
async def peer(lasting_peer: Peer) -> AsyncIterator[Peer]:
    """The Node process that all tests share. Objects of a test are closed after it."""
    yield lasting_peer
    await lasting_peer.ask("reset")


@pytest.fixture
def mortal_peer(server: RedisServer) -> Iterator[Peer]:
    """A Node process for one test, which kills it."""
    peer = Peer(server.port)
    yield peer
    peer.kill()


@pytest.fixture
async def shared(server: RedisServer, peer: Peer) -> AsyncIterator[SharedQueue]:
    with server.client(decode_responses=True) as client:
        shared = SharedQueue(server, peer, client)
        await shared.open()
        yield shared
        await shared.close()
