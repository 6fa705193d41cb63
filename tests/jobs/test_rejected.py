"""A store that refuses the outcome of one job: only that job fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import redis

from hasten.errors import StoreRejected
from hasten.jobs import Context, Queue, State, Worker
from hasten.jobs._record import Completed, Outcome
from tests.jobs.eventually import fails, until, until_state
from tests.servers.redis import shared_redis


@pytest.fixture
def refused(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> set[type[Outcome]]:
    """The types of outcomes that the store refuses, for jobs whose ids begin with bad."""
    kinds: set[type[Outcome]] = {Completed}
    settle = queue.engine.settle

    async def picky(name: str, outcomes: Sequence[Outcome], claim: Any, **options: Any) -> Any:
        if any(type(outcome) in kinds and outcome.id.startswith("bad") for outcome in outcomes):
            raise StoreRejected(queue.engine.url, "it holds poison")
        return await settle(name, outcomes, claim, **options)

    monkeypatch.setattr(queue.engine, "settle", picky)
    return kinds


async def test_fails_alone(queue: Queue, refused: set[type[Outcome]]) -> None:
    """Two of twenty outcomes of one call cannot be stored."""
    together = asyncio.Event()
    running: list[int] = []

    @queue.task
    async def run(number: int) -> int:
        running.append(number)
        await together.wait()
        return number

    jobs = [
        await run.using(job_id=f"{'bad' if n in {3, 12} else 'good'}{n}").enqueue(n)
        for n in range(20)
    ]
    async with Worker(queue, grace=0):
        await until(lambda: len(running) == 20)
        together.set()
        for number, job in enumerate(jobs):
            if number in {3, 12}:
                await fails(
                    job.result(timeout=30), "the outcome of the job cannot be stored: it holds"
                )
            else:
                assert await job.result(timeout=30) == number
    assert {(await job.refresh()).attempts_made for job in jobs} == {1}


async def test_that_cannot_even_fail_is_left_to_its_lease(
    queue: Queue, refused: set[type[Outcome]], caplog: pytest.LogCaptureFixture
) -> None:
    """The other jobs continue, and the log says so twice at most."""
    refused.update(Outcome.__args__)

    @queue.task
    async def run() -> str:
        return "done"

    bad = await run.using(job_id="bad").enqueue()
    async with Worker(queue, grace=0):
        await until(lambda: caplog.text.count("the outcome of the job cannot be stored") == 2)
        assert await (await run.enqueue()).result(timeout=30) == "done"
    assert (await bad.refresh()).state is State.ACTIVE
    assert caplog.text.count("the outcome of the job cannot be stored") == 2
    assert "store unavailable" not in caplog.text


async def test_log_lines_that_cannot_be_stored_are_dropped_alone(
    caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    """On Redis, another program has replaced the log of a job."""
    prefix = f"test-{request.node.name}"
    queue = Queue("mail", f"{shared_redis().url}?prefix={prefix}")
    client = redis.Redis.from_url(shared_redis().url)
    together = asyncio.Event()

    @queue.task
    async def run(ctx: Context, number: int) -> int:
        await together.wait()
        ctx.log(f"line {number}")
        ctx.progress(number)
        return number

    jobs = [await run.enqueue(number) for number in range(5)]
    client.set(f"{prefix}:mail:{jobs[2].id}:logs", "no list")
    async with Worker(queue, grace=0):
        for job in jobs:
            await until_state(job, State.ACTIVE)
        together.set()
        assert [await job.result(timeout=30) for job in jobs] == [0, 1, 2, 3, 4]
    for job in jobs:
        assert (await job.refresh()).progress == await job.result()
    assert [await job.logs() for job in jobs if job is not jobs[2]] == [
        [f"line {number}"] for number in (0, 1, 3, 4)
    ]
    assert f"job {jobs[2].id}: progress or log line dropped, the store rejects it" in caplog.text
    await queue.obliterate(force=True)
    await queue.aclose()
    client.close()


async def test_released_jobs_keep_their_order_when_they_are_stored_alone(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is refused, so the jobs are handed back one by one."""
    settle = queue.engine.settle

    async def one_at_a_time(
        name: str, outcomes: Sequence[Outcome], claim: Any, **options: Any
    ) -> Any:
        if len(outcomes) > 1:
            raise StoreRejected(queue.engine.url, "something of it")
        return await settle(name, outcomes, claim, **options)

    monkeypatch.setattr(queue.engine, "settle", one_at_a_time)

    @queue.task
    async def wait() -> None:
        await asyncio.Event().wait()

    jobs = []
    async with Worker(queue, concurrency=5, grace=0):
        for _ in range(5):  # in separate claims, because the results of two may come in any order
            jobs.append(await wait.enqueue())
            await until_state(jobs[-1], State.ACTIVE)
        jobs += await wait.enqueue_many([wait.args()] * 2)
    line = await queue.jobs(State.WAITING)
    assert [job.id for job in line] == [job.id for job in jobs]
