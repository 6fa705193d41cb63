"""Following a job: its present state, then every change until its end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hasten.errors import JobNotFound, StoreUnavailable
from hasten.jobs import Context, Job, Queue, State, Worker
from hasten.jobs import _watching as watching
from hasten.testing import ManualClock
from tests.jobs.eventually import until, until_longer, until_state
from tests.patience import DEADLINE_SECONDS

Seen = list[tuple[State, Any]]


class Follower:
    """A task that follows a job, and what it has seen."""

    def __init__(self, job: Job[Any]) -> None:
        self.seen: Seen = []
        self.jobs: list[Job[Any]] = []
        self.task = asyncio.create_task(self._follow(job))

    async def _follow(self, job: Job[Any]) -> None:
        async for each in job.watch():
            self.jobs.append(each)
            self.seen.append((each.state, each.progress))

    async def until_state(self, state: State) -> None:
        await until(lambda: self.seen[-1][0] is state)


async def follow(job: Job[Any]) -> Follower:
    follower = Follower(job)
    await until_longer(follower.seen, 0)
    return follower


async def test_it_begins_with_the_present_state_and_ends_with_the_job(queue: Queue) -> None:
    @queue.task
    async def climb(ctx: Context, steps: int) -> str:
        for step in range(steps):
            ctx.progress(step)
            await asyncio.sleep(0)
        return "top"

    job = await climb.enqueue(3)
    follower = await follow(job)
    async with Worker(queue):
        await asyncio.wait_for(follower.task, 60)
    states = [state for state, _ in follower.seen]
    assert (states[0], states[1], states[-1]) == (State.WAITING, State.ACTIVE, State.COMPLETED)
    assert [progress for _, progress in follower.seen if progress is not None][-1] == 2
    last = follower.jobs[-1]
    assert (last.value, last.attempts_made) == ("top", 1)
    assert last.finished_at is not None


@pytest.mark.parametrize("others", [0, 20])
async def test_every_follower_sees_every_state(
    queue: Queue, clock: ManualClock, others: int
) -> None:
    @queue.task(attempts=2, backoff=5)
    async def fail(number: int) -> None:
        raise LookupError(number)

    jobs = [await fail.enqueue(number) for number in range(others + 1)]
    followers = [await follow(job) for job in jobs]
    async with Worker(queue):
        for follower in followers:
            await follower.until_state(State.DELAYED)
        clock.advance(5)
        await asyncio.wait_for(asyncio.gather(*(f.task for f in followers)), 60)
    expected = [State.WAITING, State.ACTIVE, State.DELAYED, State.ACTIVE, State.FAILED]
    for number, follower in enumerate(followers):
        states = [state for state, _ in follower.seen]
        assert [state for state in expected if state in states] == expected
        assert states[-3:] in (expected[-3:], [State.WAITING, *expected[-2:]])
        assert follower.jobs[-1].error == f"LookupError: {number}"


async def test_a_finished_job_is_yielded_once(queue: Queue) -> None:
    @queue.task
    async def send() -> str:
        return "sent"

    job = await send.enqueue()
    async with Worker(queue):
        await job.result(timeout=30)
    assert [(each.state, each.value) async for each in job.watch()] == [(State.COMPLETED, "sent")]


async def test_a_result_that_is_not_kept_is_seen(queue: Queue) -> None:
    @queue.task(keep_completed=0)
    async def send() -> str:
        return "sent"

    job = await send.enqueue()
    follower = await follow(job)
    async with Worker(queue):
        await asyncio.wait_for(follower.task, 60)
    assert (follower.jobs[-1].state, follower.jobs[-1].value) == (State.COMPLETED, "sent")


async def test_progress_of_another_program_is_seen(queue: Queue, elsewhere: Queue) -> None:
    job = await queue.add("send")
    follower = await follow(job)
    await elsewhere.update(job.id, progress={"sent": 1})
    await until(lambda: follower.seen[-1] == (State.WAITING, {"sent": 1}))
    follower.task.cancel()


async def test_large_progress_is_read_from_the_job(queue: Queue) -> None:
    job = await queue.add("send")
    follower = await follow(job)
    await queue.update(job.id, progress="x" * 100_000)
    await until(lambda: follower.seen[-1][1] == "x" * 100_000)
    follower.task.cancel()


async def test_a_missing_job_is_an_error(queue: Queue) -> None:
    job = await queue.add("send")
    await job.remove()
    with pytest.raises(JobNotFound):
        await anext(job.watch())


async def test_so_is_one_that_is_removed(queue: Queue) -> None:
    job = await queue.add("send")
    follower = await follow(job)
    await job.remove()
    with pytest.raises(JobNotFound, match="removed"):
        await asyncio.wait_for(follower.task, 60)


async def test_so_is_one_that_is_drained(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drained queue has one event for all of its jobs."""
    monkeypatch.setattr(watching, "CHECK_SECONDS", 0.05)
    job = await queue.add("send")
    follower = await follow(job)
    await queue.drain()
    with pytest.raises(JobNotFound):
        await asyncio.wait_for(follower.task, 60)


async def test_states_that_pass_before_a_slow_reader_looks_are_seen(queue: Queue) -> None:
    @queue.task
    async def send() -> None: ...

    job = await send.enqueue()
    changes = job.watch()
    seen = [(await anext(changes)).state]
    async with Worker(queue):
        await until_state(job, State.COMPLETED)
    seen += [each.state async for each in changes]
    assert seen == [State.WAITING, State.ACTIVE, State.COMPLETED]


async def test_of_too_much_progress_the_newest_is_kept(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MAX_UNREAD", 3)
    job = await queue.add("send")
    changes = job.watch()
    await anext(changes)
    async with queue.events() as events:
        for number in range(10):
            await job.update(progress=number)
        async for event in events:
            if event.value == "9":
                break
    await until(
        lambda: any(len(i._events) >= 3 for s in queue.watches._inboxes.values() for i in s)
    )
    seen: list[Any] = []
    while not seen or seen[-1] != 9:
        seen.append((await anext(changes)).progress)
    assert len(seen) <= 5
    await changes.aclose()


async def test_an_error_of_the_store_reaches_every_follower(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [await queue.add("send") for _ in range(3)]
    followers = [await follow(job) for job in jobs]

    async def fail(*_: object, **__: object) -> Any:
        raise StoreUnavailable("store", "it is down")

    monkeypatch.setattr(type(queue.engine), "events", fail)
    for job in jobs:  # wakes the reader
        await job.update(progress=1)
    for follower in followers:
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(follower.task, 60)
    with pytest.raises(StoreUnavailable):
        await anext(jobs[0].watch())
    monkeypatch.undo()
    assert (await anext(jobs[0].watch())).progress == 1


async def test_the_reader_ends_with_the_last_follower(queue: Queue) -> None:
    jobs = [await queue.add("send") for _ in range(2)]
    changes = [job.watch() for job in jobs]
    for each in changes:
        await anext(each)
    await changes[0].aclose()
    assert readers(queue) == (1, True)
    await changes[1].aclose()
    assert readers(queue) == (0, False)


def readers(queue: Queue) -> tuple[int, bool]:
    """Return how many jobs are followed, and whether the events are read."""
    return len(queue.watches._inboxes), queue.watches._reader is not None


async def test_a_worker_of_another_event_loop_is_followed(queue: Queue, elsewhere: Queue) -> None:
    @elsewhere.task
    async def send() -> str:
        return "sent"

    job = await queue.add("send")
    follower = await follow(job)

    async def work() -> None:
        async with Worker(elsewhere):
            await (await elsewhere.get(job.id) or job).result(timeout=30)

    await asyncio.to_thread(asyncio.run, work())
    await asyncio.wait_for(follower.task, 60)
    assert follower.seen[-1][0] is State.COMPLETED


async def test_the_sync_twin(queue: Queue) -> None:
    @queue.task
    async def send() -> str:
        return "sent"

    job = await send.enqueue()
    async with Worker(queue):
        seen = await asyncio.to_thread(lambda: list(job.sync.watch()))
    assert (seen[-1].state, seen[-1].value) == (State.COMPLETED, "sent")


async def test_jobs_are_followed_one_after_the_other(queue: Queue) -> None:
    """The reader of the first one has just been cancelled when the second one comes."""
    for _ in range(20):
        job = await queue.add("send")
        changes = job.watch()
        await anext(changes)
        await changes.aclose()
        other = await follow(await queue.add("send"))
        await queue.update(next(iter(queue.watches._inboxes)), progress=1)
        await until_longer(other.seen, 1)
        assert other.seen[-1][1] == 1
        other.task.cancel()


async def test_an_unexpected_error_reaches_every_follower(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> Any:
        raise LookupError("a fault")

    job = await queue.add("send")
    monkeypatch.setattr(type(queue.engine), "events", fail)
    with pytest.raises(LookupError):
        await asyncio.wait_for(anext(job.watch()), DEADLINE_SECONDS)


async def test_the_last_change_has_the_result_also_if_the_job_runs_again(queue: Queue) -> None:
    """It is queued again before the follower reads it."""

    @queue.task
    async def send() -> str:
        return "sent"

    job = await send.enqueue()
    changes = job.watch()
    await anext(changes)
    async with Worker(queue):
        await until_state(job, State.COMPLETED)
    await job.retry()
    seen = [each async for each in changes]
    assert (seen[-1].state, seen[-1].value) == (State.COMPLETED, "sent")
