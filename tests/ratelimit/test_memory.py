"""The store in memory: its room, clocks and threads."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from hasten.errors import InvalidOption
from hasten.ratelimit._counter_store import Check, Settlement, hash_client
from hasten.ratelimit._rates import Rate
from hasten.ratelimit._rules import Algorithm, make_rule
from hasten.ratelimit._stores import memory
from hasten.ratelimit._stores.memory import MemoryStore
from tests.ratelimit.stores import SECOND, Clock


def check(name: str, limit: int = 5, algorithm: Algorithm | None = None) -> Check:
    return Check("api", hash_client(name), make_rule(Rate(limit, 60), algorithm))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def full_store(clock: Clock, max_keys: int, algorithm: Algorithm | None = None) -> MemoryStore:
    """Return a full store: each key has used up its limit."""
    store = MemoryStore(max_keys=max_keys, clock=clock)
    for number in range(max_keys):
        store.hit_one(check(f"hot {number}", 5, algorithm)._replace(cost=5))
    return store


class TestRoom:
    @pytest.mark.parametrize("algorithm", ["fixed", "sliding", "gcra"])
    def test_a_flood_of_new_keys_does_not_evict_denied_clients(
        self, clock: Clock, algorithm: Algorithm
    ) -> None:
        store = MemoryStore(max_keys=1_000, clock=clock)
        victim, near = check("victim", 5, algorithm), check("near", 5, algorithm)
        for _ in range(5):
            store.hit_one(victim)
        for _ in range(4):
            store.hit_one(near)
        store.block_now("api", hash_client("blocked"), 60 * SECOND)
        for number in range(5_000):
            assert store.hit_one(check(f"junk {number}", 5, algorithm)).ok
            assert len(store) <= 1_000
        assert not store.hit_one(victim).ok
        assert not store.hit_one(check("blocked", 5, algorithm)).ok
        assert store.hit_one(near).remaining == 0

    def test_a_store_keeps_100_000_keys_and_the_denied_ones_among_them(self, clock: Clock) -> None:
        store = MemoryStore(clock=clock)
        for _ in range(6):
            store.hit_one(check("victim"))
        rule = check("").rule
        for number in range(100_100):
            store.hit_one(Check("api", number.to_bytes(16, "big"), rule))
        assert len(store) == 100_000
        assert not store.hit_one(check("victim")).ok

    def test_expired_keys_are_evicted_first(self, clock: Clock) -> None:
        store = MemoryStore(max_keys=100, clock=clock)
        for number in range(100):
            store.hit_one(check(f"old {number}"))
        clock.advance(59)
        store.reset_now("api", hash_client("old 7"))
        store.hit_one(check("kept"))
        clock.advance(1)
        for number in range(99):
            store.hit_one(check(f"new {number}"))
        assert store.peek_now([check("kept")])[0].remaining == 4
        assert all(store.peek_now([check(f"new {n}")])[0].remaining == 4 for n in range(99))

    def test_expired_keys_are_deleted_while_there_is_room(self, clock: Clock) -> None:
        store = MemoryStore(clock=clock)
        for number in range(2_000):
            store.hit_one(check(f"old {number}"))
        clock.advance(60)
        for number in range(2_000):
            store.hit_one(check(f"new {number}"))
        assert len(store) < 2_500

    def test_new_keys_share_counts_if_all_others_are_hot(
        self, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = full_store(clock, max_keys=10)
        with caplog.at_level(logging.WARNING, "hasten.ratelimit"):
            passed = [store.hit_one(check(f"new {number}")).ok for number in range(8)]
        assert passed == [True] * 5 + [False] * 3
        [message] = caplog.messages
        assert message.startswith(
            "rate limit bucket api is full: none of its 10 keys can be evicted"
        )
        clock.advance(60)
        assert store.hit_one(check("new 9")).remaining == 4

    @pytest.mark.parametrize("algorithm", ["fixed", "sliding", "gcra"])
    def test_one_new_key_of_a_full_store_hardly_affects_others(
        self, clock: Clock, algorithm: Algorithm
    ) -> None:
        store = full_store(clock, max_keys=8_000, algorithm=algorithm)
        for _ in range(1_000):  # one entry of 1,000 is used up, how often ever it is tried
            store.hit_one(check("greedy", 5, algorithm))
        honest = [store.hit_one(check(f"honest {n}", 5, algorithm)).ok for n in range(500)]
        assert honest.count(False) <= 10

    def test_sharing_is_unpredictable(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        def sharing_with_first() -> set[int]:
            store = full_store(clock, max_keys=64)
            for _ in range(5):
                store.hit_one(check("first"))
            return {n for n in range(100) if not store.peek_now([check(f"new {n}")])[0].ok}

        before = sharing_with_first()
        monkeypatch.setattr(memory, "_SECRET", b"another")
        assert before != sharing_with_first()

    def test_shared_counts_expire_like_others(self, clock: Clock) -> None:
        store = full_store(clock, max_keys=800)
        for number in range(1_000):
            store.hit_one(check(f"new {number}"))
        assert 800 < len(store) <= 900
        clock.advance(60)
        for number in range(500):
            assert store.hit_one(check(f"later {number}")).remaining == 4
            assert len(store) <= 900

    def test_a_key_with_a_shared_count_can_be_reset(self, clock: Clock) -> None:
        store = full_store(clock, max_keys=10)
        for _ in range(6):
            store.hit_one(check("new"))
        assert not store.peek_now([check("new")])[0].ok
        store.reset_now("api", hash_client("new"))
        assert store.hit_one(check("new")).remaining == 4

    def test_a_key_with_a_shared_count_gets_a_refund(self, clock: Clock) -> None:
        store = full_store(clock, max_keys=10)
        outcome = store.hit_one(check("new")._replace(counted_later=True))
        assert outcome.reservation is not None
        store.settle_now([Settlement(outcome.reservation)])
        assert store.peek_now([check("new")])[0].remaining == 5

    def test_a_block_finds_room_in_a_full_store_and_blocks_nobody_else(self, clock: Clock) -> None:
        store = full_store(clock, max_keys=10)
        store.block_now("api", hash_client("blocked"), 600 * SECOND)
        assert not store.hit_one(check("blocked")).ok
        assert store.hit_one(check("new")).ok

    def test_a_denial_blocks_nobody_else(self, clock: Clock) -> None:
        store = full_store(clock, max_keys=10)
        for _ in range(6):
            store.hit_one(check("new")._replace(block_us=600 * SECOND))
        for _ in range(6):
            store.hit_now([[check("new")._replace(block_us=600 * SECOND)] * 2])
        clock.advance(60)
        assert store.hit_one(check("other")).ok

    def test_the_key_with_the_most_left_is_evicted(self, clock: Clock) -> None:
        store = MemoryStore(max_keys=4, clock=clock)
        for name, hits in (("a", 3), ("b", 1), ("c", 2), ("d", 3)):
            for _ in range(hits):
                store.hit_one(check(name))
        store.hit_one(check("e"))
        left = {n: store.peek_now([check(n)])[0].remaining for n in "abcde"}
        assert left == {"a": 2, "b": 5, "c": 3, "d": 2, "e": 4}

    @pytest.mark.parametrize("wrong", [0, -1, True, 1.5])
    def test_max_keys_is_at_least_one(self, wrong: int) -> None:
        with pytest.raises(InvalidOption, match=r"^max_keys="):
            MemoryStore(max_keys=wrong)


class TestClock:
    def test_a_wall_clock_set_back_changes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        store = MemoryStore()
        first = store.hit_one(check("ada"))
        monkeypatch.setattr(time, "time", lambda: 0.0)
        monkeypatch.setattr(time, "time_ns", lambda: 0)
        second = store.hit_one(check("ada"))
        assert (first.remaining, second.remaining) == (4, 3)
        assert 0 < second.reset_us <= first.reset_us


class TestThreads:
    def test_exact_from_many_threads(self) -> None:
        store = MemoryStore()
        passed = []

        def client() -> None:
            passed.append(sum(store.hit_one(check("ada", 1_000)).ok for _ in range(500)))

        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(passed) == 1_000
