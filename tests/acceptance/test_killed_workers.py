"""Workers that are killed, and the jobs that they held."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import pytest

from hasten.errors import JobFailed
from hasten.jobs import Job
from hasten.jobs._states import State
from tests.acceptance import app
from tests.acceptance.figures import SCALE, Figures
from tests.acceptance.site import AnyTask, Runs, Site, is_alive, random_moments


async def kill_again_and_again(site: Site, *, jobs: int, rounds: int) -> int:
    """Return how many runs there were besides those that completed their job."""
    random = random_moments()
    await site.queue.add_many([(app.step.name, {"seconds": 0.05})] * jobs)
    options = "--lease=1", "--concurrency=20", f"--crash-limit={rounds + 1}"
    died_ns: dict[int, int] = {}
    for _ in range(rounds):
        worker = await site.start_worker(*options)
        # At a random moment within this round's share of the work.
        await site.until_entries(len(site.entries()) + random.randrange(2 * jobs // rounds))
        await asyncio.sleep(random.uniform(0, 0.05))
        worker.kill()
        died_ns[worker.pid] = time.monotonic_ns()
    await site.start_worker(*options)
    await site.until_settled(jobs)
    finished = await site.records()
    assert len(finished) == jobs
    runs = Runs(site, died_ns)
    runs.check(finished)
    return sum(runs.starts(job.id) for job in finished) - jobs


async def test_kill_9_under_load_loses_no_job_and_repeats_only_running_ones(site: Site) -> None:
    """Every accepted job completes."""
    await kill_again_and_again(site, jobs=400, rounds=4)


@pytest.mark.soak
@pytest.mark.parametrize("again", range(10))
async def test_kill_9_many_times_loses_no_job(site: Site, again: int) -> None:
    """Rare moments need many kills."""
    await kill_again_and_again(site, jobs=2000, rounds=20)


@pytest.mark.soak
async def test_100_kills_lose_no_job_and_complete_none_twice(site: Site, figures: Figures) -> None:
    kills = max(2, round(100 * SCALE))
    jobs, engine = 40 * kills, site.url.partition(":")[0]
    figures.progress(f"{kills} workers killed, {jobs:,} jobs, {engine}")
    repeated = await kill_again_and_again(site, jobs=jobs, rounds=kills)
    scenario = f"{kills} × kill -9, {jobs:,} jobs"
    figures.add(scenario, engine, "lost, completed twice", "0, 0")
    figures.add(scenario, engine, "runs that were repeated", f"{repeated:,}")


async def test_jobs_of_a_killed_worker_start_again_within_two_leases(site: Site) -> None:
    """They wait until the lease expires, and until a worker looks for expired leases."""
    lease = 2.0
    job = await site.add(app.hold, gate=str(site.gate))
    holder = await site.start_worker(f"--lease={lease}")
    await site.until_started(job)
    await site.start_worker(f"--lease={lease}")
    holder.kill()
    died_ns = time.monotonic_ns()
    await site.until(lambda: len(site.of(job, "start")) == 2)
    again = site.of(job, "start")[1]
    leases = (again.at_ns - died_ns) / 1e9 / lease
    assert 0.25 < leases < 2.0
    site.open_gate()
    assert await job.result(timeout=30) == again.pid


async def poison(site: Site, *options: str) -> list[Job[Any]]:
    """Run a job that kills three workers together with ten others, then a fourth worker.

    Return the others.
    """
    deadly = await site.add(app.kill_worker)
    others = await site.queue.add_many([(app.step.name, {"seconds": 0.1})] * 10)
    options = "--lease=1", "--crash-limit=3", *options
    for _ in range(3):
        worker = await site.start_worker(*options)
        await site.until_ended(worker)
        assert worker.status == 128 + signal.SIGKILL
    survivor = await site.start_worker(*options)
    with pytest.raises(
        JobFailed, match="job stalled more than allowable limit: its worker died 3 times while"
    ):
        await deadly.result(timeout=20)
    await site.until_settled(11)
    assert len(site.of(deadly, "start")) == 3
    assert survivor.is_running
    return others


async def test_a_job_that_kills_its_workers_fails_at_the_limit(site: Site) -> None:
    """Such a job must not stop a service for ever."""
    others = await poison(site, "--concurrency=1")
    assert {(await other.refresh()).state for other in others} == {State.COMPLETED}


async def test_a_poison_job_fails_no_other_job(site: Site) -> None:
    """The jobs that ran at the same time are harmless."""
    others = await poison(site)
    assert {(await other.refresh()).state for other in others} == {State.COMPLETED}


async def test_a_killed_handler_process_fails_its_job_and_the_worker_continues(site: Site) -> None:
    """The out-of-memory killer ends the process, and the next attempt gets a new one."""
    job = await site.queue.add(app.kill_own_process.name, attempts=2)
    worker = await site.start_worker()
    assert await job.result(timeout=20) == "second attempt"
    await job.refresh()
    reason = "the handler's process died: killed by signal 9 (SIGKILL)"
    assert reason in job.tracebacks[0]
    first, second = site.of(job, "start")
    assert first.pid != second.pid
    assert {first.parent, second.parent} == {worker.pid}
    assert worker.is_running


@pytest.mark.parametrize("task", [app.spin_in_process, app.step_in_process], ids=lambda t: t.name)
async def test_handler_processes_die_with_their_killed_worker(site: Site, task: AnyTask) -> None:
    """Otherwise they would run at the same time as the next run of their job."""
    job = await site.add(task, **({"seconds": 600} if task is app.step_in_process else {}))
    worker = await site.start_worker()
    await site.until_started(job)
    (start,) = site.of(job, "start")
    assert start.parent == worker.pid
    assert is_alive(start.pid)
    worker.kill()
    await site.until(lambda: not is_alive(start.pid), seconds=5)


async def test_a_worker_that_was_stopped_past_its_lease_stores_no_result(site: Site) -> None:
    """After SIGSTOP or a suspend, only the newest run may settle the job."""
    job = await site.add(app.hold, gate=str(site.gate))
    stopped = await site.start_worker("--lease=1")
    await site.until_started(job)
    stopped.send(signal.SIGSTOP)
    successor = await site.start_worker("--lease=1")
    await site.until(lambda: len(site.of(job, "start")) == 2)
    site.open_gate()
    assert await job.result(timeout=30) == successor.pid
    stopped.send(signal.SIGCONT)
    await site.until(lambda: " lost" in stopped.log)
    await job.refresh()
    assert (job.state, job.value, job.attempts_made) == ("completed", successor.pid, 1)
    # The old worker continues, and one event says that the job has completed.
    successor.kill()
    another = await site.add(app.step)
    assert await another.result(timeout=30) == stopped.pid
    assert len(site.of(job, "start")) == 2


@pytest.mark.parametrize("task", [app.block_sleeping, app.block_spinning], ids=lambda t: t.name)
async def test_a_blocked_event_loop_does_not_lose_its_leases(site: Site, task: AnyTask) -> None:
    """A live worker keeps its jobs, although others wait for them."""
    job = await site.add(task, seconds=3.5)
    await site.start_worker("--lease=1")
    await site.until_started(job)
    await site.start_worker("--lease=1")
    await job.result(timeout=20)
    await job.refresh()
    assert len(site.of(job, "start")) == 1
    assert (job.attempts_made, job.record.attempts_started, job.record.crashes) == (1, 1, 0)
