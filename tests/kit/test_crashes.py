"""`crash_everywhere` finds where the death of a worker changes the outcome of a job."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from hasten.errors import InvalidOption, UsageError
from hasten.jobs import Context, Queue, State, Worker
from hasten.testing import CrashReport, JobsTester
from hasten.testing import _crashes as crashes
from tests.kit import application as app

END = "after the handler has returned, before its result is stored"


def charges() -> list[str]:
    return app.gateway.charges


def reset() -> None:
    app.gateway.charges.clear()


def names(report: CrashReport) -> list[str]:
    """Return the points without the numbers of lines."""
    return [point.rpartition(" (")[0] or point for point in report.points]


async def test_a_handler_that_is_not_idempotent(jobs: JobsTester) -> None:
    with pytest.raises(AssertionError) as caught:
        await jobs.crash_everywhere(app.charge, {"order_id": "7"}, snapshot=charges, reset=reset)
    text = str(caught.value)
    assert text.startswith(
        "task 'charge' ends in another state if its worker dies (2 of 2 points):\n"
        "- it died after `await gateway.charge(order_id)` (application.py:"
    )
    assert "    snapshot: ['7'] without a crash, ['7', '7'] with it" in text
    assert f"- it died {END}" in text


async def test_a_handler_that_is_idempotent(jobs: JobsTester) -> None:
    report = await jobs.crash_everywhere(
        app.charge_once, {"order_id": "7"}, snapshot=charges, reset=reset
    )
    enqueue = '`await send.using(job_id=f"receipt-{order_id}").enqueue("ada")`'
    assert names(report) == [
        "after `await gateway.charge_once(order_id)`",
        "before the operation 'add' of the store",
        f"while waiting in {enqueue}",
        f"after {enqueue}",
        "while waiting in `await asyncio.sleep(0)`",
        "after `await asyncio.sleep(0)`",
        END,
    ]
    assert report.differences == []
    assert str(report) == "task 'charge_once' ends in the same state after 7 crashes"


async def test_a_plain_function_dies_after_each_of_its_statements(jobs: JobsTester) -> None:
    report = await jobs.crash_everywhere(
        app.charge_in_thread, app.charge_in_thread.args("7"), snapshot=charges, raises=False,
        reset=reset,
    )  # fmt: skip
    assert names(report) == [
        "after `gateway.charge_now(order_id)`",
        "before the operation 'add' of the store",
        'after `send.using(job_id="receipt").sync.enqueue("ada")`',
        END,
    ]
    assert [difference.what for difference in report.differences] == ["snapshot"] * 4


async def test_jobs_that_are_added_twice_are_a_difference(jobs: JobsTester) -> None:
    report = await jobs.crash_everywhere(app.order, {"number": 7}, raises=False)
    added = "send(to='customer 7') in queue kit-mail"
    assert {
        (each.what, str(each.without_crash), str(each.with_crash)) for each in report.differences
    } == {("jobs added", str([added]), str([added, added]))}
    assert len(report.differences) == 3  # not before the store was called


async def test_a_result_that_differs(jobs: JobsTester) -> None:
    queue = Queue("counting")
    runs: list[int] = []

    @queue.task
    async def count() -> int:
        runs.append(1)
        await asyncio.sleep(0)
        return len(runs)

    report = await jobs.crash_everywhere(count, reset=runs.clear, raises=False)
    assert {(each.what, each.without_crash, each.with_crash) for each in report.differences} == {
        ("result", 1, 2)
    }
    report = await jobs.crash_everywhere(count, reset=runs.clear, compare_result=False)
    assert report.differences == []


async def test_a_state_that_differs(jobs: JobsTester) -> None:
    queue = Queue("once")
    runs: list[int] = []

    @queue.task
    async def only_once(ctx: Context) -> None:
        if runs:
            raise ValueError("again")
        runs.append(1)
        await asyncio.sleep(0)

    report = await jobs.crash_everywhere(only_once, reset=runs.clear, raises=False)
    assert str(report.differences[0]) == (
        "state: 'completed' without a crash, 'failed (ValueError: again)' with it"
    )


async def test_retries_belong_to_the_job(jobs: JobsTester) -> None:
    """The clock is moved for them, and set back in the end."""
    queue = Queue("retrying")
    start = jobs.clock.now()
    fails: list[int] = []

    @queue.task(attempts=3, backoff=60)
    async def fail_first(ctx: Context) -> int:
        if len(fails) < 1:
            fails.append(1)
            raise ValueError("first")
        return ctx.attempt

    report = await jobs.crash_everywhere(fail_first, reset=fails.clear, compare_result=False)
    assert report.points == ["after the handler has raised, before that is stored"]
    assert jobs.clock.now() == start


async def test_a_job_that_fails_without_a_crash_raises_its_error(jobs: JobsTester) -> None:
    queue = Queue("failing")

    @queue.task
    async def fail() -> None:
        raise ValueError("as always")

    with pytest.raises(ValueError, match="as always"):
        await jobs.crash_everywhere(fail)


async def test_a_dead_handler_executes_nothing(jobs: JobsTester) -> None:
    """Not even its `finally` blocks, until all tries have ended."""
    queue = Queue("careful")
    log: list[str] = []

    @queue.task
    async def careful() -> None:
        log.append("begin")
        try:
            await asyncio.sleep(0)
        finally:
            log.append("end")

    report = await jobs.crash_everywhere(
        careful, snapshot=lambda: log, reset=log.clear, raises=False
    )
    assert [(each.what, each.with_crash) for each in report.differences] == [
        ("snapshot", ["begin", "begin", "end"]),
        ("snapshot", ["begin", "begin", "end"]),
        ("snapshot", ["begin", "end", "begin", "end"]),
    ]
    assert log == ["begin", "end", "begin", "end", "end", "end"]


async def test_tasks_of_a_dead_handler_are_dead(jobs: JobsTester) -> None:
    queue = Queue("parallel")
    log: list[str] = []

    async def step(name: str) -> None:
        await asyncio.sleep(0)
        log.append(name)

    @queue.task
    async def parallel() -> None:
        await asyncio.gather(step("a"), step("b"))

    report = await jobs.crash_everywhere(
        parallel, snapshot=lambda: log, reset=log.clear, raises=False
    )
    waits = [point for point in names(report) if "asyncio.sleep" in point]
    assert waits == ["while waiting in `await asyncio.sleep(0)`"] * 2
    died_in_first, died_in_second, *_ = [each.with_crash for each in report.differences]
    assert died_in_first == ["a", "a", "b"] or died_in_second == ["a", "a", "b"]


async def test_snapshot_and_reset_may_be_async(jobs: JobsTester) -> None:
    async def read() -> list[str]:
        await asyncio.sleep(0)
        return app.gateway.charges

    async def empty() -> None:
        app.gateway.charges.clear()

    report = await jobs.crash_everywhere(
        app.charge, {"order_id": "7"}, snapshot=read, reset=empty, raises=False
    )
    assert report.differences[0].with_crash == ["7", "7"]


async def test_it_leaves_the_queues_as_they_were(jobs: JobsTester) -> None:
    await app.send.enqueue("ada")
    with jobs.inline():
        await jobs.crash_everywhere(app.order, {"number": 7}, raises=False)
        assert (await app.mail.counts())[State.WAITING] == 1
        assert (await app.orders.counts())[State.WAITING] == 0
    assert [job.task for job in jobs.enqueued()] == ["send"]
    await jobs.run_until_idle()
    assert app.sent == ["ada"]


async def test_a_task_that_adds_itself(jobs: JobsTester) -> None:
    """Other jobs of the queue do not run."""
    report = await jobs.crash_everywhere("repeat_without_end", raises=False)
    assert report.task == "repeat_without_end"
    assert len(report.differences) == 3


async def test_the_number_of_points_is_limited(jobs: JobsTester) -> None:
    queue = Queue("long")

    @queue.task
    async def long() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    with pytest.raises(UsageError, match=r"has 21 points .* more than max_crashes=20"):
        await jobs.crash_everywhere(long, max_crashes=20)


async def test_a_lock_of_the_dead_worker(jobs: JobsTester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crashes, "TRY_SECONDS", 1.0)
    queue = Queue("locking")
    lock = asyncio.Lock()

    @queue.task
    async def locked() -> None:
        async with lock:
            await asyncio.sleep(0)

    with pytest.raises(UsageError, match="Does it wait for a lock that the dead worker has"):
        await jobs.crash_everywhere(locked)


@pytest.mark.parametrize("task", ["send_in_process", app.send_in_process], ids=["name", "task"])
async def test_handlers_in_processes_are_not_supported(jobs: JobsTester, task: Any) -> None:
    with pytest.raises(UsageError, match="'send_in_process' has run_in='process'"):
        await jobs.crash_everywhere(task, {"to": "ada"})


async def test_wrong_arguments(jobs: JobsTester) -> None:
    with pytest.raises(InvalidOption, match="a dict of arguments by name"):
        await jobs.crash_everywhere(app.send, ["ada"])  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="a task of a queue that exists"):
        await jobs.crash_everywhere("unknown")


async def test_no_thread_is_left(jobs: JobsTester) -> None:
    before = threading.active_count()
    await jobs.crash_everywhere(app.charge_in_thread, {"order_id": "7"}, raises=False)
    assert threading.active_count() <= before + 2  # those of the event loops


async def test_real_workers_find_the_same(jobs: JobsTester) -> None:
    """The tries leave nothing behind that would disturb a worker."""
    await jobs.crash_everywhere(app.charge_once, {"order_id": "7"}, reset=reset)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.orders.shared_store, "starts_workers", True)
        async with Worker(app.orders):
            job = await app.charge_once.enqueue("8")
            assert await job.result(timeout=10) == "charged"
