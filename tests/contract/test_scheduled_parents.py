"""Parents whose ids have colons: the jobs of schedules."""

from __future__ import annotations

from pathlib import Path

import pytest

from hasten.jobs._engine import Engine
from hasten.jobs._engines.redis import RedisEngine
from hasten.jobs._options import Options
from hasten.jobs._record import Completed, Failed, NewJob, OnFailure, ParentLink, Parked
from hasten.jobs._schedule_record import NewSchedule, SchedulePolicy, ScheduleRule
from hasten.jobs._states import State
from tests.contract.engines import open_for_test
from tests.contract.steps import NOW, QUEUE, claim, new_job, take, taken

PARENT = f"repeat:nightly:{NOW}"
ONCE = NewSchedule(
    "nightly", ScheduleRule(every_ms=60_000, limit=1), SchedulePolicy(), "send", "{}", Options()
)


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
    await engine.upsert_schedule(QUEUE, ONCE, now_ms=NOW)
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


@pytest.mark.parametrize("prefix", ["", ":a:repeat"])
@pytest.mark.parametrize("queue", ["repeat", "mail"])
async def test_names_that_look_like_ids_of_schedules(
    kind: str, tmp_path: Path, queue: str, prefix: str
) -> None:
    """The key of a job on Redis is "prefix:queue:id", and each part may be or have "repeat"."""
    async with open_for_test(kind, tmp_path) as engine:
        if isinstance(engine, RedisEngine):
            engine._keys.prefix += prefix
        await engine.upsert_schedule(queue, ONCE, now_ms=NOW)
        await run_with_child(engine, queue, PARENT)
        (added,) = await engine.add([new_job(queue=queue)], now_ms=NOW)
        await run_with_child(engine, queue, added.id)


async def run_with_child(engine: Engine, queue: str, parent: str) -> None:
    """Run a job that is ready and adds a child, then the child, then the job again."""
    kid, plain = f"child of {parent[-1]}", new_job(queue=queue)
    link = ParentLink(queue, parent, "fail")
    outcomes = (
        Parked(parent, "t1", [NewJob(queue, plain.template, "{}", kid, link)], 1),
        Completed(kid, "t1", "1"),
        Completed(parent, "t1", "1"),
    )
    for outcome in outcomes:
        batch = await engine.claim(queue, claim(1, "t1"), now_ms=NOW)
        assert taken(batch.leases) == [outcome.id]
        await engine.settle(queue, [outcome], None, now_ms=NOW)
    (found,) = await engine.children(queue, parent, limit=9)
    assert (found.id, found.outcome) == (kid, "completed")
