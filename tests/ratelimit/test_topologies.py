"""Several servers: one takes over, or a client moves from one to the other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from hasten.errors import StoreError
from hasten.ratelimit._counter_store import Check, hash_client
from hasten.ratelimit._rates import Rate
from hasten.ratelimit._rules import make_rule
from tests.ratelimit.eventually import until
from tests.ratelimit.stores import Clock, WatchedStore, counter_store, prefix_of, url_of
from tests.servers.topologies import SentinelPair, shared_cluster


def check(limit: int, name: str = "api") -> Check:
    return Check(name, hash_client("ada"), make_rule(Rate(limit, 3600)))


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[SentinelPair]:
    pair = SentinelPair(tmp_path / "sentinels").start()
    yield pair
    pair.kill()


async def test_the_new_master_is_found_after_a_failover(sentinels: SentinelPair) -> None:
    clock = Clock()
    resilient = WatchedStore(counter_store(sentinels.url), clock=clock, store_timeout=1.0)
    for _ in range(5):
        [[outcome]] = await resilient.hit([[check(5)]])
        assert outcome.ok
    with sentinels.master.client() as client:
        assert client.wait(1, 5_000) == 1  # the replica has it, too
    failing = asyncio.ensure_future(asyncio.to_thread(sentinels.fail_over))
    while not failing.done():
        [[outcome]] = await resilient.hit([[check(10**6, "asking")]])
        assert outcome.ok
        await asyncio.sleep(0.01)
    await failing

    async def is_back() -> bool:
        clock.advance(1)
        await resilient.hit([[check(10**6, "asking")]])
        return not resilient.is_unavailable and resilient._calls > asked

    asked = resilient._calls
    await until(is_back)
    [[outcome]] = await resilient.hit([[check(5)]])
    assert not outcome.ok  # the new master has the counts of the old one
    await resilient.wait_for_unfinished_calls()


async def test_a_key_keeps_its_count_when_its_slot_moves_to_another_node(tmp_path: Path) -> None:
    cluster = shared_cluster()
    store = counter_store(url_of("redis-cluster", tmp_path))
    one = check(5)
    await store.hit([[one]])
    key = f"{prefix_of(tmp_path)}:api:{{{one.key.hex()}}}"
    slot = int(cluster.ask(cluster.nodes[0], "KEYSLOT", key))
    with cluster.moving(slot):
        await store.hit([[check(9, "elsewhere")._replace(key=hash_client("bob"))]])
    [[outcome]] = await store.hit([[one]])
    assert outcome.remaining == 3
    await store.aclose()


async def test_a_node_that_is_down_affects_only_its_own_clients(tmp_path: Path) -> None:
    from tests.servers.topologies import RedisCluster

    cluster = RedisCluster(tmp_path / "cluster").start()
    store = counter_store(cluster.url)
    checks = [check(5)._replace(key=hash_client(str(number))) for number in range(30)]
    await asyncio.gather(*(store.hit([[one]]) for one in checks))
    cluster.nodes[2].kill()
    answers = await asyncio.gather(*(store.hit([[one]]) for one in checks), return_exceptions=True)
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(answer, StoreError) for answer in failed)
    assert 0 < len(failed) < 30
    await store.aclose()
    cluster.kill()
