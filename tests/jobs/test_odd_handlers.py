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
from typing import Any, NoReturn

import pytest

from hasten import Store
from hasten.errors import JobFailed, StoreUnavailable
from hasten.jobs import Context, Job, Queue, RetryAfter, State, Unrecoverable, Worker
from hasten.jobs._consumer import QueueConsumer
from hasten.jobs._outbox import OutboxPortion
from hasten.jobs._record import Claim
from hasten.jobs._run import Run
from tests.jobs import process_tasks
from tests.jobs.eventually import until, until_state, until_true
from tests.patience import DEADLINE_SECONDS


class Unreadable(Exception):
    def __str__(self) -> str:
        raise AttributeError("no such attribute")


class NoText(Exception):
    __str__: Any = lambda self: None  # a common slip


class Leaves(Exception):
    __str__: Any = lambda self: sys.exit(3)


class Wait(RetryAfter):
    def __init__(self) -> None:
        """Without calling the one of RetryAfter."""


class OddGroup(ExceptionGroup[Exception]):
    def __str__(self) -> str:
        raise LookupError


def thrower(make: Callable[[], BaseException]) -> Callable[[], NoReturn]:
    def act() -> NoReturn:
        raise make()

    return act


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
}


async def fails_after(job: Job[Any], attempts: int) -> str:
    """The reason with which a job has failed; its attempts are what was expected."""
    with pytest.raises(JobFailed) as caught:
        await job.result(timeout=30)
    await job.refresh()
    assert job.attempts_made == job.record.attempts_started == attempts
    return caught.value.error


class TestWhatHandlersRaise:
    @pytest.mark.parametrize("kind", set(THROWN) - {"interrupt"})
    async def test_by_a_coroutine_counts_as_an_attempt(self, queue: Queue, kind: str) -> None:
        make, reason = THROWN[kind]

        @queue.task(attempts=2)
        async def fail() -> None:
            thrower(make)()

        job = await fail.enqueue()
        async with Worker(queue, grace=0):
            assert (await fails_after(job, 2)).startswith(reason)

    @pytest.mark.parametrize("kind", THROWN)
    async def test_by_a_function_counts_as_an_attempt(self, queue: Queue, kind: str) -> None:
        make, reason = THROWN[kind]
        act = thrower(make)

        @queue.task(attempts=2)
        def fail() -> None:
            act()

        job = await fail.enqueue()
        async with Worker(queue, grace=0):
            assert (await fails_after(job, 2)).startswith(reason)

    @pytest.mark.parametrize("kind", ["unreadable", "generator exit", "interrupt", "cancelled"])
    async def test_in_a_process_counts_as_an_attempt(self, kind: str) -> None:
        queue = process_tasks.queue
        job = await process_tasks.throw.enqueue(kind)
        async with Worker(queue, grace=0):
            reason = await fails_after(job, 2)
        assert reason.startswith(type(THROWN[kind][0]()).__name__)
        await queue.aclose()

    async def test_a_future_that_holds_generator_exit_counts_as_an_attempt(
        self, queue: Queue
    ) -> None:
        """It closes the coroutines that await the future, including hasten's own."""

        @queue.task(attempts=2)
        async def fail() -> None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(GeneratorExit())
            await future

        job = await fail.enqueue()
        async with Worker(queue, grace=0):
            assert await fails_after(job, 2) == "GeneratorExit"

    async def test_a_handler_that_cancels_its_own_task_counts_as_an_attempt(
        self, queue: Queue
    ) -> None:
        @queue.task(attempts=2)
        async def cancel_itself() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

        job = await cancel_itself.enqueue()
        async with Worker(queue, grace=0):
            reason = await fails_after(job, 2)
        assert (
            reason == "CancelledError: the asyncio task of the job was cancelled by a handler, "
            "not by the worker"
        )

    async def test_a_handler_that_has_cancelled_itself_and_returns_has_completed(
        self, queue: Queue
    ) -> None:
        @queue.task
        async def cancel_and_return() -> str:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return "done"

        job = await cancel_and_return.enqueue()
        async with Worker(queue, grace=0):
            assert await job.result(timeout=30) == "done"

    async def test_a_keyboard_interrupt_while_run_handles_signals_fails_the_attempt(
        self, queue: Queue
    ) -> None:
        """Ctrl+C asks the worker to stop then, so no `KeyboardInterrupt` comes of it."""

        @queue.task(attempts=2)
        async def fail() -> None:
            raise KeyboardInterrupt

        job = await fail.enqueue()
        worker = Worker(queue, grace=0)
        running = asyncio.create_task(worker.run())
        assert await fails_after(job, 2) == "KeyboardInterrupt"
        worker.request_stop()
        await running

    def test_a_keyboard_interrupt_that_may_be_ctrl_c_fails_the_attempt_and_is_raised(
        self, tmp_path: Any
    ) -> None:
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
    async def test_one_that_raises_leaves_the_attempt_counted(
        self, queue: Queue, kind: str
    ) -> None:
        def fall_over(attempt: int, error: BaseException) -> float:
            thrower(THROWN[kind][0])()

        @queue.task(attempts=2, backoff=fall_over)
        async def fail() -> None:
            raise ValueError("no")

        job = await fail.enqueue()
        async with Worker(queue, grace=0):
            reason = await fails_after(job, 2)
        assert reason.startswith("ValueError: no (and its backoff function failed: ")

    @pytest.mark.parametrize("delay", [float("nan"), -1, "soon", 1e30, True])
    async def test_one_that_returns_no_duration_leaves_the_attempt_counted(
        self, queue: Queue, delay: Any
    ) -> None:
        @queue.task(attempts=2, backoff=lambda attempt, error: delay)
        async def fail() -> None:
            raise ValueError("no")

        job = await fail.enqueue()
        async with Worker(queue, grace=0):
            reason = await fails_after(job, 2)
        assert "its backoff function failed: InvalidOption: backoff=" in reason


class TestGroups:
    async def test_that_hold_only_retry_after_postpone_by_the_longest_delay(
        self, queue: Queue
    ) -> None:
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
        async with Worker(clockless):
            await job.result(timeout=30)
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
    async def test_that_hold_only_final_errors_fail_the_job_for_good(
        self, queue: Queue, members: list[Exception]
    ) -> None:
        @queue.task(attempts=5, give_up_on=LookupError)
        async def fail() -> None:
            raise ExceptionGroup("several", members)

        job = await fail.enqueue()
        async with Worker(queue, grace=0):
            await fails_after(job, 1)

    async def test_that_hold_another_error_are_retried(self, queue: Queue) -> None:
        @queue.task(attempts=3)
        async def fail() -> None:
            raise ExceptionGroup("several", [Unrecoverable("gone"), RetryAfter(1), OSError("net")])

        job = await fail.enqueue()
        async with Worker(queue, grace=0):
            reason = await fails_after(job, 3)
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

        job = await fail.enqueue()
        async with Worker(queue, grace=0):
            reason = await fails_after(job, 1)
        assert reason.endswith("; ValueError: 9; 2 more")


class TestCancellingAllTasks:
    """`for task in asyncio.all_tasks(): task.cancel()` is a common idiom of cleaning up."""

    async def test_the_worker_s_own_tasks_start_again(
        self, queue: Queue, caplog: pytest.LogCaptureFixture
    ) -> None:
        main = asyncio.current_task()

        @queue.task
        async def tidy() -> None:
            for task in asyncio.all_tasks() - {main, asyncio.current_task()}:
                task.cancel()

        @queue.task
        async def fine() -> str:
            return "fine"

        async with Worker(queue, grace=0):
            assert await (await fine.enqueue()).result(timeout=30) == "fine"
            for _ in range(3):
                # Whoever waits for a result goes on waiting, too.
                await (await tidy.enqueue()).result(timeout=30)
                assert await (await fine.enqueue()).result(timeout=30) == "fine"
        assert "internal tasks that were cancelled" in caplog.text

    async def test_runs_that_are_cancelled_count_as_attempts(self, queue: Queue) -> None:
        """In any stage: running, or claimed just now and not begun."""
        main = asyncio.current_task()
        runs: list[int] = []

        @queue.task(attempts=2)
        async def wait() -> None:
            runs.append(1)
            await asyncio.Event().wait()

        @queue.task
        async def tidy(after: int) -> None:
            await until(lambda: len(runs) == after)
            for task in asyncio.all_tasks() - {main, asyncio.current_task()}:
                task.cancel()

        job = await wait.enqueue()
        async with Worker(queue, grace=0, lease=1):
            for after in (1, 2):
                await (await tidy.enqueue(after)).result(timeout=30)
            await until_state(job, State.FAILED)
        assert job.attempts_made == 2

    async def test_a_run_that_was_cancelled_before_its_first_step_counts_as_an_attempt(
        self, queue: Queue, clock: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begin = QueueConsumer._start_task
        cancelled: list[Run] = []

        def begin_and_cancel(self: QueueConsumer, run: Run) -> None:
            begin(self, run)
            if not cancelled:
                assert run.task is not None
                run.task.cancel()
                cancelled.append(run)

        monkeypatch.setattr(QueueConsumer, "_start_task", begin_and_cancel)

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


class TestWorkersThatFail:
    async def test_cancel_the_block_that_holds_them(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def broken(self: Worker) -> None:
            raise ZeroDivisionError("a fault of ours")

        monkeypatch.setattr(Worker, "_reclaim_repeatedly", broken)
        with pytest.raises(ZeroDivisionError, match="a fault of ours"):
            async with Worker(queue), asyncio.timeout(DEADLINE_SECONDS):
                await asyncio.Event().wait()
        assert "internal error, the worker is stopping" in caplog.text
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    async def test_do_not_replace_an_error_of_the_block(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(self: Worker) -> None:
            raise ZeroDivisionError("a fault of ours")

        async def block() -> None:
            async with Worker(queue), asyncio.timeout(DEADLINE_SECONDS):
                try:
                    await asyncio.Event().wait()
                finally:
                    raise LookupError("the block's")

        monkeypatch.setattr(Worker, "_reclaim_repeatedly", broken)
        with pytest.raises(LookupError, match="the block's"):
            await block()

    async def test_stop_by_themselves_and_stop_raises_the_error(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(self: Worker) -> None:
            raise ZeroDivisionError("a fault of ours")

        monkeypatch.setattr(Worker, "_reclaim_repeatedly", broken)
        worker = Worker(queue)
        await worker.start()
        await until(worker._stopped.is_set)
        with pytest.raises(ZeroDivisionError, match="a fault of ours"):
            await worker.stop()

    async def test_run_raises_the_error(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(self: Worker) -> None:
            raise ZeroDivisionError("a fault of ours")

        monkeypatch.setattr(Worker, "_reclaim_repeatedly", broken)
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
        """A queue with a store of its own."""
        async with Queue("mail", url) as queue:
            yield queue

    async def test_a_queue_under_a_running_worker_does_not_stop_it(self, queue: Queue) -> None:
        """The worker keeps the store open, and closes it when it ends."""

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
        """What uses a store that was closed opens it again."""
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
    """An interruption never hits what runs after the handler."""
    entered = threading.Event()

    @queue.task(timeout=0.05)
    def busy(ctx: Context) -> None:
        entered.set()
        while not ctx.stopping:
            pass

    job = await busy.enqueue()
    async with Worker(queue, grace=0):
        with pytest.raises(JobFailed, match="timed out"):
            await job.result(timeout=30)
    assert entered.is_set()


class TestLoggingThatIsBroken:
    """Logging belongs to the application. The outcome of a job must be stored even if it fails."""

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
            assert await fails_after(job, 2) == "ValueError: no"
            with pytest.raises(JobFailed, match="has no task"):
                await unknown.result(timeout=30)

    @pytest.mark.parametrize("kind", ["handler"])
    @pytest.mark.usefixtures("broken")
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    async def test_does_not_hide_that_the_worker_failed(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken_service(self: Worker) -> None:
            raise ZeroDivisionError("a fault of ours")

        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        monkeypatch.setattr(Worker, "_reclaim_repeatedly", broken_service)
        with pytest.raises(ZeroDivisionError, match="a fault of ours"):
            async with Worker(queue), asyncio.timeout(DEADLINE_SECONDS):
                await asyncio.Event().wait()


class TestStoppingUnderAttack:
    async def test_outcomes_are_stored_although_a_handler_cancels_all_tasks_at_shutdown(
        self, queue: Queue
    ) -> None:
        """In the grace period of the worker, and when it is about to begin."""
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
    async def test_a_stop_that_is_cancelled_still_hands_jobs_back(
        self, queue: Queue, how: str
    ) -> None:
        """A run must not continue beside the next run of its job."""
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
        """Handed back, it would stop the next worker, too, and so on."""
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
        settle = QueueConsumer._settle
        failed: list[int] = []

        async def fail_once(self: QueueConsumer, portion: OutboxPortion, claim: Any) -> Any:
            if portion.outcomes and not failed:
                failed.append(1)
                raise TypeError("a fault of ours")
            return await settle(self, portion, claim)

        monkeypatch.setattr(QueueConsumer, "_settle", fail_once)

        @queue.task
        async def run() -> str:
            return "done"

        job = await run.enqueue()
        with pytest.raises(TypeError, match="a fault of ours"):
            async with Worker(queue, grace=0), asyncio.timeout(DEADLINE_SECONDS):
                await asyncio.Event().wait()
        assert (await job.refresh()).state is State.COMPLETED

    async def test_a_cancellation_by_other_code_is_not_replaced_by_the_error_of_the_worker(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(self: Worker) -> None:
            raise ZeroDivisionError("a fault of ours")

        async def block() -> None:
            async with Worker(queue):
                await asyncio.Event().wait()

        monkeypatch.setattr(Worker, "_reclaim_repeatedly", broken)
        task = asyncio.create_task(block())
        monkeypatch.setattr(
            Worker, "request_stop", lambda self: task.cancel()
        )  # in the same step as the worker's own
        done, _ = await asyncio.wait([task], timeout=10)
        assert done
        assert task.cancelled()


def test_a_worker_whose_event_loop_has_ended_renews_no_leases(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It was not stopped. No lease is renewed after that, and no failure is logged."""
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
    """It waits for claims that are under way, and those were cancelled."""
    settle = QueueConsumer._settle
    cancelled: list[int] = []

    async def cancel_second(self: QueueConsumer, portion: OutboxPortion, claim: Any) -> Any:
        if self._poison_jobs.is_blocking_claims and not cancelled:
            cancelled.append(1)
            raise asyncio.CancelledError
        return await settle(self, portion, claim)

    monkeypatch.setattr(QueueConsumer, "_settle", cancel_second)

    @queue.task
    async def run() -> str:
        return "done"

    jobs = await run.enqueue_many([run.args()] * 4)
    claim = Claim(4, "dead:1", "dead", lease_ms=1)
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
    """On Redis, its blocked call continues on the connection that it uses again."""

    @queue.task
    async def fine() -> str:
        return "fine"

    def listeners() -> set[asyncio.Task[Any]]:
        return {
            t for t in asyncio.all_tasks() if "QueueConsumer._run_listener" in repr(t.get_coro())
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
