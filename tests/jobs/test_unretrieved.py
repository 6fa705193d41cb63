"""Tasks of a worker never cause "exception was never retrieved"."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from hasten.jobs import Queue, Worker
from hasten.jobs._consumer import QueueConsumer
from hasten.testing import ManualClock
from tests.jobs.eventually import until


class OfOurs(Exception):
    """An internal error of the worker."""


def current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def unseen(tasks: list[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Collect the tasks whose errors asyncio would report when they are deleted."""
    return [task for task in tasks if task._log_traceback]


def test_of_a_run_that_was_interrupted_by_ctrl_c() -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def work() -> None:
        queue = Queue("mail", "memory://")

        @queue.task
        async def interrupt() -> None:
            tasks.append(current_task())
            raise KeyboardInterrupt

        try:
            async with Worker(queue):
                await interrupt.enqueue()
                await asyncio.Event().wait()
        finally:
            await queue.aclose()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(work())
    assert len(tasks) == 1
    assert not unseen(tasks)


async def test_of_an_internal_task_that_fails_while_the_worker_ends(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker logs the error."""
    tasks: list[asyncio.Task[Any]] = []

    async def listen(self: QueueConsumer) -> None:
        tasks.append(current_task())
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        raise OfOurs

    monkeypatch.setattr(QueueConsumer, "_run_job_listener", listen)
    async with Worker(queue):
        await until(lambda: tasks)
    await until(tasks[0].done)
    await asyncio.sleep(0)
    assert not unseen(tasks)
    assert "an internal task failed while the worker was stopping" in caplog.text


async def test_of_a_wait_of_a_listener_that_fails_when_it_is_cancelled(
    queue: Queue, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listener waits for the store and the clock, and raises the first error only."""
    tasks: list[asyncio.Task[Any]] = []

    async def fail(*_args: object, **_options: object) -> None:
        await until(lambda: tasks)
        raise OfOurs

    async def fail_late(*_args: object) -> None:
        tasks.append(current_task())
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        raise OfOurs

    async def sleep(*_args: object) -> None:
        await asyncio.Event().wait()

    @queue.task
    async def later() -> None: ...

    await later.using(delay=60).enqueue()
    monkeypatch.setattr(type(queue.engine), "wait_for_jobs", fail)
    monkeypatch.setattr(type(clock), "sleep_until", fail_late)
    monkeypatch.setattr(type(clock), "sleep", sleep)
    with pytest.raises(OfOurs):
        async with Worker(queue):
            await asyncio.Event().wait()
    await until(tasks[0].done)
    await asyncio.sleep(0)
    assert not unseen(tasks)
