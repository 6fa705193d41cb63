"""Adding children to a stored job, and other jobs together with the outcome of a run."""

from __future__ import annotations

import pytest

from hasten.errors import JobNotFound, WrongState
from hasten.jobs._engine import Engine
from hasten.jobs._record import ClaimRequest, Completed, NewJob, OnFailure, ParentLink, Parked
from hasten.jobs._states import State
from tests.contract.steps import NOW, QUEUE, new_job, take


async def state(engine: Engine, id: str) -> State | None:
    (record,) = await engine.get(QUEUE, [id])
    return None if record is None else record.state


def child(id: str, parent: str = "parent", on_failure: OnFailure = "ignore") -> NewJob:
    plain = new_job(id)
    return NewJob(QUEUE, plain.template, plain.data, id, ParentLink(QUEUE, parent, on_failure))


class TestStoredParents:
    async def test_waits_for_new_children(self, engine: Engine) -> None:
        await engine.add_flow([new_job("parent"), child("a")], now_ms=NOW)
        await engine.add_flow([child("b"), child("c", "b")], now_ms=NOW)
        assert (await engine.count_children(QUEUE, "parent")).pending == 2
        assert sorted(await take(engine, count=5)) == ["a", "c"]
        await engine.settle(QUEUE, [Completed("a", "t1", "1")], None, now_ms=NOW)
        assert await state(engine, "parent") == State.WAITING_CHILDREN
        await engine.settle(QUEUE, [Completed("c", "t1", "1")], None, now_ms=NOW)
        assert await take(engine, token="t2") == ["b"]
        await engine.settle(QUEUE, [Completed("b", "t2", "1")], None, now_ms=NOW)
        assert await take(engine) == ["parent"]

    async def test_a_ready_parent_is_not_moved(self, engine: Engine) -> None:
        """Like a job of BullMQ that is added with the option parent."""
        await engine.add([new_job("parent")], now_ms=NOW)
        await engine.add_flow([child("a")], now_ms=NOW)
        assert await state(engine, "parent") == State.WAITING

    async def test_a_parent_with_a_number_as_its_id(self, engine: Engine) -> None:
        (added,) = await engine.add([new_job()], now_ms=NOW)
        await engine.add_flow([child("a", added.id)], now_ms=NOW)
        assert (await engine.count_children(QUEUE, added.id)).pending == 1

    async def test_a_parent_that_completes_before_its_new_child_fails(self, engine: Engine) -> None:
        await engine.add([new_job("parent")], now_ms=NOW)
        assert await take(engine) == ["parent"]
        await engine.add_flow([child("a")], now_ms=NOW)
        await engine.settle(QUEUE, [Completed("parent", "t1", "1")], None, now_ms=NOW)
        assert await state(engine, "parent") == State.FAILED

    async def test_a_parent_in_another_queue(self, engine: Engine, kind: str) -> None:
        if kind == "redis-cluster":
            return  # its queues are in different hash slots here
        await engine.add([new_job("parent", queue="other")], now_ms=NOW)
        plain = new_job("a")
        link = ParentLink("other", "parent")
        await engine.add_flow([NewJob(QUEUE, plain.template, "{}", "a", link)], now_ms=NOW)
        await engine.claim("other", ClaimRequest(1, "t1", "worker", 1000), now_ms=NOW)
        await engine.settle("other", [Completed("parent", "t1", "1")], None, now_ms=NOW)
        (record,) = await engine.get("other", ["parent"])
        assert record is not None
        assert record.state is State.FAILED

    async def test_a_missing_or_finished_parent_is_refused(self, engine: Engine) -> None:
        with pytest.raises(JobNotFound):
            await engine.add_flow([child("a")], now_ms=NOW)
        await engine.add([new_job("parent")], now_ms=NOW)
        await take(engine)
        await engine.settle(QUEUE, [Completed("parent", "t1", "1")], None, now_ms=NOW)
        with pytest.raises(WrongState, match="completed"):
            await engine.add_flow([child("a"), child("b", "a")], now_ms=NOW)
        assert await state(engine, "a") is None


class TestOtherJobs:
    """Jobs without a parent that are added with an outcome."""

    async def test_are_added_with_the_outcome(self, engine: Engine) -> None:
        await engine.add_flow([new_job("parent"), child("a"), child("b")], now_ms=NOW)
        await engine.settle(
            QUEUE, [Completed("a", "t1", "1")] if await take(engine) else [], None, now_ms=NOW
        )
        await engine.add([new_job("watcher")], now_ms=NOW)
        assert await take(engine, count=2, token="t2") == ["b", "watcher"]
        end = Parked("watcher", "t2", [new_job("other"), new_job("b")], 3)
        await engine.settle(QUEUE, [end], None, now_ms=NOW)
        assert await state(engine, "other") == State.WAITING
        assert await state(engine, "b") == State.ACTIVE
        counts = await engine.count_children(QUEUE, "watcher")
        assert (counts.total, counts.add_calls) == (0, 3)
        assert await take(engine, count=2) == ["watcher", "other"]

    async def test_are_added_once_by_two_outcomes_of_a_call(self, engine: Engine) -> None:
        await engine.add([new_job("one"), new_job("two")], now_ms=NOW)
        assert await take(engine, count=2) == ["one", "two"]
        ends = [Parked(id, "t1", [new_job("other")], 1) for id in ("one", "two")]
        await engine.settle(QUEUE, ends, None, now_ms=NOW)
        assert sorted(await take(engine, count=5, token="t2")) == ["one", "other", "two"]

    async def test_are_not_added_if_the_lease_is_lost(self, engine: Engine) -> None:
        await engine.add([new_job("watcher")], now_ms=NOW)
        await take(engine)
        end = Parked("watcher", "another", [new_job("other")], 3)
        await engine.settle(QUEUE, [end], None, now_ms=NOW)
        assert await state(engine, "other") is None
