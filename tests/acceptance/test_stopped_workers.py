"""Workers that are asked to stop, as in a deployment."""

from __future__ import annotations

import signal

import pytest

from hasten.jobs._states import State
from tests.acceptance import app
from tests.acceptance.site import Site

HELD = (app.hold, app.hold_in_thread, app.hold_in_process)


async def test_sigterm_lets_short_jobs_finish_and_hands_back_long_ones(site: Site) -> None:
    """A deployment costs no job an attempt or its position."""
    soon = site.gate.with_name("soon")
    short = [await site.add(task, gate=str(soon)) for task in HELD]
    long = [await site.add(task, gate=str(site.gate)) for task in HELD]
    worker = await site.start_worker("--concurrency=6", "--grace=4")
    await site.until_started(*short, *long)
    later = await site.add(app.step)
    worker.send(signal.SIGTERM)
    await site.until(lambda: "a second signal ends the process at once" in worker.log)
    soon.touch()
    await site.until_ended(worker)
    assert worker.status == 0
    assert [(await job.refresh()).state for job in short] == ["completed"] * 3
    line = await site.queue.jobs(State.WAITING)
    assert {job.id for job in line[:3]} == {job.id for job in long}
    assert line[3].id == later.id
    assert [job.attempts_made for job in line] == [0] * 4
    assert [job.record.crashes for job in line] == [0] * 4
    assert site.seen("cut", *long[:2])  # the third was in a process, which is killed
    site.open_gate()
    await site.start_worker()
    await site.until_settled(7)
    assert {job.attempts_made for job in await site.records()} == {1}


async def test_sigterm_does_not_wait_for_a_thread_that_cannot_be_interrupted(site: Site) -> None:
    """A call in C cannot be interrupted. Its job is handed back, and the process ends."""
    job = await site.add(app.step_in_thread, seconds=600)
    worker = await site.start_worker("--grace=0")
    await site.until_started(job)
    worker.send(signal.SIGTERM)
    await site.until_ended(worker)
    assert worker.status == 0
    await job.refresh()
    assert (job.state, job.attempts_made) == ("waiting", 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
async def test_a_second_signal_ends_a_worker_at_once(site: Site, number: signal.Signals) -> None:
    """The jobs are reclaimed when their leases expire."""
    job = await site.add(app.hold, gate=str(site.gate))
    worker = await site.start_worker("--grace=600", "--lease=1")
    await site.until_started(job)
    worker.send(number)
    await site.until(lambda: "a second signal ends the process at once" in worker.log)
    worker.send(number)
    await site.until_ended(worker, seconds=5)
    assert worker.status == 128 + number
    site.open_gate()
    successor = await site.start_worker("--lease=1")
    assert await job.result(timeout=20) == successor.pid
