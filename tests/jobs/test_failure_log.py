"""What a worker logs about failed runs, and the fields of those log records."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from hasten.errors import JobFailed
from hasten.jobs import Queue, RetryAfter, State, Worker
from hasten.jobs import _failure_log as failure_log
from hasten.jobs._failure_log import RemoteTraceback
from hasten.jobs._options import Options
from hasten.jobs._record import JobTemplate, NewJob
from tests.jobs import process_tasks
from tests.jobs.eventually import fails, until_state


def records(caplog: pytest.LogCaptureFixture, job_id: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if getattr(record, "job_id", None) == job_id]


def facts(record: logging.LogRecord, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in names)


@pytest.fixture(autouse=True)
def _everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hasten.worker")


async def fail(job: Any) -> None:
    await fails(job.result(timeout=30))


@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_each_attempt_is_logged_and_the_last_one_with_its_traceback(
    queue: Queue, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def in_loop() -> None:
        raise ValueError("boom")

    def in_thread() -> None:
        raise ValueError("boom")

    task = queue.task(name="send", attempts=2)(in_loop if where == "loop" else in_thread)
    job = await task.enqueue()
    async with Worker(queue, grace=0):
        await fail(job)
    retried, failed = records(caplog, job.id)
    assert (retried.levelname, failed.levelname) == ("WARNING", "ERROR")
    assert retried.getMessage() == (
        f"queue mail: job {job.id} (send) failed, attempt 1 of 2, runs again in 0 s: "
        "ValueError: boom"
    )
    assert failed.getMessage() == (
        f"queue mail: job {job.id} (send) failed for good, attempt 2 of 2: ValueError: boom"
    )
    assert facts(retried, "queue", "task", "attempt", "attempts", "error", "retry_in") == (
        "mail", "send", 1, 2, "ValueError: boom", 0.0,
    )  # fmt: skip
    assert facts(failed, "queue", "task", "attempt", "attempts", "error") == (
        "mail", "send", 2, 2, "ValueError: boom",
    )  # fmt: skip
    assert retried.exc_info is None
    assert failed.exc_info is not None
    assert isinstance(failed.exc_info[1], ValueError)
    # The traceback begins with the handler.
    trace = failed.exc_info[2]
    assert trace is not None
    assert trace.tb_frame.f_code.co_name == f"in_{where}"


async def test_the_start_and_the_end_of_a_run_are_logged_at_debug(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    @queue.task
    async def send() -> None: ...

    caplog.set_level(logging.DEBUG, "hasten.worker")
    job = await send.enqueue()
    async with Worker(queue):
        await job.result(timeout=30)
    started, ended = records(caplog, job.id)
    assert (started.levelname, ended.levelname) == ("DEBUG", "DEBUG")
    assert started.getMessage() == f"queue mail: job {job.id} (send) started, attempt 1"
    assert facts(ended, "queue", "task", "attempt", "outcome") == ("mail", "send", 1, "completed")
    assert ended.getMessage().startswith(f"queue mail: job {job.id} (send) ended after 0.")


async def test_a_retry_is_logged_with_delay(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    @queue.task(attempts=2, backoff=90)
    async def send() -> None:
        raise ValueError("boom")

    job = await send.enqueue()
    async with Worker(queue, grace=0):
        await until_state(job, State.DELAYED)
    (retried,) = records(caplog, job.id)
    assert "attempt 1 of 2, runs again in 90 s: " in retried.getMessage()
    assert facts(retried, "retry_in") == (90.0,)


async def test_a_failure_in_a_process_has_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """The logged exception is a `JobFailed`. Its cause has the traceback of the process as text."""
    job = await process_tasks.throw.using(attempts=1).enqueue("unreadable")
    async with Worker(process_tasks.queue, grace=0):
        await fail(job)
    await process_tasks.queue.aclose()
    (failed,) = records(caplog, job.id)
    assert failed.levelname == "ERROR"
    assert failed.exc_info is not None
    error = failed.exc_info[1]
    assert isinstance(error, JobFailed)
    assert "in throw\n    raise kinds[kind]" in str(error.__cause__)


async def test_a_process_that_died_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    job = await process_tasks.fail.using(attempts=1).enqueue("hard exit")
    async with Worker(process_tasks.queue, grace=0):
        await fail(job)
    await process_tasks.queue.aclose()
    (failed,) = records(caplog, job.id)
    assert failed.levelname == "ERROR"
    assert "the handler's process died" in failed.getMessage()


async def test_a_time_out_is_logged(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    @queue.task(timeout=0.01)
    async def hang() -> None:
        await asyncio.Event().wait()

    job = await hang.enqueue()
    async with Worker(queue, grace=0):
        await fail(job)
    (failed,) = records(caplog, job.id)
    assert failed.levelname == "ERROR"
    assert failed.getMessage().endswith("attempt 1 of 1: JobTimeout: timed out after 0.01 s")


async def test_an_unrunnable_job_is_logged(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    """The task is unknown, or the data does not fit."""

    @queue.task
    async def square(number: int) -> int:
        return number * number

    unknown = await queue.add("cube", {"number": 2})
    unfit = await queue.producer.submit(
        queue.producer.make_template("square", square.definition.options), '{"number": "two"}'
    )
    async with Worker(queue, grace=0):
        await fail(unknown)
        await fail(unfit)
    (first,), (second,) = records(caplog, unknown.id), records(caplog, unfit.id)
    assert (first.levelname, second.levelname) == ("ERROR", "ERROR")
    assert "failed without a run: this worker has no task 'cube'" in first.getMessage()
    assert "the data of the job does not fit the task 'square'" in second.getMessage()


async def test_expiry_is_logged(queue: Queue, clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    @queue.task(expires=10)
    async def remind() -> None: ...

    job = await remind.enqueue()
    clock.advance(11)
    async with Worker(queue, grace=0):
        await fail(job)
    (failed,) = records(caplog, job.id)
    assert failed.levelname == "ERROR"
    assert "failed without a run: expired" in failed.getMessage()


async def test_postponing_is_no_failure(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    @queue.task
    async def ask() -> None:
        raise RetryAfter(30)

    job = await ask.enqueue()
    async with Worker(queue, grace=0):
        await until_state(job, State.DELAYED)
    (asked,) = records(caplog, job.id)
    assert asked.levelname == "INFO"
    assert (
        asked.getMessage()
        == f"queue mail: job {job.id} (ask) postponed by its handler, runs again in 30 s"
    )


async def test_cancelling_is_no_failure(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    @queue.task
    async def wait() -> None:
        await asyncio.Event().wait()

    job = await wait.enqueue()
    async with Worker(queue, grace=0):
        await until_state(job, State.ACTIVE)
        await job.cancel()
        await fail(job)
    assert [record.levelname for record in records(caplog, job.id)] == ["INFO"]


async def test_a_failure_is_one_safe_line(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    """The text of an error cannot add a line to the log or clear a terminal."""

    @queue.task
    async def fail_it() -> None:
        raise ValueError("a\nERROR forged\x1b[2J" + "x" * 10_000)

    job = await fail_it.enqueue()
    async with Worker(queue, grace=0):
        await fail(job)
    (failed,) = records(caplog, job.id)
    message = failed.getMessage()
    assert message.isprintable()
    assert r"ValueError: a ERROR forged\x1b[2J" in message
    assert len(message) < 700
    # The output of any formatter of an application.
    shown = logging.Formatter().format(failed)
    assert shown.replace("\n", "").isprintable()
    assert "\nERROR" not in shown


def test_the_traceback_of_another_process_is_escaped(caplog: pytest.LogCaptureFixture) -> None:
    error = JobFailed("7", "boom")
    error.__cause__ = RemoteTraceback("Traceback\nValueError: \x1b[2J\nERROR forged")
    failure_log.logger.error("failed", exc_info=error)
    shown = logging.Formatter().format(caplog.records[-1])
    assert shown.replace("\n", "").isprintable()
    assert "\n    ERROR forged" in shown


async def test_ids_and_names_are_escaped(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    odd = "\x1b[2J\u202eodd\n"
    await queue.engine.add(
        [NewJob("mail", JobTemplate(odd, "{}", Options()), "{}", odd)], now_ms=queue.clock.now_ms()
    )
    job = await queue.get(odd)
    assert job is not None
    assert (job.id, job.name, repr(job).isprintable()) == (odd, odd, True)
    async with Worker(queue, grace=0):
        with pytest.raises(JobFailed) as failed:
            await job.result(timeout=30)
    assert str(failed.value).isprintable()
    (record,) = records(caplog, odd)
    assert record.getMessage().isprintable()
    assert r"job \x1b[2J\u202eodd\n (\x1b[2J\u202eodd)" in record.getMessage()


async def test_a_textless_error_is_logged(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise AttributeError("missing")

        __repr__ = __str__

    @queue.task
    async def fail_oddly() -> None:
        raise Odd

    job = await fail_oddly.enqueue()
    async with Worker(queue, grace=0):
        await fail(job)
    (failed,) = records(caplog, job.id)
    text = logging.Formatter().format(failed)
    assert "Odd: its text is not available" in text
    assert "in fail_oddly" in text
