"""A Redis that is down, hangs, loses its data, rejects commands or breaks connections.

Each test has its own server. No worker is restarted: each continues when the server works again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from hasten import Store
from hasten.errors import StoreError, StoreFull, StoreInterrupted, StoreReadOnly, StoreUnavailable
from hasten.jobs import Event, Job, Queue, QueueEvents, Worker
from hasten.jobs._states import State
from tests.acceptance import app
from tests.acceptance.site import Program, Runs, Site
from tests.patience import DEADLINE_SECONDS
from tests.servers.redis import RedisServer

RECOVERY_SECONDS = 10.0
"""How soon work goes on once the cause has gone away."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that writes to its disk before it responds."""
    folder = tmp_path / "redis"
    server = RedisServer(
        folder, "--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "yes"
    )
    yield server
    server.kill()


@pytest.fixture
async def site(tmp_path: Path, server: RedisServer) -> AsyncIterator[Site]:
    """A site whose server is not started yet."""
    site = Site(tmp_path)
    site.use(f"{server.url}?timeout=1")
    yield site
    await site.close()


async def until_it_reports(site: Site, worker: Program, why: str) -> None:
    await site.until(
        lambda: "store unavailable" in worker.log and f": {site.url}: {why}" in worker.log
    )


async def prove_it_works(site: Site, worker: Program) -> None:
    """Check that the same process runs a job soon."""
    job = await asyncio.wait_for(_add(site), RECOVERY_SECONDS)
    assert await job.result(timeout=RECOVERY_SECONDS) == worker.pid


async def _add(site: Site) -> Job[Any]:
    while True:
        try:
            return await site.add(app.step)
        except StoreError:
            await asyncio.sleep(0.05)


class TestDown:
    async def test_a_producer_gets_an_error_within_its_time_out(self, site: Site) -> None:
        """The error says where and why, and that nothing was added."""
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match=f"{site.url.split('?')[0]}.*cannot connect"):
            await site.add(app.step)
        assert time.monotonic() - began < 2

    async def test_a_patient_producer_waits(self, site: Site, server: RedisServer) -> None:
        """In a deployment, the server may start last. No job is added twice."""
        site.use(f"{server.url}?timeout=1&wait=30")
        adding = [asyncio.create_task(site.add(app.step)) for _ in range(20)]
        done, _ = await asyncio.wait(adding, timeout=1)
        assert not done
        await asyncio.to_thread(server.start)
        jobs = await asyncio.gather(*adding)
        assert len({job.id for job in jobs}) == 20
        assert (await site.queue.counts())[State.WAITING] == 20

    async def test_waiting_producers_add_jobs_once(self, site: Site, server: RedisServer) -> None:
        """The server hangs after the first attempt, and does not respond."""
        server.start()
        site.use(f"{server.url}?timeout=0.3&wait=30")
        for _ in range(5):
            adding = [asyncio.create_task(site.add(app.step)) for _ in range(10)]
            with server.client() as client:
                client.execute_command("DEBUG", "SLEEP", 0.7)
            await asyncio.gather(*adding)
        assert (await site.queue.counts())[State.WAITING] == 50

    async def test_a_worker_logs_it_and_starts_later(self, site: Site, server: RedisServer) -> None:
        worker = await site.start_worker()
        await until_it_reports(site, worker, "cannot connect")
        server.start()
        await prove_it_works(site, worker)
        await site.until(lambda: "store available again" in worker.log)


class TestKilledAndRestarted:
    async def test_under_load_loses_no_accepted_job(self, site: Site, server: RedisServer) -> None:
        """Each acknowledged job completes in one run, and work continues within seconds."""
        server.start()
        workers = [await site.start_worker("--lease=2", "--concurrency=10") for _ in range(2)]
        accepted: set[str] = set()
        for again in range(3):
            # Counted before, because the workers may finish most jobs before the last one is added.
            before = len(site.entries())
            for _ in range(100):
                with contextlib.suppress(StoreError):
                    accepted.add((await site.add(app.step, seconds=0.02)).id)
            await site.until_entries(before + 20)
            adding = asyncio.create_task(_add_until_it_fails(site, accepted))
            await asyncio.to_thread(server.restart)
            await adding
            began = time.monotonic()
            await prove_someone_works(site)
            assert time.monotonic() - began < RECOVERY_SECONDS, again
        await site.until_true(lambda: _all_ended(site))
        finished = {job.id: job for job in await site.records()}
        assert accepted <= set(finished)
        ends = Counter(entry.job_id for entry in site.entries() if entry.what == "end")
        for id, job in finished.items():
            assert job.attempts_made == 1, job
            assert ends[id] >= 1, job
        assert all(worker.is_running for worker in workers)

    async def test_an_empty_server_is_like_a_new_one(self, site: Site, server: RedisServer) -> None:
        """Without a disk it has lost its data: old runs are discarded, and new jobs run."""
        server.start()
        worker = await site.start_worker("--lease=1")
        job = await site.add(app.hold, gate=str(site.gate))
        await site.until_started(job)
        with server.client() as client:
            client.flushall()
            client.script_flush()
        server.restart()
        await site.until(lambda: f"job {job.id}: lease lost" in worker.log)
        await prove_it_works(site, worker)

    async def test_listeners_fail_but_miss_nothing(self, site: Site, server: RedisServer) -> None:
        """Reading can continue after the error."""
        server.start()
        async with site.queue.events() as events:
            before = await _add(site)
            assert (await anext(events)).job_id == before.id
            server.kill()
            with pytest.raises(StoreError):
                await asyncio.wait_for(_read_all(events), 10)
            server.start()
            after = await _add(site)
            heard = await asyncio.wait_for(_read_until(events, after.id), RECOVERY_SECONDS)
            assert {event.job_id for event in heard} <= {before.id, after.id}
            assert "missed" not in {event.kind for event in heard}


async def _read_all(events: QueueEvents) -> None:
    async for _ in events:
        pass


async def _read_until(events: QueueEvents, id: str) -> list[Event]:
    heard: list[Event] = []
    while not heard or heard[-1].job_id != id:
        with contextlib.suppress(StoreError):
            heard.append(await anext(events))
    return heard


async def _add_until_it_fails(site: Site, accepted: set[str]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                accepted.add((await site.add(app.step, seconds=0.02)).id)
            except StoreError:
                return


async def _all_ended(site: Site) -> bool:
    with contextlib.suppress(StoreError):
        counts = await site.queue.counts()
        return sum(counts.values()) == counts[State.COMPLETED]
    return False


async def prove_someone_works(site: Site) -> None:
    job = await _add(site)
    await job.result(timeout=RECOVERY_SECONDS)


class TestHung:
    async def test_all_report_it_and_continue(self, site: Site, server: RedisServer) -> None:
        """It accepts connections and never responds: no caller may wait for ever."""
        server.start()
        worker = await site.start_worker()
        await prove_it_works(site, worker)
        server.pause()
        try:
            began = time.monotonic()
            with pytest.raises(StoreInterrupted, match="within 1 s; the operation may or may not"):
                await site.add(app.step)
            assert time.monotonic() - began < 3
            await until_it_reports(site, worker, "no response within 1 s")
        finally:
            server.go_on()
        await prove_it_works(site, worker)

    async def test_a_short_pause_is_not_noticed(self, site: Site, server: RedisServer) -> None:
        server.start()
        worker = await site.start_worker()
        with server.client() as client:
            client.client_pause(500)
        await prove_it_works(site, worker)
        assert "store unavailable" not in worker.log

    async def test_during_claims_loses_no_job(self, site: Site, server: RedisServer) -> None:
        """The server executes claims after their time-out, so no worker knows of these jobs."""
        server.start()
        site.use(f"{server.url}?timeout=0.3")
        worker = await site.start_worker("--lease=5")
        for _ in range(5):
            jobs = await site.queue.add_many([(app.step.name, {"seconds": 0.01})] * 50)
            with server.client() as client:
                client.execute_command("DEBUG", "SLEEP", 0.6)
            for job in jobs:
                await job.result(timeout=RECOVERY_SECONDS)
        assert worker.is_running
        assert {job.crashes for job in await site.records()} == {0}
        assert "was not stored" not in worker.log


class TestUnderLoad:
    @pytest.mark.parametrize("nuisance", ["client kill", "script flush"])
    async def test_no_job_is_lost(self, site: Site, server: RedisServer, nuisance: str) -> None:
        """Connections break, scripts are forgotten: each job is still finished, by one run."""
        server.start()
        worker = await site.start_worker("--lease=2", "--concurrency=20")
        jobs = await site.queue.add_many([(app.step.name, {"seconds": 0.01})] * 1000)
        with server.client() as client:
            while len(site.entries()) < 1500:
                if nuisance == "client kill":
                    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                else:
                    client.script_flush()
                await asyncio.sleep(0.05)
        await site.until_true(lambda: _all_ended(site))
        finished = await site.records()
        assert {job.id for job in finished} == {job.id for job in jobs}
        assert {job.attempts_made for job in finished} == {1}
        assert worker.is_running
        if nuisance == "script flush":
            Runs(site).check(finished)
            assert "store unavailable" not in worker.log


class TestRefusing:
    async def test_a_read_only_replica(self, site: Site, server: RedisServer) -> None:
        """After a failover to another node. Nothing is stored in part."""
        server.start()
        worker = await site.start_worker()
        job = await site.add(app.step)
        await job.result(timeout=30)
        with server.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(StoreReadOnly, match="read-only replica: use the URL of its master"):
                await site.add(app.step)
            await until_it_reports(site, worker, "the server is a read-only replica")
            client.execute_command("REPLICAOF", "NO", "ONE")
        await prove_it_works(site, worker)

    async def test_memory_that_is_full(self, site: Site, server: RedisServer) -> None:
        """Producers get an error; workers continue, because finished jobs free memory."""
        server.start()
        waiting = await site.queue.add_many([(app.step.name, {})] * 50)
        with server.client() as client:
            client.config_set("maxmemory", "1mb")
            with pytest.raises(StoreFull, match="out of memory: raise maxmemory"):
                await site.add(app.step)
            assert (await site.queue.counts())[State.WAITING] == 50
            worker = await site.start_worker()
            for job in waiting:
                await job.result(timeout=30)
            assert await site.queue.clean(State.COMPLETED, older_than=0, limit=10)
            client.config_set("maxmemory", "0")
        await prove_it_works(site, worker)

    async def test_keys_that_may_be_evicted(self, site: Site, server: RedisServer) -> None:
        """Redis may evict jobs without an error, so there is a warning before."""
        server.start()
        with server.client() as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        worker = await site.start_worker()
        await site.until(lambda: "maxmemory-policy is allkeys-lru" in worker.log)
        await prove_it_works(site, worker)

    async def test_a_password_that_is_wrong(self, site: Site, server: RedisServer) -> None:
        """The error names the server, and not the password."""
        server.start()
        with server.client() as client:
            client.config_set("requirepass", "right")
        for url in (server.url, server.url.replace("//", "//:wrong-secret@")):
            queue = Queue("mail", url)
            with pytest.raises(StoreUnavailable, match="authentication failed") as caught:
                await queue.counts()
            assert "wrong-secret" not in str(caught.value)
            await queue.aclose()
        queue = Queue("mail", server.url.replace("//", "//:right@"))
        assert (await queue.counts())[State.WAITING] == 0
        await queue.aclose()


class TestIdle:
    async def test_workers_block_and_do_not_poll(self, site: Site, server: RedisServer) -> None:
        """An idle worker causes almost no load."""
        server.start()
        await site.start_worker()
        await prove_it_works(site, site.programs[0])
        with server.client() as client:
            client.config_resetstat()
            await asyncio.sleep(3)
            stats = client.info("commandstats")
        calls = sum(one["calls"] for name, one in stats.items() if "evalsha" in name)
        assert calls <= 4  # the check for the jobs of dead workers

    async def test_connections_are_few(self, server: RedisServer) -> None:
        """A worker has one for each of its queues, and an event loop has a few for other calls."""
        server.start()
        store = Store(f"{server.url}?connections=4")
        queues = [Queue(f"q{n}", store) for n in range(3)]
        for queue in queues:
            queue.task(name="noop")(_noop)
        async with contextlib.AsyncExitStack() as stack:
            for n in range(4):
                await stack.enter_async_context(Worker(*queues, name=f"w{n}"))
            jobs = [await queue.add("noop") for queue in queues for _ in range(100)]
            await asyncio.gather(*(job.result(timeout=30) for job in jobs))
            with server.client() as client:
                connected = [c for c in client.client_list() if int(c["id"]) != client.client_id()]
            named = [c["name"] for c in connected if ":w:" in c["name"]]
            assert len(named) == len(set(named)) == 4 * 3
            # One to read events for each queue; four for the event loop, four for the thread that
            # renews leases.
            assert len(connected) - len(named) <= 3 + 4 + 4
        await store.aclose()


async def _noop() -> None:
    return None
