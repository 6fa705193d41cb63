"""What is particular to counts in memory: room, clocks, threads."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from hasten.errors import InvalidOption
from hasten.ratelimit.rates import Rate
from hasten.ratelimit.rules import Algorithm, rule_of
from hasten.ratelimit.store import Check, digest
from hasten.ratelimit.stores.memory import MemoryStore
from tests.ratelimit.stores import SECOND, Clock


def check(name: str, limit: int = 5, algorithm: Algorithm | None = None) -> Check:
    return Check("api", digest(name), rule_of(Rate(limit, 60), algorithm))


@pytest.fixture
def clock() -> Clock:
    return Clock()


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
        store.block_now("api", digest("blocked"), 60 * SECOND)
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

    def test_what_is_over_makes_room_first(self, clock: Clock) -> None:
        store = MemoryStore(max_keys=100, clock=clock)
        for number in range(100):
            store.hit_one(check(f"old {number}"))
        clock.advance(59)
        store.reset_now("api", digest("old 7"))
        store.hit_one(check("kept"))
        clock.advance(1)
        for number in range(99):
            store.hit_one(check(f"new {number}"))
        assert store.peek_now([check("kept")])[0].remaining == 4
        assert all(store.peek_now([check(f"new {n}")])[0].remaining == 4 for n in range(99))

    def test_what_is_over_goes_while_there_is_room(self, clock: Clock) -> None:
        store = MemoryStore(clock=clock)
        for number in range(2_000):
            store.hit_one(check(f"old {number}"))
        clock.advance(60)
        for number in range(2_000):
            store.hit_one(check(f"new {number}"))
        assert len(store) < 2_500

    def test_where_all_are_hot_new_ones_share_a_count(
        self, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = MemoryStore(max_keys=10, clock=clock)
        for number in range(10):
            for _ in range(5):
                store.hit_one(check(f"hot {number}"))
        with caplog.at_level(logging.WARNING, "hasten.ratelimit"):
            passed = [store.hit_one(check(f"new {number}")).ok for number in range(8)]
        assert passed == [True] * 5 + [False] * 3
        assert caplog.messages == [
            "api: each of its 10 keys has nearly used up its limit: new clients share one count"
        ]
        clock.advance(60)
        assert store.hit_one(check("new 9")).remaining == 4

    def test_the_one_with_the_most_left_goes(self, clock: Clock) -> None:
        store = MemoryStore(max_keys=4, clock=clock)
        for name, hits in (("a", 3), ("b", 1), ("c", 2), ("d", 3)):
            for _ in range(hits):
                store.hit_one(check(name))
        store.hit_one(check("e"))
        left = {n: store.peek_now([check(n)])[0].remaining for n in "abcde"}
        assert left == {"a": 2, "b": 5, "c": 3, "d": 2, "e": 4}

    @pytest.mark.parametrize("wrong", [0, -1, True, 1.5])
    def test_it_has_room_for_one_at_least(self, wrong: int) -> None:
        with pytest.raises(InvalidOption, match=r"^max_keys="):
            MemoryStore(max_keys=wrong)


class TestClock:
    def test_a_wall_clock_that_is_set_back_changes_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
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
