"""Workers wait for work. Time-outs only end failing tests."""

from __future__ import annotations

import asyncio

import pytest

from hasten.jobs._engine import Engine
from hasten.jobs._record import Postponed, Released, Retry
from hasten.jobs._states import State
from tests.contract.steps import NOW, QUEUE, add, new_job, settled, soon, start, take, waiting


async def keeps_waiting(task: asyncio.Task[None]) -> bool:
    """Return whether the call still waits after a while. It may return early for a reason only."""
    done, _ = await asyncio.wait([task], timeout=0.05)
    return not done


class TestWait:
    @pytest.mark.parametrize("priority", [0, 5])
    async def test_returns_at_once_when_there_is_work(self, engine: Engine, priority: int) -> None:
        await add(engine, "a", priority=priority)
        await soon(engine.wait_for_jobs(QUEUE, next_due_ms=None))

    async def test_lasts_while_there_is_none(self, engine: Engine) -> None:
        await start(engine, "running")
        await add(engine, "a", queue="other")
        async with waiting(engine) as task:
            assert await keeps_waiting(task)

    @pytest.mark.parametrize("priority", [0, 5])
    async def test_ends_with_an_add(self, engine: Engine, priority: int) -> None:
        async with waiting(engine) as task:
            await add(engine, "a", priority=priority)
            await soon(task)

    async def test_ends_for_every_worker(self, engine: Engine) -> None:
        """A worker that claims too late waits again."""
        async with waiting(engine) as first, waiting(engine) as second:
            await engine.add([new_job(), new_job()], now_ms=NOW)
            await soon(first)
            await soon(second)

    async def test_can_be_asked_again_after_it_ended(self, engine: Engine) -> None:
        for n in range(3):
            async with waiting(engine) as task:
                await add(engine, f"a{n}")
                await soon(task)
            assert await take(engine, 1, f"t{n}") == [f"a{n}"]

    @pytest.mark.parametrize(
        "outcome",
        [Released("a", "t1"), Retry("a", "t1", "oops", "trace", 0), Postponed("a", "t1", 0)],
        ids=repr,
    )
    async def test_ends_when_a_job_is_handed_back(
        self, engine: Engine, outcome: Released | Retry | Postponed
    ) -> None:
        await start(engine, "a")
        async with waiting(engine) as task:
            await settled(engine, outcome)
            await soon(task)

    async def test_ends_when_a_job_is_taken_back(self, engine: Engine) -> None:
        await start(engine, "a", lease_ms=10)
        async with waiting(engine) as task:
            await engine.reclaim(QUEUE, crash_limit=5, now_ms=NOW + 11)
            await soon(task)

    async def test_ends_when_a_job_is_run_again(self, engine: Engine) -> None:
        await add(engine, "a")
        await engine.cancel(QUEUE, ["a"], now_ms=NOW)
        async with waiting(engine) as task:
            await engine.requeue(QUEUE, ["a"], {State.FAILED}, now_ms=NOW)
            await soon(task)

    async def test_ends_when_another_claim_makes_jobs_ready(self, engine: Engine) -> None:
        await add(engine, "a", "b", delay_ms=100)
        async with waiting(engine, next_due_ms=NOW + 100) as task:
            assert await take(engine, 1, now_ms=NOW + 100) == ["a"]
            await soon(task)

    async def test_may_be_cancelled(self, engine: Engine) -> None:
        """A worker that stops cancels it. No task or connection is left."""
        async with waiting(engine):
            pass
        await add(engine, "a")
        assert await take(engine) == ["a"]


class TestWhilePaused:
    async def test_lasts_though_there_is_work(self, engine: Engine) -> None:
        await add(engine, "a")
        await engine.pause(QUEUE, now_ms=NOW)
        async with waiting(engine) as task:
            assert await keeps_waiting(task)
            await add(engine, "b")
            assert await keeps_waiting(task)

    async def test_ends_with_the_pause(self, engine: Engine) -> None:
        await add(engine, "a")
        await engine.pause(QUEUE, now_ms=NOW)
        async with waiting(engine) as task:
            await engine.resume(QUEUE, now_ms=NOW)
            await soon(task)


class TestDelayedJobs:
    """The caller knows the next due time, and must learn of jobs that are due earlier."""

    async def test_it_knows_of_do_not_end_it(self, engine: Engine) -> None:
        await add(engine, "a", delay_ms=100)
        async with waiting(engine, next_due_ms=NOW + 100) as task:
            assert await keeps_waiting(task)

    async def test_it_did_not_know_of_end_it(self, engine: Engine) -> None:
        """They were added between its claim and its wait."""
        await add(engine, "a", delay_ms=100)
        await soon(engine.wait_for_jobs(QUEUE, next_due_ms=None))
        await soon(engine.wait_for_jobs(QUEUE, next_due_ms=NOW + 101))

    @pytest.mark.parametrize("known", [None, NOW + 500])
    async def test_that_are_due_sooner_end_it(self, engine: Engine, known: int | None) -> None:
        if known is not None:
            await add(engine, "known", delay_ms=500)
        async with waiting(engine, next_due_ms=known) as task:
            await add(engine, "sooner", delay_ms=100)
            await soon(task)

    async def test_that_are_due_later_do_not(self, engine: Engine) -> None:
        await add(engine, "known", delay_ms=100)
        async with waiting(engine, next_due_ms=NOW + 100) as task:
            await add(engine, "later", delay_ms=500)
            assert await keeps_waiting(task)

    async def test_that_were_retried_end_it(self, engine: Engine) -> None:
        await start(engine, "a")
        async with waiting(engine) as task:
            await settled(engine, Retry("a", "t1", "oops", "trace", 100))
            await soon(task)

    async def test_that_are_promoted_end_it(self, engine: Engine) -> None:
        await add(engine, "a", delay_ms=100)
        async with waiting(engine, next_due_ms=NOW + 100) as task:
            await engine.requeue(QUEUE, ["a"], {State.DELAYED}, now_ms=NOW)
            await soon(task)
