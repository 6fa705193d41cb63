"""Adding children to a stored job, and other jobs together with the outcome of a run."""

from __future__ import annotations

import pytest

from hasten.errors import JobNotFound, WrongState
from hasten.jobs._engine import Engine
from hasten.jobs._record import Completed, Failed, NewJob, OnFailure, ParentLink, Parked
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

    async def test_are_not_added_if_the_lease_is_lost(self, engine: Engine) -> None:
        await engine.add([new_job("watcher")], now_ms=NOW)
        await take(engine)
        end = Parked("watcher", "another", [new_job("other")], 3)
        await engine.settle(QUEUE, [end], None, now_ms=NOW)
        assert await state(engine, "other") is None


class TestFailedChildren:
    async def test_are_the_ignored_and_the_failed_ones(self, engine: Engine) -> None:
        children = [child("a"), child("b", on_failure="continue"), child("c", on_failure="wait")]
        children += [child("d", on_failure="remove"), child("e")]
        await engine.add_flow([new_job("parent"), *children], now_ms=NOW)
        assert await take(engine, count=5) == ["a", "b", "c", "d", "e"]
        assert await engine.failed_children(QUEUE, "parent", limit=5) == []
        ends = [Failed(id, "t1", f"error of {id}") for id in "abcd"]
        await engine.settle(QUEUE, [*ends, Completed("e", "t1", "1")], None, now_ms=NOW)
        found = await engine.failed_children(QUEUE, "parent", limit=5)
        assert sorted((each.id, each.outcome, each.error) for each in found) == [
            ("a", "ignored", "error of a"),
            ("b", "ignored", "error of b"),
        ]
        assert len(await engine.failed_children(QUEUE, "parent", limit=1)) == 1

    async def test_of_a_failed_parent(self, engine: Engine) -> None:
        children = [child(f"{n}-x", on_failure="fail") for n in range(20)]
        await engine.add_flow([new_job("parent"), *children], now_ms=NOW)
        await take(engine, count=20)
        ends = [Failed(job.id or "", "t1", "no") for job in children]
        await engine.settle(QUEUE, ends, None, now_ms=NOW)
        found = await engine.failed_children(QUEUE, "parent", limit=7)
        assert {(each.outcome, each.state) for each in found} == {("failed", State.FAILED)}
        assert len(found) == 7
        assert await engine.failed_children(QUEUE, "unknown", limit=7) == []
