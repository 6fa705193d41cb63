from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pytest

from hasten.errors import HastenError
from hasten.jobs._engine import Engine
from hasten.jobs._engines.redis import RedisEngine, script_requests
from hasten.jobs._engines.redis.decoding import decode_add_reply, to_dict
from hasten.jobs._options import KEEP_NONE
from hasten.jobs._record import AddResult, Completed, Failed, JobRecord
from hasten.jobs._states import State
from tests.contract.engines import open_for_test
from tests.contract.steps import (
    NOW,
    QUEUE,
    add,
    counts,
    exists,
    happened_to,
    ids_in,
    job,
    new_job,
    settled,
    start,
    take,
)

OPTIONS_BY_STATE: Final[dict[str, dict[str, Any]]] = {
    "is-waiting": {},
    "is-first": {"lifo": True},
    "is-prioritized": {"priority": 3},
    "is-delayed": {"delay_ms": 10},
}


def was_added(answers: Iterable[AddResult]) -> list[tuple[str, bool]]:
    """Return the ids, each with whether the job is new."""
    return [(answer.id, answer.existing is None) for answer in answers]


class TestAdd:
    async def test_stores_what_it_was_given(self, engine: Engine) -> None:
        new = new_job("a", name="send_welcome", data='{"to":"ada"}', opts='{"attempts":5}')
        await engine.add([new], now_ms=NOW)
        assert await job(engine, "a") == JobRecord(
            queue=QUEUE,
            id="a",
            name="send_welcome",
            data='{"to":"ada"}',
            opts='{"attempts":5}',
            state=State.WAITING,
            priority=0,
            delay_ms=0,
            created_ms=NOW,
            attempts_made=0,
            attempts_started=0,
            crashes=0,
        )

    async def test_with_a_priority_makes_it_prioritized(self, engine: Engine) -> None:
        await add(engine, "a", priority=7)
        record = await job(engine, "a")
        assert (record.state, record.priority) == (State.PRIORITIZED, 7)

    async def test_with_a_delay_makes_it_delayed(self, engine: Engine) -> None:
        """The priority applies when the job is due."""
        await add(engine, "a", delay_ms=500, priority=7)
        record = await job(engine, "a")
        assert (record.state, record.priority) == (State.DELAYED, 7)
        assert (record.delay_ms, record.due_ms) == (500, NOW + 500)

    async def test_answers_in_order_whatever_the_queues(self, engine: Engine) -> None:
        """Concurrent calls are combined, and each gets its own result."""
        jobs = [new_job(f"{n}-x", queue=f"queue {n % 3}") for n in range(30)]
        answers = await engine.add(jobs, now_ms=NOW)
        assert [answer.id for answer in answers] == [f"{n}-x" for n in range(30)]
        assert await ids_in(engine, State.WAITING, "queue 1") == [
            f"{n}-x" for n in range(30) if n % 3 == 1
        ]

    async def test_of_nothing_does_nothing(self, engine: Engine) -> None:
        assert await engine.add([], now_ms=NOW) == []
        assert await engine.queues() == []

    async def test_takes_thousands_at_once(self, engine: Engine) -> None:
        """Stores limit the parameters of a statement, and the engine splits the call."""
        answers = await engine.add([new_job() for _ in range(20_000)], now_ms=NOW)
        assert len({answer.id for answer in answers}) == 20_000
        assert await counts(engine) == {State.WAITING: 20_000}
        assert await take(engine, 2) == [answers[0].id, answers[1].id]


class TestCursors:
    """The cursor of a job comes before the event of its end."""

    async def test_come_before_all_later_events_of_the_job(self, engine: Engine) -> None:
        """For a new job and for an existing one."""
        await add(engine, "before")
        added = await engine.add([new_job("a"), new_job(), new_job("b", delay_ms=5)], now_ms=NOW)
        (found,) = await engine.add([new_job("a")], now_ms=NOW)
        await engine.cancel(QUEUE, [answer.id for answer in added], now_ms=NOW)
        for answer in (*added, found):
            (failed,) = [
                event
                for event in await happened_to(engine, answer.id, answer.cursor)
                if event.kind == "failed"
            ]
            assert failed.error == "cancelled"

    async def test_come_after_all_earlier_events(self, engine: Engine) -> None:
        """Otherwise a new job could get the end of an older job with the same id."""
        await start(engine, "a")
        await settled(engine, Completed("a", "t1", "7", KEEP_NONE))
        (answer,) = await engine.add([new_job("a")], now_ms=NOW)
        kinds = [event.kind for event in await happened_to(engine, "a", answer.cursor)]
        assert "completed" not in kinds


class TestIds:
    async def test_are_numbers_that_grow(self, engine: Engine) -> None:
        """Chosen ids are never numbers, so the two kinds cannot collide."""
        first = await engine.add([new_job(), new_job("chosen"), new_job()], now_ms=NOW)
        second = await engine.add([new_job()], now_ms=NOW)
        given = [answer.id for answer in first + second if answer.id != "chosen"]
        assert all(id.isdecimal() for id in given)
        assert sorted(set(given), key=int) == given
        assert len(given) == 3

    async def test_are_never_assigned_twice(self, engine: Engine) -> None:
        """A caller that kept the id of a removed job must not find another job."""
        (first,) = await engine.add([new_job()], now_ms=NOW)
        await engine.remove(QUEUE, [first.id], now_ms=NOW)
        (second,) = await engine.add([new_job()], now_ms=NOW)
        assert second.id != first.id
        assert not await exists(engine, first.id)

    async def test_are_assigned_once_under_contention(self, engine: Engine) -> None:
        batches = [[new_job() for _ in range(n)] for n in range(1, 21)]
        answers = await asyncio.gather(*(engine.add(batch, now_ms=NOW) for batch in batches))
        assert [len(batch) for batch in answers] == list(range(1, 21))
        assert len({answer.id for batch in answers for answer in batch}) == 210

    async def test_belong_to_their_queue(self, engine: Engine) -> None:
        both = [new_job("a", data='"1"'), new_job("a", data='"2"', queue="other")]
        assert was_added(await engine.add(both, now_ms=NOW)) == [("a", True), ("a", True)]
        assert (await job(engine, "a")).data == '"1"'
        assert (await job(engine, "a", "other")).data == '"2"'

    async def test_of_one_queue_mean_nothing_in_another(self, engine: Engine) -> None:
        (given,) = await engine.add([new_job()], now_ms=NOW)
        assert not await exists(engine, given.id, "other")
        assert await engine.cancel("other", [given.id], now_ms=NOW) == [None]
        assert await engine.remove("other", [given.id], now_ms=NOW) == [None]
        assert await exists(engine, given.id)

    async def test_that_were_chosen_are_the_only_ones(self, engine: Engine) -> None:
        """A job with a chosen id is not found by the number of its row."""
        await add(engine, "a")
        numbers = [str(n) for n in range(10)]
        assert await engine.get(QUEUE, numbers) == [None] * 10
        assert await engine.cancel(QUEUE, numbers, now_ms=NOW) == [None] * 10
        assert await engine.remove(QUEUE, numbers, now_ms=NOW) == [None] * 10
        assert await ids_in(engine, State.WAITING) == ["a"]


class TestDuplicates:
    async def test_leave_the_existing_job_as_it_is(self, engine: Engine) -> None:
        """Producers that are not sure add the job again."""
        await add(engine, "a", data='"first"')
        before = await job(engine, "a")
        again = new_job("a", data='"second"', name="other", priority=3, delay_ms=10)
        assert was_added(await engine.add([again], now_ms=NOW + 5)) == [("a", False)]
        assert await job(engine, "a") == before
        assert await counts(engine) == {State.WAITING: 1}

    async def test_count_within_one_call(self, engine: Engine) -> None:
        """Concurrent calls of two callers are one call of the engine."""
        twice = [new_job("a", data='"first"'), new_job("b"), new_job("a", data='"second"')]
        answers = await engine.add(twice, now_ms=NOW)
        assert was_added(answers) == [("a", True), ("b", True), ("a", False)]
        assert (await job(engine, "a")).data == '"first"'
        assert sorted(await ids_in(engine, State.WAITING)) == ["a", "b"]

    @pytest.mark.parametrize("concurrently", range(3))
    async def test_race_and_one_wins(self, engine: Engine, concurrently: int) -> None:
        adds = (engine.add([new_job("a")], now_ms=NOW) for _ in range(20))
        answers = await asyncio.gather(*adds)
        assert [answer.existing for batch in answers for answer in batch].count(None) == 1

    async def test_are_found_in_every_state_and_return_the_stored_job(self, engine: Engine) -> None:
        """A finished job that is kept shows that its work is done."""
        await start(engine, "is-completed", "is-failed", "is-active", data='"first"')
        ends = Completed("is-completed", "t1", "42"), Failed("is-failed", "t1", "no")
        await settled(engine, *ends)
        await add(engine, "is-waiting", data='"\u00e9"')
        await add(engine, "is-prioritized", priority=3)
        await add(engine, "is-delayed", delay_ms=10)
        states = [state for state in State if state is not State.WAITING_CHILDREN]
        ids = [f"is-{state}" for state in states]
        again = [new_job(id, name="other", data="[]") for id in ids]
        answers = await engine.add(again, now_ms=NOW + 5)
        assert [answer.existing for answer in answers] == await engine.get(QUEUE, ids)
        found = [answer.existing for answer in answers if answer.existing is not None]
        assert [record.state for record in found] == states

    async def test_of_one_call_bring_the_job_that_this_call_adds(self, engine: Engine) -> None:
        twice = [
            new_job(id, data=data, **options)
            for id, options in OPTIONS_BY_STATE.items()
            for data in ("1", "2")
        ]
        answers = await engine.add(twice, now_ms=NOW)
        assert [answer.existing for answer in answers[::2]] == [None] * len(OPTIONS_BY_STATE)
        expected = await engine.get(QUEUE, list(OPTIONS_BY_STATE))
        assert [answer.existing for answer in answers[1::2]] == expected

    async def test_end_with_the_removal_of_the_job(self, engine: Engine) -> None:
        """The id is free, and the new job has nothing of the old one."""
        await add(engine, "a", data='"first"', priority=5)
        await engine.remove(QUEUE, ["a"], now_ms=NOW)
        again = [new_job("a", data='"second"')]
        assert was_added(await engine.add(again, now_ms=NOW + 1)) == [("a", True)]
        record = await job(engine, "a")
        assert (record.data, record.priority, record.created_ms) == ('"second"', 0, NOW + 1)


class TestAllOrNothing:
    """A job that cannot be stored fails its whole call, and no other call."""

    BAD = (
        pytest.param(new_job("bad", data='"\ud800"'), id="no-unicode-data"),
        pytest.param(new_job("bad", name="\ud800"), id="no-unicode-name"),
        pytest.param(new_job("bad", delay_ms=2**70), id="no-time"),
    )

    @pytest.mark.parametrize("bad", BAD)
    async def test_a_bad_job_keeps_its_whole_call_out(self, engine: Engine, bad: object) -> None:
        jobs = [new_job("good"), bad, new_job("last")]
        with pytest.raises(HastenError):
            await engine.add(jobs, now_ms=NOW)  # type: ignore[arg-type]
        assert await counts(engine) == {}
        assert await engine.get(QUEUE, ["good", "last"]) == [None, None]

    async def test_a_bad_job_rejects_the_jobs_of_other_queues_as_well(self, engine: Engine) -> None:
        """On engines that add to all queues in one step. On others each queue is a step."""
        jobs = [new_job("good"), new_job("bad", data='"\ud800"', queue="other"), new_job("last")]
        with pytest.raises(HastenError):
            await engine.add(jobs, now_ms=NOW)
        added = await counts(engine)
        assert added == ({} if engine.adds_atomically_across_queues else {State.WAITING: 2})
        assert await counts(engine, "other") == {}

    @pytest.mark.parametrize("bad", BAD)
    async def test_a_bad_call_leaves_others_alone(self, engine: Engine, bad: object) -> None:
        """Concurrent calls may share a transaction. Only the wrong call gets the error."""
        batches = [[new_job("a")], [bad], [new_job("b")]]
        a, error, b = await asyncio.gather(
            *(engine.add(batch, now_ms=NOW) for batch in batches),  # type: ignore[arg-type]
            return_exceptions=True,
        )
        assert isinstance(error, HastenError)
        assert not isinstance(a, BaseException)
        assert not isinstance(b, BaseException)
        assert was_added([*a, *b]) == [("a", True), ("b", True)]
        assert sorted(await ids_in(engine, State.WAITING)) == ["a", "b"]


async def test_the_remembered_answer_of_redis_has_no_data_of_existing_jobs(tmp_path: Path) -> None:
    """A producer that repeats the call (`?wait=`) gets the same answer, with the current jobs."""
    async with open_for_test("redis", tmp_path) as engine:
        assert isinstance(engine, RedisEngine)
        await add(engine, "large", data='"' + "x" * 100_000 + '"')
        jobs = [new_job("large"), new_job("new", data="1"), new_job(data="2")]
        request = script_requests.make_add_request(jobs, NOW, ("m", 60_000))
        first, second = [await engine._run_script("add", QUEUE, request) for _ in range(2)]
        assert decode_add_reply(first) == decode_add_reply(second)
        assert decode_add_reply(first).duplicates == [(1, "large")]
        ((id, state, _, fields),) = decode_add_reply(first).existing
        assert (id, state, len(to_dict(fields)["data"])) == ("large", "waiting", 100_002)
        assert await counts(engine) == {State.WAITING: 3}
        key = f"{engine._keys.queue_prefix(QUEUE)}hasten:added:m"
        assert await engine._server.run_command("STRLEN", key, key=key) < 1_000
