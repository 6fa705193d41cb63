"""Plain functions that cannot be interrupted, because they are in a long call in C."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hasten.jobs import Context, Job, Queue, State, Worker
from hasten.jobs._run import StopReason
from hasten.testing import ManualClock
from tests.jobs.eventually import fails, until, until_state


class Call:
    """Acts like a call in C: an exception set in its thread is raised only when it ends."""

    def __init__(self) -> None:
        self._end = threading.Event()
        self._calls = 0
        self.running = 0

    def __call__(self) -> None:
        self._calls += 1
        self.running += 1
        try:
            self._end.wait()
        finally:
            self.running -= 1

    def end(self) -> None:
        self._end.set()

    async def has_begun(self, times: int = 1) -> None:
        await until(lambda: self._calls == times)


@pytest.fixture
def call() -> Iterator[Call]:
    call = Call()
    yield call
    call.end()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hasten.jobs._run.REPEAT_STOP_SECONDS", 0.02)


def stop(worker: Worker, job: Job[Any], reason: StopReason) -> None:
    """Set the time-out exception, perhaps before the function has started."""
    worker._consumers[0].runs[job.id].request_stop(reason)


def messages(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == level]


@pytest.mark.parametrize("why", ["time-out", "cancelled"])
async def test_their_run_ends_and_frees_its_place(
    queue: Queue, call: Call, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    @queue.task(timeout=60)
    def stick() -> None:
        call()

    @queue.task
    def meet() -> None:
        both.wait()

    both = threading.Barrier(2, timeout=10)
    async with Worker(queue, concurrency=2) as worker:
        job = await stick.enqueue()
        await call.has_begun()
        if why == "cancelled":
            await job.cancel()
        else:
            stop(worker, job, StopReason.TIMEOUT)
        await fails(job.result(timeout=30), "timed out" if why == "time-out" else "cancelled")
        others = [await meet.enqueue() for _ in range(2)]
        await asyncio.gather(*(other.result(timeout=30) for other in others))
        assert call.running == 1
    warning = next(text for text in messages(caplog, logging.WARNING) if "is abandoned" in text)
    assert warning.startswith(f"job {job.id} (stick) is still running after being asked to stop: ")
    assert "'hasten job 1', at " in warning
    assert warning.endswith("abandoned threads of this worker: 1")
    assert not messages(caplog, logging.ERROR)[1:]  # the job itself has failed


async def test_their_run_ends_when_its_lease_is_lost(queue: Queue, call: Call) -> None:
    @queue.task
    def stick() -> None:
        call()

    job = await stick.enqueue()
    async with Worker(queue, concurrency=2) as worker:
        await call.has_begun()
        stop(worker, job, StopReason.LOST)
        await until(lambda: not worker._consumers[0].runs)
    assert (await job.refresh()).state is State.ACTIVE  # another worker runs it


async def test_their_jobs_are_handed_back_when_the_worker_stops(
    queue: Queue, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    @queue.task
    def stick() -> None:
        call()

    job = await stick.enqueue()
    async with Worker(queue, grace=0):
        await call.has_begun()
    assert (await job.refresh()).state is State.WAITING
    assert job.attempts_made == 0
    assert call.running == 1
    assert not messages(caplog, logging.ERROR)


async def test_a_worker_without_free_threads_still_runs_coroutines(
    queue: Queue, call: Call, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Plain functions wait for a free thread, and use up no attempt."""
    caplog.set_level(logging.INFO, "hasten.worker")

    @queue.task(timeout=60)
    def stick() -> None:
        call()

    @queue.task
    def plain() -> str:
        return "plain"

    @queue.task
    async def coroutine() -> str:
        return "coroutine"

    async with Worker(queue, concurrency=2) as worker:
        stuck = [await stick.enqueue() for _ in range(2)]
        await call.has_begun(2)
        for job in stuck:
            stop(worker, job, StopReason.TIMEOUT)
        for job in stuck:
            await fails(job.result(timeout=30), "timed out")
        (error,) = [text for text in messages(caplog, logging.ERROR) if "abandoned" in text]
        assert error.startswith(
            "all threads for handlers are abandoned (2): this worker runs no more plain functions "
            "until one of the threads ends"
        )
        waiting = [await plain.enqueue() for _ in range(3)]
        for later in waiting:
            await until_state(later, State.DELAYED)
            assert later.attempts_made == 0
        assert await (await coroutine.enqueue()).result(timeout=30) == "coroutine"

        call.end()
        ended = "has ended in its abandoned thread"
        await until(lambda: sum(ended in text for text in messages(caplog, logging.INFO)) == 2)
        clock.advance(2)
        for later in waiting:
            assert await later.result(timeout=30) == "plain"
    assert any(
        text.endswith("abandoned threads of this worker: 0")
        for text in messages(caplog, logging.INFO)
    )


async def _coroutine() -> str:
    return "too late"


@pytest.mark.parametrize("make", [lambda: "too late", _coroutine], ids=["value", "coroutine"])
async def test_late_results_are_dropped(queue: Queue, call: Call, make: Callable[[], Any]) -> None:
    reported = threading.Event()

    @queue.task(timeout=60, attempts=2)
    def stick(ctx: Context) -> Any:
        if ctx.attempt == 2:
            return "second attempt"
        try:
            call()
        except BaseException:  # noqa: BLE001  # some libraries do
            ctx.log("too late")
            reported.set()
        return make()

    async with Worker(queue, concurrency=2) as worker:
        job: Job[Any] = await stick.enqueue()
        await call.has_begun()
        stop(worker, job, StopReason.TIMEOUT)
        assert await job.result(timeout=30) == "second attempt"
        call.end()
        await until(reported.is_set)
        await until(lambda: not any(t.name == "hasten job 1" for t in threading.enumerate()))
    assert await job.logs() == []
    assert await job.result(timeout=30) == "second attempt"


async def test_that_lose_their_task_to_another_are_replaced(queue: Queue, call: Call) -> None:
    """A handler that cancels all tasks does not reduce the number of threads."""

    @queue.task
    def stick() -> None:
        call()

    @queue.task
    async def cancel_runs() -> None:
        for run in worker._consumers[0].runs.values():
            if run.task is not None and run.task is not asyncio.current_task():
                run.task.cancel()

    @queue.task
    def meet() -> None:
        both.wait()

    both = threading.Barrier(2, timeout=5)
    async with Worker(queue, concurrency=2) as worker:
        job = await stick.enqueue()
        await call.has_begun()
        await (await cancel_runs.enqueue()).result(timeout=30)
        await fails(job.result(timeout=30), "not by the worker")
        others = [await meet.enqueue() for _ in range(2)]
        await asyncio.gather(*(other.result(timeout=30) for other in others))
