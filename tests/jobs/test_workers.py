"""The workers of a queue: what they report, and when they disappear."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import hasten
from hasten.errors import StoreUnavailable
from hasten.jobs import Queue, Worker, WorkerInfo
from hasten.jobs._heartbeat import report_interval_seconds, report_lifetime_ms
from hasten.testing import ManualClock
from tests.jobs.eventually import until, until_true
from tests.patience import DEADLINE_SECONDS


async def until_reported(
    queue: Queue, condition: Callable[[list[WorkerInfo]], object] = bool
) -> list[WorkerInfo]:
    """Wait until the reports of the workers of a queue fulfil a condition, and return them."""
    found: list[WorkerInfo] = []

    async def is_so() -> bool:
        found[:] = await queue.workers()
        return bool(condition(found))

    await until_true(is_so)
    return found


async def test_a_running_worker_is_listed(
    queue: Queue, elsewhere: Queue, clock: ManualClock
) -> None:
    @queue.task
    async def send() -> None: ...

    @queue.task(name="resize image")
    async def resize() -> None: ...

    worker = Worker(queue, name="w", concurrency=7, lease=20, release="2026.12.1")
    async with worker:
        (info,) = await until_reported(elsewhere, lambda found: bool(found and found[0].id))
        assert (info.queue, info.name, info.slots, info.lease) == ("mail", "w", 7, 20.0)
        assert (info.host, info.pid) == (socket.gethostname(), os.getpid())
        assert (info.version, info.release) == (hasten.__version__, "2026.12.1")
        assert info.tasks == ["resize image", "send"]
        assert (info.running, info.slots_used, info.stopping) == (0, 0, False)
        assert 0 <= info.loop_lag < DEADLINE_SECONDS
        assert info.started_at.timestamp() * 1000 == clock.now_ms()
        if sys.platform == "linux":
            assert info.memory is not None
            assert info.memory > 1_000_000
    assert await elsewhere.workers() == []


async def test_all_workers_of_all_processes_are_listed_by_name(
    queue: Queue, elsewhere: Queue
) -> None:
    async with Worker(queue, name="b"), Worker(elsewhere, name="a"), Worker(queue, name="a"):
        found = await until_reported(queue, lambda found: len(found) == 3)
        assert [info.name for info in found] == ["a", "a", "b"]
        assert len({info.id for info in found}) == 3


async def test_the_jobs_in_hand_are_counted_by_queue(queue: Queue) -> None:
    other = Queue("other", queue.store)
    may_end = asyncio.Event()

    @queue.task
    async def run() -> None:
        await may_end.wait()

    other.task(run.definition.function)
    await queue.add_many([("run", {})] * 3)
    await other.add_many([("run", {})] * 2)
    async with Worker(queue, other, lease=1) as worker:
        await until(lambda: [info.running for info in worker.info()] == [3, 2])
        (info,) = await until_reported(queue, lambda found: found[:1] and found[0].slots_used == 5)
        (there,) = await until_reported(other, lambda found: found[:1] and found[0].slots_used == 5)
        assert (info.running, there.running) == (3, 2)
        assert info.id == there.id
        may_end.set()
        await until_reported(queue, lambda found: found[0].slots_used == 0)


async def test_a_worker_that_stops_is_listed_until_it_has_stopped(queue: Queue) -> None:
    started, may_end = asyncio.Event(), asyncio.Event()

    @queue.task
    async def run() -> None:
        started.set()
        await may_end.wait()

    await run.enqueue()
    worker = Worker(queue, lease=1)
    await worker.start()
    await started.wait()
    stopping = asyncio.create_task(worker.stop(grace=DEADLINE_SECONDS))
    (info,) = await until_reported(queue, lambda found: found[:1] and found[0].stopping)
    assert info.running == 1
    may_end.set()
    await stopping
    assert await queue.workers() == []


async def test_the_last_fetch_is_reported(queue: Queue, clock: ManualClock) -> None:
    async with Worker(queue, lease=1) as worker:
        await until(lambda: worker.info()[0].last_fetch_at is not None)
        clock.advance(100)
        await until(lambda: _fetched_ms(worker.info()[0]) == clock.now_ms())
        await until_reported(queue, lambda found: found[:1] and _fetched_ms(found[0]) > 0)


def _fetched_ms(info: WorkerInfo) -> int:
    return 0 if info.last_fetch_at is None else round(info.last_fetch_at.timestamp() * 1000)


async def test_a_blocked_event_loop_is_seen_while_it_is_blocked(
    queue: Queue, elsewhere: Queue
) -> None:
    """A thread reports, and the lag grows until the loop turns again."""
    has_been_seen = threading.Event()
    deadline = time.monotonic() + DEADLINE_SECONDS

    @queue.task
    async def block() -> None:
        has_been_seen.wait(DEADLINE_SECONDS)

    def look() -> list[float]:
        lags: list[float] = []
        while len(lags) < 2 and time.monotonic() < deadline:
            found = elsewhere.sync.workers()
            lag = max((info.loop_lag for info in found), default=0.0)
            if lag > max(lags, default=0.5):
                lags.append(lag)
            time.sleep(0.01)
        has_been_seen.set()
        return lags

    await block.enqueue()
    with ThreadPoolExecutor(1) as threads:
        looking = threads.submit(look)
        async with Worker(queue, lease=1) as worker:
            first, second = await asyncio.wrap_future(looking)
            assert 0.5 < first < second
            await until(lambda: worker.info()[0].loop_lag >= second)  # kept for some seconds


async def test_a_worker_of_a_store_that_is_down_is_logged_once(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = queue.engine
    failed: list[int] = []
    is_down = threading.Event()
    is_down.set()
    really = engine.report_worker

    def report_worker(*args: object, **named: object) -> None:
        if is_down.is_set():
            failed.append(1)
            raise StoreUnavailable(engine.url, "no answer")
        really(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "report_worker", report_worker)
    caplog.set_level(logging.WARNING, "hasten.worker")
    async with Worker(queue, lease=1):
        await until(lambda: len(failed) > 2)
        assert await queue.workers() == []
        is_down.clear()
        await until_reported(queue)
        await until(lambda: "store available again" in caplog.text)
    assert caplog.text.count("cannot report the worker of queue mail: ") == 1


async def test_an_internal_error_does_not_end_the_reports(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = queue.engine
    really = engine.report_worker
    calls: list[int] = []

    def report_worker(*args: object, **named: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a bug")
        really(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "report_worker", report_worker)
    async with Worker(queue, lease=1):
        await until_reported(queue)
    assert "a bug" in caplog.text


async def test_a_report_that_is_under_way_is_stored_before_its_deletion(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = queue.engine
    report, unregister = engine.report_worker, engine.unregister_worker
    is_reporting, may_report = threading.Event(), threading.Event()
    calls: list[str] = []

    def report_worker(*args: object, **named: object) -> None:
        is_reporting.set()
        may_report.wait(DEADLINE_SECONDS)
        report(*args, **named)  # type: ignore[arg-type]
        calls.append("report")

    async def unregister_worker(*args: object) -> None:
        calls.append("unregister")
        await unregister(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "report_worker", report_worker)
    monkeypatch.setattr(engine, "unregister_worker", unregister_worker)
    worker = Worker(queue)
    await worker.start()
    await until(is_reporting.is_set)
    threading.Timer(0.3, may_report.set).start()
    await worker.stop()
    assert calls == ["report", "unregister"]
    assert await queue.workers() == []


async def test_a_worker_that_is_not_running_has_no_info(memory: Queue) -> None:
    worker = Worker(memory)
    assert worker.info() == []
    async with worker:
        assert [info.queue for info in worker.info()] == ["memory"]
    assert worker.info() == []


def test_the_same_from_code_without_an_event_loop(memory: Queue) -> None:
    assert memory.sync.workers() == []


@pytest.mark.parametrize(
    ("lease", "between", "lifetime"), [(1, 1, 3), (8, 2, 8), (10, 2.5, 10), (60, 5, 60)]
)
def test_a_worker_reports_several_times_before_it_counts_as_dead(
    lease: int, between: float, lifetime: int
) -> None:
    assert report_interval_seconds(lease * 1000) == between
    assert report_lifetime_ms(lease * 1000) == lifetime * 1000
