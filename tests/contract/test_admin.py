from __future__ import annotations

import asyncio

import pytest

from hasten.jobs._engine import CANCELLED_ERROR, Engine
from hasten.jobs._record import Completed, Failed, Progress, Released
from hasten.jobs._states import State
from tests.contract.steps import (
    NOW,
    QUEUE,
    add,
    claim,
    counts,
    cursor,
    exists,
    happened,
    ids_in,
    job,
    new_job,
    settled,
    soon,
    start,
    take,
    take_all,
)


async def requeue(engine: Engine, *ids: str, source: State) -> list[State | None]:
    return await engine.requeue(QUEUE, ids, {source}, now_ms=NOW)


async def cancel(engine: Engine, *ids: str, now_ms: int = NOW) -> list[State | None]:
    return await engine.cancel(QUEUE, ids, now_ms=now_ms)


async def remove(engine: Engine, *ids: str) -> list[State | None]:
    return await engine.remove(QUEUE, ids, now_ms=NOW)


async def purge(
    engine: Engine, *states: State, before_ms: int | None = None, limit: int | None = None
) -> list[str]:
    return await engine.purge(QUEUE, states, before_ms=before_ms, limit=limit, now_ms=NOW)


async def one_in_each_state(engine: Engine) -> dict[str, State]:
    """Add a job for each state, and return the states by id."""
    await start(engine, "done", "broken", "running")
    await settled(engine, Completed("done", "t1", "1"), Failed("broken", "t1", "no"))
    await add(engine, "ready")
    await add(engine, "ranked", priority=1)
    await add(engine, "later", delay_ms=100)
    return {
        "ready": State.WAITING,
        "ranked": State.PRIORITIZED,
        "later": State.DELAYED,
        "running": State.ACTIVE,
        "done": State.COMPLETED,
        "broken": State.FAILED,
    }


class TestRequeueDelayed:
    async def test_makes_them_ready_now(self, engine: Engine) -> None:
        await add(engine, "a", delay_ms=500)
        assert await requeue(engine, "a", source=State.DELAYED) == [State.DELAYED]
        record = await job(engine, "a")
        assert (record.state, record.delay_ms, record.due_ms) == (State.WAITING, 0, None)
        assert await take(engine) == ["a"]

    async def test_keeps_their_priority(self, engine: Engine) -> None:
        await add(engine, "a", delay_ms=500, priority=2)
        await add(engine, "b", priority=2)
        await add(engine, "c", priority=3)
        await requeue(engine, "a", source=State.DELAYED)
        assert (await job(engine, "a")).state is State.PRIORITIZED
        assert await take_all(engine) == ["b", "a", "c"]

    async def test_puts_them_behind_waiting_jobs(self, engine: Engine) -> None:
        """In the order of the call."""
        await add(engine, "a", "b", delay_ms=500)
        await add(engine, "c")
        assert await requeue(engine, "b", "a", source=State.DELAYED) == [State.DELAYED] * 2
        assert await take_all(engine) == ["c", "b", "a"]

    async def test_puts_lifo_jobs_behind_waiting_jobs_too(self, engine: Engine) -> None:
        """As in BullMQ, and as when they are due: `lifo` only applies when a job is added."""
        await add(engine, "a", "b", delay_ms=500, lifo=True)
        await add(engine, "c")
        await requeue(engine, "a", source=State.DELAYED)
        assert await take_all(engine, now_ms=NOW + 500) == ["c", "a", "b"]


class TestRequeueFinished:
    @pytest.mark.parametrize("source", [State.COMPLETED, State.FAILED])
    async def test_clears_the_result_and_the_attempts(self, engine: Engine, source: State) -> None:
        await start(engine, "a")
        done = Completed("a", "t1", "1") if source is State.COMPLETED else Failed("a", "t1", "no")
        await settled(engine, done)
        assert await requeue(engine, "a", source=source) == [source]
        record = await job(engine, "a")
        assert record.state is State.WAITING
        assert (record.result, record.error) == (None, None)
        assert record.attempts_made == 0
        assert (record.finished_ms, record.started_ms) == (None, None)
        assert await take(engine, 1, "t2") == ["a"]
        await settled(engine, Completed("a", "t2", "2"))
        assert (await job(engine, "a")).result == "2"

    async def test_keeps_the_priority(self, engine: Engine) -> None:
        await start(engine, "a", priority=2)
        await settled(engine, Failed("a", "t1", "no"))
        await add(engine, "b", priority=2)
        await requeue(engine, "a", source=State.FAILED)
        assert await take_all(engine) == ["b", "a"]

    @pytest.mark.parametrize(("lifo", "order"), [(False, ["b", "a"]), (True, ["a", "b"])])
    async def test_puts_them_behind_waiting_jobs_but_lifo_jobs_in_front(
        self, engine: Engine, lifo: bool, order: list[str]
    ) -> None:
        """As when they are retried."""
        await start(engine, "a", lifo=lifo)
        await settled(engine, Failed("a", "t1", "no"))
        await add(engine, "b")
        await requeue(engine, "a", source=State.FAILED)
        assert await take_all(engine) == order

    async def test_clears_the_crashes(self, engine: Engine) -> None:
        """Its cause has probably been fixed, so the job gets all its attempts again."""
        await start(engine, "a", lease_ms=10)
        await engine.reclaim(QUEUE, crash_limit=1, now_ms=NOW + 11)
        await take(engine, 1, "t2")
        await settled(engine, Failed("a", "t2", "its worker died"))
        await requeue(engine, "a", source=State.FAILED)
        assert (await job(engine, "a")).deferred_failure is None
        await take(engine, 1, "t3", lease_ms=10)
        await engine.reclaim(QUEUE, crash_limit=2, now_ms=NOW + 11)
        assert (await job(engine, "a")).deferred_failure is None

    async def test_clears_the_cancellation(self, engine: Engine) -> None:
        """Otherwise it would be stopped as soon as it runs."""
        await start(engine, "a", "b")
        await cancel(engine, "a")
        await settled(engine, Failed("a", "t1", CANCELLED_ERROR), Released("b", "t1"))
        await cancel(engine, "b")
        assert await requeue(engine, "a", "b", source=State.FAILED) == [State.FAILED] * 2
        batch = await engine.claim(QUEUE, claim(2, "t2"), now_ms=NOW)
        assert [lease.job.deferred_failure for lease in batch.leases] == [None, None]
        assert await asyncio.to_thread(engine.find_cancelled, QUEUE, ["a", "b"]) == set()


class TestRequeue:
    @pytest.mark.parametrize("source", [State.DELAYED, State.COMPLETED, State.FAILED])
    async def test_leaves_jobs_in_another_state(self, engine: Engine, source: State) -> None:
        """The result has their states. The other jobs of the call are moved."""
        states = await one_in_each_state(engine)
        others = {id: state for id, state in states.items() if state is not source}
        before = await engine.get(QUEUE, list(others))
        answers = await requeue(engine, *states, source=source)
        assert answers == list(states.values())
        assert await engine.get(QUEUE, list(others)) == before

    async def test_takes_jobs_from_several_states(self, engine: Engine) -> None:
        states = await one_in_each_state(engine)
        sources = {State.FAILED, State.COMPLETED}
        answers = await engine.requeue(QUEUE, list(states), sources, now_ms=NOW)
        assert answers == list(states.values())
        assert [await ids_in(engine, source) for source in sources] == [[], []]

    async def test_moves_a_job_that_is_named_twice_once(self, engine: Engine) -> None:
        await add(engine, "a", delay_ms=500)
        answers = await requeue(engine, "a", "a", source=State.DELAYED)
        assert answers == [State.DELAYED, State.WAITING]
        assert await ids_in(engine, State.WAITING) == ["a"]

    @pytest.mark.parametrize("unknown", ["gone", "17"])
    async def test_of_an_unknown_job_moves_the_others(self, engine: Engine, unknown: str) -> None:
        await add(engine, "a", delay_ms=500)
        answers = await requeue(engine, unknown, "a", source=State.DELAYED)
        assert answers == [None, State.DELAYED]
        assert await ids_in(engine, State.WAITING) == ["a"]


class TestCancel:
    async def test_fails_jobs_that_have_not_started(self, engine: Engine) -> None:
        await add(engine, "a")
        await add(engine, "p", priority=1)
        await add(engine, "d", delay_ms=500)
        answers = await cancel(engine, "a", "p", "d", now_ms=NOW + 5)
        assert answers == [State.WAITING, State.PRIORITIZED, State.DELAYED]
        for id in "apd":
            record = await job(engine, id)
            assert record.state is State.FAILED
            assert record.error == CANCELLED_ERROR
            assert record.finished_ms == NOW + 5
            assert (record.attempts_made, record.attempts_started) == (0, 0)
            assert record.due_ms is None
        assert await take(engine, 3, now_ms=NOW + 500) == []

    async def test_requests_that_running_jobs_stop(self, engine: Engine) -> None:
        """Only the worker can stop it. It settles the job then."""
        await start(engine, "a")
        assert await cancel(engine, "a") == [State.ACTIVE]
        record = await job(engine, "a")
        assert (record.state, record.cancel_requested) == (State.ACTIVE, True)
        await settled(engine, Failed("a", "t1", CANCELLED_ERROR))
        assert (await job(engine, "a")).error == CANCELLED_ERROR

    async def test_may_come_too_late(self, engine: Engine) -> None:
        """The handler may have returned before."""
        await start(engine, "a")
        await cancel(engine, "a")
        await settled(engine, Completed("a", "t1", "1"))
        assert (await job(engine, "a")).state is State.COMPLETED

    async def test_leaves_finished_jobs(self, engine: Engine) -> None:
        await start(engine, "a", "b")
        await settled(engine, Completed("a", "t1", "1"), Failed("b", "t1", "no"))
        before = await engine.get(QUEUE, ["a", "b"])
        assert await cancel(engine, "a", "b") == [State.COMPLETED, State.FAILED]
        assert await engine.get(QUEUE, ["a", "b"]) == before

    async def test_returns_none_for_missing_jobs(self, engine: Engine) -> None:
        await add(engine, "a")
        assert await cancel(engine, "gone", "a", "17") == [None, State.WAITING, None]

    async def test_is_safe_to_call_twice(self, engine: Engine) -> None:
        await add(engine, "a")
        assert await cancel(engine, "a", "a") == [State.WAITING, State.FAILED]
        assert await cancel(engine, "a") == [State.FAILED]
        assert await counts(engine) == {State.FAILED: 1}


class TestRemove:
    async def test_deletes_all_but_running_jobs(self, engine: Engine) -> None:
        states = await one_in_each_state(engine)
        assert await remove(engine, *states) == list(states.values())
        assert await counts(engine) == {State.ACTIVE: 1}
        await settled(engine, Completed("running", "t1", "1"))

    async def test_returns_none_for_missing_jobs(self, engine: Engine) -> None:
        await add(engine, "a")
        assert await remove(engine, "gone", "a", "a", "17") == [None, State.WAITING, None, None]

    async def test_takes_thousands_at_once(self, engine: Engine) -> None:
        answers = await engine.add([new_job() for _ in range(2000)], now_ms=NOW)
        await remove(engine, *(answer.id for answer in answers[1:]))
        assert await ids_in(engine, State.WAITING) == [answers[0].id]


class TestPurge:
    @pytest.mark.parametrize(
        "state",
        [
            State.WAITING,
            State.PRIORITIZED,
            State.DELAYED,
            State.ACTIVE,
            State.COMPLETED,
            State.FAILED,
        ],
    )
    async def test_deletes_the_jobs_in_the_state(self, engine: Engine, state: State) -> None:
        states = await one_in_each_state(engine)
        (expected,) = [id for id, its in states.items() if its is state]
        assert await purge(engine, state) == [expected]
        found = await engine.get(QUEUE, list(states))
        assert [id for id, record in zip(states, found, strict=True) if not record] == [expected]

    async def test_takes_several_states(self, engine: Engine) -> None:
        """`drain` does that."""
        await one_in_each_state(engine)
        purged = await purge(engine, State.WAITING, State.PRIORITIZED, State.DELAYED)
        assert sorted(purged) == ["later", "ranked", "ready"]

    async def test_of_no_states_deletes_nothing(self, engine: Engine) -> None:
        await add(engine, "a")
        assert await purge(engine) == []
        assert await exists(engine, "a")

    async def test_stays_within_its_queue(self, engine: Engine) -> None:
        await add(engine, "a", queue="other")
        assert await purge(engine, *State) == []
        assert await exists(engine, "a", "other")

    async def test_deletes_the_oldest_first(self, engine: Engine) -> None:
        """Up to the limit. The age of finished jobs is that of their finish."""
        await start(engine, *"abc")
        for n, id in enumerate("cab"):
            await settled(engine, Completed(id, "t1", "1"), now_ms=NOW + n)
        assert await purge(engine, State.COMPLETED, limit=2) == ["c", "a"]
        assert await ids_in(engine, State.COMPLETED) == ["b"]

    async def test_deletes_those_that_are_first_in_line(self, engine: Engine) -> None:
        """Up to the limit, in the order of claims."""
        await add(engine, "a", now_ms=NOW)
        await add(engine, "b", lifo=True, now_ms=NOW + 1)
        assert await purge(engine, State.WAITING, limit=1) == ["b"]
        await add(engine, "c", delay_ms=900, now_ms=NOW + 2)
        await add(engine, "d", delay_ms=100, now_ms=NOW + 3)
        assert await purge(engine, State.DELAYED, limit=1) == ["d"]
        await add(engine, "e", priority=2, now_ms=NOW + 4)
        await add(engine, "f", priority=1, now_ms=NOW + 5)
        assert await purge(engine, State.PRIORITIZED, limit=1) == ["f"]

    async def test_skips_younger_jobs_before_older_ones(self, engine: Engine) -> None:
        """However many there are, at either end of the line."""
        old = [str(n) for n in range(60)]
        await add(engine, *old[:30], now_ms=NOW)
        await add(engine, *(f"young{n}" for n in range(2_100)), lifo=True, now_ms=NOW + 9)
        await add(engine, *old[30:], lifo=True, now_ms=NOW)
        await add(engine, *(f"younger{n}" for n in range(600)), lifo=True, now_ms=NOW + 9)
        purged = await purge(engine, State.WAITING, before_ms=NOW, limit=40)
        assert purged == [*reversed(old[30:]), *old[:10]]
        assert await purge(engine, State.WAITING, before_ms=NOW) == old[10:30]
        assert (await counts(engine))[State.WAITING] == 2_700
        left = await engine.get_page(QUEUE, State.WAITING, offset=0, limit=5000, newest_first=False)
        assert [record.id for record in left] == [
            *(f"younger{n}" for n in reversed(range(600))),
            *(f"young{n}" for n in reversed(range(2_100))),
        ]

    async def test_keeps_to_the_limit_over_several_states(self, engine: Engine) -> None:
        await add(engine, "a", "b")
        await add(engine, "p", "q", priority=1)
        assert len(await purge(engine, State.WAITING, State.PRIORITIZED, limit=3)) == 3
        assert await purge(engine, State.WAITING, State.PRIORITIZED, limit=0) == []
        assert sum((await counts(engine)).values()) == 1

    async def test_goes_by_the_finish_of_finished_jobs(self, engine: Engine) -> None:
        await start(engine, *"abc", now_ms=NOW)
        for n, id in enumerate("abc"):
            await settled(engine, Failed(id, "t1", "no"), now_ms=NOW + n)
        assert await purge(engine, State.FAILED, before_ms=NOW - 1) == []
        assert await purge(engine, State.FAILED, before_ms=NOW + 1) == ["a", "b"]

    async def test_goes_by_the_adding_of_others(self, engine: Engine) -> None:
        for n, id in enumerate("abc"):
            await add(engine, id, now_ms=NOW + n)
        await take(engine, 1, now_ms=NOW + 100)
        assert await purge(engine, State.WAITING, State.ACTIVE, before_ms=NOW - 1) == []
        assert sorted(await purge(engine, State.WAITING, State.ACTIVE, before_ms=NOW + 1)) == [
            "a",
            "b",
        ]

    async def test_makes_the_worker_of_a_deleted_job_lose_its_lease(self, engine: Engine) -> None:
        await start(engine, "a")
        await purge(engine, State.ACTIVE)
        lost = await asyncio.to_thread(engine.renew, QUEUE, {"a": "t1"}, lease_ms=1000, now_ms=NOW)
        assert lost == {"a"}
        batch = await engine.settle(QUEUE, [Completed("a", "t1", "1")], None, now_ms=NOW)
        assert batch.lost == ["a"]
        assert await counts(engine) == {}


class TestForget:
    async def test_deletes_all_that_belongs_to_the_queue(self, engine: Engine) -> None:
        states = await one_in_each_state(engine)
        await engine.update(QUEUE, [Progress("running", "1")], now_ms=NOW)
        await engine.pause(QUEUE, now_ms=NOW)
        await engine.obliterate(QUEUE)
        assert await counts(engine) == {}
        assert await engine.get(QUEUE, list(states)) == [None] * len(states)
        assert not await engine.is_paused(QUEUE)
        assert await engine.queues() == []

    async def test_leaves_the_other_queues(self, engine: Engine) -> None:
        await add(engine, "a")
        await add(engine, "a", queue="other")
        before = await cursor(engine, "other")
        await engine.obliterate(QUEUE)
        assert await engine.queues() == ["other"]
        assert await exists(engine, "a", "other")
        await add(engine, "b", queue="other")
        assert len(await happened(engine, before, "other")) == 2

    async def test_makes_its_workers_lose_their_leases(self, engine: Engine) -> None:
        await start(engine, "a")
        await engine.obliterate(QUEUE)
        batch = await engine.settle(QUEUE, [Completed("a", "t1", "1")], claim(1, "t2"), now_ms=NOW)
        assert (batch.lost, batch.leases) == (["a"], [])
        assert await engine.queues() == []

    async def test_of_a_queue_that_is_not_there_does_nothing(self, engine: Engine) -> None:
        await engine.obliterate("no such queue")

    async def test_leaves_an_empty_queue(self, engine: Engine) -> None:
        """The new queue has no data of the old one, and its readers continue."""
        await one_in_each_state(engine)
        before = await cursor(engine)
        await engine.obliterate(QUEUE)
        await add(engine, "done")
        assert (await job(engine, "done")).state is State.WAITING
        page = await soon(engine.events(QUEUE, after=before))
        assert {event.job_id for event in page.events} == {"done"}
        assert await take(engine, 1, "t9") == ["done"]
        await settled(engine, Completed("done", "t9", "1"))
        assert await counts(engine) == {State.COMPLETED: 1}


class TestPause:
    async def test_is_off_at_first(self, engine: Engine) -> None:
        assert not await engine.is_paused(QUEUE)

    async def test_and_resume_are_safe_to_call_twice(self, engine: Engine) -> None:
        for _ in range(2):
            await engine.pause(QUEUE, now_ms=NOW)
            assert await engine.is_paused(QUEUE)
        for _ in range(2):
            await engine.resume(QUEUE, now_ms=NOW)
            assert not await engine.is_paused(QUEUE)

    async def test_is_for_one_queue(self, engine: Engine) -> None:
        await engine.pause(QUEUE, now_ms=NOW)
        assert not await engine.is_paused("other")

    async def test_leaves_jobs_where_they_are(self, engine: Engine) -> None:
        """Jobs can still be added, and their order does not change."""
        await add(engine, "a")
        await engine.pause(QUEUE, now_ms=NOW)
        await add(engine, "b")
        assert await ids_in(engine, State.WAITING) == ["a", "b"]
        await engine.resume(QUEUE, now_ms=NOW)
        assert await take_all(engine) == ["a", "b"]
