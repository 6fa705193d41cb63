"""The job that runs here, and the log records of its handler."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from typing import Any

import pytest

from hasten.jobs import Context, JobLogFilter, Queue, RunCall, Worker, current_job
from hasten.jobs._middleware import CallNext
from tests.jobs import observed_tasks


def seen() -> tuple[str, int] | None:
    job = current_job()
    return None if job is None else (job.job.id, job.attempt)


def test_there_is_none_outside_of_jobs() -> None:
    assert current_job() is None


async def test_a_coroutine_its_tasks_and_its_threads_have_it(queue: Queue) -> None:
    @queue.task
    async def look() -> list[Any]:
        return [
            seen(), await asyncio.create_task(later()), await asyncio.to_thread(seen)
        ]  # fmt: skip

    async def later() -> Any:
        return seen()

    job = await look.enqueue()
    async with Worker(queue):
        assert await job.result(timeout=30) == [[job.id, 1]] * 3
        assert current_job() is None


async def test_a_thread_has_it(queue: Queue) -> None:
    @queue.task
    def look() -> Any:
        return seen()

    job = await look.enqueue()
    async with Worker(queue):
        assert await job.result(timeout=30) == [job.id, 1]


async def test_a_process_has_it() -> None:
    async with observed_tasks.queue as queue, Worker(queue, handler_processes=1):
        job = await observed_tasks.whoami.enqueue()
        assert await job.result(timeout=60) == [job.id, 1, "whoami", "observed"]
        assert (await job.refresh()).progress == "here"


async def test_it_is_the_context_of_the_handler(queue: Queue) -> None:
    @queue.task
    async def compare(ctx: Context) -> bool:
        return current_job() is ctx

    job = await compare.enqueue()
    async with Worker(queue):
        assert await job.result(timeout=30) is True


async def test_a_middleware_has_it(queue: Queue) -> None:
    @queue.use
    async def look(call: Any, call_next: CallNext) -> Any:
        result = await call_next(call)
        return seen() if isinstance(call, RunCall) else result

    @queue.task
    async def nothing() -> Any: ...

    job = await nothing.enqueue()
    async with Worker(queue):
        assert await job.result(timeout=30) == [job.id, 1]


async def test_reports_of_a_task_that_outlives_its_job_are_dropped(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if it is the first to access the context."""
    gate = asyncio.Event()
    late: list[asyncio.Task[None]] = []

    async def report() -> None:
        await gate.wait()
        job = current_job()
        assert job is not None
        job.progress("too late")

    @queue.task
    async def leave() -> None:
        late.append(asyncio.create_task(report()))

    job = await leave.enqueue()
    async with Worker(queue):
        await job.result(timeout=30)
        gate.set()
        await late[0]
    assert (await job.refresh()).progress is None
    assert "dropped, because the handler has ended" in caplog.text


async def test_a_plain_job_leaves_no_cycle_behind(queue: Queue) -> None:
    """Garbage collection would be a large part of the cost of small jobs."""
    left: list[weakref.ref[Any]] = []

    @queue.task
    async def send() -> None:
        task = asyncio.current_task()
        assert task is not None
        left.append(weakref.ref(task))

    gc.disable()
    try:
        jobs = [await send.enqueue() for _ in range(10)]
        async with Worker(queue):
            for job in jobs:
                await job.result(timeout=30)
        assert [each() for each in left] == [None] * 10
    finally:
        gc.enable()


class TestLogFilter:
    async def test_it_adds_the_job_to_each_record_of_a_handler(
        self, queue: Queue, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.handler.addFilter(job_filter := JobLogFilter())

        @queue.task
        async def speak() -> None:
            logging.getLogger("app").warning("hello")

        job = await speak.enqueue()
        try:
            async with Worker(queue):
                await job.result(timeout=30)
            logging.getLogger("app").warning("outside")
        finally:
            caplog.handler.removeFilter(job_filter)
        inside, outside = (r.__dict__ for r in caplog.records if r.name == "app")
        names = ("queue", "task", "job_id", "attempt")
        assert [inside[name] for name in names] == ["mail", "speak", job.id, 1]
        assert [outside[name] for name in names] == ["-"] * 4

    def test_it_keeps_what_a_record_has(self) -> None:
        record = logging.LogRecord("app", logging.INFO, __file__, 1, "hello", (), None)
        record.task = "mine"
        assert JobLogFilter(default=None).filter(record)
        assert (record.__dict__["task"], record.__dict__["queue"]) == ("mine", None)
