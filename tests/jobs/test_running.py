"""Handlers in the event loop, in threads and in processes: their errors and reports."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import threading
import time
import weakref
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest

from hasten.jobs import Context, Job, Queue, RetryAfter, State, Unrecoverable, Worker
from hasten.jobs._states import FINISHED
from hasten.testing import ManualClock
from tests.jobs import process_tasks
from tests.jobs.eventually import fails, result_of, until, until_longer, until_state


class TestWhere:
    async def test_coroutines_run_in_the_loop_and_functions_in_threads(self, queue: Queue) -> None:
        @queue.task
        async def in_loop() -> int:
            return threading.get_ident()

        @queue.task
        def in_thread() -> int:
            return threading.get_ident()

        jobs = [await in_loop.enqueue(), await in_thread.enqueue()]
        async with Worker(queue):
            loop, thread = [await job.result(timeout=30) for job in jobs]
        assert loop == threading.get_ident() != thread

    async def test_threads_run_as_many_at_once_as_the_worker_does(self, queue: Queue) -> None:
        """With fewer threads, the barrier would never open."""
        barrier = threading.Barrier(8, timeout=10)

        @queue.task
        def meet() -> None:
            barrier.wait()

        jobs = [await meet.enqueue() for _ in range(24)]
        async with Worker(queue, concurrency=8):
            await asyncio.gather(*(job.result(timeout=30) for job in jobs))

    async def test_context_variables_do_not_pass_from_job_to_job(self, queue: Queue) -> None:
        """Otherwise a job could see the user or the locale of another job."""
        leak = contextvars.ContextVar("leak", default="nothing")

        def look(value: str) -> str:
            before = leak.get()
            leak.set(value)
            return before

        @queue.task
        async def in_loop(value: str) -> str:
            return look(value)

        @queue.task
        def in_thread(value: str) -> str:
            return look(value)

        jobs = [await task.enqueue(str(n)) for n in range(5) for task in (in_loop, in_thread)]
        async with Worker(queue, concurrency=1):
            seen = [await job.result(timeout=30) for job in jobs]
        assert seen == ["nothing"] * 10


class TestErrors:
    async def test_unrecoverable_ends_the_job_at_once(self, queue: Queue) -> None:
        @queue.task(attempts=5)
        async def fail() -> None:
            raise Unrecoverable("the account is gone")

        job = await fail.enqueue()
        await fails(result_of(queue, job), "Unrecoverable: the account is gone")
        assert (await job.refresh()).attempts_made == 1

    @pytest.mark.parametrize("kinds", [LookupError, (KeyError, ValueError)])
    async def test_give_up_on_includes_subclasses(self, queue: Queue, kinds: Any) -> None:
        runs: list[int] = []

        @queue.task(attempts=3, give_up_on=kinds)
        async def fail() -> None:
            runs.append(1)
            raise OSError if len(runs) == 1 else KeyError("gone")

        job = await fail.enqueue()
        await fails(result_of(queue, job), "KeyError: 'gone'")
        assert (await job.refresh()).attempts_made == 2

    async def test_retry_after_uses_up_no_attempt(self, queue: Queue, clock: ManualClock) -> None:
        """RetryAfter is no failure of the job."""
        runs: list[int] = []

        @queue.task
        async def call() -> int:
            runs.append(clock.now_ms())
            if len(runs) < 4:
                raise RetryAfter(30)
            return len(runs)

        job = await call.enqueue()
        async with Worker(queue):
            for _ in range(3):
                await until_state(job, State.DELAYED)
                assert (job.attempts_made, job.error) == (0, None)
                count = len(runs)
                clock.advance(30)
                await until_longer(runs, count)
            assert await job.result(timeout=30) == 4
        assert [b - a for a, b in pairwise(runs)] == [30_000] * 3
        assert (await job.refresh()).attempts_made == 1

    async def test_long_reasons_are_cut(self, queue: Queue) -> None:
        """A store is no place for whole HTML pages."""

        @queue.task
        async def fail() -> None:
            raise ValueError("x" * 100_000)

        job = await fail.enqueue()
        assert len(await fails(result_of(queue, job))) <= 4001
        assert len((await job.refresh()).tracebacks[0]) <= 16_001


class TestContext:
    async def test_shows_its_job(self, queue: Queue) -> None:
        seen: list[tuple[str, int]] = []

        @queue.task(attempts=2)
        async def look(ctx: Context, number: int) -> None:
            seen.append((ctx.job.id, ctx.attempt))
            assert not ctx.stopping
            if ctx.attempt == 1:
                raise ValueError

        job = await look.enqueue(7)
        await result_of(queue, job)
        assert seen == [(job.id, 1), (job.id, 2)]

    @pytest.mark.parametrize("where", ["loop", "thread"])
    async def test_progress_and_logs_are_stored_meanwhile(self, queue: Queue, where: str) -> None:
        seen = threading.Event()

        def act(ctx: Context) -> None:
            ctx.progress(0.5)
            ctx.log("half")
            ctx.log("\ud800")
            assert seen.wait(10)
            ctx.progress({"page": 3})
            ctx.log("done")

        async def in_loop(ctx: Context) -> None:
            await asyncio.to_thread(act, ctx)

        queue.task(name="act")(in_loop if where == "loop" else act)
        job = await queue.add("act")
        async with Worker(queue):
            while not await job.logs():
                await asyncio.sleep(0.002)
            assert (await job.refresh()).progress == 0.5
            assert job.state is State.ACTIVE
            seen.set()
            await job.result(timeout=30)
        assert (await job.refresh()).progress == {"page": 3}
        assert await job.logs() == ["half", "?", "done"]

    @pytest.mark.parametrize("where", ["loop", "thread"])
    async def test_of_a_job_that_has_ended_drops_reports(
        self, queue: Queue, where: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A thread that the handler left running reports later. One warning per job is logged."""
        contexts: list[Context] = []

        def act(ctx: Context) -> None:
            contexts.append(ctx)
            ctx.log("in time")
            if ctx.attempt == 1:
                raise ValueError

        async def in_loop(ctx: Context) -> None:
            act(ctx)

        queue.task(name="act")(in_loop if where == "loop" else act)
        job = await queue.add("act", attempts=2)
        async with Worker(queue):
            await job.result(timeout=30)
            for ctx in contexts:
                await asyncio.to_thread(ctx.log, "too late")
                ctx.progress("too late")
            after = await queue.add("act", attempts=2)
            await after.result(timeout=30)
        assert await job.logs() == await after.logs() == ["in time"] * 2
        assert (await job.refresh()).progress is None
        warning = f"job {job.id} (act): log line or progress dropped"
        assert [r.levelname for r in caplog.records if warning in r.message] == ["WARNING"] * 2

    @pytest.mark.parametrize("value", [object(), float("nan")], ids=["object", "NaN"])
    async def test_progress_that_is_not_json_raises(self, queue: Queue, value: object) -> None:
        refusals: list[Exception] = []

        @queue.task
        async def say(ctx: Context) -> None:
            try:
                ctx.progress(value)
            except (TypeError, ValueError) as error:
                refusals.append(error)

        await result_of(queue, await say.enqueue())
        assert len(refusals) == 1

    @pytest.mark.parametrize("where", ["loop", "thread"])
    async def test_progress_that_is_too_large_raises(self, queue: Queue, where: str) -> None:
        """The error has the size, the limit and what to do. The earlier progress stays."""

        def say(ctx: Context) -> None:
            ctx.progress("begun")
            ctx.progress("x" * 10_000_000)

        async def say_in_loop(ctx: Context) -> None:
            say(ctx)

        job = await queue.task(say_in_loop if where == "loop" else say).enqueue()
        error = await fails(result_of(queue, job))
        assert "at most 1,048,576 bytes of JSON (it has 10,000,002)" in error
        assert "or raise Queue(max_size=…)" in error
        assert (await job.refresh()).progress == "begun"

    async def test_stopping_can_be_checked_by_a_thread(self, queue: Queue) -> None:
        """A long function can stop early and return a partial result."""

        @queue.task
        def look(ctx: Context) -> None:
            try:
                while not ctx.stopping:
                    time.sleep(0.001)
            except BaseException:
                assert ctx.stopping
                raise

        job = await look.enqueue()
        async with Worker(queue):
            await until_state(job, State.ACTIVE)
            await job.cancel()
            await fails(job.result(timeout=30))


class TestInProcesses:
    @pytest.fixture
    async def worker(self) -> AsyncIterator[Worker]:
        async with Worker(process_tasks.queue, handler_processes=1) as worker:
            yield worker
        await process_tasks.queue.aclose()

    async def test_functions_and_coroutines_run_with_their_types(self, worker: Worker) -> None:
        """Arguments and results are validated in the process."""
        point = process_tasks.Point(1, 2)
        swapped = await process_tasks.swap.enqueue(point)
        assert await swapped.result(timeout=20) == process_tasks.Point(2, 1)
        elsewhere = Queue("processes", process_tasks.queue.store)
        wrong = await elsewhere.add("double", {"number": "x"}, attempts=3)
        await fails(wrong.result(timeout=20), "does not fit the task 'double': Expected `int`")

    async def test_they_report_progress_and_are_reused(self, worker: Worker) -> None:
        jobs = [await process_tasks.report.enqueue() for _ in range(3)]
        pids = {await job.result(timeout=20) for job in jobs}
        assert len(pids) == 1
        assert pids != {os.getpid()}
        assert (await jobs[0].refresh()).progress == {"done": 0.5}
        assert await jobs[0].logs() == ["half"]

    async def test_they_cannot_report_progress_of_too_many_bytes(self, worker: Worker) -> None:
        job = await process_tasks.report.enqueue(2_000_000)
        await fails(job.result(timeout=20), r"at most 1,048,576 bytes .*2,000,002")

    @pytest.mark.parametrize(
        ("how", "reason", "attempts"),
        [
            ("error", "ValueError: bad luck", 2),
            ("unrecoverable", "Unrecoverable: never", 1),
            ("exit", "SystemExit: 3", 2),
            ("hard exit", "ProcessDied: the handler's process died: exit code 4", 2),
        ],
    )
    async def test_control_exceptions_work_as_in_the_event_loop(
        self, worker: Worker, how: str, reason: str, attempts: int
    ) -> None:
        job = await process_tasks.fail.enqueue(how)
        assert await fails(job.result(timeout=20)) == reason
        assert (await job.refresh()).attempts_made == attempts
        after = await process_tasks.double.enqueue(2)
        assert await after.result(timeout=20) == 4

    async def test_retry_after_and_give_up_on_work_there_too(self, worker: Worker) -> None:
        later = await process_tasks.fail.enqueue("later")
        await until_state(later, State.DELAYED)
        assert later.attempts_made == 0
        refused = await process_tasks.refuse.enqueue()
        await fails(refused.result(timeout=20), "Refused: no")
        assert (await refused.refresh()).attempts_made == 1
        await later.remove()

    async def test_too_large_results_and_context_variables_stay_there(self, worker: Worker) -> None:
        large = await process_tasks.large.enqueue(2_000_000)
        await fails(large.result(timeout=20), "InvalidResult: the return value is too large")
        for value in ("a", "b"):
            job = await process_tasks.set_and_get.enqueue(value)
            assert await job.result(timeout=20) == "nothing"


async def test_a_handler_that_suppresses_its_cancellation_is_cancelled_again(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`except BaseException: pass` in a loop is common, and must not block the job for ever."""
    monkeypatch.setattr("hasten.jobs._run.REPEAT_STOP_SECONDS", 0.05)
    swallowed: list[int] = []

    @queue.task
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed.append(1)
                if len(swallowed) == 2:
                    raise

    job: Job[None] = await stubborn.enqueue()
    async with Worker(queue):
        await until_state(job, State.ACTIVE)
        await job.cancel()
        await fails(job.result(timeout=30), "cancelled")
    assert len(swallowed) == 2


async def test_a_handler_that_returns_despite_its_cancellation_has_completed(queue: Queue) -> None:
    entered = asyncio.Event()

    @queue.task
    async def finish() -> str:
        try:
            entered.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done anyway"
        return "never"

    job = await finish.enqueue()
    async with Worker(queue):
        await entered.wait()
        await job.cancel()
        assert await job.result(timeout=30) == "done anyway"
    assert (await job.refresh()).state in FINISHED


class Large:
    """An object that uses much memory."""


@pytest.mark.parametrize("where", ["loop", "thread"])
@pytest.mark.parametrize("how", ["fails", "times out"])
async def test_the_objects_of_a_failed_handler_are_freed_without_the_garbage_collector(
    queue: Queue, where: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its traceback is in no reference cycle."""
    # pytest keeps log records, and their tracebacks with them.
    monkeypatch.setattr(logging.getLogger("hasten.worker"), "propagate", False)
    held: list[weakref.ref[Large]] = []

    async def in_loop() -> None:
        large = Large()
        held.append(weakref.ref(large))
        if how == "times out":
            await asyncio.Event().wait()
        raise ValueError("no")

    def in_thread() -> None:
        large = Large()
        held.append(weakref.ref(large))
        while how == "times out":
            time.sleep(0.001)
        raise ValueError("no")

    function = in_loop if where == "loop" else in_thread
    task = queue.task(name="fail", timeout=0.05 if how == "times out" else None)(function)
    gc.disable()
    try:
        async with Worker(queue):
            await fails((await task.enqueue()).result(timeout=30))
            await until(lambda: held[0]() is None)
    finally:
        gc.enable()
