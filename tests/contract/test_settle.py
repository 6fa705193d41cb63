from __future__ import annotations

from typing import Any

import pytest

from hasten.errors import HastenError
from hasten.jobs._engine import Engine
from hasten.jobs._record import ClaimedJobs, Completed, Failed, Outcome, Postponed, Released, Retry
from hasten.jobs._states import State
from tests.contract.steps import (
    NOW,
    QUEUE,
    add,
    claim,
    counts,
    ids_in,
    job,
    new_job,
    settled,
    start,
    take,
    take_all,
    taken,
)

LATER = NOW + 50


def retry(id: str, token: str = "t1", *, delay_ms: int = 0, error: str = "oops") -> Retry:
    return Retry(id, token, error, f"trace of {error}", delay_ms)


WITHOUT_DELAY = pytest.mark.parametrize("outcome", [retry("a"), Postponed("a", "t1", 0)], ids=repr)


class TestCompleted:
    async def test_stores_the_result(self, engine: Engine) -> None:
        await start(engine, "a")
        await settled(engine, Completed("a", "t1", '{"sent":true}'), now_ms=LATER)
        record = await job(engine, "a")
        assert record.state is State.COMPLETED
        assert record.result == '{"sent":true}'
        assert record.finished_ms == LATER
        assert (record.attempts_made, record.attempts_started) == (1, 1)

    async def test_keeps_the_error_of_the_attempt_before(self, engine: Engine) -> None:
        """It explains why there were two attempts."""
        await start(engine, "a")
        await settled(engine, retry("a", error="first"))
        await take(engine, 1, "t2")
        await settled(engine, Completed("a", "t2", "1"))
        record = await job(engine, "a")
        assert (record.attempts_made, record.tracebacks) == (2, ["trace of first"])


class TestFailed:
    async def test_stores_error_and_traceback(self, engine: Engine) -> None:
        await start(engine, "a")
        await settled(engine, Failed("a", "t1", "no such address", "the trace"), now_ms=LATER)
        record = await job(engine, "a")
        assert record.state is State.FAILED
        assert record.error == "no such address"
        assert record.tracebacks == ["the trace"]
        assert record.finished_ms == LATER
        assert record.result is None
        assert record.attempts_made == 1

    async def test_has_no_traceback_without_a_run(self, engine: Engine) -> None:
        """An expired or undecodable job fails before its handler is called."""
        await start(engine, "a")
        await settled(engine, Failed("a", "t1", "expired", counts=False))
        record = await job(engine, "a")
        assert (record.error, record.tracebacks) == ("expired", [])
        assert (record.attempts_made, record.attempts_started) == (0, 1)


class TestRetry:
    async def test_counts_an_attempt_and_keeps_the_error(self, engine: Engine) -> None:
        await start(engine, "a")
        await settled(engine, retry("a", error="first"))
        record = await job(engine, "a")
        assert record.state is State.WAITING
        assert (record.attempts_made, record.attempts_started) == (1, 1)
        assert (record.error, record.tracebacks) == ("first", ["trace of first"])
        assert record.finished_ms is None

    async def test_collects_the_tracebacks_oldest_first(self, engine: Engine) -> None:
        await add(engine, "a")
        for n in range(3):
            await take(engine, 1, f"t{n}")
            await settled(engine, retry("a", f"t{n}", error=str(n)))
        await take(engine, 1, "t3")
        await settled(engine, Failed("a", "t3", "3", "trace of 3"))
        record = await job(engine, "a")
        assert record.tracebacks == [f"trace of {n}" for n in range(4)]
        assert (record.error, record.attempts_made) == ("3", 4)

    @WITHOUT_DELAY
    async def test_goes_behind_all_others(self, engine: Engine, outcome: Outcome) -> None:
        """A job that fails or is postponed at once must not keep the rest from running."""
        await start(engine, "a")
        await add(engine, "b", "c")
        await settled(engine, outcome)
        assert await take_all(engine) == ["b", "c", "a"]

    @WITHOUT_DELAY
    async def test_of_a_lifo_job_goes_in_front(self, engine: Engine, outcome: Outcome) -> None:
        await start(engine, "a", lifo=True)
        await add(engine, "b")
        await settled(engine, outcome)
        assert await take_all(engine) == ["a", "b"]

    async def test_goes_behind_those_of_its_priority(self, engine: Engine) -> None:
        await start(engine, "a", priority=2)
        await add(engine, "b", priority=2)
        await add(engine, "c", priority=3)
        await settled(engine, retry("a"))
        assert (await job(engine, "a")).state is State.PRIORITIZED
        assert await take_all(engine) == ["b", "a", "c"]

    async def test_with_a_delay_comes_when_that_is_over(self, engine: Engine) -> None:
        await start(engine, "a", priority=2)
        await settled(engine, retry("a", delay_ms=500), now_ms=LATER)
        record = await job(engine, "a")
        assert (record.state, record.due_ms) == (State.DELAYED, LATER + 500)
        assert (record.delay_ms, record.attempts_made) == (500, 1)
        assert await take(engine, 1, "t2", now_ms=LATER + 499) == []
        assert await take(engine, 1, "t3", now_ms=LATER + 500) == ["a"]
        assert (await job(engine, "a")).priority == 2

    async def test_is_claimed_by_the_same_call_if_nothing_else_waits(self, engine: Engine) -> None:
        await start(engine, "a")
        batch = await engine.settle(QUEUE, [retry("a")], claim(1, "t2"), now_ms=NOW)
        (lease,) = batch.leases
        assert (lease.job.id, lease.token) == ("a", "t2")
        assert (lease.job.attempts_made, lease.job.attempts_started) == (1, 2)


class TestPostponed:
    async def test_counts_no_attempt(self, engine: Engine) -> None:
        """RetryAfter is no failure of the job."""
        await start(engine, "a")
        await settled(engine, Postponed("a", "t1", 500))
        record = await job(engine, "a")
        assert (record.state, record.due_ms, record.delay_ms) == (State.DELAYED, NOW + 500, 500)
        assert (record.attempts_made, record.attempts_started) == (0, 1)
        assert (record.error, record.tracebacks) == (None, [])


class TestReleased:
    async def test_is_first_in_line_again(self, engine: Engine) -> None:
        """A worker that stops does not change the order of its jobs."""
        await start(engine, "a")
        await add(engine, "b")
        await add(engine, "front", lifo=True)
        await settled(engine, Released("a", "t1"))
        assert await take_all(engine) == ["a", "front", "b"]

    async def test_counts_no_attempt(self, engine: Engine) -> None:
        await start(engine, "a")
        await settled(engine, Released("a", "t1"))
        record = await job(engine, "a")
        assert record.state is State.WAITING
        assert (record.attempts_made, record.attempts_started) == (0, 1)
        assert (record.crashes, record.error) == (0, None)

    async def test_in_numbers_stands_in_the_original_order(self, engine: Engine) -> None:
        await start(engine, "a", "b", "c")
        await add(engine, "d")
        await settled(engine, *(Released(id, "t1") for id in "abc"))
        assert await take(engine, 10, "t2") == ["a", "b", "c", "d"]

    async def test_stands_in_the_order_of_the_claim(self, engine: Engine) -> None:
        """Jobs are claimed again in the order of the first claim, so lifo jobs come first."""
        await add(engine, "b")
        await add(engine, "a", lifo=True)
        assert await take(engine, 2) == ["a", "b"]
        await settled(engine, Released("a", "t1"), Released("b", "t1"))
        assert await take(engine, 2, "t2") == ["a", "b"]

    async def test_is_first_of_its_priority(self, engine: Engine) -> None:
        """Jobs with a higher priority still come first."""
        await start(engine, "a", "b", priority=2)
        await add(engine, "c", priority=2)
        await add(engine, "urgent", priority=1)
        await settled(engine, Released("a", "t1"), Released("b", "t1"))
        assert (await job(engine, "a")).state is State.PRIORITIZED
        assert await take_all(engine) == ["urgent", "a", "b", "c"]


class TestSettle:
    async def test_stores_each_of_a_mixed_batch(self, engine: Engine) -> None:
        """Handlers that end at the same time are settled in one call."""
        await start(engine, *"abcdef")
        outcomes: list[Outcome] = [
            Released("f", "t1"),
            Completed("a", "t1", "1"),
            retry("c", delay_ms=100),
            Failed("b", "t1", "no", "trace"),
            Postponed("e", "t1", 200),
            retry("d"),
        ]
        await settled(engine, *outcomes)
        assert [record and record.state for record in await engine.get(QUEUE, list("abcdef"))] == [
            State.COMPLETED,
            State.FAILED,
            State.DELAYED,
            State.WAITING,
            State.DELAYED,
            State.WAITING,
        ]
        assert await ids_in(engine, State.WAITING) == ["f", "d"]
        assert await ids_in(engine, State.DELAYED) == ["c", "e"]

    async def test_claims_the_next_in_the_same_step(self, engine: Engine) -> None:
        await start(engine, "a")
        await add(engine, "b", "c")
        done = Completed("a", "t1", "1")
        batch = await engine.settle(QUEUE, [done], claim(1, "t2"), now_ms=LATER)
        assert [(lease.job.id, lease.token) for lease in batch.leases] == [("b", "t2")]
        assert await counts(engine) == {State.COMPLETED: 1, State.ACTIVE: 1, State.WAITING: 1}

    async def test_makes_due_jobs_ready_first(self, engine: Engine) -> None:
        await start(engine, "a")
        await add(engine, "b", delay_ms=50)
        done = Completed("a", "t1", "1")
        batch = await engine.settle(QUEUE, [done], claim(1, "t2"), now_ms=LATER)
        assert taken(batch.leases) == ["b"]

    async def test_stores_but_does_not_claim_while_paused(self, engine: Engine) -> None:
        """Running jobs are settled as usual."""
        await start(engine, "a")
        await add(engine, "b")
        await engine.pause(QUEUE, now_ms=NOW)
        batch = await engine.settle(QUEUE, [Completed("a", "t1", "1")], claim(1, "t2"), now_ms=NOW)
        assert batch.leases == []
        assert await counts(engine) == {State.COMPLETED: 1, State.WAITING: 1}

    async def test_of_nothing_is_a_claim(self, engine: Engine) -> None:
        await add(engine, "a")
        assert taken((await engine.settle(QUEUE, [], claim(1), now_ms=NOW)).leases) == ["a"]
        assert await engine.settle(QUEUE, [], None, now_ms=NOW) == ClaimedJobs([])

    async def test_takes_a_thousand_at_once(self, engine: Engine) -> None:
        answers = await engine.add([new_job() for _ in range(1000)], now_ms=NOW)
        ids = [answer.id for answer in answers]
        await take(engine, 1000)
        await settled(engine, *(retry(id, delay_ms=n + 1) for n, id in enumerate(ids)))
        assert await ids_in(engine, State.DELAYED) == ids


class TestAllOrNothing:
    async def test_a_text_that_cannot_be_stored_fails_its_whole_call(self, engine: Engine) -> None:
        """The worker gets a HastenError, and no job has changed."""
        await start(engine, "a", "b")
        await add(engine, "c")
        outcomes: list[Outcome] = [
            Completed("a", "t1", "1"),
            Failed("b", "t1", "no \ud800", "trace"),
        ]
        with pytest.raises(HastenError):
            await engine.settle(QUEUE, outcomes, claim(1, "t2"), now_ms=NOW)
        assert await ids_in(engine, State.ACTIVE) == ["a", "b"]
        assert await ids_in(engine, State.WAITING) == ["c"]
        await settled(engine, Completed("a", "t1", "1"), Failed("b", "t1", "no", "trace"))


def every_outcome(id: str, token: str) -> list[Any]:
    return [
        Completed(id, token, "2"),
        Failed(id, token, "stale"),
        retry(id, token, error="stale"),
        retry(id, token, error="stale", delay_ms=100),
        Postponed(id, token, 100),
        Released(id, token),
    ]


class TestFencing:
    """Only the newest run can settle a job."""

    @pytest.mark.parametrize("is_replaced", [True, False])
    @pytest.mark.parametrize("outcome", every_outcome("a", "old"), ids=repr)
    async def test_a_reclaimed_run_changes_nothing(
        self, engine: Engine, outcome: Outcome, is_replaced: bool
    ) -> None:
        """Whether or not another worker runs the job already."""
        await start(engine, "a", token="old", lease_ms=10)
        await engine.reclaim(QUEUE, crash_limit=5, now_ms=NOW + 20)
        if is_replaced:
            assert await take(engine, 1, "new", now_ms=NOW + 20) == ["a"]
        before = await job(engine, "a")
        batch = await engine.settle(QUEUE, [outcome], None, now_ms=NOW + 30)
        assert batch.lost == ["a"]
        assert await job(engine, "a") == before
        if is_replaced:
            await settled(engine, Completed("a", "new", "1"), now_ms=NOW + 40)
            assert (await job(engine, "a")).result == "1"

    async def test_a_run_that_was_settled_is_settled(self, engine: Engine) -> None:
        """A call may be repeated because its response was lost."""
        await start(engine, "a")
        await settled(engine, Completed("a", "t1", "1"))
        before = await job(engine, "a")
        batch = await engine.settle(QUEUE, [Completed("a", "t1", "2")], None, now_ms=LATER)
        assert batch.lost == ["a"]
        assert await job(engine, "a") == before

    async def test_a_run_is_settled_once_within_a_call(self, engine: Engine) -> None:
        await start(engine, "a")
        twice: list[Outcome] = [Completed("a", "t1", "1"), Failed("a", "t1", "late")]
        batch = await engine.settle(QUEUE, twice, None, now_ms=NOW)
        assert batch.lost == ["a"]
        record = await job(engine, "a")
        assert (record.state, record.result) == (State.COMPLETED, "1")
        assert (record.attempts_made, record.error) == (1, None)

    async def test_a_job_that_is_gone_is_lost(self, engine: Engine) -> None:
        batch = await engine.settle(
            QUEUE, [Completed("gone", "t1", "1"), Completed("17", "t1", "1")], None, now_ms=NOW
        )
        assert sorted(batch.lost) == ["17", "gone"]
        assert await counts(engine) == {}

    async def test_one_lost_lease_does_not_touch_the_others(self, engine: Engine) -> None:
        await start(engine, "a", "b", "c")
        outcomes: list[Outcome] = [
            Completed("a", "t1", "1"),
            Completed("b", "wrong", "1"),
            Completed("gone", "t1", "1"),
            Failed("c", "t1", "no"),
        ]
        await add(engine, "d")
        batch = await engine.settle(QUEUE, outcomes, claim(1, "t2"), now_ms=NOW)
        assert sorted(batch.lost) == ["b", "gone"]
        assert taken(batch.leases) == ["d"]
        assert await ids_in(engine, State.COMPLETED) == ["a"]
        assert await ids_in(engine, State.FAILED) == ["c"]
        assert await ids_in(engine, State.ACTIVE) == ["b", "d"]

    async def test_a_token_is_good_for_its_own_jobs_only(self, engine: Engine) -> None:
        await start(engine, "a", token="ta")
        await start(engine, "b", token="tb")
        batch = await engine.settle(QUEUE, [Completed("a", "tb", "1")], None, now_ms=NOW)
        assert batch.lost == ["a"]
        assert await ids_in(engine, State.ACTIVE) == ["a", "b"]

    async def test_a_job_of_another_queue_is_out_of_reach(self, engine: Engine) -> None:
        """Whatever its token is."""
        await engine.add([new_job(queue="other")], now_ms=NOW)
        (lease,) = (await engine.claim("other", claim(1), now_ms=NOW)).leases
        batch = await engine.settle(QUEUE, [Completed(lease.job.id, "t1", "1")], None, now_ms=NOW)
        assert batch.lost == [lease.job.id]
        assert (await job(engine, lease.job.id, "other")).state is State.ACTIVE
