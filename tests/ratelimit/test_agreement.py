"""Every store returns the outcomes of the pure algorithms."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.ratelimit._counter_store import (
    Check,
    CounterStore,
    Outcome,
    Reservation,
    Settlement,
    hash_client,
)
from hasten.ratelimit._rates import Rate
from hasten.ratelimit._rules import Rule, make_concurrency_rule, make_rule
from tests.effort import effort
from tests.ratelimit.stores import KINDS, SECOND, Clock, Oracle, open_for_test

RULES: Final[list[Rule]] = [
    make_rule(Rate(3, 2)),
    make_rule(Rate(3, 2), "sliding"),
    make_rule(Rate(200, 2), "sliding"),
    make_rule(Rate(7, 1), "gcra"),
    make_rule(Rate(3, 1, burst=5)),
    make_concurrency_rule(3, 2),
    make_rule(Rate(0, 1)),
]
CLIENTS: Final = [hash_client("ada"), hash_client("bob")]

checks = st.builds(
    Check,
    bucket=st.just(""),
    key=st.sampled_from(CLIENTS),
    rule=st.sampled_from(RULES),
    cost=st.sampled_from([1, 1, 1, 0, 2, 3, 60, 100]),
    counted_later=st.booleans(),
    block_us=st.sampled_from([0, 0, 0, SECOND // 2, 3 * SECOND]),
    forced=st.sampled_from([False] * 7 + [True]),
    shadow=st.sampled_from([False] * 5 + [True]),
    on_error=st.just("local"),
)


def one_client(group: list[Check]) -> list[Check]:
    """The checks of a group have one key, and each its own limit."""
    rules = {id(check.rule): check for check in group}
    return [check._replace(key=group[0].key) for check in rules.values()]


groups = st.lists(checks, min_size=1, max_size=3).map(one_client)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("hit"), st.lists(groups, min_size=1, max_size=3)),
        st.tuples(st.just("hit"), st.lists(groups, min_size=1, max_size=3)),
        st.tuples(st.just("peek"), st.lists(checks, min_size=1, max_size=3)),
        st.tuples(st.just("settle"), st.tuples(st.integers(0, 99), st.integers(0, 3))),
        st.tuples(st.just("reset"), checks),
        st.tuples(st.just("block"), st.tuples(checks, st.sampled_from([0, SECOND // 3, SECOND]))),
        st.tuples(
            st.just("pass"),
            st.sampled_from([1, SECOND // 7, SECOND // 2, 2 * SECOND - 1, 2 * SECOND])
            | st.integers(0, 3 * SECOND),
        ),
    ),
    min_size=8,
    max_size=60,
)


@pytest.fixture(params=KINDS)
def world(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[asyncio.Runner, CounterStore, Clock]]:
    """A store, its clock, and an event loop for many examples."""
    clock = Clock()
    with asyncio.Runner() as runner:
        opening = open_for_test(request.param, tmp_path, clock)
        yield runner, runner.run(opening.__aenter__()), clock
        runner.run(opening.__aexit__(None, None, None))


numbers = itertools.count()


@given(steps=steps)
@effort(50)
def test_a_store_does_what_the_algorithms_do(
    world: tuple[asyncio.Runner, CounterStore, Clock], steps: list[tuple[str, Any]]
) -> None:
    runner, store, clock = world
    runner.run(walk(store, Oracle(clock), clock, steps, f"walk-{next(numbers)}"))


async def walk(
    store: CounterStore, oracle: Oracle, clock: Clock, steps: list[tuple[str, Any]], name: str
) -> None:
    """Take the same steps with both, in new buckets."""
    tokens: list[tuple[Reservation, Reservation]] = []

    def own(check: Check) -> Check:
        return check._replace(bucket=f"{name}:{check.rule.id}")

    for verb, what in steps:
        match verb:
            case "hit":
                asked = [[own(check) for check in group] for group in what]
                told, expected = await store.hit(asked), await oracle.hit(asked)
                assert told == expected
                tokens += tokens_of(told, expected)
            case "peek":
                looked = [own(check) for check in what]
                assert await store.peek(looked) == await oracle.peek(looked)
            case "settle":
                if tokens:
                    which, keep = what
                    ours, theirs = tokens.pop(which % len(tokens))
                    await store.settle([Settlement(ours, keep)])
                    await oracle.settle([Settlement(theirs, keep)])
            case "reset":
                for one in (store, oracle):
                    await one.reset(own(what).bucket, what.key)
            case "block":
                for one in (store, oracle):
                    await one.block(own(what[0]).bucket, what[0].key, what[1])
            case "pass":
                clock.now_us += what


def tokens_of(
    told: list[list[Outcome]], expected: list[list[Outcome]]
) -> list[tuple[Reservation, Reservation]]:
    pairs = zip(itertools.chain(*told), itertools.chain(*expected), strict=True)
    return [
        (o.reservation, e.reservation)
        for o, e in pairs
        if o.reservation is not None and e.reservation is not None
    ]
