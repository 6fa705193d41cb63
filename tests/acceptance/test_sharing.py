"""Several processes on one store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from hasten.errors import JobCancelled
from hasten.jobs._states import State
from tests.acceptance import app
from tests.acceptance.site import ROOT, AnyTask, Runs, Site, is_alive


async def test_three_workers_run_each_job_once_and_share_the_work(site: Site) -> None:
    """Processes share one file: no job runs twice, and no worker is idle."""
    workers = [await site.start_worker("--concurrency=10") for _ in range(3)]
    await site.queue.add_many([(app.step.name, {"seconds": 0.02})] * 600)
    await site.until_settled(600)
    jobs = await site.records()
    Runs(site).check(jobs)
    starts = [entry for entry in site.entries() if entry.what == "start"]
    assert len(starts) == 600
    share = Counter(entry.pid for entry in starts)
    assert set(share) == {worker.pid for worker in workers}
    assert min(share.values()) > 60


@contextlib.contextmanager
def locked(site: Site) -> Iterator[None]:
    """Lock the store, as a backup or a command-line tool may."""
    with contextlib.closing(sqlite3.connect(site.store, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")


@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
async def test_a_store_locked_for_5_s_delays_all_and_loses_nothing(site: Site) -> None:
    """Producers and workers wait and continue. No job is lost or runs twice."""
    workers = [await site.start_worker() for _ in range(2)]
    running = [await site.add(app.step, seconds=1.0) for _ in range(10)]
    await site.until_started(*running)
    with locked(site):
        producer = site.start("enqueue", "--count=5")
        await asyncio.sleep(5)
        assert producer.said == []
        assert producer.is_running
    await site.until_ended(producer)
    assert producer.status == 0
    assert len(producer.said) == 5
    await site.until_settled(15)
    jobs = await site.records()
    assert len(jobs) == 15
    Runs(site).check(jobs)
    assert {job.attempts_started for job in jobs} == {1}
    assert all(worker.is_running for worker in workers)


@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
async def test_a_lock_longer_than_the_timeout_is_logged_and_the_worker_goes_on(site: Site) -> None:
    """The producer gets an error, because it decides what to do; the worker logs the error."""
    url = f"{site.url}?timeout=1"
    worker = await site.start_worker(url=url)
    job = await site.add(app.step, seconds=0.3)
    await site.until_started(job)
    with locked(site):
        producer = site.start("enqueue", url=url)
        await site.until_ended(producer)
        assert producer.status == 1
        assert producer.log.strip().endswith(
            f"StoreBusy: {site.url}: locked by another process for 1 s; nothing was written"
        )
        await site.until(lambda: "store unavailable" in worker.log and site.url in worker.log)
    await site.until(lambda: "store available again" in worker.log)
    await site.until_settled(1)
    (record,) = await site.records()
    assert (record.id, record.attempts_started) == (job.id, 1)
    later = await site.add(app.step)
    assert await later.result(timeout=20) == worker.pid


@pytest.mark.parametrize(
    "task", [app.hold, app.hold_in_thread, app.hold_in_process], ids=lambda task: task.name
)
async def test_a_running_job_is_cancelled_from_another_process(site: Site, task: AnyTask) -> None:
    """The handler is stopped, and the worker continues."""
    job = await site.add(task, gate=str(site.gate))
    worker = await site.start_worker()
    await site.until_started(job)
    (start,) = site.of(job, "start")
    assert await site.queue.cancel(job.id)
    with pytest.raises(JobCancelled):
        await job.result(timeout=20)
    if task is app.hold_in_process:
        await site.until(lambda: not is_alive(start.pid))
    else:
        await site.until(lambda: site.seen("cut", job))
    assert not site.seen("end", job)
    site.open_gate()
    another = await site.add(task, gate=str(site.gate))
    await another.result(timeout=20)
    assert worker.is_running


FORKING = """
import os, threading, time
from hasten.jobs import Queue
from tests.acceptance.app import queue, step

parents = [step.sync.enqueue(number=n).id for n in range(20)]  # the queue is open: a thread, a file

def keep_adding():
    while not done.is_set():
        parents.append(step.sync.enqueue(number=1).id)

done = threading.Event()
threads = [threading.Thread(target=keep_adding) for _ in range(2)]
for thread in threads:
    thread.start()
for fork in range(10):  # whatever the parent is in the middle of
    child = os.fork()
    if child == 0:
        ids = [step.sync.enqueue(number=2).id for _ in range(5)]
        assert queue.sync.get(ids[0]).id == ids[0]
        print("child", *ids, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
done.set()
for thread in threads:
    thread.join()
parents.append(step.sync.enqueue(number=3).id)
print("parent", *parents, flush=True)
"""


def run(site: Site, script: str) -> subprocess.CompletedProcess[str]:
    # Python 3.12 warns of any fork in a process with threads.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "HASTEN_URL": site.url, "LEDGER": str(site.ledger)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


async def test_both_sides_of_a_fork_can_add_jobs(site: Site) -> None:
    """A web server loads the application and forks. Each process needs its own connection."""
    program = run(site, FORKING)
    assert program.returncode == 0, program.stderr
    lines = [line.split() for line in program.stdout.splitlines()]
    ids = [id for _, *some in lines for id in some]
    assert Counter(line[0] for line in lines) == {"child": 10, "parent": 1}
    assert len(set(ids)) == len(ids)
    assert {job.id for job in await site.records(State.WAITING)} == set(ids)
    await site.start_worker("--concurrency=200")
    await site.until_settled(len(ids))
    Runs(site).check(await site.records())


OUTLIVING = """
import os, time
from tests.acceptance.app import queue, step

ids = [step.sync.enqueue(number=0).id]
ready, closed = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    ids = [step.sync.enqueue(number=1).id]
    os.write(ready[1], b".")
    os.read(closed[0], 1)
    ids += [step.sync.enqueue(number=2).id for _ in range(3)]
    print(*ids, flush=True)
    os._exit(0)
os.read(ready[0], 1)
queue.sync.close()  # the last connection of this process: it tidies up, if it is the last of all
os.write(closed[1], b".")
assert os.waitpid(child, 0)[1] == 0
print(*ids, flush=True)
"""


async def test_a_forked_child_can_use_the_queue_after_its_parent_has_closed_it(site: Site) -> None:
    """A child does not inherit the locks of SQLite, which the parent must notice."""
    program = run(site, OUTLIVING)
    assert program.returncode == 0, program.stderr
    assert sorted(program.stdout.split()) == [str(number) for number in range(1, 6)]
    assert {job.id for job in await site.records(State.WAITING)} == set(program.stdout.split())


FORKED_WORKERS = """
import asyncio, os
from hasten.jobs import Worker
from tests.acceptance.app import queue, step

async def work():
    async with Worker(queue):
        jobs = [await step.enqueue(seconds=0.05) for _ in range(20)]
        await asyncio.gather(*(job.result(timeout=20) for job in jobs))
    await queue.aclose()

step.sync.enqueue().sync.refresh()
child = os.fork()
asyncio.run(work())
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


async def test_both_sides_of_a_fork_can_run_jobs(site: Site) -> None:
    """Each process of a server that forks has a worker."""
    program = run(site, FORKED_WORKERS)
    assert program.returncode == 0, program.stderr
    await site.until_settled(41)
    assert {job.attempts_made for job in await site.records()} == {1}
    assert len(site.entries()) == 2 * 41
    assert len({entry.pid for entry in site.entries()}) == 2
