from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hasten.jobs._engine import Engine
from hasten.jobs._options import KEEP_NONE
from hasten.jobs._record import (
    Completed,
    Failed,
    JobChange,
    LogLine,
    Postponed,
    Progress,
    Released,
    Retry,
    Update,
)
from hasten.jobs._states import FINISHED, State
from tests.contract.steps import (
    NOW,
    QUEUE,
    add,
    claim,
    cursor,
    event,
    happened_to,
    ids_in,
    job,
    new_job,
    settled,
    soon,
    start,
    take,
    take_all,
    waiting,
)


async def update(engine: Engine, *updates: Update, now_ms: int = NOW) -> list[State | None]:
    return await engine.update(QUEUE, updates, now_ms=now_ms)


async def one_in(engine: Engine, state: State) -> str:
    """Add a job in a state: any but waiting-children, which no operation produces."""
    match state:
        case State.WAITING:
            await add(engine, "a")
        case State.PRIORITIZED:
            await add(engine, "a", priority=5)
        case State.DELAYED:
            await add(engine, "a", delay_ms=50)
        case _:
            await start(engine, "a")
    if state is State.COMPLETED:
        await settled(engine, Completed("a", "t1", "1"))
    elif state is State.FAILED:
        await settled(engine, Failed("a", "t1", "no"))
    return "a"


STATES = [state for state in State if state is not State.WAITING_CHILDREN]


class TestProgress:
    async def test_is_the_latest(self, engine: Engine) -> None:
        await start(engine, "a", "b")
        await update(engine, Progress("a", "1"), Progress("b", '{"of":2}'), Progress("a", "2"))
        assert (await job(engine, "a")).progress == "2"
        assert (await job(engine, "b")).progress == '{"of":2}'

    async def test_stays_with_the_finished_job(self, engine: Engine) -> None:
        await start(engine, "a")
        await update(engine, Progress("a", "100"))
        await settled(engine, Completed("a", "t1", "1"))
        assert (await job(engine, "a")).progress == "100"


class TestLogs:
    async def test_are_kept_in_order(self, engine: Engine) -> None:
        await start(engine, "a", "b")
        await update(
            engine, LogLine("a", "1", 10), LogLine("b", "other", 10), LogLine("a", "2", 10)
        )
        await update(engine, LogLine("a", "3", 10))
        assert await engine.logs(QUEUE, "a") == ["1", "2", "3"]
        assert await engine.logs(QUEUE, "b") == ["other"]

    async def test_keep_the_newest(self, engine: Engine) -> None:
        """A handler that logs in a loop must not fill the store."""
        await start(engine, "a", "b")
        await update(engine, *(LogLine("a", str(n), 3) for n in range(10)), LogLine("b", "x", 3))
        assert await engine.logs(QUEUE, "a") == ["7", "8", "9"]
        await update(engine, LogLine("a", "10", 2))
        assert await engine.logs(QUEUE, "a") == ["9", "10"]
        assert await engine.logs(QUEUE, "b") == ["x"]

    async def test_of_a_job_that_is_not_there_are_none(self, engine: Engine) -> None:
        assert await engine.logs(QUEUE, "gone") == []
        assert await engine.logs(QUEUE, "17") == []
        await add(engine, "a", queue="other")
        assert await engine.logs(QUEUE, "a") == []

    async def test_outlive_the_finish(self, engine: Engine) -> None:
        """The log shows why the job failed."""
        await start(engine, "a")
        await update(engine, LogLine("a", "line", 10))
        await settled(engine, Completed("a", "t1", "1"))
        assert await engine.logs(QUEUE, "a") == ["line"]

    async def test_are_deleted_with_their_job(self, engine: Engine) -> None:
        """For all ways to delete a job. A new job with that id has no log lines."""
        await start(engine, *"abcd")
        await update(engine, *(LogLine(id, "old", 10) for id in "abcd"))
        await settled(engine, Completed("a", "t1", "1", KEEP_NONE))
        await settled(engine, Completed("b", "t1", "1"))
        await engine.remove(QUEUE, ["b"], now_ms=NOW)
        await settled(engine, Completed("c", "t1", "1"))
        await engine.purge(QUEUE, [State.COMPLETED], before_ms=None, limit=None, now_ms=NOW)
        await engine.obliterate(QUEUE)
        assert [await engine.logs(QUEUE, id) for id in "abcd"] == [[]] * 4
        await add(engine, *"abcd")
        assert [await engine.logs(QUEUE, id) for id in "abcd"] == [[]] * 4


class TestUpdates:
    async def test_of_jobs_that_are_gone_are_dropped(self, engine: Engine) -> None:
        """They may come late. The other updates of the call are stored."""
        await start(engine, "a")
        found = await update(
            engine,
            Progress("gone", "1"),
            LogLine("gone", "line", 10),
            JobChange("gone", data='"new"'),
            Progress("17", "1"),
            LogLine("17", "line", 10),
            JobChange("17", data='"new"', delay_ms=5),
            Progress("a", "5"),
        )
        assert found == [None] * 6 + [State.ACTIVE]
        assert await engine.get(QUEUE, ["gone", "17"]) == [None, None]
        assert (await job(engine, "a")).progress == "5"
        assert await engine.logs(QUEUE, "gone") == []

    async def test_go_by_ids_and_not_by_rows(self, engine: Engine) -> None:
        """A job with a chosen id is not found by the number of its row."""
        await start(engine, "a")
        numbers = [str(n) for n in range(10)]
        await update(engine, *(Progress(n, "1") for n in numbers))
        await update(engine, *(LogLine(n, "line", 10) for n in numbers))
        assert await update(engine, *(JobChange(n, data="7") for n in numbers)) == [None] * 10
        assert (await job(engine, "a")).progress is None
        assert (await job(engine, "a")).data == "{}"
        assert await engine.logs(QUEUE, "a") == []

    async def test_stay_within_their_queue(self, engine: Engine) -> None:
        (answer,) = await engine.add([new_job(queue="other")], now_ms=NOW)
        await update(engine, Progress(answer.id, "1"), LogLine(answer.id, "line", 10))
        assert await update(engine, JobChange(answer.id, data="7")) == [None]
        record = await job(engine, answer.id, "other")
        assert (record.progress, record.data) == (None, "{}")
        assert await engine.logs("other", answer.id) == []

    async def test_of_no_number_do_nothing(self, engine: Engine) -> None:
        assert await update(engine) == []

    async def test_return_the_state_of_each_job(self, engine: Engine) -> None:
        await start(engine, "a", "b")
        await settled(engine, Completed("b", "t1", "1"))
        await add(engine, "c", delay_ms=5)
        await add(engine, "d", priority=1)
        ids = ["a", "b", "c", "d", "gone"]
        states = [State.ACTIVE, State.COMPLETED, State.DELAYED, State.PRIORITIZED, None]
        assert await update(engine, *(Progress(id, "1") for id in ids)) == states
        assert await update(engine, *(LogLine(id, "line", 5) for id in ids)) == states
        assert await update(engine, *(JobChange(id) for id in ids)) == states

    async def test_are_made_in_their_order(self, engine: Engine) -> None:
        await add(engine, "a", "b")
        found = await update(
            engine,
            JobChange("a", data="1", priority=2),
            JobChange("a", data="2"),
            JobChange("a", priority=0),
        )
        assert found == [State.WAITING, State.PRIORITIZED, State.PRIORITIZED]
        record = await job(engine, "a")
        assert (record.data, record.priority, record.state) == ("2", 0, State.WAITING)


class TestData:
    @pytest.mark.parametrize("state", STATES)
    async def test_may_change_in_every_state(self, engine: Engine, state: State) -> None:
        id = await one_in(engine, state)
        before = await job(engine, id)
        now = await cursor(engine)
        assert await update(engine, JobChange(id, data='{"n":2}')) == [state]
        assert await job(engine, id) == msgspec.structs.replace(before, data='{"n":2}')
        assert await happened_to(engine, id, now) == []

    async def test_of_a_running_job_is_for_its_next_run(self, engine: Engine) -> None:
        await start(engine, "a")
        await update(engine, JobChange("a", data='{"n":2}'))
        await settled(engine, Retry("a", "t1", "no", "trace", 0))
        (lease,) = (await engine.claim(QUEUE, claim(1, "t2"), now_ms=NOW)).leases
        assert lease.job.data == '{"n":2}'


class TestChangedProgress:
    @pytest.mark.parametrize("state", STATES)
    async def test_may_come_from_outside(self, engine: Engine, state: State) -> None:
        id = await one_in(engine, state)
        now = await cursor(engine)
        assert await update(engine, JobChange(id, progress='{"of":2}')) == [state]
        assert (await job(engine, id)).progress == '{"of":2}'
        assert await happened_to(engine, id, now) == [event("progress", id, value='{"of":2}')]


class TestPriority:
    async def test_moves_a_job_behind_those_that_have_it(self, engine: Engine) -> None:
        await add(engine, "w1", "w2", "w3")
        await add(engine, "p1", "p2", priority=5)
        await add(engine, "p3", priority=7)
        assert await update(
            engine,
            JobChange("w1", priority=5),
            JobChange("w2", priority=0),
            JobChange("p1", priority=0),
            JobChange("p3", priority=1),
        ) == [State.WAITING, State.WAITING, State.PRIORITIZED, State.PRIORITIZED]
        assert await ids_in(engine, State.WAITING) == ["w3", "w2", "p1"]
        assert await ids_in(engine, State.PRIORITIZED) == ["p3", "p2", "w1"]
        assert (await job(engine, "p1")).priority == 0
        assert await take_all(engine) == ["w3", "w2", "p1", "p3", "p2", "w1"]

    async def test_of_a_delayed_job_is_for_when_it_is_due(self, engine: Engine) -> None:
        await add(engine, "a", "b", delay_ms=5, priority=3)
        await add(engine, "c", priority=2)
        assert await update(engine, JobChange("b", priority=1)) == [State.DELAYED]
        assert await take(engine, 3, now_ms=NOW + 5) == ["b", "c", "a"]

    @pytest.mark.parametrize(
        "back", [Retry("a", "t1", "no", "trace", 0), Postponed("a", "t1", 0), Released("a", "t1")]
    )
    async def test_of_a_running_job_is_for_its_next_run(self, engine: Engine, back: Any) -> None:
        await start(engine, "a")
        assert await update(engine, JobChange("a", priority=2)) == [State.ACTIVE]
        await add(engine, "b", priority=1)
        await settled(engine, back)
        assert await take_all(engine) == ["b", "a"]

    @pytest.mark.parametrize("state", FINISHED)
    async def test_of_a_finished_job_stays(self, engine: Engine, state: State) -> None:
        id = await one_in(engine, state)
        before = await job(engine, id)
        assert await update(engine, JobChange(id, priority=2, data="2", progress="2")) == [state]
        assert await job(engine, id) == before

    async def test_wakes_a_waiting_worker(self, engine: Engine) -> None:
        """The job may be the only one that is ready."""
        await add(engine, "a", delay_ms=10**6)
        async with waiting(engine, next_due_ms=NOW + 10**6) as wait:
            await add(engine, "b")
            await soon(wait)
        await update(engine, JobChange("b", priority=1))
        async with waiting(engine) as wait:
            await soon(wait)

    async def test_emits_no_event(self, engine: Engine) -> None:
        """As in BullMQ."""
        await add(engine, "a")
        now = await cursor(engine)
        await update(engine, JobChange("a", priority=1))
        assert await happened_to(engine, "a", now) == []


class TestDelay:
    async def test_counts_from_now(self, engine: Engine) -> None:
        await add(engine, "a", "b", delay_ms=100)
        now = await cursor(engine)
        assert await update(engine, JobChange("b", delay_ms=20), now_ms=NOW + 10) == [State.DELAYED]
        record = await job(engine, "b")
        assert (record.due_ms, record.delay_ms) == (NOW + 30, 20)
        assert await ids_in(engine, State.DELAYED) == ["b", "a"]
        assert await take(engine, 2, now_ms=NOW + 29) == []
        assert await take(engine, 2, now_ms=NOW + 30) == ["b"]
        changed, *_ = await happened_to(engine, "b", now)
        assert changed == event("delayed", "b", due_ms=NOW + 30)

    async def test_may_be_longer(self, engine: Engine) -> None:
        await add(engine, "a", delay_ms=10)
        await update(engine, JobChange("a", delay_ms=1000))
        assert await take(engine, 1, now_ms=NOW + 999) == []
        assert await take(engine, 1, now_ms=NOW + 1000) == ["a"]

    async def test_of_nothing_makes_it_due(self, engine: Engine) -> None:
        await add(engine, "a", delay_ms=1000)
        await update(engine, JobChange("a", delay_ms=0))
        assert await take(engine, 1) == ["a"]

    async def test_wakes_a_worker_that_waits_for_a_later_job(self, engine: Engine) -> None:
        await add(engine, "a", delay_ms=10**6)
        async with waiting(engine, next_due_ms=NOW + 10**6) as wait:
            await update(engine, JobChange("a", delay_ms=5))
            await soon(wait)

    @pytest.mark.parametrize("state", [state for state in STATES if state is not State.DELAYED])
    async def test_is_of_delayed_jobs_alone(self, engine: Engine, state: State) -> None:
        """The whole update is refused."""
        id = await one_in(engine, state)
        before = await job(engine, id)
        change = JobChange(id, delay_ms=5, data="2", priority=2, progress="2")
        assert await update(engine, change) == [state]
        assert await job(engine, id) == before

    async def test_comes_with_other_changes(self, engine: Engine) -> None:
        await add(engine, "a", delay_ms=100)
        change = JobChange("a", data="2", priority=3, delay_ms=5, progress="4")
        assert await update(engine, change) == [State.DELAYED]
        record = await job(engine, "a")
        assert (record.data, record.priority, record.due_ms) == ("2", 3, NOW + 5)
        assert record.progress == "4"
