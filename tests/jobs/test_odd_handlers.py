"""Handlers and backoff functions that do unusual things. Each run counts as an attempt."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hasten import Store
from hasten.errors import StoreUnavailable
from hasten.jobs import Context, Job, Queue, RetryAfter, State, Unrecoverable, Worker
from hasten.jobs._consumer import QueueConsumer
from hasten.jobs._outbox import OutboxPortion
from hasten.jobs._record import ClaimRequest
from hasten.jobs._run import Run
from tests.jobs import process_tasks
from tests.jobs.eventually import fails, result_of, until, until_state, until_true
from tests.patience import DEADLINE_SECONDS


class Unreadable(Exception):
    def __str__(self) -> str:
        raise AttributeError("no such attribute")


class NoText(Exception):
    __str__: Any = lambda self: None  # a common mistake


class Leaves(Exception):
    __str__: Any = lambda self: sys.exit(3)


class Wait(RetryAfter):
    def __init__(self) -> None:
        """Do not call RetryAfter.__init__, so that there is no delay."""


class OddGroup(ExceptionGroup[Exception]):
    def __str__(self) -> str:
        raise LookupError


THROWN: dict[str, tuple[Callable[[], BaseException], str]] = {
    "no text": (NoText, "NoText: its text is not available: TypeError in __str__"),
    "unreadable": (Unreadable, "Unreadable: its text is not available: AttributeError in __str__"),
    "exit in text": (Leaves, "Leaves: its text is not available: SystemExit in __str__"),
    "no delay": (Wait, "Wait"),
    "odd group": (
        lambda: OddGroup("odd", [ValueError("a")]),
        "OddGroup: its text is not available: LookupError in __str__: ValueError: a",
    ),
    "cancelled": (
        asyncio.CancelledError,
        "CancelledError: the asyncio task of the job was cancelled by a handler, not by the worker",
    ),
    "cancelled future": (concurrent.futures.CancelledError, "CancelledError"),
    "generator exit": (GeneratorExit, "GeneratorExit"),
    "exit": (lambda: SystemExit(3), "SystemExit: 3"),
    "interrupt": (KeyboardInterrupt, "KeyboardInterrupt"),
    "stop iteration": (StopIteration, "RuntimeError: coroutine raised StopIteration"),
    "stop async iteration": (StopAsyncIteration, "StopAsyncIteration"),
    "recursion": (lambda: RecursionError("deep"), "RecursionError: deep"),
    "memory": (MemoryError, "MemoryError"),
    "plain base": (lambda: BaseException("base"), "BaseException: base"),
    "plain error": (lambda: ValueError("bad luck"), "ValueError: bad luck"),
    "surrogate": (lambda: ValueError("\ud800 is no text"), "ValueError: ? is no text"),
    "group": (
        lambda: BaseExceptionGroup("two", [ValueError("a"), SystemExit(1)]),
        "BaseExceptionGroup: two (2 sub-exceptions)",
    ),
}


async def fails_after(queue: Queue, job: Job[Any], attempts: int) -> str:
    """Run a job until it fails, after the expected number of attempts, and return its error."""
    error = await fails(result_of(queue, job, grace=0))
    await job.refresh()
    assert job.attempts_made == job.record.attempts_started == attempts
    return error


class TestWhatHandlersRaise:
    """The worker continues: it runs the second attempt."""

    @pytest.mark.parametrize("kind", set(THROWN) - {"interrupt"})
    async def test_by_a_coroutine_counts_as_an_attempt(self, queue: Queue, kind: str) -> None:
        make, reason = THROWN[kind]

        @queue.task(attempts=2)
        async def fail() -> None:
            raise make()

        assert (await fails_after(queue, await fail.enqueue(), 2)).startswith(reason)

    @pytest.mark.parametrize("kind", THROWN)
    async def test_by_a_function_counts_as_an_attempt(self, queue: Queue, kind: str) -> None:
        make, reason = THROWN[kind]

        @queue.task(attempts=2)
        def fail() -> None:
            raise make()

        assert (await fails_after(queue, await fail.enqueue(), 2)).startswith(reason)

    @pytest.mark.parametrize("kind", ["unreadable", "generator exit", "interrupt", "cancelled"])
    async def test_in_a_process_counts_as_an_attempt(self, kind: str) -> None:
        queue = process_tasks.queue
        job = await process_tasks.throw.enqueue(kind)
        assert (await fails_after(queue, job, 2)).startswith(type(THROWN[kind][0]()).__name__)
        await queue.aclose()

    async def test_a_future_with_generator_exit_counts_as_an_attempt(self, queue: Queue) -> None:
        """It closes the coroutines that await the future, including hasten's own."""

        @queue.task(attempts=2)
        async def fail() -> None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(GeneratorExit())
            await future

        assert await fails_after(queue, await fail.enqueue(), 2) == "GeneratorExit"

    async def test_a_handler_that_cancels_itself_counts_as_an_attempt(self, queue: Queue) -> None:
        @queue.task(attempts=2)
        async def cancel_itself() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

        job = await cancel_itself.enqueue()
        assert await fails_after(queue, job, 2) == THROWN["cancelled"][1]

    async def test_a_handler_that_cancels_itself_and_returns_completes(self, queue: Queue) -> None:
        @queue.task
        async def cancel_and_return() -> str:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return "done"

        assert await result_of(queue, await cancel_and_return.enqueue(), grace=0) == "done"

    async def test_an_interrupt_under_run_fails_the_attempt(self, queue: Queue) -> None:
        """Ctrl+C asks the worker to stop then, so no `KeyboardInterrupt` comes of it."""

        @queue.task(attempts=2)
        async def fail() -> None:
            raise KeyboardInterrupt

        job = await fail.enqueue()
        worker = Worker(queue, grace=0)
        running = asyncio.create_task(worker.run())
        assert await fails(job.result(timeout=30)) == "KeyboardInterrupt"
        await job.refresh()
        assert job.attempts_made == job.record.attempts_started == 2
        worker.request_stop()
        await running

    def test_an_interrupt_by_ctrl_c_fails_the_attempt_and_is_raised(self, tmp_path: Any) -> None:
        url = f"sqlite:///{tmp_path / 'jobs.db'}"

        async def interrupted() -> None:
            queue = Queue("mail", url)

            @queue.task(attempts=2)
            async def fail() -> None:
                signal.raise_signal(signal.SIGINT)

            await fail.enqueue()
            async with Worker(queue, grace=0):
                await asyncio.Event().wait()

        # Without asyncio's own handler of SIGINT, as in a thread or an older server.
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        loop = asyncio.new_event_loop()
        main = loop.create_task(interrupted())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(main)
        main.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(main)
        loop.close()

        async def look() -> None:
            queue = Queue("mail", url)
            (job,) = await queue.jobs(State.WAITING)
            assert job.attempts_made == 1
            assert job.error == "KeyboardInterrupt"
            await queue.aclose()

        asyncio.run(look())


class TestBackoffFunctions:
    @pytest.mark.parametrize("kind", THROWN)
    async def test_that_raise_let_the_attempt_count(self, queue: Queue, kind: str) -> None:
        """The error of the handler comes first."""
        make, _ = THROWN[kind]

        def fall_over(attempt: int, error: BaseException) -> float:
            raise make()

        @queue.task(attempts=2, backoff=fall_over)
        async def fail() -> None:
            raise ValueError("no")

        reason = await fails_after(queue, await fail.enqueue(), 2)
        assert reason.startswith("ValueError: no (and its backoff function failed: ")
        if kind == "plain base":
            assert reason.endswith(" failed: BaseException: base)")

    @pytest.mark.parametrize("delay", [float("nan"), -1, "soon", 1e30, True])
    async def test_without_a_duration_let_the_attempt_count(self, queue: Queue, delay: Any) -> None:
        @queue.task(attempts=2, backoff=lambda attempt, error: delay)
        async def fail() -> None:
            raise ValueError("no")

        reason = await fails_after(queue, await fail.enqueue(), 2)
        assert "its backoff function failed: InvalidOption: backoff=" in reason


class TestGroups:
    async def test_of_retry_after_alone_postpone_by_the_longest_delay(self, queue: Queue) -> None:
        """No attempt is used up."""
        runs: list[int] = []

        @queue.task
        async def ask() -> None:
            runs.append(1)
            if len(runs) == 1:
                nested = ExceptionGroup("inner", [RetryAfter(0.02), RetryAfter(0.03)])
                raise ExceptionGroup("outer", [RetryAfter(0.01), nested])

        clockless = Queue("mail2", "memory://")
        task = clockless.task(name="ask")(ask.definition.function)
        job = await task.enqueue()
        await result_of(clockless, job)
        await job.refresh()
        assert (job.attempts_made, job.record.delay_ms, len(runs)) == (1, 0, 2)
        await clockless.aclose()

    @pytest.mark.parametrize(
        "members",
        [
            [Unrecoverable("gone")],
            [Unrecoverable("gone"), RetryAfter(1)],
            [Unrecoverable("gone"), LookupError("given up on")],
        ],
    )
    async def test_of_final_errors_are_final(self, queue: Queue, members: list[Exception]) -> None:
        @queue.task(attempts=5, give_up_on=LookupError)
        async def fail() -> None:
            raise ExceptionGroup("several", members)

        await fails_after(queue, await fail.enqueue(), 1)

    async def test_that_hold_another_error_are_retried(self, queue: Queue) -> None:
        @queue.task(attempts=3)
        async def fail() -> None:
            raise ExceptionGroup("several", [Unrecoverable("gone"), RetryAfter(1), OSError("net")])

        reason = await fails_after(queue, await fail.enqueue(), 3)
        assert reason == (
            "ExceptionGroup: several (3 sub-exceptions): "
            "Unrecoverable: gone; RetryAfter: try again after 1 s; OSError: net"
        )

    async def test_the_reason_names_ten_members(self, queue: Queue) -> None:
        @queue.task
        async def fail() -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(12):
                    group.create_task(failing(number))

        async def failing(number: int) -> None:
            raise ValueError(number)

        reason = await fails_after(queue, await fail.enqueue(), 1)
        assert reason.endswith("; ValueError: 9; 2 more")


class TestCancellingAllTasks:
    async def test_own_tasks_restart(self, queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
        main = asyncio.current_task()
        added: list[Job[None]] = []

        @queue.task
        async def tidy(number: int) -> None:
            # The call that has added this job must have returned: its task would be cancelled, too.
            await until(lambda: len(added) == number)
            for task in asyncio.all_tasks() - {main, asyncio.current_task()}:
                task.cancel()

        @queue.task
        async def fine() -> str:
            return "fine"

        async with Worker(queue, grace=0):
            assert await (await fine.enqueue()).result(timeout=30) == "fine"
            for number in (1, 2, 3):
                added.append(await tidy.enqueue(number))
                # Callers that wait for a result continue to wait.
                await added[-1].result(timeout=30)
                assert await (await fine.enqueue()).result(timeout=30) == "fine"
        assert "internal tasks that were cancelled" in caplog.text

    async def test_runs_that_are_cancelled_count_as_attempts(self, queue: Queue) -> None:
        """Whether they are running or have been claimed and not started."""
        main = asyncio.current_task()
        runs: list[int] = []
        added: list[Job[None]] = []

        @queue.task(attempts=2)
        async def wait() -> None:
            runs.append(1)
            await asyncio.Event().wait()

        @queue.task
        async def tidy(after: int) -> None:
            # The call that has added this job must have returned: its task would be cancelled, too.
            await until(lambda: len(runs) == len(added) == after)
            for task in asyncio.all_tasks() - {main, asyncio.current_task()}:
                task.cancel()

        job = await wait.enqueue()
        async with Worker(queue, grace=0, lease=1):
            for after in (1, 2):
                added.append(await tidy.enqueue(after))
                await added[-1].result(timeout=30)
            await until_state(job, State.FAILED)
        assert job.attempts_made == 2

    async def test_a_run_that_was_cancelled_before_its_first_step_counts_as_an_attempt(
        self, queue: Queue, clock: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begin = QueueConsumer._create_run_task
        cancelled: list[Run] = []

        def begin_and_cancel(self: QueueConsumer, run: Run) -> None:
            begin(self, run)
            if not cancelled:
                assert run.task is not None
                run.task.cancel()
                cancelled.append(run)

        monkeypatch.setattr(QueueConsumer, "_create_run_task", begin_and_cancel)

        @queue.task(attempts=2)
        async def fine() -> str:
            return "fine"

        job = await fine.enqueue()
        async with Worker(queue, concurrency=1):
            await until(lambda: cancelled)
            await until_advancing(clock, lambda: cancelled[0].has_ended)
            assert await job.result(timeout=30) == "fine"
        assert (await job.refresh()).attempts_made == 2

    async def test_cancelled_calls_of_the_store_do_not_hang(self, queue: Queue) -> None:
        me = asyncio.current_task()
        adding = asyncio.create_task(queue.add("x"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {me, adding}:
            task.cancel()
        done, _ = await asyncio.wait([adding], timeout=10)
        assert done == {adding}
        assert adding.cancelled()


async def until_advancing(clock: Any, condition: Callable[[], object]) -> None:
    """Like `until`, while the clock advances."""

    def advanced() -> object:
        clock.advance(0.5)
        return condition()

    await until(advanced)


@pytest.fixture
def faulty_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers fail because of a fault of their own."""

    async def recover(self: Worker) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(Worker, "_reclaim_repeatedly", recover)


class TestWorkersThatFail:
    @pytest.mark.usefixtures("faulty_worker")
    async def test_cancel_their_block(self, queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
        with pytest.raises(ZeroDivisionError, match="a fault of ours"):
            async with Worker(queue), asyncio.timeout(DEADLINE_SECONDS):
                await asyncio.Event().wait()
        assert "internal error, the worker is stopping" in caplog.text
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    @pytest.mark.usefixtures("faulty_worker")
    async def test_do_not_replace_an_error_of_the_block(self, queue: Queue) -> None:
        async def block() -> None:
            async with Worker(queue), asyncio.timeout(DEADLINE_SECONDS):
                try:
                    await asyncio.Event().wait()
                finally:
                    raise LookupError("the block's")

        with pytest.raises(LookupError, match="the block's"):
            await block()

    @pytest.mark.usefixtures("faulty_worker")
    async def test_stop_by_themselves_and_stop_raises_the_error(self, queue: Queue) -> None:
        worker = Worker(queue)
        await worker.start()
        await until(worker._stopped.is_set)
        with pytest.raises(ZeroDivisionError, match="a fault of ours"):
            await worker.stop()

    @pytest.mark.usefixtures("faulty_worker")
    async def test_run_raises_the_error(self, queue: Queue) -> None:
        with pytest.raises(ZeroDivisionError, match="a fault of ours"):
            await Worker(queue).run()

    async def test_whose_task_is_cancelled_stop_gracefully(self, queue: Queue) -> None:
        started = asyncio.Event()

        @queue.task
        async def wait() -> None:
            started.set()
            await asyncio.Event().wait()

        job = await wait.enqueue()
        running = asyncio.create_task(Worker(queue, grace=0).run())
        await started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (await job.refresh()).state is State.WAITING
        assert job.attempts_made == 0


class TestClosing:
    @pytest.fixture
    async def queue(self, url: str) -> AsyncIterator[Queue]:
        """A queue that opens its own store."""
        async with Queue("mail", url) as queue:
            yield queue

    async def test_a_queue_under_a_running_worker_does_not_stop_it(self, queue: Queue) -> None:
        """The worker keeps the store open and closes it when it stops."""

        @queue.task
        async def fine() -> str:
            return "fine"

        async with Worker(queue):
            engine = queue.engine
            await queue.aclose()
            assert await (await fine.enqueue()).result(timeout=30) == "fine"
            assert queue.engine is engine
            await queue.aclose()
        with pytest.raises(StoreUnavailable, match="closed"):
            await engine.count("mail")

    async def test_a_store_under_a_running_worker_does_not_stop_it(self, tmp_path: Path) -> None:
        """A store that was closed is opened again when it is used."""
        store = Store(f"sqlite:///{tmp_path / 'jobs.db'}")
        queue = Queue("mail", store)

        @queue.task
        async def fine() -> str:
            return "fine"

        async with Worker(queue, grace=0):
            await store.aclose()
            assert await (await fine.enqueue()).result(timeout=30) == "fine"
        await store.aclose()

    async def test_by_a_handler_does_not_stop_it(self, queue: Queue) -> None:
        @queue.task
        async def close() -> None:
            await queue.aclose()

        async with Worker(queue):
            await (await close.enqueue()).result(timeout=30)
            await (await close.enqueue()).result(timeout=30)


async def test_threads_end_though_a_handler_was_interrupted_late(queue: Queue) -> None:
    """The exception is raised in the handler or not at all."""
    entered = threading.Event()

    @queue.task(timeout=0.05)
    def busy(ctx: Context) -> None:
        entered.set()
        while not ctx.stopping:
            pass

    await fails(result_of(queue, await busy.enqueue(), grace=0), "timed out")
    assert entered.is_set()


class TestLoggingThatIsBroken:
    """A failing logger must not prevent that the outcome of a job is stored."""

    @pytest.fixture
    def broken(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        logger = logging.getLogger("hasten.worker")

        class Broken(logging.Handler):
            def handle(self, record: logging.LogRecord) -> bool:
                if record.levelno >= logging.WARNING:
                    raise OSError("the disk of the log is full")
                return True

        handler = Broken()
        factory = logging.getLogRecordFactory()

        def with_task(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record = factory(*args, **kwargs)
            record.task = "-"
            return record

        if kind == "handler":
            logger.addHandler(handler)
        else:
            logging.setLogRecordFactory(with_task)
        yield
        logger.removeHandler(handler)
        logging.setLogRecordFactory(factory)

    @pytest.mark.parametrize("kind", ["handler", "factory"])
    @pytest.mark.usefixtures("broken")
    async def test_fails_no_job_and_no_worker(self, queue: Queue) -> None:
        @queue.task(attempts=2)
        async def fail() -> None:
            raise ValueError("no")

        job = await fail.enqueue()
        unknown = await queue.add("unknown")
        async with Worker(queue, grace=0):
            assert await fails(job.result(timeout=30)) == "ValueError: no"
            await fails(unknown.result(timeout=30), "has no task")
        await job.refresh()
        assert job.attempts_made == job.record.attempts_started == 2

    @pytest.mark.parametrize("kind", ["handler"])
    @pytest.mark.usefixtures("broken", "faulty_worker")
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    async def test_does_not_hide_that_the_worker_failed(self, queue: Queue) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        with pytest.raises(ZeroDivisionError, match="a fault of ours"):
            async with Worker(queue), asyncio.timeout(DEADLINE_SECONDS):
                await asyncio.Event().wait()


class TestStoppingUnderAttack:
    async def test_outcomes_are_stored_if_a_handler_cancels_all_tasks(self, queue: Queue) -> None:
        """Tasks are cancelled during the grace period and when it is about to begin."""
        main = asyncio.current_task()
        started, may_end = asyncio.Event(), asyncio.Event()

        @queue.task
        async def tidy() -> str:
            started.set()
            await may_end.wait()
            for task in asyncio.all_tasks() - {main, asyncio.current_task()}:
                task.cancel()
            return "done"

        job = await tidy.enqueue()
        worker = Worker(queue, grace=10)
        await worker.start()
        await started.wait()
        asyncio.get_running_loop().call_later(0.05, may_end.set)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await worker.stop()
        await job.refresh()
        assert (job.state, job.value) == (State.COMPLETED, "done")

    @pytest.mark.parametrize("how", ["timeout", "wait_for", "handler"])
    async def test_a_cancelled_stop_still_hands_jobs_back(self, queue: Queue, how: str) -> None:
        """Otherwise the old run of a job would continue next to its new one."""
        running: list[str] = []
        worker = Worker(queue, grace=30)

        @queue.task
        async def wait() -> None:
            running.append("wait")
            try:
                await asyncio.Event().wait()
            finally:
                running.remove("wait")

        @queue.task
        async def stop() -> None:
            await worker.stop(grace=0.05)

        job = await wait.enqueue()
        await worker.start()
        await until(lambda: running)
        if how == "timeout":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await worker.stop()
        elif how == "wait_for":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(worker.stop(), 0.05)
        else:
            await stop.enqueue()
            await until(lambda: worker._stopping)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await worker.stop()
        assert not running
        assert (await job.refresh()).state is State.WAITING
        assert (job.attempts_made, job.record.crashes) == (0, 0)

    async def test_a_handler_that_stops_its_worker_has_used_an_attempt(self, queue: Queue) -> None:
        """If it were handed back, it would stop the next worker, too."""
        worker = Worker(queue, grace=0.05)

        @queue.task
        async def stop() -> None:
            await worker.stop()

        job = await stop.enqueue()
        await worker.start()
        await until(lambda: worker._stopping)
        await worker.stop()
        assert (await job.refresh()).state is State.FAILED
        assert job.error == (
            "UsageError: a handler cannot wait until its own worker has stopped; "
            "the worker is stopping now"
        )

    async def test_a_fetcher_that_fails_once_still_stores_outcomes(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settle = QueueConsumer._store_updates_and_settle
        failed: list[int] = []

        async def fail_once(self: QueueConsumer, portion: OutboxPortion, claim: Any) -> Any:
            if portion.outcomes and not failed:
                failed.append(1)
                raise TypeError("a fault of ours")
            return await settle(self, portion, claim)

        monkeypatch.setattr(QueueConsumer, "_store_updates_and_settle", fail_once)

        @queue.task
        async def run() -> str:
            return "done"

        job = await run.enqueue()
        with pytest.raises(TypeError, match="a fault of ours"):
            async with Worker(queue, grace=0), asyncio.timeout(DEADLINE_SECONDS):
                await asyncio.Event().wait()
        assert (await job.refresh()).state is State.COMPLETED

    @pytest.mark.usefixtures("faulty_worker")
    async def test_a_cancellation_by_other_code_is_not_replaced_by_the_worker_s_error(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def block() -> None:
            async with Worker(queue):
                await asyncio.Event().wait()

        task = asyncio.create_task(block())
        # in the same step as the worker's own
        monkeypatch.setattr(Worker, "request_stop", lambda self: task.cancel())
        done, _ = await asyncio.wait([task], timeout=10)
        assert done
        assert task.cancelled()


def test_an_ended_loop_renews_no_leases(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The worker was not stopped. Its thread renews no leases, and logs no failure."""
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    before = set(threading.enumerate())

    async def forget_to_stop() -> None:
        queue = Queue("mail", url)
        started = asyncio.Event()

        @queue.task
        async def wait() -> None:
            started.set()
            await asyncio.Event().wait()

        await wait.enqueue()
        await Worker(queue).start()
        await started.wait()

    asyncio.run(forget_to_stop())
    deadline = time.monotonic() + 20
    while any(t.name == "hasten leases" for t in set(threading.enumerate()) - before):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "failed for good" not in caplog.text


async def test_a_suspect_starts_although_the_tasks_of_its_worker_were_cancelled(
    queue: Queue, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that crashed its worker waits for pending claims, and those were cancelled."""
    settle = QueueConsumer._store_updates_and_settle
    cancelled: list[int] = []

    async def cancel_second(self: QueueConsumer, portion: OutboxPortion, claim: Any) -> Any:
        if self._poison_jobs.must_pause_claiming and not cancelled:
            cancelled.append(1)
            raise asyncio.CancelledError
        return await settle(self, portion, claim)

    monkeypatch.setattr(QueueConsumer, "_store_updates_and_settle", cancel_second)

    @queue.task
    async def run() -> str:
        return "done"

    jobs = await run.enqueue_many([run.args()] * 4)
    claim = ClaimRequest(4, "dead:1", "dead", lease_ms=1)
    for _ in range(2):
        await queue.engine.claim("mail", claim, now_ms=clock.now_ms())
        clock.advance(1)

        async def is_reclaimed() -> bool:
            return bool(await queue.engine.reclaim("mail", crash_limit=3, now_ms=clock.now_ms()))

        await until_true(is_reclaimed)
    async with Worker(queue, concurrency=4):
        for job in jobs:
            await until_done(clock, job)


async def until_done(clock: Any, job: Job[Any]) -> None:
    async def is_done() -> bool:
        clock.advance(0.5)
        return (await job.refresh()).state is State.COMPLETED

    await until_true(is_done)


async def test_a_listener_that_is_cancelled_alone_does_no_harm(queue: Queue) -> None:
    """On Redis, the blocking call continues on a connection that is used again."""

    @queue.task
    async def fine() -> str:
        return "fine"

    def listeners() -> set[asyncio.Task[Any]]:
        return {
            t
            for t in asyncio.all_tasks()
            if "QueueConsumer._run_job_listener" in repr(t.get_coro())
        }

    async with Worker(queue) as worker:
        for _ in range(3):
            assert await (await fine.enqueue()).result(timeout=30) == "fine"
            (listener,) = listeners()
            listener.cancel()
            await until(lambda gone=listener: listeners() - {gone})  # type: ignore[misc]
        assert await (await fine.enqueue()).result(timeout=30) == "fine"
        assert worker._failure is None


async def test_retry_after_zero_seconds_is_no_tight_loop(clock: Any) -> None:
    queue = Queue("mail", Store("memory://", clock=clock))

    @queue.task
    async def ask() -> None:
        raise RetryAfter(0)

    job = await ask.enqueue()
    async with Worker(queue):
        await until_state(job, State.DELAYED)
    assert job.record.delay_ms == 100
    await queue.store.aclose()
