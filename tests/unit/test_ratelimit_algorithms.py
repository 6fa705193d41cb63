"""The algorithms keep their bounds for every sequence of hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.ratelimit import _algorithms as algorithms
from hasten.ratelimit._algorithms import CounterState
from hasten.ratelimit._counter_store import Check, Outcome, Reservation
from hasten.ratelimit._rates import Rate
from hasten.ratelimit._rules import Algorithm, Rule, make_concurrency_rule, make_rule

Steps = list[tuple[int, int]]
"""Pauses in microseconds, each with the cost of the hit that follows it."""

Reservations = list[tuple[int, int, bool]]
"""Pauses, the costs of the hits that follow them, and whether those are refunded or reserved."""

KEY = b"k" * 16
SECOND = 1_000_000


@dataclass
class Client:
    """One client of several limits that apply together, with a clock."""

    rules: Sequence[Rule]
    now_us: int = 1_000 * SECOND
    states: list[CounterState] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.states = [() for _ in self.rules]

    def hit(self, cost: int = 1, *, later: bool = False, block_us: int = 0) -> list[Outcome]:
        checks = [
            Check(str(place), KEY, rule, cost, later, block_us)
            for place, rule in enumerate(self.rules)
        ]
        self.states, outcomes = algorithms.hit_group(checks, self.states, self.now_us)
        return outcomes

    def ask(self, cost: int = 1, *, later: bool = False) -> Outcome:
        """Do what `hit` does for one limit."""
        [outcome] = self.hit(cost, later=later)
        return outcome

    def reserve(self, cost: int = 1) -> Reservation:
        reservation = self.ask(cost, later=True).reservation
        assert reservation is not None
        return reservation

    def settle(self, reservation: Reservation, keep: int = 0) -> None:
        self.states = [
            algorithms.settle_reservation(reservation, keep, self.states[0], self.now_us)
        ]

    def peek(self, cost: int = 1) -> Outcome:
        return algorithms.peek(Check("0", KEY, self.rules[0], cost), self.states[0], self.now_us)


def client(limit: int, per: float, algorithm: Algorithm | None = None, burst: int = 0) -> Client:
    return Client([make_rule(Rate(limit, per, burst or None), algorithm)])


rates = st.builds(Rate, st.integers(1, 300), st.sampled_from([0.001, 0.25, 1, 7, 3600]))
pauses = st.integers(0, 3) | st.integers(0, 2 * SECOND) | st.sampled_from([SECOND // 4, 1_000])
steps = st.lists(st.tuples(pauses, st.integers(0, 4)), max_size=120)
everything = st.one_of(
    st.builds(make_rule, rates, st.sampled_from(["fixed", "sliding", "gcra"])),
    st.builds(
        lambda rate, burst: make_rule(Rate(rate.limit, rate.per, burst)), rates, st.integers(1, 50)
    ),
    st.builds(make_concurrency_rule, st.integers(1, 200), st.sampled_from([0.001, 1, 60])),
)


class TestBounds:
    @given(rates, steps)
    def test_sliding_admits_at_most_its_limit_in_any_window(self, rate: Rate, steps: Steps) -> None:
        asker = Client([make_rule(rate, "sliding")])
        taken: list[tuple[int, int]] = []
        for pause, cost in steps:
            asker.now_us += pause
            if asker.ask(cost).ok:
                taken.append((asker.now_us, cost))
                since = asker.now_us - rate.window_us
                assert sum(c for at, c in taken if at > since) <= rate.limit

    @given(st.integers(1, 128), st.lists(pauses, max_size=150))
    def test_sliding_is_exact_up_to_128(self, limit: int, steps: list[int]) -> None:
        """It allows everything that a list of times would allow."""
        asker = client(limit, 1, "sliding")
        taken: list[int] = []
        for pause in steps:
            asker.now_us += pause
            taken = [at for at in taken if at > asker.now_us - SECOND]
            ok = asker.ask().ok
            assert ok == (len(taken) < limit)
            if ok:
                taken.append(asker.now_us)

    @given(st.integers(129, 5_000), st.lists(pauses, min_size=50, max_size=150))
    def test_sliding_keeps_few_runs(self, limit: int, steps: list[int]) -> None:
        asker = client(limit, 1, "sliding")
        for pause in steps:
            asker.now_us += pause
            asker.ask()
            assert len(asker.states[0]) <= 1 + 3 * 130

    @given(rates, steps)
    def test_fixed_admits_under_twice_its_limit_in_a_window(self, rate: Rate, steps: Steps) -> None:
        asker = Client([make_rule(rate)])
        taken: list[int] = []
        for pause, _ in steps:
            asker.now_us += pause
            if asker.ask().ok:
                taken.append(asker.now_us)
                since = asker.now_us - rate.window_us
                assert len([at for at in taken if at > since]) <= max(1, 2 * rate.limit - 1)

    def test_fixed_admits_its_full_limit_on_both_sides_of_a_seam(self) -> None:
        asker = client(100, 1)
        asker.ask()
        asker.now_us += SECOND - 1
        assert [asker.ask().ok for _ in range(100)] == [True] * 99 + [False]
        asker.now_us += 1
        assert [asker.ask().ok for _ in range(101)] == [True] * 100 + [False]

    def test_gcra_admits_a_burst_and_then_an_even_flow(self) -> None:
        asker = client(10, 1, burst=20)
        assert [asker.ask().ok for _ in range(21)] == [True] * 20 + [False]
        for _ in range(30):
            retry_us = asker.ask().retry_us
            assert retry_us == SECOND // 10
            asker.now_us += retry_us - 1_000
            assert not asker.ask().ok
            asker.now_us += 1_000
            assert asker.ask().ok

    @given(rates, st.integers(1, 50), steps)
    def test_gcra_admits_at_most_burst_and_rate(self, rate: Rate, burst: int, steps: Steps) -> None:
        asker = Client([make_rule(Rate(rate.limit, rate.per, burst))])
        start, total = asker.now_us, 0
        for pause, cost in steps:
            asker.now_us += pause
            if asker.ask(cost).ok:
                total += cost
                elapsed = asker.now_us - start
                assert (total - burst) * rate.window_us <= elapsed * rate.limit

    @given(everything, steps, st.integers(1, 3))
    def test_a_retry_after_the_wait_succeeds(self, rule: Rule, steps: Steps, cost: int) -> None:
        asker = Client([rule])
        for pause, before in steps:
            asker.now_us += pause
            asker.ask(before)
        outcome = asker.peek(cost)
        assert outcome.ok == (outcome.retry_us == 0)
        if cost <= rule.capacity and rule.kind != "concurrency":
            asker.now_us += outcome.retry_us
            assert asker.ask(cost).ok

    @given(everything.filter(lambda rule: rule.kind != "concurrency"), steps)
    def test_a_retry_before_the_given_wait_is_denied(self, rule: Rule, steps: Steps) -> None:
        """A certain denial can be repeated until its retry time."""
        asker = Client([rule])
        for pause, cost in steps:
            asker.now_us += pause
            outcome = asker.ask(cost)
            if not outcome.ok:
                assert outcome.certain
                assert outcome.retry_us >= 1
                asker.now_us += outcome.retry_us - 1
                assert not asker.ask(cost).ok

    @given(everything, steps)
    def test_the_reset_is_never_later_than_the_retry(self, rule: Rule, steps: Steps) -> None:
        asker = Client([rule])
        for pause, cost in steps:
            asker.now_us += pause
            outcome = asker.ask(cost)
            assert 0 <= outcome.remaining <= outcome.limit == rule.capacity
            assert outcome.reset_us >= 0
            assert outcome.ok or outcome.retry_us >= outcome.reset_us >= 1

    @given(st.lists(pauses, max_size=80), st.integers(1, 12), st.integers(1, 30))
    def test_a_denial_by_one_takes_from_none(self, steps: list[int], quick: int, slow: int) -> None:
        asker = Client([make_rule(Rate(quick, 1)), make_rule(Rate(slow, 60), "sliding")])
        for pause in steps:
            asker.now_us += pause
            before = [algorithms.drop_expired_parts(r, s, asker.now_us) for r, s in zip(
                asker.rules, asker.states, strict=True)]  # fmt: skip
            outcomes = asker.hit()
            if not all(outcome.ok for outcome in outcomes):
                assert asker.states == before
            else:
                assert asker.states != before

    @pytest.mark.parametrize("algorithm", ["fixed", "sliding", "gcra"])
    def test_a_limit_of_zero_denies_even_a_cost_of_zero(self, algorithm: Algorithm) -> None:
        asker = client(0, 60, algorithm)
        for cost in (0, 1):
            assert asker.ask(cost) == Outcome(False, 0, 0, 60 * SECOND, 60 * SECOND, True)

    @given(everything, steps)
    def test_a_denial_leaves_the_state_unchanged(self, rule: Rule, steps: Steps) -> None:
        asker = Client([rule])
        for pause, cost in steps:
            asker.now_us += pause
            before = algorithms.drop_expired_parts(rule, asker.states[0], asker.now_us)
            if not asker.ask(cost).ok:
                assert asker.states[0] == before

    @given(everything, steps)
    def test_nothing_is_known_after_the_expiry(self, rule: Rule, steps: Steps) -> None:
        asker = Client([rule])
        for pause, cost in steps:
            asker.now_us += pause
            asker.ask(cost)
        [state] = asker.states
        end_us = algorithms.find_state_expiry_time_us(rule, state)
        assert algorithms.drop_expired_parts(rule, state, end_us) == ()
        if end_us > asker.now_us:
            assert algorithms.drop_expired_parts(rule, state, end_us - 1) != ()


class TestOutcomesDecide:
    """Limits that count by outcome reserve first, so nothing slips through."""

    def test_a_denial_is_certain_if_no_refund_can_change_it(self) -> None:
        asker = client(5, 3600)
        reservation = asker.reserve()
        asker.ask(4)
        assert not asker.peek().certain
        assert asker.peek(2).certain
        asker.settle(reservation, keep=1)
        assert asker.peek().certain

    @pytest.mark.parametrize("is_reset", [False, True])
    @pytest.mark.parametrize("algorithm", ["fixed", "sliding", "gcra"])
    def test_a_late_refund_changes_nothing(self, algorithm: Algorithm, is_reset: bool) -> None:
        """After its window, and after a reset."""
        asker = client(500, 60, algorithm)
        reservation = asker.reserve()
        if is_reset:
            asker.states = [()]
        else:
            asker.now_us += 60 * SECOND
        asker.settle(reservation)
        assert asker.states == [()]
        asker.now_us += SECOND
        asker.ask(3)
        before = asker.states[0]
        asker.settle(reservation)
        assert asker.states == [before]

    @given(
        # A fixed window begins with its first hit, even if that is refunded.
        everything.filter(lambda rule: rule.kind != "fixed"),
        st.lists(st.tuples(pauses, st.integers(1, 3), st.booleans()), max_size=60),
    )
    def test_refunds_give_back_what_was_taken_and_no_more(
        self, rule: Rule, steps: Reservations
    ) -> None:
        """A client with additional refunded requests has as much left as one without."""
        asker, other = Client([rule]), Client([rule])
        for pause, cost, refunded in steps:
            asker.now_us += pause
            other.now_us += pause
            if refunded:
                reservation = asker.ask(cost, later=True).reservation
                if reservation is not None:
                    asker.settle(reservation)
            else:
                asker.ask(cost)
                other.ask(cost)
            assert asker.peek()[:3] == other.peek()[:3]

    @given(
        everything.filter(lambda rule: rule.kind == "fixed" and rule.limit > 0),
        st.lists(st.tuples(st.floats(0, 1), st.integers(1, 3), st.booleans()), max_size=60),
    )
    def test_refunds_give_back_what_was_taken_within_a_window(
        self, rule: Rule, steps: list[tuple[float, int, bool]]
    ) -> None:
        asker, other = Client([rule]), Client([rule])
        start_us = asker.now_us
        asker.ask(1)
        other.ask(1)
        for share, cost, refunded in sorted(steps):
            asker.now_us = other.now_us = start_us + int(share * (rule.window_us - 1))
            if refunded:
                reservation = asker.ask(cost, later=True).reservation
                if reservation is not None:
                    asker.settle(reservation)
            else:
                asker.ask(cost)
                other.ask(cost)
            assert asker.peek()[:3] == other.peek()[:3]

    @given(
        everything.filter(lambda rule: rule.kind != "concurrency"),
        st.lists(st.tuples(pauses, st.integers(1, 3), st.integers(0, 3)), max_size=80),
    )
    def test_kept_charges_are_bounded(self, rule: Rule, steps: list[tuple[int, int, int]]) -> None:
        """Kept reservations never exceed the limit, in whatever order reservations end."""
        asker = Client([rule])
        open_: list[Reservation] = []
        kept: list[tuple[int, int]] = []
        bound = {"fixed": 2 * rule.limit, "sliding": rule.limit, "gcra": rule.burst + rule.limit}
        for pause, cost, choice in steps:
            asker.now_us += pause
            reservation = asker.ask(cost, later=True).reservation
            if reservation is not None:
                open_.append(reservation)
            if open_ and choice:
                reservation = open_.pop(choice % len(open_))
                keep = reservation.cost if choice > 1 else 0
                since = asker.now_us - rule.window_us
                alive = reservation.at_us > since
                asker.settle(reservation, keep)
                if keep and alive:
                    kept.append((asker.now_us if rule.kind == "gcra" else reservation.at_us, keep))
                assert sum(c for at, c in kept if at > since) <= bound[rule.kind]

    @given(
        everything,
        st.lists(st.tuples(pauses, st.integers(1, 3), st.booleans()), min_size=5, max_size=60),
        st.integers(1, 3),
    )
    def test_no_refund_overturns_a_certain_denial(
        self, rule: Rule, steps: Reservations, cost: int
    ) -> None:
        """So it can be repeated from memory."""
        asker = Client([rule])
        tokens: list[Reservation] = []
        for pause, taken, later in steps:
            asker.now_us += pause // 8
            reservation = asker.ask(taken, later=later).reservation
            tokens += [] if reservation is None else [reservation]
        outcome = asker.peek(cost)
        if outcome.certain and cost <= rule.capacity:
            for reservation in tokens:
                asker.settle(reservation)
            asker.now_us += outcome.retry_us - 1
            assert not asker.peek(cost).ok

    def test_a_surcharge_may_pass_the_limit(self) -> None:
        for algorithm in ("fixed", "sliding", "gcra"):
            asker = client(5, 60, algorithm)
            asker.settle(asker.reserve(), keep=8)
            assert asker.peek(0)[:3] == (False, 5, 0)
            asker.now_us += asker.peek().retry_us
            assert asker.ask().ok

    def test_what_is_never_settled_goes_in_time(self) -> None:
        for rule in (
            make_rule(Rate(2, 60)),
            make_rule(Rate(2, 60), "sliding"),
            make_rule(Rate(2, 60), "gcra"),
            make_concurrency_rule(2, 60),
        ):
            asker = Client([rule])
            asker.reserve()
            asker.reserve()
            assert not asker.ask().ok
            asker.now_us += 60 * SECOND
            assert asker.ask().ok

    def test_forced_takes_what_does_not_fit(self) -> None:
        rule = make_rule(Rate(2, 60))
        check = Check("a", KEY, rule, 5, forced=True)
        [state], [outcome] = algorithms.hit_group([check], [()], 0)
        assert (outcome.ok, outcome.remaining) == (False, 0)
        assert state[2] == 5


class TestBlocks:
    def test_a_block_denies_and_ends(self) -> None:
        asker = client(5, 60)
        asker.ask()
        asker.states = [algorithms.replace_block(asker.states[0], asker.now_us + 10 * SECOND)]
        assert asker.ask() == Outcome(False, 5, 0, 10 * SECOND, 10 * SECOND, certain=True)
        asker.now_us += 10 * SECOND
        assert asker.ask().remaining == 3

    def test_exceeding_the_limit_blocks_for_longer(self) -> None:
        asker = client(1, 60)
        assert asker.hit(block_us=600 * SECOND)[0].ok
        assert asker.hit(block_us=600 * SECOND)[0].retry_us == 600 * SECOND
        asker.now_us += 599 * SECOND  # further denials do not prolong it
        assert asker.hit(block_us=600 * SECOND)[0].retry_us == SECOND
        asker.now_us += SECOND
        assert asker.ask().ok

    def test_asking_again_prolongs_nothing(self) -> None:
        """Otherwise the block would begin again at its end."""
        asker = client(1, 60)
        asker.hit(block_us=30 * SECOND)
        for _ in range(59):
            asker.now_us += SECOND
            assert not asker.hit(block_us=30 * SECOND)[0].ok
        asker.now_us += SECOND
        assert asker.ask().ok

    def test_what_is_under_way_does_not_block(self) -> None:
        asker = client(1, 60)
        asker.reserve()
        assert asker.hit(block_us=600 * SECOND)[0].retry_us == SECOND

    def test_of_a_group_only_what_was_too_much_blocks(self) -> None:
        asker = Client([make_rule(Rate(1, 60)), make_rule(Rate(5, 60))])
        asker.hit(block_us=600 * SECOND)
        assert [o.ok for o in asker.hit(block_us=600 * SECOND)] == [False, True]
