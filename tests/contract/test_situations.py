"""What decides whether a job runs now: what `Engine.get_why_facts` returns."""

from __future__ import annotations

import asyncio

import pytest

from hasten.jobs._engine import Engine
from hasten.jobs._record import COUNTED_AHEAD, Completed, Failed, WhyFacts
from hasten.jobs._states import State
from tests.contract.steps import LEASE_MS, NOW, QUEUE, add, job, new_job, settled, start, take


async def situation(engine: Engine, id: str, *, now_ms: int = NOW) -> WhyFacts:
    found = await engine.get_why_facts(QUEUE, id, now_ms=now_ms)
    assert found is not None
    return found


@pytest.mark.parametrize("id", ["no such job", "7", "0", ""])
async def test_a_missing_job_has_none(engine: Engine, id: str) -> None:
    await add(engine, "a", queue="other")
    assert await engine.get_why_facts(QUEUE, id, now_ms=NOW) is None


async def test_it_has_the_job_in_any_state(engine: Engine) -> None:
    await start(engine, "done", "broken", "running")
    await settled(engine, Completed("done", "t1", "1"), Failed("broken", "t1", "no"))
    await add(engine, "ready")
    await add(engine, "ranked", priority=1)
    await add(engine, "later", delay_ms=100)
    for id in ("done", "broken", "running", "ready", "ranked", "later"):
        found = await situation(engine, id)
        assert found.job == await job(engine, id)
        assert (found.lease_until_ms is not None) is (found.job.state is State.ACTIVE)
        assert (found.ahead is not None) is (id in ("ready", "ranked"))
        assert (found.limited_until_ms, found.full, found.pending) == (None, None, 0)


async def test_jobs_in_front_are_counted_in_the_order_of_claiming(engine: Engine) -> None:
    await add(engine, "a", "b", "c")
    await add(engine, "first", lifo=True)
    await add(engine, "p2", priority=2)
    await add(engine, "p1", priority=1)
    await add(engine, "p2b", priority=2)
    await add(engine, "other", queue="other")
    order = ["first", "a", "b", "c", "p1", "p2", "p2b"]
    assert [(await situation(engine, id)).ahead for id in order] == list(range(7))
    assert await take(engine) == ["first"]
    assert (await situation(engine, "c")).ahead == 2


async def test_they_are_counted_up_to_a_limit(engine: Engine) -> None:
    for _ in range(COUNTED_AHEAD // 1000):
        await engine.add([new_job() for _ in range(1000)], now_ms=NOW)
    await add(engine, "last", "beyond")
    await add(engine, "ranked", priority=1)
    for id in ("last", "beyond", "ranked"):
        assert (await situation(engine, id)).ahead == COUNTED_AHEAD


async def test_a_pause_is_seen(engine: Engine) -> None:
    await add(engine, "a")
    assert not (await situation(engine, "a")).is_paused
    await engine.pause(QUEUE, now_ms=NOW)
    assert (await situation(engine, "a")).is_paused


async def test_a_lease_ends_when_it_was_renewed_last(engine: Engine) -> None:
    await start(engine, "a")
    assert (await situation(engine, "a")).lease_until_ms == NOW + LEASE_MS
    renew = engine.renew
    await asyncio.to_thread(renew, QUEUE, {"a": "t1"}, lease_ms=LEASE_MS, now_ms=NOW + 5)
    assert (await situation(engine, "a")).lease_until_ms == NOW + 5 + LEASE_MS


async def test_no_other_workers_serve_a_queue_without_any(engine: Engine) -> None:
    assert await engine.count_workers_except(QUEUE, [], now_ms=NOW) == 0
