"""Why a job does not run: each reason, from a queue in the store that has it."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from hasten.errors import InvalidOption, JobFailed, JobNotFound
from hasten.jobs import Context, Queue, Reason, RetryAfter, State, Why, Worker
from hasten.jobs._engine import CANCELLED_ERROR
from hasten.jobs._engines.redis import redis_engine
from hasten.jobs._engines.sqlite import sqlite_engine
from hasten.jobs._record import ClaimRequest
from hasten.jobs._worker_info import WorkerInfo, encode_worker_info
from hasten.testing import ManualClock
from tests.jobs.eventually import until, until_longer, until_state, until_true
from tests.patience import DEADLINE_SECONDS


async def until_why(queue: Queue, id: str, code: Reason) -> Why:
    found: list[Why] = []

    async def is_so() -> bool:
        found[:] = [await queue.why(id)]
        return found[0].code is code

    try:
        await until_true(is_so)
    except TimeoutError:
        raise AssertionError(found[0]) from None
    return found[0]


async def until_listed(queue: Queue, count: int = 1) -> None:
    async def are_there() -> bool:
        return len(await queue.workers()) == count

    await until_true(are_there)


async def test_an_unknown_job(queue: Queue) -> None:
    await queue.add("send")
    with pytest.raises(JobNotFound):
        await queue.why("no such job")
    with pytest.raises(InvalidOption, match="as a string"):
        await queue.why(1)  # type: ignore[arg-type]


async def test_a_job_that_has_run(queue: Queue) -> None:
    @queue.task
    async def send(fails: bool) -> None:
        if fails:
            raise ValueError("no such address\n" + "x" * 1000)

    good, bad = await send.enqueue(False), await send.enqueue(True)
    async with Worker(queue):
        await good.result(timeout=30)
        with pytest.raises(JobFailed):
            await bad.result(timeout=30)
    why = await queue.why(good.id)
    assert (why.code, why.state, why.task) == (Reason.COMPLETED, State.COMPLETED, "send")
    assert str(why).startswith(f"Job {good.id} (send) has completed at ")
    why = await bad.why()
    assert why.code is Reason.FAILED
    assert why.text.endswith(", after 1 attempt: ValueError: no such address.")
    assert why.error is not None
    assert why.error.startswith("ValueError: no such address\nxxx")


async def test_a_cancelled_job(queue: Queue) -> None:
    job = await queue.add("send")
    await job.cancel()
    why = await job.why()
    assert (why.code, why.error) == (Reason.FAILED, CANCELLED_ERROR)
    assert " was cancelled at " in why.text


async def test_a_running_job(queue: Queue, clock: ManualClock) -> None:
    started, may_end = asyncio.Event(), asyncio.Event()

    @queue.task
    async def send() -> None:
        started.set()
        await may_end.wait()

    job = await send.enqueue()
    async with Worker(queue, name="w7", lease=60):
        await started.wait()
        why = await job.why()
        assert (why.code, why.worker) == (Reason.RUNNING, "w7")
        assert why.until is not None
        assert 0 < why.until.timestamp() - clock.now_ms() / 1000 <= 60
        assert " is running on worker w7 since " in why.text
        may_end.set()
        await job.result(timeout=30)


async def test_an_expired_lease(queue: Queue, clock: ManualClock) -> None:
    """Its worker has died. Others say how soon they take the job back."""
    job = await queue.add("send")
    claim = ClaimRequest(1, "token", "dead worker", lease_ms=50)
    await queue.engine.claim(queue.name, claim, now_ms=clock.now_ms())
    clock.advance(1)
    why = await until_why(queue, job.id, Reason.LEASE_EXPIRED)
    assert why.worker == "dead worker"
    assert why.text.endswith(
        "on worker dead worker, whose lease has expired: the job runs again when a worker of the "
        "queue is started."
    )


async def test_a_paused_queue(queue: Queue) -> None:
    await queue.add("send")
    job = await queue.add("send")
    await queue.pause()
    why = await job.why()
    assert (why.code, why.ahead) == (Reason.PAUSED, 1)
    assert " waits because queue mail is paused" in why.text


async def test_a_delayed_job(queue: Queue, clock: ManualClock) -> None:
    job = await queue.add("send", delay=30)
    why = await job.why()
    assert why.code is Reason.DELAYED
    assert why.until is not None
    assert why.until.timestamp() * 1000 == clock.now_ms() + 30_000
    assert why.text.endswith(" (in 30 s).")
    await queue.pause()
    assert (await job.why()).text.endswith(" (in 30 s), and the queue is paused.")
    clock.advance(30)
    assert (await job.why()).code is Reason.PAUSED
    await queue.resume()
    assert (await job.why()).code is Reason.NO_WORKER


async def test_a_job_that_waits_for_its_next_attempt(queue: Queue, clock: ManualClock) -> None:
    @queue.task(attempts=3, backoff=60)
    async def send() -> None:
        raise ValueError("no answer")

    job = await send.enqueue()
    async with Worker(queue):
        await until_state(job, State.DELAYED)
    why = await job.why()
    assert (why.code, why.error) == (Reason.RETRY, "ValueError: no answer")
    assert why.text.endswith("(in 60 s): attempt 1 of 3 failed: ValueError: no answer.")


async def test_a_job_whose_handler_has_postponed_it(queue: Queue) -> None:
    @queue.task
    async def send(ctx: Context) -> None:
        raise RetryAfter(60)

    job = await send.enqueue()
    async with Worker(queue):
        await until_state(job, State.DELAYED)
    why = await job.why()
    assert why.code is Reason.POSTPONED
    assert " was handed back by its last run and is due at " in why.text


async def test_nobody_consumes_the_queue(queue: Queue) -> None:
    job = await queue.add("send")
    why = await job.why()
    assert (why.code, why.ahead) == (Reason.NO_WORKER, 0)
    assert why.text.endswith(" waits because no worker takes jobs of queue mail: start a worker.")


async def test_only_a_stopping_worker_is_left(queue: Queue) -> None:
    started, may_end = asyncio.Event(), asyncio.Event()

    @queue.task
    async def hold() -> None:
        started.set()
        await may_end.wait()

    await hold.enqueue()
    worker = Worker(queue, lease=1)
    await worker.start()
    await started.wait()
    stopping = asyncio.create_task(worker.stop(grace=DEADLINE_SECONDS))
    await until(lambda: worker.info()[0].stopping)
    job = await queue.add("send")
    why = await until_why(queue, job.id, Reason.NO_WORKER)
    assert why.text.endswith("those that run are about to stop.")
    may_end.set()
    await stopping


async def test_no_worker_has_its_task(queue: Queue, elsewhere: Queue) -> None:
    """The queue is full, so that no worker fails the job."""
    may_end = asyncio.Event()

    @queue.task
    async def hold() -> None:
        await may_end.wait()

    first = await hold.enqueue()
    async with Worker(queue, concurrency=1, lease=1):
        await until_state(first, State.ACTIVE)
        job = await elsewhere.add("send")
        why = await until_why(queue, job.id, Reason.NO_TASK)
        assert "no worker of queue mail has its task" in why.text
        assert "(tasks of the workers: hold)" in why.text
        await job.cancel()
        may_end.set()


@pytest.mark.parametrize(("release", "shown"), [(None, "none"), ("2026.11", "2026.11")])
async def test_no_worker_has_its_release(queue: Queue, release: str | None, shown: str) -> None:
    """It was handed back, and is offered again later."""

    @queue.task(since="2026.12")
    async def send() -> None: ...

    job = await send.enqueue()
    async with Worker(queue, release=release, lease=1):
        await until_state(job, State.DELAYED)
        await until_listed(queue)
        why = await until_why(queue, job.id, Reason.NO_RELEASE)
        assert why.since == "2026.12"
        assert why.until is not None
        assert (
            "needs a worker of release 2026.12 or later, and none is running (releases of the "
            f"workers: {shown}); it is offered again at "
        ) in why.text


async def test_a_worker_of_a_later_version_may_run_the_job(
    queue: Queue, elsewhere: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its report cannot be decoded, so nothing is claimed about its tasks and slots."""
    may_end = asyncio.Event()
    reported: list[str] = []

    def encode(info: WorkerInfo) -> str:
        reported.append(info.id)
        return encode_worker_info(info).replace('"slots":1', '"slots":{"small":1}')

    for engine in (redis_engine, sqlite_engine):
        monkeypatch.setattr(engine, "encode_worker_info", encode)

    @queue.task
    async def hold() -> None:
        await may_end.wait()

    first = await hold.enqueue()
    async with Worker(queue, concurrency=1, lease=1):
        await until_state(first, State.ACTIVE)
        await until_longer(reported, 1)
        assert await queue.workers() == []
        for task in ("hold", "send"):
            job = await elsewhere.add(task)
            why = await job.why()
            assert why.code is Reason.READY
            await job.remove()
        may_end.set()


async def test_all_slots_are_in_use(queue: Queue) -> None:
    may_end = asyncio.Event()

    @queue.task
    async def send() -> None:
        await may_end.wait()

    async with Worker(queue, concurrency=2, lease=1):
        jobs = [await send.enqueue() for _ in range(5)]
        why = await until_why(queue, jobs[4].id, Reason.BUSY)
        assert why.ahead == 2
        assert why.text.endswith(
            " waits because all 2 slots of 1 worker are used; 2 jobs are in front of it."
        )
        may_end.set()
        for job in jobs:
            await job.result(timeout=30)


async def test_a_handler_blocks_the_event_loop(queue: Queue, elsewhere: Queue) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    seen: list[Why] = []

    @queue.task
    async def block() -> None:
        while not seen and time.monotonic() < deadline:
            time.sleep(0.01)

    await block.enqueue()
    job = await block.enqueue()

    def look() -> None:
        while not seen and time.monotonic() < deadline:
            why = elsewhere.sync.why(job.id)
            if why.code is Reason.BLOCKED:
                seen.append(why)
            time.sleep(0.01)

    with ThreadPoolExecutor(1) as threads:
        looking = threads.submit(look)
        async with Worker(queue, name="w", concurrency=1, lease=1):
            await asyncio.wrap_future(looking)
    assert seen[0].worker == "w"
    assert "a handler blocks the event loop of every worker: that of worker w for " in seen[0].text


async def test_a_job_that_expired_before_it_could_start(queue: Queue, clock: ManualClock) -> None:
    job = await queue.add("send", expires=10)
    clock.advance(11)
    why = await job.why()
    assert why.code is Reason.EXPIRED
    assert "before it could start: the next worker that claims it fails it." in why.text
    queue.task(name="send")(lambda: None)
    async with Worker(queue):
        await until_state(job, State.FAILED)
    why = await job.why()
    assert why.code is Reason.FAILED
    assert ", before it could start: expired 1.000 s before it could start." in why.text


async def test_a_job_that_crashed_too_often(queue: Queue, clock: ManualClock) -> None:
    job = await queue.add("send")
    engine = queue.engine
    await engine.claim(queue.name, ClaimRequest(1, "token", "w", lease_ms=1), now_ms=clock.now_ms())
    clock.advance(1)

    async def is_taken_back() -> bool:
        ids = await engine.reclaim(queue.name, crash_limit=1, now_ms=clock.now_ms())
        return ids == [job.id]

    await until_true(is_taken_back)
    why = await job.why()
    assert why.code is Reason.WILL_FAIL
    assert "the next worker that claims it fails it: job stalled more than" in why.text


async def test_a_ready_job(queue: Queue) -> None:
    """It waits only until the worker has fetched it: here, a worker that fetches nothing."""

    @queue.task
    async def send() -> None: ...

    async with Worker(queue, lease=1) as worker:
        await until_listed(queue)
        (info,) = worker.info()
        await queue.engine.unregister_worker(queue.name, info.id)
    engine = queue.engine
    report = engine.report_worker
    await asyncio.to_thread(
        report, queue.name, info, lifetime_ms=10**9, now_ms=queue.clock.now_ms()
    )
    first, second = await send.enqueue(), await send.enqueue()
    why = await first.why()
    assert (why.code, why.ahead) == (Reason.READY, 0)
    assert why.text.endswith(" is ready: a worker takes it next.")
    why = await second.why()
    assert (why.code, why.ahead) == (Reason.READY, 1)
    assert why.text.endswith(" is ready; 1 job is in front of it.")


async def test_the_same_from_code_without_an_event_loop(memory: Queue) -> None:
    job = await memory.add("send")
    assert (await asyncio.to_thread(memory.sync.why, job.id)).code is Reason.NO_WORKER
    assert (await asyncio.to_thread(job.sync.why)).code is Reason.NO_WORKER
