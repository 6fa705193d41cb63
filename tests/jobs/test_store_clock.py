"""Jobs use the clock of their store."""

from __future__ import annotations

from datetime import timedelta

import pytest

from hasten import Store
from hasten.jobs import Keep, Queue, State, Worker
from hasten.jobs._record import ClaimRequest
from hasten.testing import ManualClock
from tests.jobs.eventually import fails, result_of, until, until_state


async def test_one_store_moves_all_its_queues(store: Store, clock: ManualClock) -> None:
    mail, reports = Queue("mail", store), Queue("reports", store)

    @mail.task
    async def send() -> str:
        return "sent"

    @reports.task
    async def write() -> str:
        return "written"

    jobs = [
        await send.using(delay=timedelta(days=7)).enqueue(),
        await write.using(delay="7d").enqueue(),
    ]
    async with Worker(mail, reports):
        clock.advance("6d")
        assert [(await job.refresh()).state for job in jobs] == [State.DELAYED, State.DELAYED]
        clock.advance("1d")
        assert [await job.result(timeout=30) for job in jobs] == ["sent", "written"]


async def test_each_queue_goes_by_the_clock_of_its_own_store(store: Store, url: str) -> None:
    """Also if one worker serves queues of several stores."""
    other_clock = ManualClock()
    async with Store(url, clock=other_clock) as other_store:
        queue, other = Queue("mail", store), Queue("reports", other_store)

        @other.task
        async def write() -> str:
            return "written"

        job = await write.using(delay="1h").enqueue()
        async with Worker(queue, other):
            other_clock.advance("1h")
            assert await job.result(timeout=10) == "written"


async def test_a_retry_waits_by_the_clock(queue: Queue, clock: ManualClock) -> None:
    @queue.task(attempts=2, backoff="1h")
    async def fail() -> None:
        raise ValueError("no")

    job = await fail.enqueue()
    async with Worker(queue):
        await until_state(job, State.DELAYED)
        assert job.due_at == clock.now() + timedelta(hours=1)
        clock.advance("1h")
        await fails(job.result(timeout=30), "no")


async def test_all_times_of_a_job_are_of_the_clock(queue: Queue, clock: ManualClock) -> None:
    @queue.task
    async def run() -> None: ...

    created = clock.now()
    job = await run.using(delay=60).enqueue()
    async with Worker(queue):
        clock.advance(60)
        await job.result(timeout=30)
    await job.refresh()
    assert (job.created_at, job.started_at, job.finished_at) == (created, clock.now(), clock.now())


async def test_a_job_expires_by_the_clock(queue: Queue, clock: ManualClock) -> None:
    @queue.task(expires="5m")
    async def run() -> None: ...

    job = await run.enqueue()
    clock.advance("6m")
    await fails(result_of(queue, job), "expired")


@pytest.mark.parametrize("of_task", [True, False], ids=["task", "queue"])
async def test_expiry_begins_at_the_call(store: Store, clock: ManualClock, of_task: bool) -> None:
    """A task may be created long before it adds a job."""
    queue = Queue("mail", store) if of_task else Queue("mail", store, expires="5m")

    async def handler() -> str:
        return "ran"

    run = queue.task(expires="5m")(handler) if of_task else queue.task(handler)
    clock.advance("1d")
    jobs = [await run.enqueue(), *await run.enqueue_many([run.args()])]
    async with Worker(queue):
        assert [await job.result(timeout=30) for job in jobs] == ["ran", "ran"]


async def test_finished_jobs_grow_old_by_the_clock(queue: Queue, clock: ManualClock) -> None:
    """`Keep(age=…)` and `clean` use it."""

    @queue.task(keep_completed=Keep(age="1d"))
    async def run() -> None: ...

    async with Worker(queue):
        old = await run.enqueue()
        await old.result(timeout=30)
        clock.advance("25h")
        young = await run.enqueue()
        await young.result(timeout=30)
    assert [job.id for job in await queue.jobs("completed")] == [young.id]
    clock.advance("1h")
    assert await queue.clean("completed", older_than="61m") == []
    assert await queue.clean("completed", older_than="1h") == [young.id]


async def test_a_lease_expires_by_the_clock(clock: ManualClock) -> None:
    """On Redis, leases expire by the clock of the server."""
    runs: list[int] = []
    async with Store("memory://", clock=clock) as store:
        queue = Queue("mail", store)

        @queue.task
        async def run() -> None:
            runs.append(clock.now_ms())

        job = await run.enqueue()
        expires_ms = clock.now_ms() + 60_000
        claim = ClaimRequest(1, "dead:1", "dead", lease_ms=60_000)
        await queue.engine.claim("mail", claim, now_ms=clock.now_ms())

        def has_run_a_second_later() -> bool:
            clock.advance(1)
            return bool(runs)

        async with Worker(queue, lease=10):
            await until(has_run_a_second_later)
            await job.result(timeout=30)
        assert runs[0] >= expires_ms
        assert (await job.refresh()).record.crashes == 1
