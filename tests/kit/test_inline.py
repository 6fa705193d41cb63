"""In inline mode, a call that adds a job runs it."""

from __future__ import annotations

import threading

import pytest

from hasten.errors import UsageError
from hasten.testing import JobsTester
from tests.kit import application as app


async def test_adding_a_job_runs_it(jobs: JobsTester) -> None:
    with jobs.inline():
        job = await app.send.enqueue("ada")
        assert app.sent == ["ada"]
        await app.send.enqueue_many([app.send.args("bob"), app.send.args("eve")])
        await app.mail.add("send", {"to": "sue"})
    assert app.sent == ["ada", "bob", "eve", "sue"]
    await app.send.enqueue("later")
    assert len(app.sent) == 4
    assert (await job.refresh()).state == "completed"
    assert [run.job_id for run in jobs.runs] == ["1", "2", "3", "4"]


async def test_jobs_that_jobs_add_run_inside_them(jobs: JobsTester) -> None:
    with jobs.inline():
        await app.wait_for_other.enqueue("ada")
    assert [run.task for run in jobs.runs] == ["send", "wait_for_other"]


async def test_delayed_jobs_wait_for_their_time(jobs: JobsTester) -> None:
    with jobs.inline():
        await app.send.using(delay=60).enqueue("ada")
        assert app.sent == []
        await jobs.advance(minutes=1)
    assert app.sent == ["ada"]


async def test_the_call_raises_the_error_of_the_handler(jobs: JobsTester) -> None:
    with jobs.inline():
        app.failures.append(ValueError("wrong address"))
        with pytest.raises(ValueError, match="wrong address"):
            await app.send_flaky.enqueue("ada")
    with jobs.inline(raises=False):
        app.failures.append(ValueError("wrong address"))
        job = await app.send_flaky.enqueue("ada")
    assert (await job.refresh()).error == "ValueError: wrong address"


async def test_loops_without_end_are_an_error(jobs: JobsTester) -> None:
    with jobs.inline(), pytest.raises(UsageError, match="50 jobs run inside each other"):
        await app.repeat_without_end.enqueue()


async def test_it_may_be_on_from_the_beginning() -> None:
    with JobsTester(inline=True) as jobs:
        await app.send.enqueue("ada")
        assert len(jobs.runs) == 1


def test_it_works_for_blocking_calls(jobs: JobsTester) -> None:
    """A plain function runs in the thread of the test, and sees its database transaction."""
    with jobs.inline():
        app.order.sync.enqueue(7)
        app.threads.clear()
        app.send_plain.sync.enqueue("ada")
    assert app.sent == ["customer 7", "ada"]
    assert app.threads == [threading.current_thread()]
