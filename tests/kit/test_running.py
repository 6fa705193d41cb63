"""`run_until_idle` and `advance` run jobs as a worker does, and return what ran."""

from __future__ import annotations

import asyncio
import traceback
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hasten.errors import InvalidOption, JobFailed, UsageError
from hasten.jobs import CallNext, EnqueueCall, Queue, RunCall, State, Unrecoverable
from hasten.testing import JobsTester
from tests.kit import application as app


async def test_it_returns_what_ran(jobs: JobsTester) -> None:
    job = await app.send.enqueue("ada")
    assert app.sent == []
    (run,) = await jobs.run_until_idle()
    assert (run.task, run.queue, run.job_id) == ("send", "kit-mail", job.id)
    assert run.arguments == {"to": "ada"}
    assert (run.outcome, run.result, run.error, run.attempt) == (
        "completed",
        "sent to ada",
        None,
        1,
    )
    assert run.at == datetime(2030, 1, 1, tzinfo=UTC) == jobs.clock.now()
    assert str(run) == "send(to='ada') completed"
    assert jobs.runs == (run,)
    assert await job.result(timeout=10) == "sent to ada"


async def test_it_runs_jobs_that_jobs_add(jobs: JobsTester) -> None:
    await app.order.enqueue(7)
    assert [run.task for run in await jobs.run_until_idle()] == ["order", "send"]


async def test_jobs_run_in_the_order_of_claims(jobs: JobsTester) -> None:
    for priority in (2, 1, 0):
        await app.send.using(priority=priority).enqueue(f"p{priority}")
    await jobs.run_until_idle()
    assert app.sent == ["p0", "p1", "p2"]


async def test_the_time_stands_still_without_advance(jobs: JobsTester) -> None:
    await app.send.using(delay=1).enqueue("ada")
    assert await jobs.run_until_idle() == []
    assert (await app.mail.counts())[State.DELAYED] == 1


async def test_advance_runs_each_job_at_its_time(jobs: JobsTester) -> None:
    start = jobs.clock.now()
    await app.send.using(delay=timedelta(days=2)).enqueue("late")
    await app.send.using(delay=90).enqueue("early")
    await app.send.using(delay=timedelta(days=8)).enqueue("never")
    runs = await jobs.advance(weeks=1)
    assert [(run.arguments["to"], run.at - start) for run in runs] == [
        ("early", timedelta(seconds=90)),
        ("late", timedelta(days=2)),
    ]
    assert jobs.clock.now() == start + timedelta(weeks=1)


async def test_advance_adds_up_its_arguments(jobs: JobsTester) -> None:
    start = jobs.clock.now()
    await jobs.advance("90m", days=1, hours=1, minutes=1, seconds=0.5)
    assert jobs.clock.now() - start == timedelta(days=1, hours=2, minutes=31, seconds=0.5)
    with pytest.raises(InvalidOption):
        await jobs.advance(hours=-1)


async def test_retries_run_after_their_backoff(jobs: JobsTester) -> None:
    app.failures += [ValueError("two"), ValueError("one")]
    job = await app.send_flaky.enqueue("ada")
    start = jobs.clock.now()
    runs = await jobs.advance(minutes=3)
    assert [(run.outcome, run.attempt, run.at - start) for run in runs] == [
        ("retry", 1, timedelta()),
        ("retry", 2, timedelta(seconds=60)),
        ("completed", 3, timedelta(seconds=120)),
    ]
    assert [str(run.error) for run in runs] == ["one", "two", "None"]
    assert (await job.refresh()).attempts_made == 3


async def test_jobs_expire(jobs: JobsTester) -> None:
    await app.send.using(expires=60).enqueue("ada")
    jobs.clock.advance(61)
    (run,) = await jobs.run_until_idle(raises=False)
    assert (run.outcome, app.sent) == ("failed", [])
    assert "expired 1.000 s before it could start" in str(run.error)


async def test_retry_after_postpones(jobs: JobsTester) -> None:
    await app.postpone.enqueue()
    runs = await jobs.advance(minutes=1)
    assert [(run.outcome, run.result, run.error) for run in runs] == [
        ("postponed", None, None),
        ("completed", "done", None),
    ]


async def test_progress_and_log_lines_are_stored(jobs: JobsTester) -> None:
    job = await app.report.enqueue()
    (run,) = await jobs.run_until_idle()
    assert run.result == "attempt 1"
    assert (await job.refresh()).progress == 0.5
    assert await job.logs() == ["half"]


async def test_paused_queues_run_nothing(jobs: JobsTester) -> None:
    await app.send.enqueue("ada")
    await app.mail.pause()
    assert await jobs.advance(hours=1) == []
    await app.mail.resume()
    assert len(await jobs.run_until_idle()) == 1


async def test_jobs_for_other_programs_stay_in_their_queue(jobs: JobsTester) -> None:
    """A queue object without tasks belongs to a producer."""
    await app.foreign.add("resize", {"image": 1})
    assert await jobs.run_until_idle() == []
    assert jobs.assert_enqueued("resize", image=1).queue == "foreign"


async def test_several_queue_objects_of_one_queue(jobs: JobsTester) -> None:
    other = Queue("kit-mail")

    @other.task
    async def only_here() -> str:
        return "here"

    await other.add("send", {"to": "ada"})
    await app.mail.add("only_here")
    runs = await jobs.run_until_idle()
    assert [run.result for run in runs] == ["sent to ada", "here"]


async def test_middlewares_run(jobs: JobsTester) -> None:
    queue = Queue("observed")
    seen: list[str] = []

    @queue.use
    async def observe(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
        seen.append(type(call).__name__)
        return await call_next(call)

    @queue.task
    async def task() -> int:
        return 1

    await task.enqueue()
    await jobs.run_until_idle()
    assert seen == ["EnqueueCall", "RunCall"]


class TestWhereHandlersRun:
    async def test_plain_functions_run_in_a_thread(self, jobs: JobsTester) -> None:
        await app.send_plain.enqueue("ada")
        (run,) = await jobs.run_until_idle()
        assert run.result == "ada"

    async def test_handlers_for_processes_run_in_this_one(self, jobs: JobsTester) -> None:
        """A child would use the real store, and none of the objects that the test replaced."""
        await app.send_in_process.enqueue("ada")
        await jobs.run_until_idle()
        assert app.sent == ["ada"]

    async def test_a_handler_may_wait_for_another_job(self, jobs: JobsTester) -> None:
        await app.wait_for_other.enqueue("ada")
        runs = await jobs.run_until_idle()
        assert {run.task: run.result for run in runs} == {
            "send": "sent to ada",
            "wait_for_other": "sent to ada",
        }

    async def test_a_handler_that_waits_for_a_limit_moves_the_clock(self, jobs: JobsTester) -> None:
        await app.log_in_twice.enqueue()
        start = jobs.clock.now()
        await jobs.run_until_idle()
        assert jobs.clock.now() - start == timedelta(hours=1)

    async def test_time_outs_are_in_real_time(self, jobs: JobsTester) -> None:
        queue = Queue("slow")

        @queue.task(timeout=0.01)
        async def sleep() -> None:
            await asyncio.sleep(60)

        await sleep.enqueue()
        (run,) = await jobs.run_until_idle(raises=False)
        assert type(run.error).__name__ == "JobTimeout"

    async def test_cancelling_the_call_stops_handlers(self, jobs: JobsTester) -> None:
        queue = Queue("slow")
        started, stopped = asyncio.Event(), asyncio.Event()

        @queue.task
        async def sleep() -> None:
            started.set()
            try:
                await asyncio.sleep(60)
            finally:
                stopped.set()

        await sleep.enqueue()
        call = asyncio.create_task(jobs.run_until_idle())
        await started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert stopped.is_set()


class TestFailures:
    async def test_the_error_of_a_handler_is_raised_with_its_traceback(
        self, jobs: JobsTester
    ) -> None:
        app.failures.append(ValueError("wrong address"))
        await app.send_flaky.enqueue("ada")
        with pytest.raises(ValueError, match="wrong address") as caught:
            await jobs.run_until_idle()
        frames = [frame.name for frame in traceback.extract_tb(caught.tb)]
        assert frames[-1] == "send_flaky"
        assert "_call_handler" not in frames
        (note,) = caught.value.__notes__
        assert note.startswith(
            "job 1 (send_flaky) of queue kit-mail failed in attempt 1 and will be"
        )

    async def test_it_is_raised_when_all_jobs_have_run(self, jobs: JobsTester) -> None:
        app.failures += [ValueError("two"), ValueError("one")]
        await app.send_flaky.enqueue("ada")
        await app.send_flaky.enqueue("bob")
        await app.send.enqueue("eve")
        with pytest.raises(ValueError, match="one") as caught:
            await jobs.run_until_idle()
        assert app.sent == ["eve"]
        assert caught.value.__notes__[1].endswith("send_flaky(to='bob') retry: ValueError: two")

    async def test_it_is_not_raised_if_a_retry_has_succeeded(self, jobs: JobsTester) -> None:
        app.failures.append(ValueError("one"))
        await app.send_flaky.enqueue("ada")
        assert len(await jobs.advance(minutes=1)) == 2

    async def test_it_can_be_inspected_instead(self, jobs: JobsTester) -> None:
        app.failures.append(Unrecoverable("gone"))
        await app.send_flaky.enqueue("ada")
        (run,) = await jobs.run_until_idle(raises=False)
        assert (run.outcome, repr(run.error)) == ("failed", "Unrecoverable('gone')")
        assert str(run) == "send_flaky(to='ada') failed: Unrecoverable: gone"

    @pytest.mark.parametrize(
        "error", [SystemExit(3), asyncio.CancelledError(), GeneratorExit()], ids=repr
    )
    async def test_an_exception_that_would_end_the_test_is_wrapped(
        self, jobs: JobsTester, error: BaseException
    ) -> None:
        app.failures.append(error)
        await app.send_flaky.enqueue("ada")
        with pytest.raises(JobFailed, match=type(error).__name__):
            await jobs.run_until_idle()

    async def test_unknown_tasks_fail(self, jobs: JobsTester) -> None:
        await app.mail.add("sent", {"to": "ada"})
        with pytest.raises(JobFailed, match="has no task 'sent'"):
            await jobs.run_until_idle()

    async def test_data_that_does_not_fit_fails(self, jobs: JobsTester) -> None:
        await Queue("kit-mail").add("send", {"to": 7})
        with pytest.raises(JobFailed, match="does not fit the task 'send'"):
            await jobs.run_until_idle()


class TestEndlessLoops:
    async def test_end_with_an_error(self, jobs: JobsTester) -> None:
        await app.repeat_without_end.enqueue()
        with pytest.raises(UsageError, match="runs by task: repeat_without_end: 50") as caught:
            await jobs.run_until_idle(max_runs=50)
        assert "Does a task enqueue itself without an end?" in str(caught.value)

    async def test_as_many_runs_as_allowed_are_no_error(self, jobs: JobsTester) -> None:
        await app.send.enqueue_many([app.send.args(f"{n}") for n in range(20)])
        assert len(await jobs.run_until_idle(max_runs=20)) == 20
