"""A store is unavailable for longer than a lease, and live workers keep their jobs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hasten.jobs import Queue, State
from hasten.jobs._record import ClaimRequest
from tests.acceptance import app
from tests.acceptance.figures import SCALE, Figures
from tests.acceptance.site import Site
from tests.servers.redis import RedisServer

LEASE_SECONDS = 2.0

OPTIONS = (f"--lease={LEASE_SECONDS}", "--crash-limit=1", "--concurrency=4")


@contextlib.contextmanager
def frozen(server: RedisServer) -> Iterator[None]:
    """Freeze the server, as swapping or a migration to another host does."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@contextlib.contextmanager
def locked(site: Site) -> Iterator[None]:
    """Lock the file, as a long transaction of another program does."""
    with contextlib.closing(sqlite3.connect(site.store, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")


async def until_later(seconds: float) -> None:
    """Wait long enough for a wrong recovery to happen."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(("leases", "patience"), [(1.5, 30), (3.0, 1)])
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_no_job_is_reclaimed(tmp_path: Path, kind: str, leases: float, patience: int) -> None:
    """Also if calls of the workers time out meanwhile. One crash would fail these jobs."""
    await live_through(tmp_path, kind, leases, patience)


async def test_a_call_that_a_stopped_server_executes_late_reclaims_nothing(tmp_path: Path) -> None:
    """It was sent before the outage. Meanwhile the leases have expired, and the workers live."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    queue = Queue("late", server.url)
    try:
        await queue.add("hold", {})
        claim = ClaimRequest(1, "token", "worker", lease_ms=1000)
        await queue.engine.claim("late", claim, now_ms=queue.clock.now_ms())
        await queue.engine.wait_until_writable("late")
        with frozen(server):
            now_ms = queue.clock.now_ms()
            late = asyncio.ensure_future(queue.engine.reclaim("late", crash_limit=1, now_ms=now_ms))
            await until_later(1.2)
        assert await late == []
        assert (await queue.counts())[State.ACTIVE] == 1
        await queue.engine.wait_until_writable("late")
        taken = await queue.engine.reclaim("late", crash_limit=1, now_ms=queue.clock.now_ms())
        assert taken == ["1"]  # nobody has renewed it
    finally:
        await queue.aclose()
        server.kill()


@pytest.mark.soak
@pytest.mark.parametrize(("leases", "patience"), [(1.5, 30), (1.5, 1), (3.0, 30), (3.0, 1)])
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_outages_that_follow_each_other_count_no_crash(
    tmp_path: Path, kind: str, leases: float, patience: int, figures: Figures
) -> None:
    outages = max(1, round(10 * SCALE))
    figures.progress(f"{outages} outages of {leases} leases, {kind}, patience {patience} s")
    await live_through(tmp_path, kind, leases, patience, outages=outages)
    scenario = f"{outages} outages of {leases} leases, patience {patience} s"
    figures.add(scenario, kind, "crashes counted", "0")


async def live_through(
    folder: Path, kind: str, leases: float, patience: int, *, outages: int = 1
) -> None:
    site = Site(folder)
    server = None
    if kind == "redis":
        server = RedisServer(folder / "redis")
        server.start()
        site.use(f"{server.url}?timeout={patience}")
    else:
        site.use(f"{site.url}?timeout={patience}")
    try:
        workers = [await site.start_worker(*OPTIONS) for _ in range(2)]
        jobs = [await site.add(app.hold, gate=str(site.gate)) for _ in range(8)]
        for job in jobs:
            await site.until_started(job)
        for _ in range(outages):
            with frozen(server) if server else locked(site):
                await until_later(leases * LEASE_SECONDS)
            await until_later(1.5 * LEASE_SECONDS)
        site.open_gate()
        await site.until_settled(8)
        records = await site.records()
        crashes = {(job.crashes, job.attempts_started) for job in records}
        assert crashes == {(0, 1)}, site.story()
        assert {job.state for job in records} == {"completed"}
        # A worker that is really dead is still detected.
        site.gate.unlink()
        last = await site.add(app.hold, gate=str(site.gate))
        await site.until_started(last)
        (start,) = site.of(last, "start")
        os.kill(start.pid, signal.SIGKILL)
        await site.until(lambda: any("took back 1 jobs" in worker.log for worker in workers))
    finally:
        await site.close()
        if server is not None:
            server.kill()
