"""Parents whose ids have colons: the jobs of schedules."""

from __future__ import annotations

import pytest

from hasten.jobs._engine import Engine
from hasten.jobs._record import Completed, Failed, NewJob, OnFailure, ParentLink, Parked
from hasten.jobs._states import State
from tests.contract.steps import NOW, QUEUE, new_job, take

PARENT = "repeat:nightly:1700000000000"


def child(id: str, on_failure: OnFailure) -> NewJob:
    plain = new_job(id)
    return NewJob(QUEUE, plain.template, plain.data, id, ParentLink(QUEUE, PARENT, on_failure))


async def state(engine: Engine) -> State:
    (record,) = await engine.get(QUEUE, [PARENT])
    assert record is not None
    return record.state


@pytest.fixture
async def parked(engine: Engine) -> Engine:
    """An engine with a parent that waits for the children a and b, which run."""
    await engine.add([new_job(PARENT)], now_ms=NOW)
    assert await take(engine) == [PARENT]
    children = [child("a", "fail"), child("b", "ignore")]
    await engine.settle(QUEUE, [Parked(PARENT, "t1", children, 1)], None, now_ms=NOW)
    assert await state(engine) is State.WAITING_CHILDREN
    assert await take(engine, count=5, token="t2") == ["a", "b"]
    return engine


async def test_is_released_by_its_last_child(parked: Engine) -> None:
    await parked.settle(QUEUE, [Completed("a", "t2", "1")], None, now_ms=NOW)
    assert await state(parked) is State.WAITING_CHILDREN
    await parked.settle(QUEUE, [Failed("b", "t2", "no")], None, now_ms=NOW)
    assert await take(parked) == [PARENT]
    counts = await parked.count_children(QUEUE, PARENT)
    assert (counts.completed, counts.ignored, counts.add_calls) == (1, 1, 1)


async def test_fails_with_a_child(parked: Engine) -> None:
    await parked.settle(QUEUE, [Failed("a", "t2", "no")], None, now_ms=NOW)
    assert await take(parked) == [PARENT]
    (record,) = await parked.get(QUEUE, [PARENT])
    assert record is not None
    assert record.deferred_failure is not None
    assert record.deferred_failure.endswith(":a failed")


async def test_is_released_by_a_removed_child(parked: Engine) -> None:
    await parked.settle(QUEUE, [Completed("a", "t2", "1")], None, now_ms=NOW)
    await parked.purge(QUEUE, {State.ACTIVE}, before_ms=None, limit=None, now_ms=NOW)
    assert await take(parked) == [PARENT]


async def test_the_child_knows_its_parent(parked: Engine) -> None:
    (page, *_) = await parked.children(QUEUE, PARENT, limit=1)
    (record,) = await parked.get(QUEUE, [page.id])
    assert record is not None
    assert record.parent == ParentLink(QUEUE, PARENT, "fail")
