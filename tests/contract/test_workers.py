"""Workers report themselves, and disappear when they have stopped or died."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import uuid
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hasten._store_url import RedisAddress, parse_store_url
from hasten.jobs._engine import Engine
from hasten.jobs._engines.redis import RedisEngine
from hasten.jobs._epoch import to_datetime
from hasten.jobs._record import Completed
from hasten.jobs._worker_info import WorkerInfo, decode_worker_info, encode_worker_info
from tests.contract.engines import open_for_test
from tests.contract.steps import NOW, QUEUE, add, settled, start
from tests.patience import DEADLINE_SECONDS
from tests.servers.redis import shared_redis

LIFETIME_MS = 10_000

INFO = WorkerInfo(
    queue=QUEUE,
    name="w ✓",
    id="1",
    host="server",
    pid=7,
    version="0.1.0",
    release="2026.12",
    started_at=to_datetime(NOW - 1),
    tasks=["resize", "send"],
    slots=100,
    slots_used=5,
    running=3,
    lease=10.0,
    stopping=False,
    loop_lag=0.25,
    memory=1_000_000,
    last_fetch_at=to_datetime(NOW - 2),
    last_seen_at=to_datetime(0),
)


async def report(
    engine: Engine,
    id: str = "1",
    queue: str = QUEUE,
    *,
    now_ms: int = NOW,
    lifetime_ms: int = LIFETIME_MS,
    **facts: Any,
) -> None:
    info = msgspec.structs.replace(INFO, id=id, queue=queue, **facts)

    def call() -> None:
        engine.report_worker(queue, info, lifetime_ms=lifetime_ms, now_ms=now_ms)

    await asyncio.to_thread(call)


async def alive(engine: Engine, queue: str = QUEUE, *, now_ms: int = NOW) -> list[str]:
    return sorted(info.id for info in await engine.workers(queue, now_ms=now_ms))


async def test_a_worker_is_returned_as_it_reported(engine: Engine) -> None:
    await report(engine)
    (info,) = await engine.workers(QUEUE, now_ms=NOW)
    assert info == msgspec.structs.replace(INFO, last_seen_at=to_datetime(NOW))


async def test_its_last_report_counts(engine: Engine) -> None:
    await report(engine, running=3)
    await report(engine, running=4, now_ms=NOW + 1)
    (info,) = await engine.workers(QUEUE, now_ms=NOW + 2)
    assert (info.running, info.last_seen_at) == (4, to_datetime(NOW + 1))


async def test_a_worker_disappears_unless_it_reports_again(engine: Engine) -> None:
    await report(engine, "dies")
    await report(engine, "lives")
    await report(engine, "lives", now_ms=NOW + LIFETIME_MS - 1)
    assert await alive(engine, now_ms=NOW + LIFETIME_MS - 1) == ["dies", "lives"]
    assert await alive(engine, now_ms=NOW + LIFETIME_MS) == ["lives"]
    await report(engine, "new", now_ms=NOW + 3 * LIFETIME_MS)
    assert await alive(engine, now_ms=NOW + 3 * LIFETIME_MS) == ["new"]


async def test_a_worker_that_stopped_disappears_at_once(engine: Engine) -> None:
    await engine.register_worker(QUEUE, "1", name="w")
    await report(engine, "1")
    await report(engine, "2")
    await engine.unregister_worker(QUEUE, "1")
    await engine.unregister_worker(QUEUE, "1")
    assert await alive(engine) == ["2"]


async def test_a_dead_worker_of_the_time_before_the_clock_was_set_back_disappears(
    engine: Engine,
) -> None:
    await report(engine, now_ms=NOW + 10 * LIFETIME_MS)
    assert await alive(engine, now_ms=NOW) == []


async def test_each_queue_has_its_own(engine: Engine) -> None:
    await report(engine, "1", "a")
    await report(engine, "1", "b")
    await report(engine, "2", "b")
    assert [await alive(engine, queue) for queue in "abc"] == [["1"], ["1", "2"], []]
    await engine.unregister_worker("b", "1")
    assert [await alive(engine, queue) for queue in "ab"] == [["1"], ["2"]]


async def test_a_report_returns_whether_the_queue_is_paused(engine: Engine) -> None:
    async def is_paused() -> bool:
        return await asyncio.to_thread(
            partial(engine.report_worker, QUEUE, INFO, lifetime_ms=LIFETIME_MS, now_ms=NOW)
        )

    assert not await is_paused()
    await engine.pause(QUEUE, now_ms=NOW)
    assert await is_paused()
    await engine.resume(QUEUE, now_ms=NOW)
    assert not await is_paused()


async def test_many_workers(engine: Engine) -> None:
    for number in range(300):
        await report(engine, f"{number:03}", tasks=["send"] * 20)
    assert await alive(engine) == [f"{number:03}" for number in range(300)]


async def test_obliterate_deletes_them(engine: Engine) -> None:
    await report(engine)
    await report(engine, queue="other")
    await engine.obliterate(QUEUE)
    assert await alive(engine) == []
    assert await alive(engine, "other") == ["1"]
    await report(engine)  # it still runs
    assert await alive(engine) == ["1"]


async def test_a_report_changes_nothing_else(engine: Engine) -> None:
    await report(engine)
    assert await engine.queues() == []
    await start(engine, "a")
    await add(engine, "b")
    before = await engine.count(QUEUE)
    await report(engine)
    assert await engine.count(QUEUE) == before
    await settled(engine, Completed("a", "t1", "1"))


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"id":"1"}', "[" * 10_000])
def test_a_damaged_report_is_skipped(text: str) -> None:
    assert decode_worker_info(text, to_datetime(NOW)) is None


def test_a_report_of_a_later_version_may_have_more_facts() -> None:
    text = encode_worker_info(INFO).replace('"pid":7', '"pid":7,"mood":"good"')
    assert decode_worker_info(text, INFO.last_seen_at) == INFO


class TestSqlite:
    async def test_dead_workers_leave_no_rows(self, tmp_path: Path) -> None:
        async with open_for_test("sqlite-file", tmp_path) as engine:
            await report(engine, "dies")
            await report(engine, "lives", now_ms=NOW + LIFETIME_MS)
        with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as connection:
            assert connection.execute("SELECT id FROM hasten_workers").fetchall() == [("lives",)]


class TestRedis:
    """The contract above runs on the clock of the tests, a server on its own."""

    @pytest.fixture
    def prefix(self) -> str:
        return f"test-{uuid.uuid4().hex[:12]}"

    @pytest.fixture
    async def redis(self, prefix: str) -> AsyncIterator[RedisEngine]:
        address = parse_store_url(shared_redis().url).location
        assert isinstance(address, RedisAddress)
        engine = RedisEngine(address, prefix=prefix)
        yield engine
        await engine.aclose()

    @pytest.fixture
    def base(self, prefix: str) -> str:
        return f"{prefix}:{QUEUE}:"

    async def test_workers_expire_by_the_clock_of_the_server(
        self, redis: RedisEngine, base: str
    ) -> None:
        await report(redis, "lives", now_ms=5, lifetime_ms=1000 * int(DEADLINE_SECONDS) * 2)
        await report(redis, "dies", now_ms=10**15, lifetime_ms=50)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while await alive(redis) != ["lives"]:
                await asyncio.sleep(0.002)
        await report(redis, "new")
        ids = shared_redis().client().hkeys(f"{base}hasten:worker-reports")
        assert sorted(ids) == [b"lives", b"new"]
        assert shared_redis().client().zcard(f"{base}hasten:workers") == 2

    async def test_the_last_dead_worker_leaves_no_keys(self, redis: RedisEngine, base: str) -> None:
        await report(redis, "dies", lifetime_ms=50)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while shared_redis().client().keys(f"{base}*"):
                await asyncio.sleep(0.002)

    async def test_the_keys_live_as_long_as_the_longest_report(
        self, redis: RedisEngine, base: str
    ) -> None:
        await report(redis, "long", lifetime_ms=1_000_000)
        await report(redis, "brief", lifetime_ms=1_000)
        for name in ("workers", "worker-reports"):
            assert shared_redis().client().pttl(f"{base}hasten:{name}") > 500_000

    async def test_workers_that_have_reported_in_the_future_are_dead(
        self, redis: RedisEngine, base: str
    ) -> None:
        """The clock of the server was set back."""
        await report(redis)
        shared_redis().client().zincrby(f"{base}hasten:workers", 10 * LIFETIME_MS, "1")
        assert await alive(redis) == []
