"""The store on Redis: commands, keys, restarts, concurrency and clocks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.errors import InvalidOption, StoreError
from hasten.ratelimit._counter_store import Check, Settlement, hash_client
from hasten.ratelimit._rates import Rate
from hasten.ratelimit._rules import RUNS, make_bucket_name, make_concurrency_rule, make_rule
from hasten.ratelimit._stores.redis import RedisStore
from tests.effort import effort
from tests.ratelimit.stores import (
    PATIENT,
    SECOND,
    client_of,
    counter_store,
    open_for_test,
    prefix_of,
)
from tests.servers.redis import RedisServer

POLICIES = [
    make_rule(Rate(1000, 900)), make_rule(Rate(500, 60), "sliding"), make_rule(Rate(50, 1), "gcra"),
]  # fmt: skip


def groups(name: str = "ada") -> list[list[Check]]:
    return [[Check(make_bucket_name("p", rule), hash_client(name), rule)] for rule in POLICIES]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.kill()


@pytest.fixture
async def own(server: RedisServer) -> AsyncIterator[RedisStore]:
    """Yield a store on a server of this test."""
    store = counter_store(f"{server.url}?{PATIENT}")
    assert isinstance(store, RedisStore)
    yield store
    await store.aclose()


def commands(server: RedisServer) -> int:
    """Return how many scripts the server has run."""
    with server.client() as client:
        stats: dict[str, Any] = client.info("commandstats")
    return sum(
        int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval")
    )


EXPIRED: Final = -2
"""The response of Redis to PTTL for a key that expired after it was listed."""


class TestCommands:
    async def test_a_request_takes_one_command(self, server: RedisServer, own: RedisStore) -> None:
        await own.hit(groups())
        before = commands(server)
        for _ in range(10):
            assert len(await own.hit(groups())) == 3
        assert commands(server) - before == 10

    async def test_50_requests_take_one_command(self, server: RedisServer, own: RedisStore) -> None:
        await own.hit(groups())
        before = commands(server)
        answers = await asyncio.gather(*(own.hit(groups(f"c{n}")) for n in range(120)))
        assert all(len(answer) == 3 for answer in answers)
        assert commands(server) - before == 3

    @pytest.mark.parametrize("command", ["flush", "restart"])
    async def test_a_server_that_lost_the_script_gets_it_again(
        self, server: RedisServer, own: RedisStore, command: str
    ) -> None:
        await own.hit(groups())
        if command == "flush":
            with server.client() as client:
                client.script_flush()
        else:
            server.restart()
        for _ in range(3):
            try:
                assert len(await own.hit(groups())) == 3
            except StoreError:  # the old connection is broken, and the next one is new
                assert command == "restart"
        assert len(await own.hit(groups())) == 3

    async def test_concurrent_responses_reach_their_callers(self, own: RedisStore) -> None:
        """The next call is sent before the response to the previous one arrives."""
        rule = make_rule(Rate(10_000, 900))

        async def client(number: int) -> None:
            check = Check(
                make_bucket_name("p", rule), hash_client(str(number)), rule, cost=number + 1
            )
            for turn in range(1, 20):
                [[outcome]] = await own.hit([[check]])
                assert outcome.remaining == 10_000 - turn * (number + 1)
                for _ in range(number % 5):
                    await asyncio.sleep(0)

        await asyncio.gather(*(client(number) for number in range(50)))

    async def test_a_cancelled_call_does_not_affect_others(self, own: RedisStore) -> None:
        await own.hit(groups())
        tasks = [asyncio.ensure_future(own.hit(groups(f"c{n % 10}"))) for n in range(100)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
        assert all(isinstance(answer, list) and len(answer) == 3 for answer in answers[1::2])


class TestKeys:
    @pytest.mark.parametrize("kind", ["redis", "redis-cluster"])
    def test_every_key_expires(self, kind: str, tmp_path: Path) -> None:
        """After every operation."""
        rules = [
            make_rule(Rate(3, 2)), make_rule(Rate(300, 2), "sliding"),
            make_rule(Rate(3, 2), "sliding"), make_rule(Rate(3, 2), "gcra"),
            make_rule(Rate(3, 2, burst=6)), make_concurrency_rule(2, 2),
        ]  # fmt: skip
        checks = st.builds(
            lambda rule, cost, later, block_us: Check(
                rule.id, hash_client("ada"), rule, cost, later, block_us
            ),
            st.sampled_from(rules), st.integers(0, 3), st.booleans(),
            st.sampled_from([0, 3 * SECOND]),
        )  # fmt: skip
        steps = st.lists(st.tuples(checks, st.sampled_from("hit hit refund keep block".split())))
        client = client_of(kind)

        async def walk(store: Any, steps: list[tuple[Check, str]]) -> None:
            for check, verb in steps:
                if verb == "block":
                    await store.block(check.bucket, check.key, SECOND)
                    continue
                [[outcome]] = await store.hit([[check]])
                if outcome.reservation is not None and verb != "hit":
                    more = 1 if check.rule.kind == "gcra" else 9
                    await store.settle([Settlement(outcome.reservation, more * (verb == "keep"))])
            for key in client.scan_iter(f"{prefix_of(tmp_path)}:*", count=1000):
                left_ms = client.pttl(key)
                assert left_ms == EXPIRED or 0 <= left_ms <= 2 * 2000 + 1

        with asyncio.Runner() as runner:
            opening = open_for_test(kind, tmp_path)
            store = runner.run(opening.__aenter__())

            @given(steps)
            @effort(30)
            def fuzz(steps: list[tuple[Check, str]]) -> None:
                runner.run(walk(store, steps))

            fuzz()
            runner.run(opening.__aexit__(None, None, None))
        client.close()

    async def test_a_refund_creates_no_key(self, server: RedisServer, own: RedisStore) -> None:
        for rule in (*POLICIES, make_concurrency_rule(2, 60)):
            check = Check(rule.id, hash_client("ada"), rule, counted_later=True)
            [[outcome]] = await own.hit([[check]])
            assert outcome.reservation is not None
            with server.client() as client:
                client.flushall()
                await own.settle([Settlement(outcome.reservation)])
                assert client.dbsize() == 0

    async def test_keys_are_short_and_anonymous(self, server: RedisServer, own: RedisStore) -> None:
        rule = POLICIES[0]
        for text in ("ada@example.org", "x" * 1_000_000, "a:b{c}\n"):
            await own.hit([[Check("api", hash_client(text), rule)]])
        with server.client() as client:
            keys = client.keys("*")
        assert {len(key) for key in keys} == {len("hasten:limit:api:{}") + 32}
        assert not any(b"ada" in key for key in keys)

    async def test_the_size_of_a_key_is_small(self, server: RedisServer, own: RedisStore) -> None:
        """A full window of a hundred hits takes at most 3 KiB."""
        rule = make_rule(Rate(100, 900), "sliding")
        for _ in range(100):
            await own.hit([[Check("api", hash_client("ada"), rule)]])
        fixed = POLICIES[0]
        await own.hit([[Check("fixed", hash_client("ada"), fixed)]])
        with server.client() as client:
            [runs] = client.keys("*api*")
            [window] = client.keys("*fixed*")
            assert client.memory_usage(runs) <= 3_072
            assert client.memory_usage(window) <= 160

    async def test_policies_on_different_nodes_keep_their_order(self, tmp_path: Path) -> None:
        """Limits with different keys are on different nodes and keep their order."""
        async with open_for_test("redis-cluster", tmp_path) as store:
            one = make_rule(Rate(1, 900))
            for number in range(30):
                ip, user = hash_client(f"ip {number}"), hash_client(f"user {number}")
                asked = [
                    [Check("general", ip, POLICIES[0])], [Check("strict", ip, one)],
                    [Check("login", user, one)], [Check("last", ip, POLICIES[0])],
                ]  # fmt: skip
                assert [o.ok for [o] in await store.hit(asked)] == [True] * 4
                assert [o.ok for [o] in await store.hit(asked)] == [True, False]
                asked[1] = asked[0]
                assert [o.ok for [o] in await store.hit(asked)] == [True, True, False]


class TestRaces:
    async def test_hundreds_at_once_in_one_process(self, own: RedisStore) -> None:
        rule = make_rule(Rate(100, 900))
        check = Check("race", hash_client("ada"), rule)
        answers = await asyncio.gather(*(own.hit([[check]]) for _ in range(500)))
        assert sum(outcome.ok for [[outcome]] in answers) == 100


class TestClocks:
    async def test_the_clock_of_the_server_decides(
        self, server: RedisServer, own: RedisStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The clock of this process is irrelevant."""
        import time

        check = Check("any", hash_client("ada"), make_rule(Rate(2, 3600)))
        [[first]] = await own.hit([[check]])
        monkeypatch.setattr(time, "time", lambda: 30.0)
        monkeypatch.setattr(time, "time_ns", lambda: 30 * 10**9)
        other = counter_store(server.url)
        [[second]] = await other.hit([[check]])
        assert (first.remaining, second.remaining) == (1, 0)
        assert 3590 * SECOND < second.reset_us <= 3600 * SECOND
        [[third]] = await own.hit([[check]])
        assert not third.ok
        await other.aclose()


class TestOptions:
    def test_urls(self) -> None:
        assert isinstance(counter_store("redis://localhost"), RedisStore)
        for wrong in ("http://localhost", "redis://localhost?nonsense=1", "memory://there", ""):
            with pytest.raises(InvalidOption):
                counter_store(wrong)

    def test_the_number_of_runs_is_bounded(self) -> None:
        assert RUNS == 128
