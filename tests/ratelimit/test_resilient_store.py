"""Requests get decisions while the store is down, hangs or times out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.errors import StoreUnavailable
from hasten.ratelimit._circuit_breaker import FAILURES
from hasten.ratelimit._counter_store import (
    Check,
    CheckGroup,
    OnStoreError,
    Outcome,
    Reservation,
    Settlement,
    hash_client,
)
from hasten.ratelimit._rates import Rate
from hasten.ratelimit._rules import make_rule
from hasten.ratelimit._stores.memory import MemoryStore
from tests.effort import effort
from tests.ratelimit.eventually import until
from tests.ratelimit.stores import SECOND, Clock, Oracle, WatchedStore, counter_store
from tests.ratelimit.test_redis import commands
from tests.servers.redis import RedisServer

T = TypeVar("T")

ADA = hash_client("ada")


def check(
    limit: int = 3, *, on_error: OnStoreError = "local", later: bool = False, name: str = "api"
) -> Check:
    return Check(name, ADA, make_rule(Rate(limit, 3600)), counted_later=later, on_error=on_error)


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that does not wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise AssertionError("it waits")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.kill()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def resilient(server: RedisServer, clock: Clock) -> AsyncIterator[WatchedStore]:
    """Yield a resilient store on a server of its own. Its time-out is real time."""
    resilient = WatchedStore(counter_store(server.url), clock=clock, store_timeout=0.25)
    yield resilient
    await resilient.wait_for_unfinished_calls()


async def hit(resilient: WatchedStore, *checks: Check) -> list[Outcome]:
    return [outcome for [outcome] in await resilient.hit([[check] for check in checks])]


async def until_unavailable(resilient: WatchedStore) -> None:
    """Hit until the store is not called any more."""

    async def is_unavailable() -> bool:
        await hit(resilient, check(10**6, name="asking"))
        return resilient.is_unavailable

    await until(is_unavailable)


async def until_back(resilient: WatchedStore, clock: Clock) -> None:
    async def is_back() -> bool:
        clock.advance(1)  # it is time for a probe
        await hit(resilient, check(10**6, name="asking"))
        return not resilient.is_unavailable

    await until(is_back)


class TestOutage:
    async def test_limits_hold_locally(self, resilient: WatchedStore, server: RedisServer) -> None:
        server.kill()
        await until_unavailable(resilient)
        outcomes = [(await hit(resilient, check(3)))[0] for _ in range(5)]
        assert [o.ok for o in outcomes] == [True, True, True, False, False]
        assert not any(o.unavailable for o in outcomes)

    async def test_each_process_allows_its_share(self, server: RedisServer, clock: Clock) -> None:
        resilient = WatchedStore(
            counter_store(server.url), clock=clock, processes=4, store_timeout=1
        )
        server.kill()
        await until_unavailable(resilient)
        assert [(await hit(resilient, check(10)))[0].ok for _ in range(4)] == [True] * 3 + [False]
        assert (await resilient.peek([check(10)]))[0].limit == 3
        await resilient.wait_for_unfinished_calls()

    async def test_allow_and_deny_apply(self, resilient: WatchedStore, server: RedisServer) -> None:
        server.kill()
        await until_unavailable(resilient)
        for _ in range(5):
            [allowed] = await hit(resilient, check(3, on_error="allow"))
            assert (allowed.ok, allowed.unavailable, allowed.remaining) == (True, True, 3)
        [denied] = await hit(resilient, check(3, on_error="deny"), check(3, name="behind it"))
        assert (denied.ok, denied.unavailable, denied.certain) == (False, True, False)
        assert denied.retry_us == SECOND
        [first, second] = await hit(resilient, check(3), check(3, on_error="deny"))
        assert (first.ok, second.ok) == (True, False)

    async def test_requests_that_notice_the_outage_are_counted_locally(
        self, resilient: WatchedStore, server: RedisServer
    ) -> None:
        await hit(resilient, check(3))
        server.kill()
        answers = await asyncio.gather(*(hit(resilient, check(3)) for _ in range(10)))
        assert sum(outcome.ok for [outcome] in answers) == 3
        assert resilient.hits_without_store == 10

    async def test_a_hanging_store_delays_only_one_request(
        self, resilient: WatchedStore, server: RedisServer, clock: Clock
    ) -> None:
        await hit(resilient, check(1000))
        server.pause()
        for _ in range(FAILURES):
            assert not resilient.is_unavailable
            await hit(resilient, check(1000))
        assert resilient.is_unavailable
        assert resilient.errors == FAILURES
        for _ in range(100):
            assert at_once(resilient.hit([[check(1000)]]))[0][0].ok
        clock.advance(1)
        for _ in range(100):  # nobody waits for the probe, either
            assert at_once(resilient.hit([[check(1000)]]))[0][0].ok
        server.go_on()
        await until_back(resilient, clock)

    async def test_a_late_answer_ends_the_outage(
        self, resilient: WatchedStore, server: RedisServer, clock: Clock
    ) -> None:
        """A late response shows that the store is available. No probe is due."""
        await hit(resilient, check(9))
        server.pause()
        for _ in range(FAILURES):
            await hit(resilient, check(9))
        assert resilient.is_unavailable
        server.go_on()

        async def is_back() -> bool:
            return not resilient.is_unavailable

        await until(is_back)
        # What came late is charged: nobody knows which of the two answers the client had. On a busy
        # machine some requests miss their time before they are sent.
        assert 7 - FAILURES <= (await hit(resilient, check(9)))[0].remaining < 7

    async def test_a_reservation_of_a_late_answer_is_refunded(
        self, resilient: WatchedStore, server: RedisServer
    ) -> None:
        await hit(resilient, check(5))
        server.pause()
        await hit(resilient, check(5, later=True))
        server.go_on()

        async def is_given_back() -> bool:
            return (
                not resilient.is_unavailable
                and (await resilient.peek([check(5)]))[0].remaining == 4
            )

        await until(is_given_back)

    async def test_a_busy_event_loop_is_not_a_store_error(self, resilient: WatchedStore) -> None:
        await hit(resilient, check(5))
        asking = asyncio.ensure_future(hit(resilient, check(5)))
        for _ in range(5):
            await asyncio.sleep(0)  # it has been sent
        until_s = time.monotonic() + 0.5
        while time.monotonic() < until_s:
            """Keep the event loop busy for longer than the time-out."""
        assert (await asking)[0].remaining == 3
        assert resilient.errors == 0

    async def test_a_process_can_start_before_its_store(self, tmp_path: Path, clock: Clock) -> None:
        server = RedisServer(tmp_path / "later")
        resilient = WatchedStore(counter_store(server.url), clock=clock, store_timeout=1)
        for _ in range(5):
            await hit(resilient, check(2))
        assert resilient.is_unavailable
        server.start()
        await until_back(resilient, clock)
        # Local counts are dropped.
        assert [(await hit(resilient, check(2)))[0].ok for _ in range(3)] == [True, True, False]
        before = commands(server)
        await hit(resilient, check(9, name="next"))
        assert commands(server) == before + 1
        await resilient.wait_for_unfinished_calls()
        server.kill()

    async def test_reservations_that_end_during_an_outage_are_settled_after_it(
        self, resilient: WatchedStore, server: RedisServer, clock: Clock
    ) -> None:
        [outcome] = await hit(resilient, check(3, later=True))
        assert outcome.reservation is not None
        server.pause()
        await until_unavailable(resilient)
        resilient.settle_in_background([Settlement(outcome.reservation)])
        [local] = await hit(resilient, check(3, later=True))
        server.go_on()
        await until_back(resilient, clock)
        assert local.reservation is not None
        resilient.settle_in_background(
            [Settlement(local.reservation)]
        )  # this one was counted locally

        async def is_settled() -> bool:
            return (await resilient.peek([check(3)]))[0].remaining == 3

        await until(is_settled)

    async def test_a_store_without_a_timeout_of_its_own_gets_one(self, clock: Clock) -> None:
        class Slow(MemoryStore):
            hit_one = None  # type: ignore[assignment]  # so it does not answer at once

            async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
                await asyncio.get_running_loop().create_future()
                raise AssertionError

        class Hanging:
            def __init__(self) -> None:
                self.hit = Slow().hit

        slow: Any = Hanging()
        resilient = WatchedStore(slow, store_timeout=0.01, clock=clock)
        for _ in range(FAILURES):
            assert (await hit(resilient, check(9)))[0].ok
        assert resilient.is_unavailable

    async def test_block_and_reset_fail(self, resilient: WatchedStore, server: RedisServer) -> None:
        server.kill()
        await until_unavailable(resilient)
        with pytest.raises(StoreUnavailable):
            await resilient.block([("api", ADA)], 60 * SECOND)
        assert not (await hit(resilient, check(3)))[0].ok  # it applies locally anyway
        with pytest.raises(StoreUnavailable):
            await resilient.reset([("api", ADA)])
        assert (await hit(resilient, check(3)))[0].ok

    async def test_every_request_gets_a_decision_whatever_happens_to_the_store(
        self, resilient: WatchedStore, server: RedisServer, clock: Clock
    ) -> None:
        """The store is killed, restarted, paused and flushed."""
        ended = asyncio.Event()
        passed = answered = 0

        async def client() -> None:
            nonlocal passed, answered
            while not ended.is_set():
                [outcome] = await hit(resilient, check(50))
                answered += 1
                passed += outcome.ok
                await asyncio.sleep(0)

        clients = [asyncio.ensure_future(client()) for _ in range(10)]

        async def more() -> None:
            target = answered + 200

            async def has_come() -> bool:
                return answered >= target

            await until(has_come)

        await more()
        server.kill()
        await until_unavailable(resilient)
        await more()
        server.start()
        await until_back(resilient, clock)
        await more()
        server.pause()
        await until_unavailable(resilient)
        await more()
        server.go_on()
        await until_back(resilient, clock)
        with server.client() as redis:
            redis.flushall()
            redis.script_flush()
        await more()
        ended.set()
        await asyncio.gather(*clients)
        # Counting began again at most twice in the store and twice locally.
        assert 50 <= passed <= 5 * 50


class TestDenials:
    async def test_a_certain_denial_is_repeated_without_a_command(
        self, resilient: WatchedStore, server: RedisServer, clock: Clock
    ) -> None:
        one = check(1)
        await hit(resilient, one)
        [first] = await hit(resilient, one)
        before = commands(server)
        for passed in range(1, 101):
            clock.advance(0.009)
            assert resilient.hit_now_if_possible([[one]]) is not None
            [again] = await hit(resilient, one)
            assert (again.ok, again.retry_us) == (
                False,
                first.retry_us - passed * SECOND * 9 // 1000,
            )
        assert commands(server) == before
        clock.advance(0.1)  # after a second the store is asked again: it may have been reset
        assert not (await hit(resilient, one))[0].ok
        assert commands(server) == before + 1

    async def test_limits_before_a_repeated_denial_are_still_charged(
        self, resilient: WatchedStore, server: RedisServer
    ) -> None:
        general, login = check(4, name="general"), check(1, name="login")
        for _ in range(3):
            await hit(resilient, general, login, check(9, name="last"))
        outcomes = await hit(resilient, general, login, check(9, name="last"))
        assert [(o.ok, o.remaining) for o in outcomes] == [(True, 0), (False, 0)]
        assert [o.ok for o in await hit(resilient, general, login)] == [False]
        assert (await resilient.peek([check(9, name="last")]))[0].remaining == 8

    async def test_the_store_decides_about_a_lower_cost(self, resilient: WatchedStore) -> None:
        await hit(resilient, check(3))
        assert not (await hit(resilient, check(3)._replace(cost=3)))[0].ok
        assert (await hit(resilient, check(3)._replace(cost=2)))[0].ok

    async def test_an_uncertain_denial_is_not_repeated(self, resilient: WatchedStore) -> None:
        [reserved] = await hit(resilient, check(1, later=True))
        assert not (await hit(resilient, check(1)))[0].ok
        assert reserved.reservation is not None
        resilient.settle_in_background([Settlement(reserved.reservation)])
        assert (await hit(resilient, check(1)))[0].ok

    async def test_a_reset_removes_a_repeated_denial(self, resilient: WatchedStore) -> None:
        for _ in range(2):
            await hit(resilient, check(1))
        await resilient.reset([("api", ADA)])
        assert (await hit(resilient, check(1)))[0].ok

    async def test_a_repeated_denial_has_all_its_outcomes(self, resilient: WatchedStore) -> None:
        quick, slow = check(1, name="quick"), check(9, name="slow")
        await resilient.hit([[quick, slow]])
        [told] = await resilient.hit([[quick, slow]])
        [again] = await resilient.hit([[quick, slow]])
        assert again == told
        assert [o.ok for o in again] == [False, True]

    async def test_cached_denials_are_bounded(self, resilient: WatchedStore, clock: Clock) -> None:
        from hasten.ratelimit._denial_cache import DenialCache

        denials = DenialCache(100)
        for number in range(1000):
            one = check(1)._replace(key=hash_client(str(number)))
            outcome = Outcome(False, 1, 0, SECOND, SECOND, certain=True)
            denials.update_from_outcomes([[one]], [[outcome]], number * SECOND // 10)
            assert len(denials) <= 100
            assert denials.find_denied_group([[one]], number * SECOND // 10) is not None


rules = [
    make_rule(Rate(3, 2)), make_rule(Rate(3, 2), "sliding"), make_rule(Rate(7, 1), "gcra"),
    make_rule(Rate(3, 1, burst=5)),
]  # fmt: skip
# Policies differ in whether they block, not the checks of one. Of what never fits the wait is only
# a number, so costs are small.
checks = st.builds(
    lambda rule, cost, later: Check(
        rule.id, ADA, rule, cost, later, block_us=3 * SECOND if rule.limit == 7 else 0
    ),
    st.sampled_from([*rules, make_rule(Rate(7, 2))]),
    st.sampled_from([1, 1, 2, 3]),
    st.sampled_from([False, False, True]),
)


@given(
    st.lists(
        st.tuples(
            st.lists(checks, min_size=1, max_size=3, unique_by=lambda one: one.rule.id),
            st.sampled_from([0, 0, 1, SECOND // 7, SECOND // 2, 2 * SECOND]),
            st.integers(0, 9),
        ),
        min_size=10,
        max_size=60,
    )
)
@effort(50)
def test_a_repeated_denial_equals_a_fresh_one(steps: list[tuple[list[Check], int, int]]) -> None:
    """Whatever is reserved and refunded in between."""
    clock = Clock()
    resilient, plain = WatchedStore(Oracle(clock), clock=clock), Oracle(clock)
    tokens: list[tuple[Reservation, Reservation]] = []

    async def walk() -> None:
        for group, passed_us, choice in steps:
            asked = [[one] for one in group]
            told, expected = await resilient.hit(asked), await plain.hit(asked)
            for [ours], [theirs] in zip(told, expected, strict=True):
                assert ours.ok == theirs.ok
                # Lower costs that passed meanwhile may have made the wait longer.
                assert ours.retry_us <= theirs.retry_us
            tokens.extend(
                (o.reservation, e.reservation)
                for [o], [e] in zip(told, expected, strict=True)
                if o.reservation is not None and e.reservation is not None
            )
            if tokens and choice > 4:
                reservation, other = tokens.pop(choice % len(tokens))
                resilient.settle_in_background([Settlement(reservation, choice % 2)])
                await asyncio.sleep(0)  # so that the store has started to settle
                await plain.settle([Settlement(other, choice % 2)])
            clock.now_us += passed_us
        await resilient.wait_for_unfinished_calls()

    asyncio.run(walk())
    assert resilient.errors == 0


class TestWithoutWaiting:
    async def test_finish_waits_for_all(self, resilient: WatchedStore, server: RedisServer) -> None:
        [outcome] = await hit(resilient, check(3, later=True))
        assert outcome.reservation is not None
        resilient.settle_in_background([Settlement(outcome.reservation)])
        await resilient.wait_for_unfinished_calls()
        store = counter_store(server.url)

        async def is_given_back() -> bool:  # a busy machine may miss the time-out
            return (await store.peek([check(3)]))[0].remaining == 3

        await until(is_given_back)
        await store.aclose()

    async def test_no_groups_no_outcome(self, resilient: WatchedStore, server: RedisServer) -> None:
        assert await resilient.hit([]) == []
        server.kill()
        await until_unavailable(resilient)
        assert await resilient.hit([]) == []

    async def test_a_store_in_memory_is_called_without_waiting(self) -> None:
        resilient = WatchedStore(MemoryStore())
        assert resilient.immediate is resilient.store
        answer = resilient.hit_now_if_possible([[check(1, later=True)]])
        assert answer is not None
        [[outcome]] = answer
        assert outcome.reservation is not None
        resilient.settle_in_background([Settlement(outcome.reservation)])
        assert at_once(resilient.hit([[check(1)]]))[0][0].ok
        assert not at_once(resilient.peek([check(1)]))[0].ok
        at_once(resilient.reset([("api", ADA)]))
        await resilient.wait_for_unfinished_calls()
