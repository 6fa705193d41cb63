"""Batches, and the jobs that are added at the moments of batches and flows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hasten import Store
from hasten.errors import BatchClosed, InvalidOption, JobFailed, JobNotFound
from hasten.jobs import Job, Queue, State, Worker
from hasten.jobs._built_in_tasks import FLOW_TASK, OPENING_TASK
from hasten.jobs._moments import run_built_in
from hasten.jobs._record import ClaimRequest, Lease, Outcome, Parked
from hasten.testing import ManualClock
from tests.jobs.eventually import until, until_state, until_true


class Tasks:
    """The tasks of these tests. happened has the texts that note was called with."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.happened: list[str] = []
        self.may_end = asyncio.Event()
        self.broken = True

        @queue.task
        async def work(number: int = 0) -> int:
            return number

        @queue.task
        async def fail(text: str = "no") -> None:
            if self.broken:
                raise ValueError(text)

        @queue.task
        async def block() -> None:
            await self.may_end.wait()

        @queue.task
        async def note(text: str) -> None:
            self.happened.append(text)

        self.work, self.fail, self.block, self.note = work, fail, block, note

    def hooks(self) -> dict[str, Any]:
        return {
            "on_first_failure": self.note.args("first failure"),
            "on_ended": self.note.args("ended"),
            "on_succeeded": self.note.args("succeeded"),
        }


@pytest.fixture
def tasks(queue: Queue) -> Tasks:
    return Tasks(queue)


async def until_idle(queue: Queue) -> None:
    """Return once no job of the queue is unfinished."""

    async def is_idle() -> bool:
        counts = await queue.counts()
        return not sum(counts[s] for s in State if s not in {State.COMPLETED, State.FAILED})

    await until_true(is_idle)


class TestBatch:
    async def test_ends_when_it_is_closed_and_all_have_ended(self, tasks: Tasks) -> None:
        batch = await tasks.queue.batch()
        jobs = await batch.add(tasks.work.many([1, 2]))
        assert [type(job) for job in jobs] == [Job, Job]
        assert (await batch.progress()).pending == 2
        async with Worker(tasks.queue):
            assert await jobs[1].result(timeout=30) == 2
            await batch.add(tasks.work.args(3))
            await until_true(lambda: has_completed(batch, 3))
            assert await batch.is_open()
            with pytest.raises(TimeoutError):
                await batch.ended(timeout=0.05)
            assert await batch.close()
            assert not await batch.close()
            progress = await batch.ended(timeout=30)
            assert (progress.pending, progress.completed, progress.failed) == (0, 3, 0)
            assert await batch.first_failure(timeout=30) is None
            assert (await batch.succeeded(timeout=30)).total == 3
            await until_idle(tasks.queue)
        assert not await batch.is_open()
        with pytest.raises(BatchClosed, match="takes no more jobs"):
            await batch.add(tasks.work.args(4))

    async def test_another_process_finds_it(self, tasks: Tasks, elsewhere: Queue) -> None:
        batch = await tasks.queue.batch("nightly", **tasks.hooks())
        await batch.add(tasks.work.many([1, 2]))
        (found,) = await elsewhere.batches()
        assert (found.id, found.queue) == ("nightly", "mail")
        again = await elsewhere.batch("nightly")
        assert (await again.progress()).pending == 2
        waiting = asyncio.create_task(again.ended(timeout=30))
        await again.close()
        async with Worker(tasks.queue):
            assert (await waiting).completed == 2
            await until(lambda: len(tasks.happened) == 2)
            await until_idle(tasks.queue)
        assert sorted(tasks.happened) == ["ended", "succeeded"]
        assert await elsewhere.batches() == []

    async def test_two_processes_open_it_at_once(self, tasks: Tasks, elsewhere: Queue) -> None:
        batches = await asyncio.gather(*(q.batch("one") for q in [tasks.queue, elsewhere] * 5))
        assert {batch.id for batch in batches} == {"one"}
        counts = await tasks.queue.counts()
        assert (counts[State.WAITING_CHILDREN], counts[State.DELAYED]) == (1, 1)

    async def test_members_in_other_queues(self, tasks: Tasks, store: Store) -> None:
        other = Queue("other", store)

        @other.task
        async def outside() -> None: ...

        batch = await tasks.queue.batch(on_ended=tasks.note.args("ended"))
        await batch.add([outside.args(), tasks.work.after(outside.args())])
        await batch.close()
        async with Worker(tasks.queue, other):
            assert (await batch.ended(timeout=30)).total == 2
            await until(lambda: tasks.happened == ["ended"])

    async def test_an_empty_batch(self, tasks: Tasks) -> None:
        batch = await tasks.queue.batch(**tasks.hooks())
        assert await batch.add([]) == []
        await batch.close()
        async with Worker(tasks.queue):
            assert (await batch.ended(timeout=30)).total == 0
            await until(lambda: len(tasks.happened) == 2)
            await until_idle(tasks.queue)
        assert sorted(tasks.happened) == ["ended", "succeeded"]

    async def test_first_failure_comes_before_the_end(self, tasks: Tasks) -> None:
        batch = await tasks.queue.batch(**tasks.hooks())
        await batch.add([tasks.block.args(), tasks.fail.args("a"), tasks.fail.args("b")])
        async with Worker(tasks.queue):
            child = await batch.first_failure(timeout=30)
            assert child is not None
            assert child.error in {"ValueError: a", "ValueError: b"}
            with pytest.raises(JobFailed, match="ValueError: "):
                await batch.succeeded(timeout=30)
            await until(lambda: tasks.happened == ["first failure"])
            await batch.close()
            tasks.may_end.set()
            assert (await batch.ended(timeout=30)).failed == 2
            await until(lambda: len(tasks.happened) == 2)
            await until_idle(tasks.queue)
        assert tasks.happened == ["first failure", "ended"]
        found = sorted(str(child.error) for child in await batch.failures())
        assert found == ["ValueError: a", "ValueError: b"]
        assert len(await batch.failures(limit=1)) == 1

    async def test_a_retry_before_the_end_counts(self, tasks: Tasks) -> None:
        batch = await tasks.queue.batch(**tasks.hooks())
        (job,) = await batch.add(tasks.fail.args())
        async with Worker(tasks.queue):
            await until(lambda: tasks.happened == ["first failure"])
            tasks.broken = False
            await job.retry()
            await batch.close()
            assert (await batch.ended(timeout=30)).completed == 1
            await until(lambda: len(tasks.happened) == 3)
            await until_idle(tasks.queue)
        assert sorted(tasks.happened) == ["ended", "first failure", "succeeded"]

    async def test_is_closed_when_nobody_does(self, tasks: Tasks, clock: ManualClock) -> None:
        batch = await tasks.queue.batch(max_open="2h", **tasks.hooks())
        await batch.add(tasks.work.args(1))
        async with Worker(tasks.queue):
            await until_true(lambda: has_completed(batch, 1))
            assert await batch.is_open()
            clock.advance(3 * 3600)
            assert (await batch.ended(timeout=30)).total == 1
            await until(lambda: len(tasks.happened) == 2)
            await until_idle(tasks.queue)

    async def test_promoting_its_opening_does_not_close_it(self, tasks: Tasks) -> None:
        batch = await tasks.queue.batch()
        (opening,) = await tasks.queue.jobs(State.DELAYED)
        assert opening.name == OPENING_TASK
        async with Worker(tasks.queue):
            await opening.promote()
            await until_true(lambda: was_started(opening))
            await until_state(opening, State.DELAYED)
            assert await batch.is_open()

    async def test_its_end_is_known_after_it_was_deleted(self, tasks: Tasks) -> None:
        """Completed jobs of a queue are kept up to a number, and a batch is one of them."""
        batch = await tasks.queue.batch()
        await batch.add([tasks.work.args(1), tasks.fail.args("a")])
        await batch.close()
        async with Worker(tasks.queue):
            await until_idle(tasks.queue)
        await tasks.queue.clean("completed", older_than=0)
        assert (await batch.ended(timeout=30)).total == 2
        with pytest.raises(JobFailed, match="1 members have failed"):
            await batch.succeeded(timeout=30)
        with pytest.raises(JobNotFound, match="has ended and was deleted"):
            await batch.first_failure(timeout=30)

    async def test_cancel(self, tasks: Tasks) -> None:
        batch = await tasks.queue.batch(on_ended=tasks.note.args("ended"))
        await batch.add([tasks.work.after(tasks.work.args(1)), tasks.work.args(2)])
        assert await batch.cancel() == 3
        async with Worker(tasks.queue):
            assert (await batch.ended(timeout=30)).failed == 2
            await until(lambda: tasks.happened == ["ended"])

    async def test_sync(self, tasks: Tasks) -> None:
        def use() -> list[object]:
            batch = tasks.queue.sync.batch("one")
            batch.sync.add(tasks.work.many([1, 2]))
            (found,) = tasks.queue.sync.batches()
            assert found.sync.is_open()
            assert found.sync.close()
            return [batch.sync.progress().pending, batch.sync.failures()]

        assert await asyncio.to_thread(use) == [2, []]
        batch = await tasks.queue.batch("one")
        async with Worker(tasks.queue):
            assert (await asyncio.to_thread(batch.sync.ended, 30)).completed == 2
            assert await asyncio.to_thread(batch.sync.first_failure, 30) is None
            assert (await asyncio.to_thread(batch.sync.succeeded, 30)).completed == 2
        assert await asyncio.to_thread(batch.sync.cancel) == 0

    async def test_refusals(self, tasks: Tasks) -> None:
        await tasks.work.using(job_id="job").enqueue()
        with pytest.raises(InvalidOption, match="an id that no other job of queue 'mail' has"):
            await tasks.queue.batch("job")
        with pytest.raises(InvalidOption, match="job_id='7'"):
            await tasks.queue.batch("7")
        with pytest.raises(InvalidOption, match="at most 400 characters"):
            await tasks.queue.batch("x" * 401)
        with pytest.raises(InvalidOption, match="max_open"):
            await tasks.queue.batch(max_open=0)
        with pytest.raises(InvalidOption, match="on_ended=<Flow>: must be one job"):
            await tasks.queue.batch(on_ended=tasks.work.after([]))  # type: ignore[arg-type]
        other = Queue("other", "memory://")

        @other.task
        async def outside() -> None: ...

        with pytest.raises(InvalidOption, match="jobs of one store"):
            await tasks.queue.batch(on_ended=outside.args())
        batch = await tasks.queue.batch()
        with pytest.raises(InvalidOption, match="jobs of the store of queue 'mail'"):
            await batch.add(outside.args())
        with pytest.raises(InvalidOption, match="outermost flow"):
            await batch.add(tasks.work.after([]).on_ended(tasks.note.args("x")))
        await tasks.queue.remove(batch.id)
        with pytest.raises(JobNotFound):
            await batch.progress()


async def has_completed(batch: Any, count: int) -> bool:
    return bool((await batch.progress()).completed == count)


async def was_started(job: Job[Any]) -> bool:
    return (await job.refresh()).record.attempts_started > 0


class TestHooksOfFlows:
    async def test_success(self, tasks: Tasks) -> None:
        flow = tasks.work.args(1).after(tasks.work.many([1, 2]))
        flow = flow.on_first_failure(tasks.note.args("first failure"))
        flow = flow.on_ended(tasks.note.args("ended")).on_succeeded(tasks.note.args("succeeded"))
        job = await flow.enqueue()
        assert job.parent is not None
        watcher = await tasks.queue.get(job.parent.id)
        assert watcher is not None
        assert watcher.name == FLOW_TASK
        async with Worker(tasks.queue):
            assert await job.result(timeout=30) == 1
            await until(lambda: len(tasks.happened) == 2)
            await until_idle(tasks.queue)
        assert sorted(tasks.happened) == ["ended", "succeeded"]

    async def test_first_failure_comes_before_the_end_of_the_others(self, tasks: Tasks) -> None:
        """The root fails with the first child. Others still run: the flow has not ended."""
        flow = tasks.work.after([tasks.block.args(), tasks.fail.args()])
        flow = flow.on_first_failure(tasks.note.args("first failure"))
        flow = flow.on_ended(tasks.note.args("ended")).on_succeeded(tasks.note.args("succeeded"))
        job = await flow.enqueue()
        async with Worker(tasks.queue):
            await until(lambda: tasks.happened == ["first failure"])
            assert job.parent is not None
            watcher = await tasks.queue.get(job.parent.id)
            assert watcher is not None
            await until_state(watcher, State.DELAYED)
            tasks.may_end.set()
            await watcher.promote()
            await until(lambda: len(tasks.happened) == 2)
        assert tasks.happened == ["first failure", "ended"]

    async def test_hooks_in_another_queue(self, tasks: Tasks, store: Store) -> None:
        other = Queue("other", store)
        happened: list[str] = []

        @other.task
        async def note(text: str) -> None:
            happened.append(text)

        await tasks.work.after(tasks.work.args(1)).on_ended(note.args("ended")).enqueue()
        async with Worker(tasks.queue, other):
            await until(lambda: happened == ["ended"])

    async def test_options_of_hooks(self, tasks: Tasks, clock: ManualClock) -> None:
        """A time of expiry counts from the moment, not from the call of enqueue."""
        hook = tasks.note.using(priority=5, expires=60, job_id="mine").args("ended")
        await tasks.work.after([]).on_ended(hook).enqueue()
        clock.advance(3600)
        async with Worker(tasks.queue):
            await until(lambda: tasks.happened == ["ended"])
        job = await tasks.queue.get("mine")
        assert job is not None
        assert job.priority == 5

    async def test_why_explains_the_watcher(self, tasks: Tasks) -> None:
        batch = await tasks.queue.batch("one")
        why = "Job one (hasten:batch) waits for more members, because the batch is open"
        assert str(await tasks.queue.why("one")) == f"{why}."
        (job,) = await batch.add(tasks.work.args(1))
        text = f"{why}, and for 1 member: job {job.id} of queue mail is waiting."
        assert str(await tasks.queue.why("one")) == text
        await batch.close()
        await job.cancel()
        (watcher,) = await tasks.queue.jobs(State.WAITING)
        assert "no worker takes jobs" in str(await watcher.why())


class TestKilledWorkers:
    """Workers die before or after they have stored the outcome of a watcher."""

    async def test_jobs_are_added_once(self, tasks: Tasks, clock: ManualClock) -> None:
        queue = tasks.queue
        batch = await queue.batch(**tasks.hooks())
        await batch.close()
        engine = queue.engine

        async def run_until_stored(token: str) -> tuple[Lease, Outcome]:
            claim = ClaimRequest(1, token, "dead", 50)
            (lease,) = (await engine.claim(queue.name, claim, now_ms=clock.now_ms())).leases
            assert lease.job.id == batch.id
            return lease, await run_built_in(engine, lease, clock.now_ms())

        async def reclaim() -> None:
            clock.advance(1)

            async def is_taken_back() -> bool:
                return bool(await engine.reclaim(queue.name, crash_limit=9, now_ms=clock.now_ms()))

            await until_true(is_taken_back)

        _, unstored = await run_until_stored("t1")
        assert isinstance(unstored, Parked)
        assert len(unstored.children) == 2
        await reclaim()
        _, outcome = await run_until_stored("t2")
        assert (await settle(queue, outcome)) == []
        assert (await settle(queue, outcome)) == [batch.id]  # the reply was lost: stored again
        assert (await settle(queue, unstored)) == [batch.id]  # the first is not dead
        (lease,) = (
            await engine.claim(queue.name, ClaimRequest(1, "t3", "dead", 50), now_ms=clock.now_ms())
        ).leases
        assert lease.job.id == batch.id
        await reclaim()
        async with Worker(queue):
            await until(lambda: len(tasks.happened) == 2)
            await until_idle(queue)
        assert sorted(tasks.happened) == ["ended", "succeeded"]

    async def test_of_many_workers_only_one_adds_a_job(self, tasks: Tasks, store: Store) -> None:
        queues = [Queue("mail", store) for _ in range(4)]
        batches = [await tasks.queue.batch(on_ended=tasks.note.args(f"{n}")) for n in range(10)]
        for batch in batches:
            await batch.add(tasks.work.many(range(5)))
            await batch.close()
        for queue in queues:
            queue.tasks.update(tasks.queue.tasks)
        async with Worker(queues[0]), Worker(queues[1]), Worker(queues[2]), Worker(queues[3]):
            await until_idle(tasks.queue)
        assert sorted(tasks.happened) == [f"{n}" for n in range(10)]


async def settle(queue: Queue, outcome: Outcome) -> list[str]:
    """Store an outcome. Returns the ids of the jobs whose lease was lost."""
    now_ms = queue.clock.now_ms()
    return (await queue.engine.settle(queue.name, [outcome], None, now_ms=now_ms)).lost
