"""Redis by Cluster, Sentinel, TLS and Unix sockets."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hasten import Store
from hasten.errors import InvalidOption, StoreError, StoreUnavailable
from hasten.jobs import Queue
from hasten.jobs._states import State
from tests.acceptance import app
from tests.acceptance.site import Program, Runs, Site
from tests.patience import DEADLINE_SECONDS
from tests.servers.programs import program
from tests.servers.redis import RedisServer
from tests.servers.topologies import RedisCluster, SentinelPair


@contextlib.asynccontextmanager
async def site_at(url: str, folder: Path) -> AsyncIterator[Site]:
    site = Site(folder)
    site.use(url)
    yield site
    await site.close()


async def prove_it_works(site: Site, worker: Program) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            with contextlib.suppress(StoreError):
                job = await site.add(app.step)
                break
            await asyncio.sleep(0.05)
    assert await job.result(timeout=20) == worker.pid


class TestCluster:
    @pytest.fixture
    def cluster(self, tmp_path: Path) -> Iterator[RedisCluster]:
        cluster = RedisCluster(tmp_path / "cluster").start()
        yield cluster
        cluster.kill()

    async def test_workers_share_a_queue(self, cluster: RedisCluster, tmp_path: Path) -> None:
        """All keys of a queue are on one node, because its name is the hash tag."""
        async with site_at(cluster.url, tmp_path) as site:
            workers = [await site.start_worker("--lease=1") for _ in range(2)]
            await site.queue.add_many([(app.step.name, {"seconds": 0.01})] * 300)
            await site.until_settled(300)
            jobs = await site.records()
            Runs(site).check(jobs)
            pids = {str(job.worker).rpartition(":")[2] for job in jobs}
            assert pids == {str(worker.pid) for worker in workers}
            with cluster.client() as client:
                keys = [key.decode() for key in client.scan_iter("*", count=1000)]
            assert all(key.startswith("bull:{acceptance}:") for key in keys)
            assert await site.queue.engine.queues() == [app.QUEUE]

    async def test_queues_spread_over_nodes(self, cluster: RedisCluster, tmp_path: Path) -> None:
        """Adding to many queues calls each node once."""
        store = Store(cluster.url)
        queues = [Queue(f"q{number}", store) for number in range(12)]
        await asyncio.gather(*(queue.add("x") for queue in queues for _ in range(5)))
        assert [(await queue.counts())[State.WAITING] for queue in queues] == [5] * 12
        sizes = []
        for node in cluster.nodes:
            with node.client() as client:
                sizes.append(int(client.execute_command("DBSIZE")))
        assert min(sizes) > 0
        assert await queues[0].engine.queues() == sorted(queue.name for queue in queues)
        await store.aclose()

    async def test_a_prefix_with_a_tag_keeps_queues_together(self, cluster: RedisCluster) -> None:
        """BullMQ recommends the prefix '{shop}'."""
        queue = Queue("mail", cluster.url + "?prefix={shop}")
        await queue.add("x")
        with cluster.client() as client:
            assert client.exists("{shop}:mail:wait")
        await queue.aclose()

    async def test_a_name_that_cannot_be_a_tag_is_refused(self, cluster: RedisCluster) -> None:
        queue = Queue("}x", cluster.url)
        with pytest.raises(InvalidOption, match="needs a valid hash tag"):
            await queue.add("x")
        await queue.aclose()

    async def test_a_moved_queue_works_again(self, cluster: RedisCluster, tmp_path: Path) -> None:
        """No script may run while half of the keys are on each node."""
        async with site_at(cluster.url + "?timeout=1", tmp_path) as site:
            worker = await site.start_worker()
            await prove_it_works(site, worker)
            await site.queue.pause()
            jobs = await site.queue.add_many([(app.step.name, {})] * 50)
            with cluster.client() as client:
                slot = client.keyslot("bull:{acceptance}:")
            with cluster.moving(slot):
                with pytest.raises(StoreUnavailable, match="moving this key to another node"):
                    await site.add(app.step)
                await site.until(lambda: "moving this key" in worker.log)
            await site.queue.resume()
            for job in jobs:
                await job.result(timeout=20)
            await prove_it_works(site, worker)


class TestSentinel:
    async def test_a_failover_under_load_loses_no_acknowledged_job(self, tmp_path: Path) -> None:
        """If the replica has received it. Work continues within 10 s."""
        pair = SentinelPair(tmp_path / "pair").start()
        try:
            async with site_at(pair.url + "?timeout=1", tmp_path) as site:
                workers = [await site.start_worker("--lease=2") for _ in range(2)]
                jobs = await site.queue.add_many([(app.step.name, {"seconds": 0.05})] * 1500)
                await site.until_entries(200)
                with pair.master.client() as client:
                    assert client.wait(1, 5000) == 1
                await asyncio.to_thread(pair.fail_over)
                began = time.monotonic()
                job = None
                while job is None:
                    with contextlib.suppress(StoreError):
                        job = await site.add(app.step)
                await job.result(timeout=30)
                assert time.monotonic() - began < 10
                await site.until_true(lambda: _all_completed(site))
                finished = {one.id: one for one in await site.records()}
                assert {one.id for one in jobs} <= set(finished)
                assert {one.attempts_made for one in finished.values()} == {1}
                assert all(worker.is_running for worker in workers)
        finally:
            pair.kill()

    async def test_an_unknown_sentinel_service_is_named(self, tmp_path: Path) -> None:
        pair = SentinelPair(tmp_path / "pair").start()
        queue = Queue("mail", pair.url.replace("/main", "/other") + "?timeout=1")
        try:
            with pytest.raises(StoreUnavailable, match="other"):
                await queue.add("x")
        finally:
            await queue.aclose()
            pair.kill()


async def _all_completed(site: Site) -> bool:
    with contextlib.suppress(StoreError):
        counts = await site.queue.counts()
        return sum(counts.values()) == counts[State.COMPLETED]
    return False


class TestEncrypted:
    async def test_tls_with_the_server_s_certificate_checked(self, tmp_path: Path) -> None:
        """A certificate of an unknown authority is refused."""
        key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
        subprocess.run(
            [
                program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
                "-keyout", key, "-out", certificate, "-subj", "/CN=localhost",
                "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            ],
            check=True, capture_output=True,
        )  # fmt: skip
        server = RedisServer(
            tmp_path / "redis", "--tls-auth-clients", "no", "--tls-cert-file", str(certificate),
            "--tls-key-file", str(key),
        )  # fmt: skip
        server.use_tls()
        server.start(wait=False)
        url = f"rediss://127.0.0.1:{server.port}/0"
        try:
            async with site_at(f"{url}?ssl_ca_certs={certificate}&wait=20", tmp_path) as site:
                await site.add(app.step)
                worker = await site.start_worker()
                await prove_it_works(site, worker)
            queue = Queue("mail", url)
            with pytest.raises(StoreUnavailable, match="certificate"):
                await queue.add("x")
            await queue.aclose()
        finally:
            server.kill()


class TestUnixSocket:
    async def test_with_a_user_and_a_password(self, tmp_path: Path) -> None:
        socket = tmp_path / "redis.sock"
        server = RedisServer(
            tmp_path / "redis",
            "--unixsocket",
            str(socket),
            "--user",
            "ada",
            "on",
            ">secret",
            "~*",
            "&*",
            "+@all",
        )
        server.start()
        try:
            async with site_at(f"unix://ada:secret@{socket}?db=2", tmp_path) as site:
                worker = await site.start_worker()
                await prove_it_works(site, worker)
                assert "secret" not in site.url.replace("ada:secret", "") + site.queue.engine.url
                with server.client(db=2) as client:
                    assert client.exists("bull:acceptance:completed")
        finally:
            server.kill()
