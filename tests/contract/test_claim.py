from __future__ import annotations

import asyncio

import pytest

from hasten.jobs._engine import Engine
from hasten.jobs._options import MAX_PRIORITY
from hasten.jobs._record import ClaimedJobs, Completed, Postponed, Retry
from hasten.jobs._states import State
from tests.contract.steps import (
    NOW,
    QUEUE,
    add,
    as_leased,
    claim,
    counts,
    ids_in,
    job,
    new_job,
    settled,
    take,
    take_all,
    taken,
)


class TestOrder:
    @pytest.mark.parametrize("at_once", [1, 2, 10])
    async def test_is_first_in_first_out(self, engine: Engine, at_once: int) -> None:
        """However many are claimed at once."""
        await add(engine, "c", "a")
        await add(engine, "b")
        await engine.add([new_job("e"), new_job("d")], now_ms=NOW - 5)  # another clock is behind
        found: list[str] = []
        while some := await take(engine, at_once, f"t{len(found)}"):
            found += some
        assert found == ["c", "a", "b", "e", "d"]

    async def test_puts_lifo_jobs_in_front(self, engine: Engine) -> None:
        """The latest job comes first, also within one call."""
        await add(engine, "a")
        await add(engine, "b", lifo=True)
        await add(engine, "c", "d", lifo=True)
        await add(engine, "e")
        assert await take_all(engine) == ["d", "c", "b", "a", "e"]

    async def test_takes_lower_priority_numbers_first(self, engine: Engine) -> None:
        """As in BullMQ: 1 comes before 2."""
        for id, priority in [("c", 3), ("max", MAX_PRIORITY), ("a1", 1), ("b", 2), ("a2", 1)]:
            await add(engine, id, priority=priority)
        assert await take_all(engine) == ["a1", "a2", "b", "c", "max"]

    async def test_takes_jobs_without_a_priority_before_all_others(self, engine: Engine) -> None:
        await add(engine, "urgent", priority=1)
        await add(engine, "plain")
        assert await take(engine, 2) == ["plain", "urgent"]

    async def test_is_that_of_a_single_call_too(self, engine: Engine) -> None:
        """One claim of many jobs returns the same order as many claims of one."""
        await engine.add(
            [
                new_job("p2", priority=2),
                new_job("a"),
                new_job("p1", priority=1),
                new_job("front", lifo=True),
                new_job("b"),
                new_job("p1 again", priority=1),
            ],
            now_ms=NOW,
        )
        assert await take(engine, 10) == ["front", "a", "b", "p1", "p1 again", "p2"]

    async def test_is_kept_when_there_are_fewer_than_requested(self, engine: Engine) -> None:
        """Prioritized jobs follow the last waiting job."""
        await add(engine, "a", "b")
        await add(engine, "p", "q", priority=1)
        assert await take(engine, 3) == ["a", "b", "p"]
        assert await take(engine, 3, "t2") == ["q"]


class TestClaim:
    async def test_returns_nothing_from_an_empty_queue(self, engine: Engine) -> None:
        """It returns at once and does not create the queue."""
        assert await engine.claim(QUEUE, claim(10), now_ms=NOW) == ClaimedJobs([])
        assert await engine.queues() == []

    async def test_of_no_jobs_returns_none(self, engine: Engine) -> None:
        await add(engine, "a")
        assert (await engine.claim(QUEUE, claim(0), now_ms=NOW)).leases == []
        assert await counts(engine) == {State.WAITING: 1}

    async def test_returns_no_more_than_requested(self, engine: Engine) -> None:
        await add(engine, "a", "b", "c")
        assert await take(engine, 2) == ["a", "b"]
        assert await counts(engine) == {State.ACTIVE: 2, State.WAITING: 1}

    async def test_stays_within_its_queue(self, engine: Engine) -> None:
        await add(engine, "a", queue="other")
        assert await take(engine) == []

    async def test_makes_the_job_active(self, engine: Engine) -> None:
        await add(engine, "a")
        await take(engine, 1, "t9", now_ms=NOW + 7)
        record = await job(engine, "a")
        assert record.state is State.ACTIVE
        assert record.started_ms == NOW + 7
        assert record.worker == "worker of t9"
        assert (record.attempts_started, record.attempts_made) == (1, 0)

    async def test_leases_the_job_as_it_is_stored(self, engine: Engine) -> None:
        """The worker need not read it again."""
        await add(engine, "a", data='{"to":"ada"}', opts='{"attempts":5}', priority=3)
        (lease,) = (await engine.claim(QUEUE, claim(1, "t9"), now_ms=NOW)).leases
        assert lease.token == "t9"
        assert lease.job == await job(engine, "a")

    async def test_returns_the_counts_of_earlier_runs(self, engine: Engine) -> None:
        """They decide whether the job is retried."""
        await add(engine, "a")
        await take(engine, 1, "t1")
        await settled(engine, Retry("a", "t1", "oops", "trace", 0))
        await take(engine, 1, "t2", lease_ms=10)
        await engine.reclaim(QUEUE, crash_limit=5, now_ms=NOW + 11)
        (lease,) = (await engine.claim(QUEUE, claim(1, "t3"), now_ms=NOW + 12)).leases
        told = lease.job.attempts_made, lease.job.attempts_started, lease.job.crashes
        assert told == (1, 3, 1)
        assert as_leased(lease.job) == as_leased(await job(engine, "a"))

    async def test_never_hands_one_job_to_two_workers(self, engine: Engine) -> None:
        """Twenty concurrent claims get one job."""
        await add(engine, "a")
        claims = (engine.claim(QUEUE, claim(1, f"t{n}"), now_ms=NOW) for n in range(20))
        batches = await asyncio.gather(*claims)
        assert [id for batch in batches for id in taken(batch.leases)] == ["a"]

    async def test_shares_many_jobs_out_without_a_gap(self, engine: Engine) -> None:
        """Together, concurrent claims return every job once."""
        await engine.add([new_job() for _ in range(100)], now_ms=NOW)
        claims = (engine.claim(QUEUE, claim(7, f"t{n}"), now_ms=NOW) for n in range(20))
        ids = [id for batch in await asyncio.gather(*claims) for id in taken(batch.leases)]
        assert (len(ids), len(set(ids))) == (100, 100)

    async def test_does_not_return_a_job_with_an_expired_lease(self, engine: Engine) -> None:
        """Only `reclaim` decides that a worker is dead and not just slow."""
        await add(engine, "a")
        assert await take(engine, 1, "t1", lease_ms=10) == ["a"]
        assert await take(engine, 1, "t2", now_ms=NOW + 11) == []

    async def test_returns_nothing_from_a_paused_queue(self, engine: Engine) -> None:
        await add(engine, "a")
        await engine.pause(QUEUE, now_ms=NOW)
        assert await take(engine) == []
        await engine.resume(QUEUE, now_ms=NOW)
        assert await take(engine) == ["a"]

    async def test_takes_a_thousand_at_once(self, engine: Engine) -> None:
        answers = await engine.add([new_job() for _ in range(1500)], now_ms=NOW)
        ids = [answer.id for answer in answers]
        assert await take(engine, 1000) == ids[:1000]
        await settled(engine, *(Completed(id, "t1", "null") for id in ids[:1000]))
        assert await take(engine, 1000, "t2") == ids[1000:]


class TestDelayedJobs:
    async def test_are_ready_when_they_are_due(self, engine: Engine) -> None:
        """Not a millisecond sooner."""
        await add(engine, "a", delay_ms=500)
        assert await take(engine, 1, "t1", now_ms=NOW + 499) == []
        assert await take(engine, 1, "t2", now_ms=NOW + 500) == ["a"]

    async def test_have_no_delay_any_more_once_they_were_due(self, engine: Engine) -> None:
        await add(engine, "a", delay_ms=500)
        await take(engine, now_ms=NOW + 500)
        record = await job(engine, "a")
        assert (record.delay_ms, record.due_ms) == (0, None)

    async def test_come_in_the_order_of_their_times(self, engine: Engine) -> None:
        """Jobs that are due at the same time keep the order in which they were added."""
        for id, delay_ms in [("c", 300), ("a", 100), ("d", 300), ("b", 200)]:
            await add(engine, id, delay_ms=delay_ms)
        assert await take_all(engine, now_ms=NOW + 300) == ["a", "b", "c", "d"]

    async def test_stand_behind_what_waits_when_they_are_due(self, engine: Engine) -> None:
        """Jobs that were ready before have waited longer, whenever they were added."""
        await add(engine, "was-delayed", delay_ms=100)
        await add(engine, "waits", now_ms=NOW + 50)
        assert await take_all(engine, now_ms=NOW + 100) == ["waits", "was-delayed"]

    async def test_stand_before_what_comes_after(self, engine: Engine) -> None:
        await add(engine, "was-delayed", delay_ms=100)
        assert await take(engine, 0, now_ms=NOW + 100) == []  # makes it ready
        await add(engine, "later", now_ms=NOW + 101)
        assert await take_all(engine, now_ms=NOW + 101) == ["was-delayed", "later"]

    async def test_keep_their_priority(self, engine: Engine) -> None:
        await add(engine, "p2", delay_ms=100, priority=2)
        await add(engine, "p1", delay_ms=200, priority=1)
        await add(engine, "plain", delay_ms=300)
        assert await take_all(engine, now_ms=NOW + 300) == ["plain", "p1", "p2"]

    async def test_are_made_ready_though_none_is_claimed(self, engine: Engine) -> None:
        """As in BullMQ, also while the queue is paused."""
        await add(engine, "a", delay_ms=100)
        await engine.pause(QUEUE, now_ms=NOW)
        assert await take(engine, 1, now_ms=NOW + 100) == []
        assert await ids_in(engine, State.WAITING) == ["a"]

    async def test_are_made_ready_in_any_number(self, engine: Engine) -> None:
        """Thousands of jobs that are due at once keep their order, even in several steps."""
        jobs = [new_job(f"{n:04}x", delay_ms=5000 - n) for n in range(2500)]
        await engine.add(jobs, now_ms=NOW)
        found: list[str] = []
        while some := await take(engine, 500, f"t{len(found)}", now_ms=NOW + 5000):
            found += some
        assert found == [f"{n:04}x" for n in reversed(range(2500))]


class TestNextDue:
    """A worker that got fewer jobs than it asked for needs to know when to claim again."""

    async def test_is_the_time_of_the_earliest_delayed_job(self, engine: Engine) -> None:
        await add(engine, "b", delay_ms=500)
        await add(engine, "a", delay_ms=300)
        await add(engine, "now")
        batch = await engine.claim(QUEUE, claim(2), now_ms=NOW)
        assert taken(batch.leases) == ["now"]
        assert batch.next_due_ms == NOW + 300

    async def test_is_none_without_delayed_jobs(self, engine: Engine) -> None:
        await add(engine, "a", delay_ms=100)
        batch = await engine.claim(QUEUE, claim(2), now_ms=NOW + 100)
        assert taken(batch.leases) == ["a"]
        assert batch.next_due_ms is None

    async def test_includes_the_jobs_that_the_call_itself_delays(self, engine: Engine) -> None:
        await add(engine, "a")
        await take(engine)
        batch = await engine.settle(QUEUE, [Postponed("a", "t1", 40)], claim(1, "t2"), now_ms=NOW)
        assert batch.next_due_ms == NOW + 40

    async def test_is_that_of_its_own_queue(self, engine: Engine) -> None:
        await add(engine, "a", delay_ms=10, queue="other")
        assert (await engine.claim(QUEUE, claim(1), now_ms=NOW)).next_due_ms is None
