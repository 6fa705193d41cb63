"""The list of workers, with real processes that die and hang."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing

import redis

from tests.acceptance import app
from tests.acceptance.site import Site


async def test_a_killed_worker_disappears_and_a_living_one_stays(site: Site) -> None:
    dies = await site.start_worker("--lease=1")
    lives = await site.start_worker("--lease=1")

    async def pids() -> set[int]:
        return {info.pid for info in await site.queue.workers()}

    async def both() -> bool:
        return await pids() == {dies.pid, lives.pid}

    async def one() -> bool:
        return await pids() == {lives.pid}

    async def none() -> bool:
        return not await pids()

    await site.until_true(both)
    dies.kill()
    await site.until_true(one)
    lives.send(signal.SIGSTOP)
    await site.until_true(none)
    lives.send(signal.SIGCONT)
    await site.until_true(one)
    lives.send(signal.SIGTERM)
    await site.until_ended(lives)
    assert await pids() == set()


async def test_a_store_that_rejects_reports_does_not_keep_jobs_from_being_taken_back(
    site: Site,
) -> None:
    """A rejected report is no outage, during which nothing is taken back."""
    job = await site.add(app.hold, gate=str(site.gate))
    dies = await site.start_worker("--lease=1")
    await site.until_started(job)
    reject_reports(site)
    other = await site.start_worker("--lease=1")
    await site.until(lambda: "cannot report the worker of queue" in other.log)
    dies.kill()
    site.open_gate()
    assert await job.result(timeout=60) == other.pid
    assert "took back 1 jobs of dead workers" in other.log
    assert "store unavailable" not in other.log


def reject_reports(site: Site) -> None:
    """Let the store reject each report of a worker, and nothing else."""
    if site.url.startswith("redis"):
        url, _, prefix = site.url.partition("?prefix=")
        with closing(redis.Redis.from_url(url)) as client:
            key = f"{prefix}:{site.queue.name}:hasten:worker-reports"
            client.delete(key)
            client.set(key, "not a hash")
        return
    with closing(sqlite3.connect(site.store, timeout=20, isolation_level=None)) as connection:
        connection.execute(
            "CREATE TRIGGER reject BEFORE INSERT ON hasten_workers "
            "BEGIN SELECT RAISE(ABORT, 'rejected'); END"
        )
