"""Reading the children of a job that have failed."""

from __future__ import annotations

from hasten.jobs._engine import Engine
from hasten.jobs._record import Completed, Failed, NewJob, OnFailure, ParentLink
from hasten.jobs._states import State
from tests.contract.steps import NOW, QUEUE, new_job, take


def child(id: str, parent: str = "parent", on_failure: OnFailure = "ignore") -> NewJob:
    plain = new_job(id)
    return NewJob(QUEUE, plain.template, plain.data, id, ParentLink(QUEUE, parent, on_failure))


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
