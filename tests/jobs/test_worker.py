"""Workers: concurrency, order, start and stop, and trouble with the store."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import operator
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hasten import Store
from hasten.errors import InvalidOption, JobCancelled, UsageError
from hasten.jobs import Context, Job, Queue, State, Worker
from hasten.jobs import _shared_store as shared_store
from hasten.jobs._consumer import QueueConsumer
from hasten.jobs._outbox import BYTES_PER_WEIGHT, OutboxPortion
from hasten.jobs._record import ClaimedJobs, ClaimRequest, Completed, Outcome, Progress, Update
from hasten.jobs._run import Run, StopReason
from hasten.testing import ManualClock
from tests.jobs.eventually import result_of, until, until_state
from tests.patience import DEADLINE_SECONDS


class TestConcurrency:
    @pytest.mark.parametrize("limit", [1, 2, 7, 100])
    async def test_is_reached_and_never_exceeded(self, queue: Queue, url: str, limit: int) -> None:
        """The limit holds for all queues of the worker together."""
        other = Queue("other", queue.store)
        running: list[int] = []
        reached = asyncio.Event()
        most = 0

        async def run() -> None:
            nonlocal most
            running.append(1)
            most = max(most, len(running))
            if most == limit:
                reached.set()
            await reached.wait()
            await asyncio.sleep(0.001)
            running.pop()

        jobs: list[Job[Any]] = []
        for each in (queue, other):
            each.task(run)
            jobs += await each.add_many([("run", {})] * 150)
        async with Worker(queue, other, concurrency=limit):
            await asyncio.gather(*(job.result(timeout=20) for job in jobs))
        assert most == limit

    async def test_no_more_jobs_are_claimed_than_there_is_capacity_for(self, queue: Queue) -> None:
        """Other workers can take the rest."""
        may_end = asyncio.Event()

        @queue.task
        async def run() -> None:
            await may_end.wait()

        jobs = await run.enqueue_many([run.args()] * 20)
        async with Worker(queue, concurrency=5):
            for job in jobs[:5]:
                await until_state(job, State.ACTIVE)
            counts = await queue.counts()
            assert (counts[State.ACTIVE], counts[State.WAITING]) == (5, 15)
            may_end.set()
            await asyncio.gather(*(job.result(timeout=30) for job in jobs))

    @pytest.mark.parametrize("limit", [1, 2, 10])
    async def test_full_queues_share_it_fairly(self, queue: Queue, url: str, limit: int) -> None:
        other = Queue("other", queue.store)
        order: list[str] = []
        jobs: list[Job[Any]] = []
        for each in (queue, other):

            async def run(name: str) -> None:
                order.append(name)
                await asyncio.sleep(0)

            each.task(run)
            jobs += await each.add_many([("run", {"name": each.name})] * 100)
        async with Worker(queue, other, concurrency=limit):
            await asyncio.gather(*(job.result(timeout=20) for job in jobs))
        share = Counter(order[:100])
        assert min(share["mail"], share["other"]) >= 30

    async def test_a_single_queue_gets_all_of_the_capacity(self, queue: Queue, url: str) -> None:
        """An empty queue reserves no capacity."""
        other = Queue("other", queue.store)
        running: list[int] = []

        @queue.task
        async def run() -> None:
            running.append(1)
            await until(lambda: len(running) >= 10)

        jobs = await run.enqueue_many([run.args()] * 10)
        async with Worker(other, queue, concurrency=10):
            await asyncio.gather(*(job.result(timeout=30) for job in jobs))


class Calls:
    """Records how much each call of the store by a worker carries."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.outcomes: list[int] = []
        self.bytes: list[int] = []
        self.claims: list[int] = []
        self.updates: list[int] = []
        settle = QueueConsumer._store_updates_and_settle

        async def watched(
            consumer: QueueConsumer, portion: OutboxPortion, claim: ClaimRequest | None
        ) -> ClaimedJobs:
            self.updates.append(len(portion.updates))
            self.outcomes.append(len(portion.outcomes))
            self.bytes.append(sum(len(getattr(end, "result", "")) for end in portion.outcomes))
            self.claims.append(claim.count if claim else 0)
            return await settle(consumer, portion, claim)

        monkeypatch.setattr(QueueConsumer, "_store_updates_and_settle", watched)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


class TestCalls:
    """Each call is limited, because it delays other users of the store."""

    @pytest.mark.parametrize(("count", "size"), [(950, 0), (12, 900_000)])
    async def test_settle_and_claim_few_jobs_and_bytes_at_a_time(
        self, queue: Queue, calls: Calls, count: int, size: int
    ) -> None:
        running: list[int] = []
        may_end = asyncio.Event()

        @queue.task
        async def run() -> str:
            running.append(1)
            await may_end.wait()
            return "x" * size

        await run.enqueue_many([run.args()] * count)
        async with Worker(queue, concurrency=count):
            await until(lambda: len(running) == count)
            may_end.set()
            await until(lambda: sum(calls.outcomes) >= count)
        assert max(calls.claims) <= queue.engine.max_jobs_per_settle
        assert max(calls.outcomes) <= queue.engine.max_jobs_per_settle
        assert max(calls.bytes) < queue.engine.max_jobs_per_settle * BYTES_PER_WEIGHT + 1_000_000
        assert (await queue.counts())[State.COMPLETED] == count

    async def test_claim_nothing_with_results_unstored(self, queue: Queue, calls: Calls) -> None:
        """They would fill the memory if they were produced faster than they are stored."""

        @queue.task
        async def run() -> str:
            return "x" * 900_000

        await run.enqueue_many([run.args()] * 120)
        async with Worker(queue, concurrency=20, keep_completed=0):
            await until(lambda: sum(calls.outcomes) >= 120)
        claimed = itertools.accumulate(calls.claims)
        settled = itertools.accumulate(calls.outcomes)
        assert max(map(operator.sub, claimed, settled)) <= 3 * 20

    async def test_store_few_updates_and_outcomes_last(self, queue: Queue, calls: Calls) -> None:
        @queue.task
        async def run(ctx: Context) -> None:
            for number in range(600):
                ctx.log(str(number))

        job = await run.enqueue()
        await result_of(queue, job, keep_completed=True)
        assert max(calls.updates) <= queue.engine.max_jobs_per_settle
        assert await job.logs() == [str(number) for number in range(600)]


class TestStopping:
    async def test_waits_for_running_jobs_and_takes_no_more(self, queue: Queue) -> None:
        started, may_end = asyncio.Event(), asyncio.Event()

        @queue.task
        async def run() -> str:
            started.set()
            await may_end.wait()
            return "done"

        first, second = await run.enqueue_many([run.args()] * 2)
        worker = Worker(queue, concurrency=1)
        await worker.start()
        await started.wait()
        stopping = asyncio.create_task(worker.stop())
        again = asyncio.create_task(worker.stop())
        await asyncio.sleep(0.05)
        assert not stopping.done()
        may_end.set()
        await stopping
        await again
        assert await first.result(timeout=30) == "done"
        assert (await second.refresh()).state is State.WAITING

    async def test_hands_back_jobs_that_outlast_the_grace_period(self, queue: Queue) -> None:
        """They go in front of waiting jobs, in their order, and use up no attempt."""
        ended: list[str] = []

        @queue.task
        async def run() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("stopped")

        jobs = await run.enqueue_many([run.args()] * 7)
        async with Worker(queue, concurrency=5, grace=0):
            for job in jobs[:5]:
                await until_state(job, State.ACTIVE)
        assert ended == ["stopped"] * 5
        line = await queue.jobs(State.WAITING)
        assert [job.id for job in line] == [job.id for job in jobs]
        assert {job.attempts_made for job in line} == {0}
        assert {job.record.crashes for job in line} == {0}

    async def test_hands_back_many_jobs_in_their_order(self, queue: Queue) -> None:
        """In one call: the last of several would put its jobs in front of the others."""
        started: list[int] = []

        @queue.task
        async def run() -> None:
            started.append(1)
            await asyncio.Event().wait()

        jobs = await run.enqueue_many([run.args()] * 620)
        async with Worker(queue, concurrency=600, grace=0):
            await until(lambda: len(started) == 600)
        line = await queue.jobs(State.WAITING, limit=1000)
        assert [job.id for job in line] == [job.id for job in jobs]

    async def test_keeps_jobs_in_order(self, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        """The second claim returns while the worker is stopping."""
        settle = QueueConsumer._store_updates_and_settle
        may_arrive, is_under_way = asyncio.Event(), asyncio.Event()
        started: list[int] = []

        async def settle_late(self: QueueConsumer, *args: Any) -> Any:
            batch = await settle(self, *args)
            if batch.leases and started:
                is_under_way.set()
                await may_arrive.wait()
            return batch

        monkeypatch.setattr(QueueConsumer, "_store_updates_and_settle", settle_late)

        @queue.task
        async def run(number: int) -> None:
            started.append(number)
            await asyncio.Event().wait()

        first = await run.enqueue_many([run.args(number=n) for n in range(2)])
        worker = Worker(queue, concurrency=4, grace=0)
        await worker.start()
        await until(lambda: len(started) == 2)
        second = await run.enqueue_many([run.args(number=n) for n in range(2, 4)])
        await is_under_way.wait()
        stopping = asyncio.create_task(worker.stop())
        for _ in range(20):
            if (await first[0].refresh()).state is State.WAITING:
                break
        may_arrive.set()
        await stopping
        line = await queue.jobs(State.WAITING)
        assert [job.id for job in line] == [job.id for job in [*first, *second]]

    async def test_grace_can_be_given_to_stop(self, queue: Queue) -> None:
        @queue.task
        async def run() -> None:
            await asyncio.Event().wait()

        job = await run.enqueue()
        worker = Worker(queue, grace=3600)
        await worker.start()
        await until_state(job, State.ACTIVE)
        await worker.stop(grace=0)
        assert (await job.refresh()).state is State.WAITING

    async def test_a_job_cancelled_with_its_loop_is_handed_back(self, tmp_path: Path) -> None:
        """`asyncio.run` cancels all tasks when the main one raises."""
        url = f"sqlite:///{tmp_path / 'jobs.db'}"

        async def crash() -> None:
            queue = Queue("mail", url)
            started = asyncio.Event()

            @queue.task
            async def run() -> None:
                started.set()
                await asyncio.Event().wait()

            await run.enqueue()
            try:
                async with Worker(queue, grace=0):
                    await started.wait()
                    raise LookupError("main")
            finally:
                await queue.aclose()

        with pytest.raises(LookupError, match="main"):
            await asyncio.to_thread(asyncio.run, crash())
        queue = Queue("mail", url)
        (job,) = await queue.jobs(State.WAITING)
        assert job.attempts_made == 0
        await queue.aclose()

    async def test_a_worker_starts_once(self, queue: Queue) -> None:
        worker = Worker(queue)
        async with worker:
            with pytest.raises(UsageError, match="has been started already"):
                await worker.start()
        with pytest.raises(UsageError, match="has been started already"):
            await worker.start()

    async def test_stopping_a_worker_that_never_started_does_nothing(self, queue: Queue) -> None:
        await Worker(queue).stop()
        await Worker(queue).aclose()

    async def test_run_ends_when_asked_to(self, queue: Queue) -> None:
        """As after a signal."""

        @queue.task
        async def answer() -> int:
            return 42

        job = await answer.enqueue()
        worker = Worker(queue)
        running = asyncio.create_task(worker.run())
        assert await job.result(timeout=30) == 42
        worker.request_stop()
        await running


async def test_aclose_stops_as_stop_does(queue: Queue) -> None:
    """An exit stack calls aclose."""
    started, may_end = asyncio.Event(), asyncio.Event()

    @queue.task
    async def run() -> None:
        started.set()
        await may_end.wait()

    async with contextlib.aclosing(Worker(queue)) as worker:
        await worker.start()
        job = await run.enqueue()
        await started.wait()
        may_end.set()
    assert (await job.refresh()).state is State.COMPLETED


def test_two_objects_for_one_queue_are_refused(queue: Queue, tmp_path: Path) -> None:
    """Also if the store is named in two ways. Nothing is opened for the check."""
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    with pytest.raises(InvalidOption, match="two of these Queue objects name the same queue"):
        Worker(queue, Queue("mail", queue.store))
    with pytest.raises(InvalidOption, match="two of these Queue objects name the same queue"):
        Worker(Queue("mail", url), Queue("mail", Store(url)))
    with pytest.raises(InvalidOption, match="two of these Queue objects name the same queue"):
        Worker(Queue("mail"), Queue("mail"))
    Worker(queue, queue, Queue("other", queue.store))
    Worker(Queue("mail", "memory://"), Queue("mail", "memory://"), Queue("mail"))
    assert shared_store.DEFAULT_SHARED_STORE.existing_store is None
    assert not (tmp_path / "jobs.db").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"concurrency": 0}, "concurrency=0: must be a whole number"),
        ({"concurrency": True}, "concurrency=True"),
        ({"concurrency": 2.0}, r"concurrency=2\.0"),
        ({"crash_limit": 0}, "crash_limit=0"),
        ({"handler_processes": 0}, "handler_processes=0"),
        ({"handler_processes": -1}, "handler_processes=-1"),
        ({"lease": 0.5}, r"lease=0\.5: .* at least 1 s"),
        ({"grace": -1}, "grace=-1"),
        ({"grace": "long"}, "grace='long'"),
        ({"keep_completed": -1}, "keep_completed=-1"),
        ({"keep_failed": "all"}, "keep_failed='all'"),
    ],
)
def test_wrong_options_are_refused(queue: Queue, options: dict[str, Any], complaint: str) -> None:
    """The error is raised when the worker is created."""
    with pytest.raises(InvalidOption, match=complaint):
        Worker(queue, **options)


@pytest.mark.parametrize("queues", [(), ("mail",), (None,)])
def test_a_worker_needs_queues(queues: Any) -> None:
    with pytest.raises(InvalidOption, match="one or more Queue objects"):
        Worker(*queues)


async def test_the_same_queue_object_twice_counts_once(queue: Queue) -> None:
    """Otherwise its capacity would be counted twice."""
    ran: list[int] = []

    @queue.task
    async def run() -> None:
        ran.append(1)

    job = await run.enqueue()
    async with Worker(queue, queue):
        await job.result(timeout=30)
    assert ran == [1]


async def test_two_workers_in_one_process_share_the_jobs(queue: Queue) -> None:
    ran: list[int] = []

    @queue.task
    async def run(number: int) -> None:
        ran.append(number)
        await asyncio.sleep(0.001)

    jobs = await run.enqueue_many(run.args(number=n) for n in range(200))
    async with Worker(queue, concurrency=10), Worker(queue, concurrency=10):
        await asyncio.gather(*(job.result(timeout=20) for job in jobs))
    assert sorted(ran) == list(range(200))


async def test_time_that_jumps_past_leases_costs_nothing(queue: Queue, clock: ManualClock) -> None:
    """After a suspended laptop wakes up, the worker keeps its own jobs."""
    started, may_end = asyncio.Event(), asyncio.Event()
    runs: list[int] = []

    @queue.task
    async def run() -> None:
        runs.append(1)
        started.set()
        await may_end.wait()

    job = await run.enqueue()
    async with Worker(queue, lease=10):
        await started.wait()
        for _ in range(3):
            clock.advance(3600)
            await asyncio.sleep(0.1)  # for a wrong recovery to happen
        may_end.set()
        await job.result(timeout=30)
    assert runs == [1]
    assert (await job.refresh()).record.crashes == 0


async def test_a_busy_default_executor_delays_no_recovery(queue: Queue, clock: ManualClock) -> None:
    """The executor belongs to the application, which may fill it."""
    loop = asyncio.get_running_loop()
    executor, may_end = ThreadPoolExecutor(1), threading.Event()
    loop.set_default_executor(executor)
    blocked = loop.run_in_executor(None, may_end.wait)

    @queue.task
    async def run() -> str:
        return "done"

    job = await run.enqueue()
    claim = ClaimRequest(1, "dead:1", "dead", lease_ms=1)
    await queue.engine.claim("mail", claim, now_ms=clock.now_ms())
    clock.advance(1)
    try:
        assert await result_of(queue, job) == "done"
    finally:
        may_end.set()
        await blocked
    assert (await job.refresh()).record.crashes == 1


class TestTrouble:
    @pytest.fixture
    async def impatient(self, tmp_path: Path) -> AsyncIterator[Queue]:
        """A queue whose store does not wait for locks."""
        queue = Queue("mail", f"sqlite:///{tmp_path / 'jobs.db'}?timeout=0.05")
        yield queue
        await queue.aclose()

    @contextlib.asynccontextmanager
    async def locked(self, folder: Path) -> AsyncIterator[None]:
        with contextlib.closing(
            sqlite3.connect(folder / "jobs.db", isolation_level=None)
        ) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")

    async def test_outcomes_are_stored_when_the_store_is_available_again(
        self, impatient: Queue, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No result is lost and no job runs again. The failure and its end are logged once."""
        queue = impatient
        started, may_end = asyncio.Event(), asyncio.Event()
        runs: list[int] = []

        @queue.task
        async def run() -> str:
            runs.append(1)
            started.set()
            await may_end.wait()
            return "done"

        job = await run.enqueue()
        caplog.set_level(logging.WARNING, "hasten.worker")
        async with Worker(queue):
            await started.wait()
            async with self.locked(tmp_path):
                may_end.set()
                await until(lambda: "store unavailable, retrying: " in caplog.text)
                await asyncio.sleep(0.5)
            assert await job.result(timeout=30) == "done"
            await until(lambda: "store available again" in caplog.text)
        assert runs == [1]
        assert caplog.text.count("store unavailable") == 1
        assert caplog.text.count("store available again") == 1

    async def test_a_worker_whose_store_is_unavailable_can_be_stopped(
        self,
        impatient: Queue,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It logs what happens to its jobs, and does not hang."""
        monkeypatch.setattr("hasten.jobs._worker.END_SECONDS", 0.3)
        queue = impatient
        started = asyncio.Event()

        @queue.task
        async def run() -> None:
            started.set()
            await asyncio.Event().wait()

        await run.enqueue()
        worker = Worker(queue, grace=0)
        await worker.start()
        await started.wait()
        async with self.locked(tmp_path), asyncio.timeout(DEADLINE_SECONDS):
            await worker.stop()
        assert "the jobs run again when their leases expire" in caplog.text


async def test_large_results_and_progress_are_stored_a_few_megabytes_at_a_time(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call of the store delays the others, and many jobs may end at once."""
    size, count = 900_000, 12
    noted: dict[str, list[int]] = {"progress": [], "results": []}
    engine, running = queue.engine, []
    settle, update = engine.settle, engine.update
    all_run = asyncio.Event()

    async def note_settle(
        name: str, outcomes: Sequence[Outcome], claim: ClaimRequest | None, **options: Any
    ) -> ClaimedJobs:
        results = [len(end.result) for end in outcomes if isinstance(end, Completed)]
        noted["results"].append(sum(results))
        return await settle(name, outcomes, claim, **options)

    async def note_update(
        name: str, updates: Sequence[Update], *, now_ms: int
    ) -> list[State | None]:
        values = [len(each.value) for each in updates if isinstance(each, Progress)]
        noted["progress"].append(sum(values))
        return await update(name, updates, now_ms=now_ms)

    monkeypatch.setattr(engine, "settle", note_settle)
    monkeypatch.setattr(engine, "update", note_update)

    @queue.task(keep_completed=0)
    async def repeat(ctx: Context) -> str:
        running.append(1)
        if len(running) == count:
            all_run.set()
        await all_run.wait()
        ctx.progress("p" * size)
        return "r" * size

    jobs = await repeat.enqueue_many(repeat.args() for _ in range(count))
    async with Worker(queue, concurrency=count):
        for job in jobs:
            assert await job.result(timeout=20) == "r" * size
    for sizes in noted.values():
        assert sum(sizes) == count * (size + 2)
        assert max(sizes) <= engine.max_jobs_per_settle * BYTES_PER_WEIGHT + size + 2


@pytest.mark.parametrize("reason", [StopReason.CANCELLED, StopReason.RELEASED, StopReason.LOST])
async def test_a_run_that_is_stopped_before_it_begins_frees_its_place(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, reason: StopReason
) -> None:
    """The reason may come from a thread, between two steps of the event loop."""
    begin = QueueConsumer._create_run_task
    told: list[Run] = []

    def begin_and_stop(self: QueueConsumer, run: Run) -> None:
        begin(self, run)
        if not told:
            told.append(run)
            run.request_stop(reason)

    monkeypatch.setattr(QueueConsumer, "_create_run_task", begin_and_stop)

    @queue.task
    async def noop() -> None:
        return None

    first = await noop.enqueue()
    async with Worker(queue, concurrency=1):
        await until(lambda: told)
        second = await noop.enqueue()
        await second.result(timeout=30)
        assert told[0].has_ended
        if reason is StopReason.CANCELLED:
            with pytest.raises(JobCancelled):
                await first.result(timeout=30)
        elif reason is StopReason.RELEASED:
            await first.result(timeout=30)


async def test_a_logging_filter_that_raises_costs_no_claimed_job() -> None:
    """The worker raises the error, and hands back the claimed jobs."""
    queue = Queue("mail", "memory://")

    @queue.task
    async def run() -> None:
        if not taken_back.is_set():
            taken_back.set()
            # As if the lease had expired: the outcome of this run is rejected.
            await queue.engine.reclaim(
                queue.name, crash_limit=3, now_ms=queue.clock.now_ms() + 3_600_000
            )

    def fail(record: logging.LogRecord) -> bool:
        if "lease was lost" in record.getMessage():
            raise ZeroDivisionError
        return True

    taken_back = asyncio.Event()
    job = await run.enqueue()
    logger = logging.getLogger("hasten.worker")
    logger.addFilter(fail)
    try:
        with pytest.raises((ZeroDivisionError, ExceptionGroup)):
            async with Worker(queue, concurrency=1):
                await asyncio.sleep(60)
    finally:
        logger.removeFilter(fail)
    assert (await job.refresh()).state in {State.WAITING, State.COMPLETED}
    await queue.aclose()
