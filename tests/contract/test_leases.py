from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

import pytest

from hasten.jobs._engine import Engine, crash_error
from hasten.jobs._engines.redis import RedisEngine
from hasten.jobs._options import Keep
from hasten.jobs._record import Completed, Failed, Outcome, Postponed, Released
from hasten.jobs._states import State
from tests.contract.steps import (
    LEASE_MS,
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
)


async def renew(
    engine: Engine, leases: Mapping[str, str], *, now_ms: int, lease_ms: int = LEASE_MS
) -> set[str]:
    """Renew leases from a thread, as a worker does."""
    return await asyncio.to_thread(engine.renew, QUEUE, leases, lease_ms=lease_ms, now_ms=now_ms)


async def cancelled(engine: Engine, ids: Collection[str]) -> set[str]:
    return await asyncio.to_thread(engine.find_cancelled, QUEUE, ids)


async def reclaim(engine: Engine, now_ms: int, *, crash_limit: int = 5) -> list[str]:
    return await engine.reclaim(QUEUE, crash_limit=crash_limit, now_ms=now_ms)


async def expire(engine: Engine, *ids: str) -> None:
    """Expire leases by the clock of the server. On other engines now_ms decides."""
    if engine.leases_use_server_clock:
        assert isinstance(engine, RedisEngine)
        for id in ids:
            lock = f"{engine._keys.queue_prefix(QUEUE)}{id}:lock"
            await engine._server.run_command("DEL", lock, key=lock)


class TestReclaim:
    async def test_leaves_a_lease_that_lasts(self, engine: Engine) -> None:
        await start(engine, "a", lease_ms=100)
        assert await reclaim(engine, NOW + 99) == []
        assert (await job(engine, "a")).state is State.ACTIVE

    async def test_takes_back_a_job_whose_lease_has_expired(self, engine: Engine) -> None:
        await start(engine, "a", "b", lease_ms=100)
        await settled(engine, Completed("b", "t1", "1"))
        assert await reclaim(engine, NOW + 101) == ["a"]
        record = await job(engine, "a")
        assert record.state is State.WAITING
        assert record.crashes == 1
        assert (record.attempts_made, record.attempts_started) == (0, 1)
        assert record.deferred_failure is None

    async def test_takes_back_each_job_once(self, engine: Engine) -> None:
        """Every worker checks for dead ones, and each death counts once."""
        await start(engine, "a", lease_ms=100)
        found = await asyncio.gather(*(reclaim(engine, NOW + 101) for _ in range(10)))
        assert [id for ids in found for id in ids] == ["a"]
        assert (await job(engine, "a")).crashes == 1

    async def test_puts_them_first_in_line(self, engine: Engine) -> None:
        """In the order of the result, the job that started first in front."""
        await start(engine, "a", now_ms=NOW, lease_ms=10, token="ta")
        await start(engine, "b", now_ms=NOW + 1, lease_ms=10, token="tb")
        await add(engine, "c")
        await add(engine, "front", lifo=True)
        assert await reclaim(engine, NOW + 20) == ["a", "b"]
        assert await take_all(engine) == ["a", "b", "front", "c"]

    async def test_keeps_the_priority(self, engine: Engine) -> None:
        await start(engine, "a", priority=2, lease_ms=10)
        await add(engine, "b", priority=2)
        await add(engine, "urgent", priority=1)
        await reclaim(engine, NOW + 11)
        assert (await job(engine, "a")).priority == 2
        assert await take_all(engine) == ["urgent", "a", "b"]

    async def test_gives_up_on_a_job_that_kills_its_workers(self, engine: Engine) -> None:
        """The next worker fails it, because only workers apply the rules for failed jobs."""
        await add(engine, "a")
        for n in (1, 2, 3):
            assert await take(engine, 1, f"t{n}", lease_ms=10) == ["a"]
            await reclaim(engine, NOW + 11, crash_limit=3)
            record = await job(engine, "a")
            assert record.crashes == n
            assert record.deferred_failure == (None if n < 3 else crash_error(3))
        (lease,) = (await engine.claim(QUEUE, claim(1, "t4"), now_ms=NOW)).leases
        assert lease.job.deferred_failure == crash_error(3)
        await settled(engine, Failed("a", "t4", crash_error(3), counts=False))
        record = await job(engine, "a")
        assert (record.state, record.error) == (State.FAILED, crash_error(3))
        assert crash_error(3) == (  # the text of BullMQ, with the count
            "job stalled more than allowable limit: its worker died 3 times while running it"
        )
        assert record.deferred_failure is None

    async def test_of_a_paused_queue_works(self, engine: Engine) -> None:
        await start(engine, "a", lease_ms=10)
        await engine.pause(QUEUE, now_ms=NOW)
        assert await reclaim(engine, NOW + 11) == ["a"]
        assert await take(engine, 1, "t2") == []

    async def test_stays_within_its_queue(self, engine: Engine) -> None:
        await engine.add([new_job("a", queue="other")], now_ms=NOW)
        await engine.claim("other", claim(1, lease_ms=10), now_ms=NOW)
        assert await reclaim(engine, NOW + 11) == []

    async def test_gives_a_new_lease_its_own_time(self, engine: Engine) -> None:
        await start(engine, "a", lease_ms=10)
        await reclaim(engine, NOW + 11)
        assert await take(engine, 1, "t2", now_ms=NOW + 20, lease_ms=100) == ["a"]
        assert await reclaim(engine, NOW + 119) == []
        assert await reclaim(engine, NOW + 121) == ["a"]


class TestRenew:
    async def test_extends_the_lease(self, engine: Engine) -> None:
        await start(engine, "a", lease_ms=100)
        assert await renew(engine, {"a": "t1"}, now_ms=NOW + 50, lease_ms=100) == set()
        assert await reclaim(engine, NOW + 149) == []
        assert await reclaim(engine, NOW + 151) == ["a"]

    async def test_changes_nothing_else(self, engine: Engine) -> None:
        await start(engine, "a")
        before = await job(engine, "a")
        await renew(engine, {"a": "t1"}, now_ms=NOW + 50)
        assert await job(engine, "a") == before

    async def test_renews_an_expired_lease_that_nobody_has_reclaimed(self, engine: Engine) -> None:
        """After an outage all leases have expired, although the workers are alive."""
        await start(engine, "a", lease_ms=10)
        await expire(engine, "a")
        assert await renew(engine, {"a": "t1"}, now_ms=NOW + 100, lease_ms=1000) == set()
        assert await reclaim(engine, NOW + 200) == []
        await settled(engine, Completed("a", "t1", "1"), now_ms=NOW + 300)

    async def test_is_not_needed_to_finish_a_job_nobody_has_reclaimed(self, engine: Engine) -> None:
        await start(engine, "a", "b", lease_ms=10)
        await expire(engine, "a", "b")
        outcomes: list[Outcome] = [
            Completed("a", "t1", "1"),
            Released("b", "t1"),
            Completed("a", "t1", "2"),
        ]
        batch = await engine.settle(QUEUE, outcomes, None, now_ms=NOW + 100)
        assert batch.lost == ["a"]  # the second time
        assert (await job(engine, "a")).result == "1"
        assert await ids_in(engine, State.WAITING) == ["b"]

    async def test_returns_the_lost_leases(self, engine: Engine) -> None:
        """Their handlers are stopped, because other workers run the jobs."""
        await start(engine, "a", "b", "c", "d", lease_ms=10)
        await settled(engine, Completed("b", "t1", "1"))
        await reclaim(engine, NOW + 11)
        await take(engine, 1, "t2")  # a runs elsewhere, c and d wait
        leases = {"a": "t1", "b": "t1", "c": "t1", "gone": "t1", "17": "t1"}
        assert await renew(engine, leases, now_ms=NOW + 20) == set(leases)
        assert await renew(engine, {"a": "t2", "d": "t1"}, now_ms=NOW + 20) == {"d"}

    async def test_does_not_renew_a_lost_lease(self, engine: Engine) -> None:
        await start(engine, "a", lease_ms=10)
        await reclaim(engine, NOW + 11)
        await take(engine, 1, "t2", now_ms=NOW + 11, lease_ms=10)
        assert await renew(engine, {"a": "t1"}, now_ms=NOW + 12, lease_ms=1000) == {"a"}
        assert await reclaim(engine, NOW + 30) == ["a"]

    async def test_of_nothing_loses_nothing(self, engine: Engine) -> None:
        assert await renew(engine, {}, now_ms=NOW) == set()

    async def test_takes_thousands_at_once(self, engine: Engine) -> None:
        answers = await engine.add([new_job() for _ in range(2000)], now_ms=NOW)
        await engine.claim(QUEUE, claim(1999), now_ms=NOW)
        leases = {answer.id: "t1" for answer in answers}
        assert await renew(engine, leases, now_ms=NOW + 50) == {answers[-1].id}

    async def test_works_while_the_event_loop_hangs(self, engine: Engine) -> None:
        """The call blocks the event loop's own thread, so it must not need the loop."""
        await start(engine, "a", lease_ms=100)
        assert engine.renew(QUEUE, {"a": "t1"}, lease_ms=100, now_ms=NOW + 50) == set()
        assert engine.find_cancelled(QUEUE, ["a"]) == set()


# On Redis the server counts how long a lease still lasts.
@pytest.mark.parametrize("kind", ["sqlite-memory", "sqlite-file"], indirect=True)
class TestClockSetBack:
    BACK = NOW - 3_600_000

    async def test_does_not_keep_the_job_of_a_dead_worker(self, engine: Engine) -> None:
        """It is reclaimed one lease later, not after the whole jump."""
        await start(engine, "a", lease_ms=100)
        assert await reclaim(engine, self.BACK) == []
        assert await reclaim(engine, self.BACK + 99) == []
        assert await reclaim(engine, self.BACK + 100) == ["a"]

    async def test_takes_no_job_from_a_worker_that_lives(self, engine: Engine) -> None:
        """It renews its leases before they end."""
        await start(engine, "a", lease_ms=100)
        assert await reclaim(engine, self.BACK) == []
        assert await renew(engine, {"a": "t1"}, now_ms=self.BACK + 50, lease_ms=100) == set()
        assert await reclaim(engine, self.BACK + 149) == []
        assert await reclaim(engine, self.BACK + 150) == ["a"]

    async def test_goes_by_the_length_of_each_lease(self, engine: Engine) -> None:
        await start(engine, "short", lease_ms=100, token="t1")
        await start(engine, "long", lease_ms=100, token="t2")
        await renew(engine, {"long": "t2"}, now_ms=NOW, lease_ms=1000)
        await start(engine, "later", lease_ms=1000, token="t3", now_ms=self.BACK + 50)
        assert await reclaim(engine, self.BACK + 60) == []
        assert await reclaim(engine, self.BACK + 160) == ["short"]
        assert await reclaim(engine, self.BACK + 1059) == ["later"]
        assert await reclaim(engine, self.BACK + 1060) == ["long"]

    async def test_does_not_keep_finished_jobs_for_longer(self, engine: Engine) -> None:
        """The age of earlier jobs is unknown. Later jobs have one."""
        keep = Keep(age=1)
        await start(engine, "a", "b", "c", "d")
        await settled(engine, Completed("a", "t1", "1", keep), now_ms=NOW)
        await settled(engine, Completed("b", "t1", "1", keep), now_ms=self.BACK)
        await settled(engine, Completed("c", "t1", "1", keep), now_ms=self.BACK + 2000)
        await settled(engine, Completed("d", "t1", "1", keep), now_ms=self.BACK + 4000)
        assert sorted(await ids_in(engine, State.COMPLETED)) == ["a", "d"]


class TestCancelled:
    async def test_returns_the_running_jobs_that_are_to_stop(self, engine: Engine) -> None:
        await start(engine, "a", "b", "c")
        await engine.cancel(QUEUE, ["b"], now_ms=NOW)
        assert await cancelled(engine, ["a", "b", "gone", "17"]) == {"b"}
        assert await cancelled(engine, ["a", "c"]) == set()
        assert await cancelled(engine, []) == set()

    async def test_goes_by_ids_and_not_by_rows(self, engine: Engine) -> None:
        """A job with a chosen id is not found by the number of its row."""
        await start(engine, "a")
        await engine.cancel(QUEUE, ["a"], now_ms=NOW)
        assert await cancelled(engine, [str(n) for n in range(10)]) == set()

    async def test_does_not_name_jobs_that_do_not_run(self, engine: Engine) -> None:
        await start(engine, "a")
        await engine.cancel(QUEUE, ["a"], now_ms=NOW)
        await settled(engine, Failed("a", "t1", "cancelled"))
        assert await cancelled(engine, ["a"]) == set()

    async def test_a_request_outlives_the_worker(self, engine: Engine) -> None:
        """The next worker must know, whether the first one died, stopped or was refused."""
        await start(engine, "a", "b", "c", lease_ms=10)
        await engine.cancel(QUEUE, ["a", "b", "c"], now_ms=NOW)
        await settled(engine, Released("b", "t1"), Postponed("c", "t1", 5))
        await reclaim(engine, NOW + 11)
        batch = await engine.claim(QUEUE, claim(3, "t2"), now_ms=NOW + 11)
        assert {lease.job.id for lease in batch.leases} == {"a", "b", "c"}
        assert await cancelled(engine, ["a", "b", "c"]) == {"a", "b", "c"}


class TestTwoWorkers:
    async def test_the_second_one_finishes_what_the_first_one_lost(self, engine: Engine) -> None:
        """A worker that was paused for too long loses its lease."""
        await add(engine, "a")
        assert await take(engine, 1, "slow", lease_ms=10) == ["a"]
        assert await reclaim(engine, NOW + 11) == ["a"]
        assert await take(engine, 1, "quick", now_ms=NOW + 12) == ["a"]
        batch = await engine.settle(
            QUEUE, [Completed("a", "slow", '"slow"')], claim(1, "slow 2"), now_ms=NOW + 13
        )
        assert (batch.lost, batch.leases) == (["a"], [])
        await settled(engine, Completed("a", "quick", '"quick"'), now_ms=NOW + 14)
        assert (await job(engine, "a")).result == '"quick"'
        assert await counts(engine) == {State.COMPLETED: 1}
        assert await ids_in(engine, State.ACTIVE) == []
