"""Flows: parents that wait for their children, on every engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hasten.errors import InvalidOption, StoreRejected
from hasten.jobs._engine import CANCELLED_ERROR, Engine
from hasten.jobs._engines.redis import RedisEngine
from hasten.jobs._engines.redis.decoding import decode_flow_reply
from hasten.jobs._engines.redis.flow_requests import make_flow_rows
from hasten.jobs._options import KEEP_ALL, KEEP_NONE, Keep
from hasten.jobs._record import (
    AddResult,
    ChildCounts,
    ChildJob,
    Completed,
    Failed,
    NewJob,
    OnFailure,
    ParentLink,
    Parked,
    Postponed,
    Retry,
)
from hasten.jobs._states import FINISHED, State
from tests.contract.engines import DURABLE, open_for_test
from tests.contract.steps import (
    LEASE_MS,
    NOW,
    QUEUE,
    add,
    claim,
    counts,
    cursor,
    event,
    exists,
    happened,
    happened_to,
    ids_in,
    job,
    new_job,
    settled,
    soon,
    start,
    take,
    taken,
    waiting,
)

IMAGES = "images"
LATER = NOW + 100_000


@pytest.fixture
async def engine(kind: str, tmp_path: Path) -> AsyncIterator[Engine]:
    async with open_for_test(kind, tmp_path, one_slot=True) as engine:
        yield engine


def child(
    id: str,
    parent: str = "parent",
    on_failure: OnFailure = "fail",
    *,
    of: str = QUEUE,
    queue: str = IMAGES,
    **options: Any,
) -> NewJob:
    """A child in the queue images of a job in the queue mail."""
    made = new_job(id, queue=queue, **options)
    return NewJob(queue, made.template, made.data, id, ParentLink(of, parent, on_failure))


async def add_flow(engine: Engine, *jobs: NewJob, now_ms: int = NOW) -> list[AddResult]:
    return await engine.add_flow(jobs, now_ms=now_ms)


async def run(
    engine: Engine, *outcomes: Any, queue: str = IMAGES, count: int = 100, now_ms: int = NOW
) -> None:
    """Claim count ready jobs of a queue, and settle outcomes."""
    await engine.claim(queue, claim(count, "t1"), now_ms=now_ms)
    batch = await engine.settle(queue, outcomes, None, now_ms=now_ms)
    assert batch.lost == []


def done(id: str, result: str = '"done"', keep: Keep = KEEP_ALL) -> Completed:
    return Completed(id, "t1", result, keep)


def failed(id: str, error: str = "no", keep: Keep = KEEP_ALL) -> Failed:
    return Failed(id, "t1", error, None, keep)


async def children(engine: Engine, id: str = "parent", queue: str = QUEUE) -> list[ChildJob]:
    return await engine.children(queue, id, limit=1000)


async def outcomes(engine: Engine, id: str = "parent") -> dict[str, str]:
    return {one.id: one.outcome for one in await children(engine, id)}


async def state(engine: Engine, id: str = "parent", queue: str = QUEUE) -> State:
    return (await job(engine, id, queue)).state


async def pending(engine: Engine, id: str = "parent") -> int:
    return (await engine.count_children(QUEUE, id)).pending


class TestAdding:
    async def test_a_parent_waits_and_its_children_are_ready(self, engine: Engine) -> None:
        before = await cursor(engine), await cursor(engine, IMAGES)
        await add_flow(engine, new_job("parent"), child("a"), child("b"))
        assert await counts(engine) == {State.WAITING_CHILDREN: 1}
        assert await ids_in(engine, State.WAITING, IMAGES) == ["a", "b"]
        assert await happened(engine, before[0]) == [
            event("added", "parent"), event("waiting-children", "parent"),
        ]  # fmt: skip
        kinds = [(each.kind, each.job_id) for each in await happened(engine, before[1], IMAGES)]
        assert sorted(kinds) == [
            ("added", "a"), ("added", "b"), ("waiting", "a"), ("waiting", "b"),
        ]  # fmt: skip

    async def test_records_name_their_parent(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a", on_failure="ignore"))
        assert (await job(engine, "a", IMAGES)).parent == ParentLink(QUEUE, "parent", "ignore")
        assert (await job(engine, "parent")).parent is None

    async def test_in_any_queues_and_on_any_level(self, engine: Engine) -> None:
        jobs = [
            new_job("root"),
            child("left", "root", queue="a"),
            child("leaf", "left", of="a", queue="b"),
            child("right", "root", queue=QUEUE, delay_ms=50),
            child("important", "root", queue="a", priority=3),
        ]
        await add_flow(engine, *jobs)
        assert await counts(engine) == {State.WAITING_CHILDREN: 1, State.DELAYED: 1}
        assert await counts(engine, "a") == {State.WAITING_CHILDREN: 1, State.PRIORITIZED: 1}
        assert await counts(engine, "b") == {State.WAITING: 1}
        assert [each.id for each in await children(engine, "root")] == [
            "left", "right", "important",
        ]  # fmt: skip

    async def test_returns_ids_in_order_and_cursors_before_their_events(
        self, engine: Engine
    ) -> None:
        await add(engine, "earlier")
        added = await add_flow(engine, new_job("parent"), child("a"), child("b", queue=QUEUE))
        assert [(each.id, each.existing) for each in added] == [
            ("parent", None), ("a", None), ("b", None),
        ]  # fmt: skip
        events = await happened(engine, added[2].cursor)
        assert "earlier" not in {each.job_id for each in events}
        assert event("added", "b") in events

    @pytest.mark.parametrize("queue", [QUEUE, IMAGES])
    async def test_adds_nothing_if_an_id_exists(self, engine: Engine, queue: str) -> None:
        await add(engine, "a", queue=queue, data="1")
        before = await counts(engine), await counts(engine, IMAGES)
        with pytest.raises(InvalidOption, match=f"an id that no job of queue '{queue}' has") as no:
            await add_flow(engine, new_job("parent"), child("b"), child("a", queue=queue))
        assert no.value.code == "duplicate"
        assert (await counts(engine), await counts(engine, IMAGES)) == before
        assert await engine.count_children(QUEUE, "parent") == ChildCounts()

    async def test_adds_nothing_if_an_id_occurs_twice(self, engine: Engine) -> None:
        with pytest.raises(InvalidOption, match="an id that no other job of the flow has"):
            await add_flow(engine, new_job("parent"), child("a"), child("a"))
        assert (await counts(engine), await counts(engine, IMAGES)) == ({}, {})

    async def test_one_id_may_be_used_in_two_queues(self, engine: Engine) -> None:
        await add_flow(engine, new_job("x"), child("x", "x"))
        await run(engine, done("x"))
        assert await state(engine, "x") == State.WAITING

    async def test_a_job_without_children_is_ready(self, engine: Engine) -> None:
        await add_flow(engine, new_job("alone"), new_job("later", delay_ms=5))
        assert await counts(engine) == {State.WAITING: 1, State.DELAYED: 1}

    async def test_wakes_the_workers_of_all_queues(self, engine: Engine) -> None:
        async with waiting(engine, "a") as first, waiting(engine, "b") as second:
            await add_flow(engine, new_job("parent"), child("x", queue="a"), child("y", queue="b"))
            await soon(first)
            await soon(second)

    async def test_odd_values_survive(self, engine: Engine) -> None:
        data = '{"text":"é\\u0000✓","n":[1,2.5,null]}'
        await add_flow(
            engine, new_job("parent", data=data), child("a", data=data, opts='{"attempts":3}')
        )
        assert (await job(engine, "parent")).data == data
        record = await job(engine, "a", IMAGES)
        assert (record.data, record.name) == (data, "send")
        assert '"attempts":3' in record.opts


class TestRelease:
    async def test_the_last_child_makes_its_parent_ready(self, engine: Engine) -> None:
        await add(engine, "other")
        await add_flow(engine, new_job("parent"), child("a"), child("b"))
        await run(engine, done("a", '"A"'))
        assert (await state(engine), await pending(engine)) == (State.WAITING_CHILDREN, 1)
        before = await cursor(engine)
        await run(engine, done("b", '{"b":1}'))
        assert await happened(engine, before) == [
            event("waiting", "parent", previous="waiting-children")
        ]
        assert await ids_in(engine, State.WAITING) == ["parent", "other"] + [
            id for id in await ids_in(engine, State.WAITING) if id.startswith("mark")
        ]
        assert [(each.value, each.outcome) for each in await children(engine)] == [
            ('"A"', "completed"), ('{"b":1}', "completed"),
        ]  # fmt: skip

    async def test_a_priority_counts_when_the_parent_is_released(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent", priority=5), child("a"))
        await add(engine, "before", priority=5)
        await run(engine, done("a"))
        assert await ids_in(engine, State.PRIORITIZED) == ["before", "parent"]

    async def test_a_delay_begins_when_the_parent_is_released(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent", delay_ms=500), child("a"))
        await run(engine, done("a"), now_ms=LATER)
        record = await job(engine, "parent")
        assert (record.state, record.due_ms) == (State.DELAYED, LATER + 500)
        assert await take(engine, now_ms=LATER + 499) == []
        assert await take(engine, now_ms=LATER + 500) == ["parent"]

    async def test_wakes_a_worker_of_the_parent(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a"))
        async with waiting(engine) as worker:
            await run(engine, done("a"))
            await soon(worker)

    async def test_wakes_a_worker_of_a_delayed_parent(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent", delay_ms=500), child("a"))
        async with waiting(engine) as worker:
            await run(engine, done("a"))
            await soon(worker)

    async def test_the_call_that_ends_the_last_child_can_claim_the_parent(
        self, engine: Engine
    ) -> None:
        await add_flow(engine, new_job("parent"), child("a", queue=QUEUE))
        assert await take(engine) == ["a"]
        batch = await engine.settle(QUEUE, [done("a")], claim(5, "t2"), now_ms=NOW)
        assert taken(batch.leases) == ["parent"]

    async def test_children_of_several_parents_end_together(self, engine: Engine) -> None:
        await add_flow(engine, new_job("p1"), child("a", "p1"), child("b", "p1"))
        await add_flow(engine, new_job("p2"), child("c", "p2"), child("d", "p2"))
        await run(engine, done("a"), done("c"), done("b"))
        assert (await state(engine, "p1"), await state(engine, "p2")) == (
            State.WAITING, State.WAITING_CHILDREN,
        )  # fmt: skip
        assert await pending(engine, "p2") == 1

    async def test_levels_end_from_the_leaves_to_the_root(self, engine: Engine) -> None:
        await add_flow(
            engine, new_job("root"), child("middle", "root"), child("leaf", "middle", of=IMAGES)
        )
        await run(engine, done("leaf"))
        assert await state(engine, "middle", IMAGES) == State.WAITING
        assert await state(engine, "root") == State.WAITING_CHILDREN
        await run(engine, done("middle"))
        assert await take(engine) == ["root"]
        await settled(engine, done("root"))
        assert await state(engine, "root") == State.COMPLETED

    async def test_a_result_outlives_its_child(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a"), child("b"))
        await run(engine, done("a", "1", KEEP_NONE), done("b", "2"))
        assert not await exists(engine, "a", IMAGES)
        await engine.remove(IMAGES, ["b"], now_ms=NOW)
        assert await children(engine) == [
            ChildJob(IMAGES, "a", None, None, "1", "completed", _known(engine)),
            ChildJob(IMAGES, "b", None, None, "2", "completed", _known(engine)),
        ]
        assert await state(engine) == State.WAITING

    async def test_attempts_that_do_not_end_a_child_release_nothing(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a"), child("b"))
        await run(engine, Retry("a", "t1", "no", "trace", 0), Postponed("b", "t1", 0))
        assert (await state(engine), await pending(engine)) == (State.WAITING_CHILDREN, 2)

    async def test_a_parent_with_a_pending_child_fails_instead_of_completing(
        self, engine: Engine
    ) -> None:
        await start(engine, "parent")
        await settled(engine, Parked("parent", "t1", [child("a"), child("b")]))
        await run(engine, failed("a"))
        await engine.requeue(IMAGES, ["a"], [State.FAILED], now_ms=NOW)
        assert await take(engine) == ["parent"]
        await settled(engine, done("parent"))
        record = await job(engine, "parent")
        assert (record.state, record.error) == (
            State.FAILED, "its children have not all finished",
        )  # fmt: skip

    async def test_a_lost_lease_releases_nothing(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a"))
        await engine.claim(IMAGES, claim(1, "t1"), now_ms=NOW)
        batch = await engine.settle(IMAGES, [Completed("a", "other", "1")], None, now_ms=NOW)
        assert batch.lost == ["a"]
        assert (await state(engine), await pending(engine)) == (State.WAITING_CHILDREN, 1)

    async def test_a_child_of_a_deleted_parent_ends_as_any_job(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a"), child("b"))
        await engine.purge(QUEUE, [State.WAITING_CHILDREN], before_ms=None, limit=None, now_ms=NOW)
        await run(engine, done("a"), failed("b"))
        assert await counts(engine, IMAGES) == {State.COMPLETED: 1, State.FAILED: 1}
        assert await counts(engine) == {}


def _known(engine: Engine) -> OnFailure | None:
    """What is known of the policy of a deleted child."""
    return None if "redis" in engine.url else "fail"


class TestFailing:
    """What the failure of a child does to its parent."""

    @pytest.mark.parametrize("on_failure", ["fail", "continue", "ignore", "remove", "wait"])
    async def test_with_another_child_pending(self, engine: Engine, on_failure: OnFailure) -> None:
        await add_flow(engine, new_job("parent"), child("a", on_failure=on_failure), child("b"))
        await run(engine, failed("a"))
        expected = {
            "fail": (State.WAITING, {"a": "failed", "b": "pending"}),
            "continue": (State.WAITING, {"a": "ignored", "b": "pending"}),
            "ignore": (State.WAITING_CHILDREN, {"a": "ignored", "b": "pending"}),
            "remove": (State.WAITING_CHILDREN, {"b": "pending"}),
            "wait": (State.WAITING_CHILDREN, {"a": "pending", "b": "pending"}),
        }[on_failure]
        assert (await state(engine), await outcomes(engine)) == expected

    @pytest.mark.parametrize("on_failure", ["fail", "continue", "ignore", "remove", "wait"])
    async def test_as_the_last_child(self, engine: Engine, on_failure: OnFailure) -> None:
        await add_flow(engine, new_job("parent"), child("a", on_failure=on_failure), child("b"))
        await run(engine, done("b"), failed("a"))
        waits = on_failure == "wait"
        assert await state(engine) == (State.WAITING_CHILDREN if waits else State.WAITING)
        if not waits:
            assert await take(engine) == ["parent"]
            await settled(engine, done("parent"))
            fails = on_failure == "fail"
            assert await state(engine) == (State.FAILED if fails else State.COMPLETED)

    async def test_fail_names_the_child_in_the_error_of_the_parent(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a"))
        await run(engine, failed("a"))
        batch = await engine.claim(QUEUE, claim(), now_ms=NOW)
        (lease,) = batch.leases
        assert lease.job.deferred_failure is not None
        assert lease.job.deferred_failure.endswith(f"{IMAGES}:a failed")

    async def test_fail_goes_up_the_tree_level_by_level(self, engine: Engine) -> None:
        await add_flow(
            engine, new_job("root"), child("middle", "root"), child("leaf", "middle", of=IMAGES)
        )
        await run(engine, failed("leaf"))
        assert await state(engine, "root") == State.WAITING_CHILDREN
        batch = await engine.claim(IMAGES, claim(), now_ms=NOW)
        (lease,) = batch.leases
        await run(engine, failed("middle", str(lease.job.deferred_failure)))
        batch = await engine.claim(QUEUE, claim(), now_ms=NOW)
        (lease,) = batch.leases
        assert str(lease.job.deferred_failure).endswith(f"{IMAGES}:middle failed")

    async def test_fail_ends_the_delay_of_a_parent(self, engine: Engine) -> None:
        await add_flow(
            engine, new_job("parent", delay_ms=500), child("a", on_failure="continue"), child("b")
        )
        await run(engine, failed("a"))
        assert await state(engine) == State.DELAYED
        before = await cursor(engine)
        await run(engine, failed("b"))
        assert await happened(engine, before) == [event("waiting", "parent", previous="delayed")]
        record = await job(engine, "parent")
        assert (record.state, record.delay_ms) == (State.WAITING, 0)
        assert record.deferred_failure is not None

    async def test_fail_stops_a_running_parent_from_completing(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a", on_failure="continue"), child("b"))
        await run(engine, failed("a"))
        assert await take(engine) == ["parent"]
        await run(engine, failed("b"))
        await settled(engine, done("parent"))
        record = await job(engine, "parent")
        assert (record.state, record.error) == (State.FAILED, "one of its children failed")

    async def test_continue_lets_the_parent_complete_before_the_others(
        self, engine: Engine
    ) -> None:
        await add_flow(engine, new_job("parent"), child("a", on_failure="continue"), child("b"))
        await run(engine, failed("a", "broken"))
        assert await take(engine) == ["parent"]
        await settled(engine, done("parent"))
        assert await state(engine) == State.COMPLETED
        await run(engine, done("b", "2"))
        assert await outcomes(engine) == {"a": "ignored", "b": "completed"}
        assert await state(engine) == State.COMPLETED

    async def test_a_parent_reads_the_errors_that_it_ignores(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a", on_failure="ignore"))
        await run(engine, failed("a", "out of ink", KEEP_NONE))
        assert await children(engine) == [
            ChildJob(
                IMAGES, "a", None, "out of ink", None, "ignored",
                None if "redis" in engine.url else "ignore",
            )
        ]  # fmt: skip

    @pytest.mark.parametrize("on_failure", ["fail", "continue", "ignore", "remove", "wait"])
    async def test_no_parent_waits_for_a_child_that_is_not_kept(
        self, engine: Engine, on_failure: OnFailure
    ) -> None:
        await add_flow(engine, new_job("parent"), child("a", on_failure=on_failure))
        await run(engine, failed("a", "no", KEEP_NONE))
        assert (await state(engine), await pending(engine)) == (State.WAITING, 0)

    @pytest.mark.parametrize(
        ("on_failure", "released"),
        [("ignore", State.DELAYED), ("remove", State.DELAYED), ("wait", State.WAITING)],
    )
    async def test_only_a_deleted_child_ends_the_delay_of_its_parent(
        self, engine: Engine, on_failure: OnFailure, released: State
    ) -> None:
        """As in BullMQ. A child that is not kept is deleted after its failure was applied."""
        await add_flow(engine, new_job("parent", delay_ms=500), child("a", on_failure=on_failure))
        await run(engine, failed("a", "no", KEEP_NONE))
        assert await state(engine) == released

    async def test_the_end_of_the_keep_rule_releases_a_parent_that_waits(
        self, engine: Engine
    ) -> None:
        await add_flow(engine, new_job("p1"), child("a", "p1", "wait"))
        await add_flow(engine, new_job("p2"), child("b", "p2", "wait"))
        await run(engine, failed("a", keep=Keep(count=1)))
        assert await state(engine, "p1") == State.WAITING_CHILDREN
        await run(engine, failed("b", keep=Keep(count=1)), now_ms=NOW + 1)
        assert (await state(engine, "p1"), await state(engine, "p2")) == (
            State.WAITING, State.WAITING_CHILDREN,
        )  # fmt: skip

    async def test_the_age_of_a_child_releases_a_parent_that_waits(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a", on_failure="wait"))
        await run(engine, failed("a"))
        await add(engine, "other", queue=IMAGES)
        await run(engine, failed("other", keep=Keep(age=10)), now_ms=NOW + 20_000)
        assert await state(engine) == State.WAITING

    @pytest.mark.parametrize("keep_failed", [True, False])
    async def test_cancelling_a_child_fails_it(self, engine: Engine, keep_failed: bool) -> None:
        options = "{}" if keep_failed else '{"removeOnFail":true}'
        await add_flow(
            engine, new_job("parent"), child("a", on_failure="ignore", opts=options), child("b")
        )
        await engine.cancel(IMAGES, ["a"], now_ms=NOW)
        assert await outcomes(engine) == {"a": "ignored", "b": "pending"}
        (first, _) = await children(engine)
        assert first.error == CANCELLED_ERROR
        await engine.cancel(IMAGES, ["b"], now_ms=NOW)
        assert await state(engine) == State.WAITING
        assert (await job(engine, "parent")).deferred_failure is not None

    async def test_cancelling_a_parent_leaves_its_children(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a"), child("b"))
        await engine.cancel(QUEUE, ["parent"], now_ms=NOW)
        record = await job(engine, "parent")
        assert (record.state, record.error) == (State.FAILED, CANCELLED_ERROR)
        await run(engine, done("a"), failed("b"))
        assert await state(engine) == State.FAILED
        assert await outcomes(engine) == {"a": "completed", "b": "failed"}

    async def test_a_failed_parent_fails_its_own_parent(self, engine: Engine) -> None:
        await add_flow(
            engine, new_job("root"), child("middle", "root"), child("leaf", "middle", of=IMAGES)
        )
        await engine.cancel(IMAGES, ["middle"], now_ms=NOW)
        assert await state(engine, "root") == State.WAITING
        assert (await job(engine, "root")).deferred_failure is not None


class TestDeleting:
    @pytest.mark.parametrize("how", ["remove", "purge", "obliterate"])
    async def test_a_deleted_child_is_not_waited_for(self, engine: Engine, how: str) -> None:
        await add_flow(engine, new_job("parent", delay_ms=500), child("a"), child("b"))
        await run(engine, done("a"), count=1)
        before = await cursor(engine)
        async with waiting(engine) as worker:
            match how:
                case "remove":
                    await engine.remove(IMAGES, ["b"], now_ms=NOW)
                case "purge":
                    await engine.purge(IMAGES, list(State), before_ms=None, limit=None, now_ms=NOW)
                case "obliterate":
                    await engine.obliterate(IMAGES)
            await soon(worker)
        assert await state(engine) == State.WAITING
        assert await outcomes(engine) == {"a": "completed"}
        assert await happened(engine, before) == [
            event("waiting", "parent", previous="waiting-children")
        ]

    async def test_a_flow_in_one_queue_is_obliterated(self, engine: Engine) -> None:
        await add_flow(
            engine,
            new_job("root"),
            child("a", "root", queue=QUEUE),
            child("b", "root", queue=QUEUE),
        )
        await run(engine, failed("a"), queue=QUEUE, count=1)
        await engine.obliterate(QUEUE)
        assert await counts(engine) == {}

    async def test_a_delayed_child_is_not_waited_for(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a", delay_ms=10**6))
        await engine.remove(IMAGES, ["a"], now_ms=NOW)
        assert await state(engine) == State.WAITING

    async def test_others_are_still_waited_for(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a"), child("b"))
        await engine.remove(IMAGES, ["b"], now_ms=NOW)
        assert await state(engine) == State.WAITING_CHILDREN
        assert await outcomes(engine) == {"a": "pending"}

    async def test_a_parent_is_removed_with_all_descendants(self, engine: Engine) -> None:
        await add_flow(
            engine, new_job("top"), child("root", "top", queue=QUEUE), child("a", "root"),
            child("leaf", "a", of=IMAGES, queue="c"), child("b", "root"),
        )  # fmt: skip
        await run(engine, done("b"))
        assert await engine.remove(QUEUE, ["root"], now_ms=NOW) == [State.WAITING_CHILDREN]
        assert (await counts(engine, IMAGES), await counts(engine, "c")) == ({}, {})
        assert await ids_in(engine, State.WAITING) == ["top"]
        assert await engine.count_children(QUEUE, "root") == ChildCounts()

    async def test_a_removed_tree_emits_an_event_for_each_job(self, engine: Engine) -> None:
        await add_flow(engine, new_job("root"), child("a", "root"), child("b", "root"))
        before = await cursor(engine, IMAGES)
        await engine.remove(QUEUE, ["root"], now_ms=NOW)
        removed = await happened(engine, before, IMAGES)
        assert {(each.kind, each.job_id) for each in removed} == {
            ("removed", "a"), ("removed", "b"),
        }  # fmt: skip

    async def test_a_parent_is_not_removed_while_a_descendant_runs(self, engine: Engine) -> None:
        await add_flow(
            engine, new_job("root"), child("middle", "root"), child("leaf", "middle", of=IMAGES)
        )
        await engine.claim(IMAGES, claim(1, "t1"), now_ms=NOW)
        assert await engine.remove(QUEUE, ["root"], now_ms=NOW) == [State.ACTIVE]
        assert await state(engine, "root") == State.WAITING_CHILDREN
        assert await state(engine, "middle", IMAGES) == State.WAITING_CHILDREN

    async def test_finished_jobs_are_counted_after_a_tree_is_removed(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a"), child("b", on_failure="ignore"))
        await run(engine, done("a"), failed("b"))
        await engine.remove(QUEUE, ["parent"], now_ms=NOW)
        await add(engine, "x", "y", queue=IMAGES)
        await run(engine, done("x", keep=Keep(count=2)), done("y", keep=Keep(count=2)))
        assert await counts(engine, IMAGES) == {State.COMPLETED: 2}

    async def test_a_child_that_ran_for_a_purged_parent_is_no_child(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a"))
        await engine.remove(QUEUE, ["parent"], now_ms=NOW)
        await add_flow(engine, new_job("parent"), child("a"))
        assert await outcomes(engine) == {"a": "pending"}
        await run(engine, done("a"))
        assert await state(engine) == State.WAITING

    async def test_a_large_tree_is_removed_completely(self, engine: Engine) -> None:
        many = [child(f"c{number}") for number in range(3000)]
        await add_flow(engine, new_job("parent"), *many)
        assert await engine.remove(QUEUE, ["parent"], now_ms=NOW) == [State.WAITING_CHILDREN]
        assert (await counts(engine), await counts(engine, IMAGES)) == ({}, {})


class TestRunningAgain:
    @pytest.mark.parametrize("on_failure", ["fail", "ignore", "wait"])
    async def test_a_failed_child_is_pending_again(
        self, engine: Engine, on_failure: OnFailure
    ) -> None:
        await add_flow(engine, new_job("parent"), child("a", on_failure=on_failure), child("b"))
        await run(engine, failed("a"))
        await engine.requeue(IMAGES, ["a"], [State.FAILED], now_ms=NOW)
        assert await outcomes(engine) == {"a": "pending", "b": "pending"}
        assert await pending(engine) == 2
        await run(engine, done("a"), done("b"))
        assert await outcomes(engine) == {"a": "completed", "b": "completed"}
        assert await state(engine) == State.WAITING

    async def test_a_completed_child_is_pending_again(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a"), child("b"))
        await run(engine, done("a", "1"))
        await engine.requeue(IMAGES, ["a"], [State.COMPLETED], now_ms=NOW)
        assert await outcomes(engine) == {"a": "pending", "b": "pending"}
        await run(engine, done("b"))
        assert await state(engine) == State.WAITING_CHILDREN
        await run(engine, done("a", "2"))
        assert [each.value for each in await children(engine)] == ["2", '"done"']

    async def test_a_parent_without_failed_children_runs_again(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a"))
        await run(engine, done("a", "1"))
        await run(engine, failed("parent"), queue=QUEUE)
        await engine.requeue(QUEUE, ["parent"], [State.FAILED], now_ms=NOW)
        assert await take(engine) == ["parent"]
        assert [each.value for each in await children(engine)] == ["1"]
        await settled(engine, done("parent"))
        assert await state(engine) == State.COMPLETED

    async def test_the_child_first_then_its_parent(self, engine: Engine) -> None:
        await self._fail_both(engine)
        await engine.requeue(IMAGES, ["a"], [State.FAILED], now_ms=NOW)
        assert (await state(engine), await pending(engine)) == (State.FAILED, 1)
        before = await cursor(engine)
        await engine.requeue(QUEUE, ["parent"], [State.FAILED], now_ms=LATER)
        assert await happened(engine, before) == [
            event("waiting-children", "parent", previous="failed")
        ]
        assert await state(engine) == State.WAITING_CHILDREN
        await run(engine, done("a"))
        assert (await job(engine, "parent")).deferred_failure is None
        assert await take(engine) == ["parent"]
        await settled(engine, done("parent"))
        assert await state(engine) == State.COMPLETED

    async def test_only_the_parent_fails_again_without_a_run(self, engine: Engine) -> None:
        await self._fail_both(engine)
        await engine.requeue(QUEUE, ["parent"], [State.FAILED], now_ms=NOW)
        assert await state(engine) == State.WAITING
        record = await job(engine, "parent")
        assert str(record.deferred_failure).endswith(f"{IMAGES}:a failed")

    async def test_a_child_that_completes_later_does_not_revive_a_failed_parent(
        self, engine: Engine
    ) -> None:
        await self._fail_both(engine)
        await engine.requeue(IMAGES, ["a"], [State.FAILED], now_ms=NOW)
        await run(engine, done("a"))
        assert await state(engine) == State.FAILED
        await engine.requeue(QUEUE, ["parent"], [State.FAILED], now_ms=NOW)
        record = await job(engine, "parent")
        assert (record.state, record.deferred_failure) == (State.WAITING, None)

    async def _fail_both(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a"))
        await run(engine, failed("a"))
        await run(engine, failed("parent"), queue=QUEUE)
        assert await state(engine) == State.FAILED


class TestParking:
    async def test_adds_the_children_and_waits(self, engine: Engine) -> None:
        await start(engine, "parent")
        before = await cursor(engine)
        async with waiting(engine, IMAGES) as worker:
            await settled(engine, Parked("parent", "t1", [child("a"), child("b")], 1))
            await soon(worker)
        record = await job(engine, "parent")
        assert (record.state, record.attempts_made, record.attempts_started) == (
            State.WAITING_CHILDREN, 0, 1,
        )  # fmt: skip
        assert await happened_to(engine, "parent", before) == [
            event("waiting-children", "parent", previous="active")
        ]
        assert await ids_in(engine, State.WAITING, IMAGES) == ["a", "b"]
        assert await engine.count_children(QUEUE, "parent") == ChildCounts(pending=2, add_calls=1)

    async def test_runs_again_in_front_when_they_have_ended(self, engine: Engine) -> None:
        await start(engine, "parent")
        await settled(engine, Parked("parent", "t1", [child("a")]))
        await add(engine, "other")
        await run(engine, done("a", "1"))
        assert await take(engine, token="t2") == ["parent"]
        assert (await job(engine, "parent")).attempts_started == 2
        await settled(engine, Completed("parent", "t2", "2"))
        assert (await job(engine, "parent")).attempts_made == 1

    async def test_without_pending_children_the_job_is_ready_at_once(self, engine: Engine) -> None:
        await start(engine, "parent")
        await add(engine, "other")
        before = await cursor(engine)
        await settled(engine, Parked("parent", "t1", add_calls=2))
        assert await happened(engine, before) == [event("waiting", "parent", previous="active")]
        assert (await ids_in(engine, State.WAITING))[:2] == ["parent", "other"]
        assert (await engine.count_children(QUEUE, "parent")).add_calls == 2

    async def test_a_job_with_a_priority_is_ready_at_once(self, engine: Engine) -> None:
        await start(engine, "parent", priority=4)
        await add(engine, "other", priority=4)
        await settled(engine, Parked("parent", "t1"))
        assert await ids_in(engine, State.PRIORITIZED) == ["parent", "other"]

    async def test_known_children_are_not_added_again(self, engine: Engine) -> None:
        await start(engine, "parent")
        tree = [child("a"), child("leaf", "a", of=IMAGES)]
        await settled(engine, Parked("parent", "t1", tree, 1))
        await run(engine, done("leaf"))
        await run(engine, done("a"))
        assert await take(engine, token="t2") == ["parent"]
        more = [*tree, child("b")]
        await settled(engine, Parked("parent", "t2", more, 2))
        assert await outcomes(engine) == {"a": "completed", "b": "pending"}
        assert await counts(engine, IMAGES) == {State.COMPLETED: 2, State.WAITING: 1}
        assert (await engine.count_children(QUEUE, "parent")).add_calls == 2

    async def test_a_tree_below_the_job(self, engine: Engine) -> None:
        await start(engine, "parent")
        tree = [child("a"), child("leaf", "a", of=IMAGES, queue=QUEUE)]
        await settled(engine, Parked("parent", "t1", tree))
        assert await state(engine, "a", IMAGES) == State.WAITING_CHILDREN
        assert await pending(engine) == 1
        assert await take(engine, token="t2") == ["leaf"]

    async def test_an_id_of_another_job_is_rejected(self, engine: Engine) -> None:
        await start(engine, "parent")
        await add(engine, "b", queue=IMAGES)
        outcome = Parked("parent", "t1", [child("a"), child("b")])
        with pytest.raises(StoreRejected, match="'b' cannot be added"):
            await engine.settle(QUEUE, [outcome], None, now_ms=NOW)
        assert await state(engine) == State.ACTIVE
        assert await counts(engine, IMAGES) == {State.WAITING: 1}
        await settled(engine, failed("parent"))

    async def test_one_id_of_two_jobs_is_rejected(self, engine: Engine) -> None:
        await start(engine, "p1", "p2")
        ends = [Parked(id, "t1", [child("a", id)]) for id in ("p1", "p2")]
        with pytest.raises(StoreRejected, match="'a' cannot be added"):
            await engine.settle(QUEUE, ends, None, now_ms=NOW)
        await settled(engine, ends[0])
        assert await outcomes(engine, "p1") == {"a": "pending"}
        assert await state(engine, "p2") == State.ACTIVE

    async def test_one_id_twice_is_rejected(self, engine: Engine) -> None:
        await start(engine, "parent")
        outcome = Parked("parent", "t1", [child("a"), child("a")])
        with pytest.raises(StoreRejected, match="an id that no other job of the flow has"):
            await engine.settle(QUEUE, [outcome], None, now_ms=NOW)
        assert await state(engine) == State.ACTIVE

    async def test_a_lost_lease_adds_no_children(self, engine: Engine) -> None:
        await start(engine, "parent")
        outcome = Parked("parent", "other", [child("a")])
        batch = await engine.settle(QUEUE, [outcome], None, now_ms=NOW)
        assert batch.lost == ["parent"]
        assert (await state(engine), await counts(engine, IMAGES)) == (State.ACTIVE, {})

    async def test_a_failed_child_fails_the_job(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a", on_failure="continue"), child("b"))
        await run(engine, failed("a"))
        assert await take(engine) == ["parent"]
        await run(engine, failed("b"))
        await settled(engine, Parked("parent", "t1", [child("c")]))
        record = await job(engine, "parent")
        assert (record.state, record.error) == (State.FAILED, "one of its children failed")
        assert not await exists(engine, "c", IMAGES)

    async def test_a_cancelled_job_does_not_wait(self, engine: Engine) -> None:
        await start(engine, "parent")
        await engine.cancel(QUEUE, ["parent"], now_ms=NOW)
        await settled(engine, Parked("parent", "t1", [child("a")]))
        batch = await engine.claim(QUEUE, claim(1, "t2"), now_ms=NOW)
        (lease,) = batch.leases
        assert lease.job.deferred_failure == CANCELLED_ERROR
        assert await counts(engine, IMAGES) == {}

    async def test_several_jobs_of_one_call(self, engine: Engine) -> None:
        await start(engine, "p1", "p2", "p3")
        await settled(
            engine, Parked("p1", "t1", [child("a", "p1")]), done("p2"),
            Parked("p3", "t1", [child("b", "p3"), child("c", "p3", queue=QUEUE)]),
        )  # fmt: skip
        assert await counts(engine) == {
            State.WAITING_CHILDREN: 2, State.COMPLETED: 1, State.WAITING: 1,
        }  # fmt: skip
        assert (await pending(engine, "p1"), await pending(engine, "p3")) == (1, 2)

    async def test_a_parked_job_of_a_dead_worker_was_handed_over(self, engine: Engine) -> None:
        """A parked job has no lease that could expire."""
        await start(engine, "parent")
        await settled(engine, Parked("parent", "t1", [child("a")]))
        later = NOW + 2 * LEASE_MS
        assert await engine.reclaim(QUEUE, crash_limit=3, now_ms=later) == []
        assert await state(engine) == State.WAITING_CHILDREN


class TestReading:
    async def test_a_page_of_children_in_the_order_of_adding(self, engine: Engine) -> None:
        ids = ["z", "y", "10", "9", "a-1", "b"]
        await add_flow(engine, new_job("parent"), *[child(f"id-{id}") for id in ids])
        await run(engine, done("id-9"), done("id-z"))
        pages = [
            [one.id for one in await engine.children(QUEUE, "parent", offset=at, limit=4)]
            for at in (0, 4, 8)
        ]
        assert pages == [["id-z", "id-y", "id-10", "id-9"], ["id-a-1", "id-b"], []]

    async def test_children_of_later_runs_come_last(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("x"), child("b"))
        await run(engine, done("x"), done("b"))
        assert await take(engine) == ["parent"]
        await settled(engine, Parked("parent", "t1", [child("n"), child("a")]))
        assert [one.id for one in await children(engine)] == ["x", "b", "n", "a"]

    async def test_states_and_errors(self, engine: Engine) -> None:
        await add_flow(
            engine, new_job("parent"), child("a"), child("b", on_failure="wait"),
            child("c", on_failure="ignore"), child("d", delay_ms=5), child("e"),
        )  # fmt: skip
        await run(engine, done("a", "[1]"), failed("b", "B"), failed("c", "C"), failed("e", "E"))
        assert await children(engine) == [
            ChildJob(IMAGES, "a", State.COMPLETED, None, "[1]", "completed", "fail"),
            ChildJob(IMAGES, "b", State.FAILED, "B", None, "pending", "wait"),
            ChildJob(IMAGES, "c", State.FAILED, "C", None, "ignored", "ignore"),
            ChildJob(IMAGES, "d", State.DELAYED, None, None, "pending", "fail"),
            ChildJob(IMAGES, "e", State.FAILED, "E", None, "failed", "fail"),
        ]
        found = await engine.count_children(QUEUE, "parent")
        assert found == ChildCounts(pending=2, completed=1, ignored=1, failed=1)
        assert found.total == 5

    @pytest.mark.parametrize("id", ["no-such-job", "99", "plain"])
    async def test_no_children(self, engine: Engine, id: str) -> None:
        await add(engine, "plain")
        assert await engine.children(QUEUE, id, limit=10) == []
        assert await engine.count_children(QUEUE, id) == ChildCounts()

    async def test_children_of_a_job_with_a_generated_id(self, engine: Engine) -> None:
        (added,) = await engine.add([new_job()], now_ms=NOW)
        assert await take(engine) == [added.id]
        await settled(engine, Parked(added.id, "t1", [child("a", added.id)]))
        assert await outcomes(engine, added.id) == {"a": "pending"}
        assert (await job(engine, "a", IMAGES)).parent == ParentLink(QUEUE, added.id)
        assert await engine.children("other", added.id, limit=10) == []

    async def test_why_names_the_children_failed_ones_first(self, engine: Engine) -> None:
        await add_flow(
            engine, new_job("parent"), child("a"), child("b", on_failure="wait"), child("c")
        )
        await run(engine, failed("b", "no ink"), done("c"))
        facts = await engine.get_why_facts(QUEUE, "parent", now_ms=NOW)
        assert facts is not None
        assert facts.pending == 2
        found = [(one.queue, one.id, one.state, one.error) for one in facts.children]
        assert found == [
            (IMAGES, "b", State.FAILED, "no ink"), (IMAGES, "a", State.ACTIVE, None),
        ]  # fmt: skip

    async def test_finished_parents_have_no_pending_children(self, engine: Engine) -> None:
        await add_flow(engine, new_job("parent"), child("a"))
        await run(engine, done("a"))
        facts = await engine.get_why_facts(QUEUE, "parent", now_ms=NOW)
        assert facts is not None
        assert (facts.pending, facts.children) == (0, [])
        assert facts.job.state not in FINISHED


class TestCluster:
    async def test_queues_in_different_hash_slots_are_refused(self, tmp_path: Path) -> None:
        """Without a hash tag in the prefix, each queue has its own hash slot."""
        async with open_for_test("redis-cluster", tmp_path) as engine:
            with pytest.raises(InvalidOption, match="must be a prefix with a hash tag, such as"):
                await add_flow(engine, new_job("parent"), child("a"))
            assert (await counts(engine), await counts(engine, IMAGES)) == ({}, {})
            await add_flow(engine, new_job("parent"), child("a", queue=QUEUE))
            assert await take(engine) == ["a"]
            with pytest.raises(StoreRejected, match="in different hash slots"):
                await engine.settle(QUEUE, [Parked("a", "t1", [child("b", "a")])], None, now_ms=NOW)
            assert await state(engine, "a") == State.ACTIVE

    @pytest.mark.parametrize("kind", ["sqlite-memory", "redis", "redis-cluster"])
    async def test_queues_are_checked_before_a_call(self, engine: Engine) -> None:
        engine.check_flow_queues({QUEUE, IMAGES})


@pytest.mark.parametrize("kind", sorted(DURABLE))
class TestTwoProcesses:
    """Each engine is that of another process."""

    async def test_the_end_of_a_child_wakes_the_worker_of_its_parent(
        self, engine: Engine, kind: str, tmp_path: Path
    ) -> None:
        async with open_for_test(kind, tmp_path, one_slot=True) as other:
            await add_flow(other, new_job("parent"), child("a"))
            async with waiting(engine) as worker:
                await run(other, done("a"))
                await soon(worker)
            assert await take(engine) == ["parent"]

    async def test_children_that_end_at_the_same_time_release_their_parent_once(
        self, engine: Engine, kind: str, tmp_path: Path
    ) -> None:
        async with open_for_test(kind, tmp_path, one_slot=True) as other:
            ids = [f"c-{number}" for number in range(1, 21)]
            await add_flow(other, new_job("parent"), *map(child, ids))
            before = await cursor(engine)
            await engine.claim(IMAGES, claim(20, "t1"), now_ms=NOW)
            calls = [
                [engine, other][index % 2].settle(IMAGES, [done(id)], None, now_ms=NOW)
                for index, id in enumerate(ids)
            ]
            await asyncio.gather(*calls)
            assert await pending(engine) == 0
            assert await happened(engine, before) == [
                event("waiting", "parent", previous="waiting-children")
            ]

    async def test_one_of_two_equal_flows_is_added(
        self, engine: Engine, kind: str, tmp_path: Path
    ) -> None:
        async with open_for_test(kind, tmp_path, one_slot=True) as other:
            flows = [
                each.add_flow([new_job("parent"), child("a"), child("b")], now_ms=NOW)
                for each in (engine, other)
            ]
            found = await asyncio.gather(*flows, return_exceptions=True)
        assert sorted(isinstance(each, InvalidOption) for each in found) == [False, True]
        assert await counts(engine, IMAGES) == {State.WAITING: 2}
        assert await pending(engine) == 2


async def test_redis_repeats_a_call_whose_reply_was_lost(tmp_path: Path) -> None:
    """With `?wait=`, a producer repeats the call, and the flow is added once."""
    async with open_for_test("redis", tmp_path) as engine:
        assert isinstance(engine, RedisEngine)
        groups, orders = make_flow_rows([new_job("parent"), child("a")], engine._keys)
        request = {
            "now": NOW, "parents": [], "groups": groups, "orders": orders,
            "idempotency": ("m", 60_000),
        }  # fmt: skip
        replies = [await engine._run_script("add_flow", QUEUE, request) for _ in range(2)]
        assert decode_flow_reply(replies[0]) == decode_flow_reply(replies[1])
        assert isinstance(decode_flow_reply(replies[0]).cursors, dict)
        assert await counts(engine, IMAGES) == {State.WAITING: 1}
        assert await pending(engine) == 1
