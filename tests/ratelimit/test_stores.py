"""The contract of a store, for every store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hasten.ratelimit._counter_store import (
    Check,
    CounterStore,
    Outcome,
    Reservation,
    Settlement,
    hash_client,
)
from hasten.ratelimit._rates import Rate
from hasten.ratelimit._rules import (
    Algorithm,
    Rule,
    make_bucket_name,
    make_concurrency_rule,
    make_rule,
)
from tests.patience import DEADLINE_SECONDS
from tests.ratelimit.stores import SECOND, Clock, open_for_test

ADA, BOB = hash_client("ada"), hash_client("bob")

ALGORITHMS: tuple[Algorithm, ...] = ("fixed", "sliding", "gcra")


@pytest.fixture(params=ALGORITHMS)
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    return request.param  # type: ignore[no-any-return]


def check(
    limit: int = 5,
    per: float = 60,
    algorithm: Algorithm | None = None,
    *,
    key: bytes = ADA,
    cost: int = 1,
    later: bool = False,
    name: str = "api",
    block_us: int = 0,
) -> Check:
    rule = make_rule(Rate(limit, per), algorithm)
    return Check(make_bucket_name(name, rule), key, rule, cost, later, block_us)


async def hit(store: CounterStore, check: Check) -> Outcome:
    [[outcome]] = await store.hit([[check]])
    return outcome


async def reserve(store: CounterStore, check: Check) -> Reservation:
    reservation = (await hit(store, check._replace(counted_later=True))).reservation
    assert reservation is not None
    return reservation


async def settle(store: CounterStore, reservation: Reservation, keep: int = 0) -> None:
    await store.settle([Settlement(reservation, keep)])


async def peek(store: CounterStore, check: Check) -> Outcome:
    [outcome] = await store.peek([check])
    return outcome


class TestCancelling:
    """A caller may be cancelled before the response arrives, or before it reads it."""

    @pytest.mark.parametrize("turns", range(12))
    async def test_a_cancelled_hit_is_refunded(self, store: CounterStore, turns: int) -> None:
        rule = make_concurrency_rule(1, 60)
        place = Check(make_bucket_name("places", rule), ADA, rule, 1, counted_later=True)
        asking = asyncio.create_task(hit(store, place))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        try:
            reservation = (await asking).reservation
        except asyncio.CancelledError:
            pass
        else:
            assert reservation is not None
            await settle(store, reservation)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not (await hit(store, place)).ok:  # the refund may be on its way
                await asyncio.sleep(0.001)


class TestHit:
    async def test_as_many_hits_pass_as_the_limit_allows(self, store: CounterStore) -> None:
        outcomes = [await hit(store, check(3)) for _ in range(4)]
        assert [(o.ok, o.remaining) for o in outcomes] == [
            (True, 2), (True, 1), (True, 0), (False, 0),
        ]  # fmt: skip
        assert outcomes[0] == Outcome(True, 3, 2, 60 * SECOND)
        assert outcomes[3] == Outcome(False, 3, 0, 60 * SECOND, 60 * SECOND, certain=True)

    async def test_the_first_hit_begins_the_window(self, store: CounterStore, clock: Clock) -> None:
        await hit(store, check(2))
        clock.advance(59)
        assert (await hit(store, check(2))).reset_us == SECOND
        clock.advance(0.999_999)
        assert not (await hit(store, check(2))).ok
        clock.advance(0.000_001)
        assert await hit(store, check(2)) == Outcome(True, 2, 1, 60 * SECOND)

    async def test_denials_do_not_count_or_prolong(self, store: CounterStore, clock: Clock) -> None:
        await hit(store, check(1))
        for _ in range(50):
            clock.advance(1)
            assert not (await hit(store, check(1))).ok
        clock.advance(10)
        assert (await hit(store, check(1))).ok

    async def test_a_zero_limit_denies_all(self, store: CounterStore, algorithm: Algorithm) -> None:
        assert await hit(store, check(0, 60, algorithm)) == Outcome(
            False, 0, 0, 60 * SECOND, 60 * SECOND, certain=True
        )

    async def test_clients_and_buckets_are_counted_separately(self, store: CounterStore) -> None:
        assert (await hit(store, check(1))).ok
        assert (await hit(store, check(1, key=BOB))).ok
        assert (await hit(store, check(1, name="other"))).ok
        assert (await hit(store, check(2))).ok
        assert not (await hit(store, check(1))).ok

    async def test_any_text_can_name_a_bucket(self, store: CounterStore) -> None:
        names = [
            "a",
            "a:b",
            "a{b",
            "a%7Bb",
            "a}b",
            "{a}",
            "a/b",
            "a\nb",
            "ä",
            "\ud800",
            "x" * 10_000,
        ]
        for name in names:
            assert (await hit(store, check(1, name=name))).ok
        for name in names:
            assert not (await hit(store, check(1, name=name))).ok

    async def test_a_denial_takes_nothing(self, store: CounterStore, algorithm: Algorithm) -> None:
        await hit(store, check(8, 60, algorithm, cost=5))
        for cost in (5, 9):
            outcome = await hit(store, check(8, 60, algorithm, cost=cost))
            assert outcome[:3] == (False, 8, 3)
        assert (await hit(store, check(8, 60, algorithm, cost=3)))[:3] == (True, 8, 0)
        assert (await hit(store, check(8, 60, algorithm, cost=0)))[:3] == (True, 8, 0)

    async def test_a_hit_without_groups_returns_nothing(self, store: CounterStore) -> None:
        assert await store.hit([]) == []
        assert await store.peek([]) == []
        await store.settle([])

    async def test_counts_beyond_32_bits_are_kept(self, store: CounterStore) -> None:
        most = check(2**31 - 1)
        for _ in range(3):
            await hit(store, most._replace(cost=2**31 - 1, forced=True))
        assert (await peek(store, most._replace(cost=0)))[:3] == (False, 2**31 - 1, 0)


class TestGroups:
    async def test_rates_take_all_or_nothing(self, store: CounterStore, clock: Clock) -> None:
        quick, slow = check(2, 1), check(3, 60)
        for _ in range(2):
            [outcomes] = await store.hit([[quick, slow]])
            assert [o.ok for o in outcomes] == [True, True]
        [outcomes] = await store.hit([[quick, slow]])
        assert [(o.ok, o.remaining) for o in outcomes] == [(False, 0), (True, 1)]
        clock.advance(1)
        [outcomes] = await store.hit([[quick, slow]])
        assert [o.remaining for o in outcomes] == [1, 0]
        [outcomes] = await store.hit([[quick, slow]])
        assert [(o.ok, o.remaining) for o in outcomes] == [(True, 1), (False, 0)]

    @pytest.mark.parametrize("other", [ADA, BOB])
    async def test_the_first_denied_group_ends_it(self, store: CounterStore, other: bytes) -> None:
        """Earlier groups stay taken, later groups are not touched."""
        general, login = check(3, name="general"), check(1, name="login", key=other)
        last = check(9, name="last")
        groups = [[general], [login], [last]]
        assert len(await store.hit(groups)) == 3
        answer = await store.hit(groups)
        assert [o.ok for [o] in answer] == [True, False]
        await store.hit([[general]])
        assert [o.ok for [o] in await store.hit(groups)] == [False]
        assert [o.remaining for o in await store.peek([general, login, last])] == [0, 0, 8]

    async def test_the_same_key_in_two_groups_counts_twice(self, store: CounterStore) -> None:
        answer = await store.hit([[check(3)], [check(3)], [check(3)], [check(3)]])
        assert [o.remaining for [o] in answer] == [2, 1, 0, 0]

    async def test_a_shadow_check_denies_and_takes_nothing(self, store: CounterStore) -> None:
        shadow, real = check(1, name="shadow")._replace(shadow=True), check(5)
        for left in (4, 3, 2):
            [[watched], [outcome]] = await store.hit([[shadow], [real]])
            assert (watched.ok, outcome.remaining) == (left == 4, left)
        assert (await peek(store, shadow))[:3] == (False, 1, 0)

    async def test_a_forced_check_denies_nothing(self, store: CounterStore) -> None:
        forced = check(1, cost=3)._replace(forced=True)
        [[first], [second]] = await store.hit([[forced], [check(5, name="next")]])
        assert (first.ok, second.ok) == (False, True)
        assert (await peek(store, check(1, cost=0)))[:3] == (False, 1, 0)


class TestSettle:
    async def test_caps_parallel_failures(self, store: CounterStore, algorithm: Algorithm) -> None:
        login = check(5, 3600, algorithm, later=True)
        outcomes = await asyncio.gather(*(hit(store, login) for _ in range(30)))
        assert sum(o.ok for o in outcomes) == 5
        for outcome in outcomes:
            if outcome.reservation is not None:
                await settle(store, outcome.reservation, keep=1)
        assert not (await hit(store, login)).ok

    async def test_parallel_successes_leave_nothing_counted(
        self, store: CounterStore, algorithm: Algorithm, clock: Clock
    ) -> None:
        login = check(5, 3600, algorithm, later=True)
        outcomes = await asyncio.gather(*(hit(store, login) for _ in range(30)))
        clock.advance(0.3)
        await store.settle(
            [Settlement(o.reservation) for o in outcomes if o.reservation is not None]
        )
        assert (await peek(store, login))[:3] == (True, 5, 5)

    async def test_reservations_block_others_only_until_they_are_settled(
        self, store: CounterStore, algorithm: Algorithm
    ) -> None:
        login = check(2, 3600, algorithm, later=True)
        tokens = [await reserve(store, login) for _ in range(2)]
        assert await hit(store, login) == Outcome(False, 2, 0, SECOND, SECOND, certain=False)
        await settle(store, tokens[0], keep=1)
        await settle(store, tokens[1])
        assert (await hit(store, login)).ok

    @pytest.mark.parametrize("is_reset", [False, True])
    async def test_a_late_refund_changes_nothing(
        self, store: CounterStore, algorithm: Algorithm, clock: Clock, is_reset: bool
    ) -> None:
        """After its window, and after a reset."""
        login = check(200, 60, algorithm)
        reservation = await reserve(store, login)
        if is_reset:
            await store.reset(login.bucket, login.key)
            clock.advance(0.1)
        else:
            clock.advance(60)
            await settle(store, reservation)
            assert (await peek(store, login))[:4] == (True, 200, 200, 0)
        await hit(store, login)
        await settle(store, reservation)
        await settle(store, reservation)
        assert (await peek(store, login)).remaining == 199

    async def test_next_hit_sees_a_refund(self, store: CounterStore, algorithm: Algorithm) -> None:
        """The caller does not await it, and the next hit sees the result."""
        login = check(1, 60, algorithm)
        for _ in range(20):
            reservation = await reserve(store, login)
            settling = asyncio.ensure_future(settle(store, reservation))
            await asyncio.sleep(0)  # it has been called
            assert (await hit(store, login._replace(cost=1, counted_later=False))).ok
            await settling
            await store.reset(login.bucket, login.key)

    async def test_counts_surcharges_fully(self, store: CounterStore, algorithm: Algorithm) -> None:
        llm = check(10, 60, algorithm)
        await settle(store, await reserve(store, llm), keep=7)
        assert (await peek(store, llm)).remaining == 3
        await settle(store, await reserve(store, llm), keep=7)
        assert (await peek(store, llm))[:3] == (False, 10, 0)

    async def test_tokens_may_be_settled_by_another_user(
        self, kind: str, tmp_path: Path, clock: Clock, store: CounterStore
    ) -> None:
        if kind == "memory":
            return
        reservation = await reserve(store, check())
        async with open_for_test(kind, tmp_path, clock) as other:
            await settle(other, reservation)
            assert (await peek(other, check())).remaining == 5


class TestConcurrency:
    def slots(self, count: int, key: bytes = ADA) -> Check:
        rule: Rule = make_concurrency_rule(count, 60)
        return Check(make_bucket_name("slots", rule), key, rule)

    async def test_slots_are_taken_and_released(self, store: CounterStore) -> None:
        slots = self.slots(2)
        reservation = (await hit(store, slots)).reservation  # concurrency limits always reserve
        assert reservation is not None
        assert (await hit(store, slots)).ok
        assert await hit(store, slots) == Outcome(False, 2, 0, SECOND, SECOND, certain=False)
        await settle(store, reservation, keep=1)
        assert (await hit(store, slots)).ok
        assert not (await hit(store, slots)).ok

    async def test_an_unreleased_slot_expires(self, store: CounterStore, clock: Clock) -> None:
        reservation = await reserve(store, self.slots(1))
        clock.advance(60)
        fresh = await reserve(store, self.slots(1))
        await settle(store, reservation)
        assert not (await hit(store, self.slots(1))).ok
        await settle(store, fresh)
        assert (await hit(store, self.slots(1))).ok


class TestAdministration:
    async def test_peek_takes_nothing(self, store: CounterStore, algorithm: Algorithm) -> None:
        for _ in range(3):
            assert await peek(store, check(1, 60, algorithm)) == Outcome(True, 1, 1, 0)
        await hit(store, check(1, 60, algorithm))
        for _ in range(3):
            assert not (await peek(store, check(1, 60, algorithm))).ok

    async def test_peek_returns_outcomes_in_order(self, store: CounterStore) -> None:
        await hit(store, check(3, key=BOB))
        outcomes = await store.peek([check(3), check(3, key=BOB), check(7)])
        assert [o.remaining for o in outcomes] == [3, 2, 7]

    async def test_a_reset_removes_counts_and_blocks(self, store: CounterStore) -> None:
        one = check(1)
        await hit(store, one)
        await store.block(one.bucket, one.key, 60 * SECOND)
        await store.reset(one.bucket, one.key)
        assert (await hit(store, one)).ok
        await store.reset("never heard of", ADA)

    async def test_a_block_denies_and_ends(self, store: CounterStore, clock: Clock) -> None:
        one = check(5)
        await hit(store, one)
        await store.block(one.bucket, one.key, 10 * SECOND)
        assert await hit(store, one) == Outcome(False, 5, 0, 10 * SECOND, 10 * SECOND, certain=True)
        clock.advance(10)
        assert (await hit(store, one)).remaining == 3
        await store.block(one.bucket, one.key, 100 * SECOND)
        clock.advance(61)
        assert not (await hit(store, one)).ok
        await store.block(one.bucket, one.key, 0)
        assert (await hit(store, one)).remaining == 4

    async def test_a_new_key_can_be_blocked(self, store: CounterStore, clock: Clock) -> None:
        one = check(5)
        await store.block(one.bucket, one.key, 0)
        await store.block(one.bucket, one.key, 10 * SECOND)
        assert not (await hit(store, one)).ok
        clock.advance(10)
        assert (await hit(store, one)).ok

    async def test_exceeding_limits_blocks_longer(self, store: CounterStore, clock: Clock) -> None:
        one = check(1, block_us=600 * SECOND)
        await hit(store, one)
        assert (await hit(store, one)).retry_us == 600 * SECOND
        clock.advance(599)
        assert (await hit(store, one)).retry_us == SECOND
        clock.advance(1)
        assert (await hit(store, one)).ok

    async def test_it_can_be_closed_twice(self, store: CounterStore) -> None:
        await hit(store, check())
        await store.aclose()
        await store.aclose()
