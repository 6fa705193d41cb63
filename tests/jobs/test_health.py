"""`Health`: the health endpoints of a worker as an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from hasten.errors import InvalidOption, StoreUnavailable
from hasten.jobs import Health, Queue, Worker
from hasten.testing import ManualClock
from tests.jobs.eventually import until


@asynccontextmanager
async def client_of(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_a_worker_is_ready_from_its_first_fetch_until_it_stops(queue: Queue) -> None:
    worker = Worker(queue, name="w")
    async with client_of(Health(worker)) as client:
        assert (await client.get("/livez")).json() == {"status": "alive"}
        before = await client.get("/readyz")
        assert (before.status_code, before.json()["reasons"]) == (503, ["worker w: not running"])
        async with worker:
            await until(lambda: worker.info()[0].last_fetch_at is not None)
            assert (await client.get("/readyz")).json() == {"status": "ready"}
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/livez")).status_code == 200


async def test_a_paused_queue_is_named(queue: Queue) -> None:
    async with Worker(queue) as worker, client_of(Health(worker)) as client:
        await until(lambda: worker.info()[0].last_fetch_at is not None)
        await queue.pause()
        response = await client.get("/readyz")
        assert (response.status_code, response.json()["paused"]) == (200, ["mail"])


async def test_a_store_that_fails_is_the_reason(
    queue: Queue, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = queue.engine

    async def fail(*args: object, **named: object) -> Any:
        raise StoreUnavailable(engine.url, "refused")

    async with Worker(queue) as worker, client_of(Health(worker, max_fetch_age="10s")) as client:
        await until(lambda: worker.info()[0].last_fetch_at is not None)
        with monkeypatch.context() as patched:
            for verb in ("settle", "wait_for_jobs", "count"):
                patched.setattr(engine, verb, fail)
            await queue.add("any")
            await until(lambda: worker.state().queues[0].store_error is not None)
            clock.advance(11)
            (reason,) = (await client.get("/readyz")).json()["reasons"]
            assert "queue mail: store unavailable for 0 s: " in reason
            assert "refused" in reason
            scale = await client.get("/scale?queue=mail")
            assert (scale.status_code, scale.json()["status"]) == (503, "store unavailable")


async def test_a_worker_that_has_failed_is_neither_alive_nor_ready(
    memory: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(memory, name="w")
    async with client_of(Health(worker)) as client:
        await worker.start()
        worker._stop_after_internal_error(RuntimeError("a bug"))
        with pytest.raises(RuntimeError, match="a bug"):
            await worker.stop()
        for path in ("/livez", "/readyz"):
            response = await client.get(path)
            assert response.status_code == 503
            reason = "worker w: stopped by an internal error: RuntimeError: a bug"
            assert response.json()["reasons"] == [reason]
    assert "internal error" in caplog.text


async def test_the_wait_is_predicted(queue: Queue) -> None:
    may_end = asyncio.Event()

    @queue.task
    async def hold() -> None:
        await may_end.wait()

    async with (
        Worker(queue, concurrency=2, lease=1) as worker,
        client_of(Health(worker)) as client,
    ):
        await hold.enqueue_many([hold.args()] * 7)
        await until(lambda: worker.info()[0].running == 2)
        async with asyncio.timeout(60):
            while (await client.get("/scale?queue=mail")).json()["slots"] != 2:
                await asyncio.sleep(0.01)
        body = (await client.get("/scale?queue=mail")).json()
        assert (body["queue"], body["backlog"], body["running"]) == ("mail", 5, 2)
        assert 0 < body["wait_seconds"] < 300
        assert body["paused"] is False
        may_end.set()


async def test_an_unknown_queue_is_not_found(memory: Queue) -> None:
    async with client_of(Health(Worker(memory, Queue("other", "memory://")))) as client:
        response = await client.get("/scale?queue=post")
        assert response.status_code == 404
        assert response.json()["detail"] == "queue='post': must be one of memory, other"
        missing = (await client.get("/scale")).json()["detail"]
        assert missing == "add the name of a queue: /scale?queue=NAME, one of memory, other"


async def test_other_paths_and_methods_are_refused(memory: Queue) -> None:
    async with client_of(Health(Worker(memory))) as client:
        assert (await client.get("/health")).status_code == 404
        refused = await client.post("/livez")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        head = await client.head("/livez")
        assert (head.status_code, head.content) == (200, b"")


async def test_can_be_mounted(memory: Queue) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    app = Starlette(routes=[Mount("/health", Health(Worker(memory)))])
    async with client_of(app) as client:
        assert (await client.get("/health/livez")).json() == {"status": "alive"}


@pytest.mark.parametrize("workers", [(), (None,), ("mail",)])
def test_wrong_workers_are_refused(workers: Any) -> None:
    with pytest.raises(InvalidOption, match="one or more Worker objects"):
        Health(*workers)


@pytest.mark.parametrize("option", ["max_blocked", "max_fetch_age", "store_timeout"])
def test_wrong_durations_are_refused(option: str) -> None:
    wrong: Any = {option: 0}
    with pytest.raises(InvalidOption, match=option):
        Health(Worker(Queue("mail", "memory://")), **wrong)
