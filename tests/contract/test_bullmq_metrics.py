"""BullMQ's counts of finished jobs per minute, on Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hasten.errors import InvalidOption
from hasten.jobs import Queue, Worker
from hasten.jobs._engine import Engine
from hasten.jobs._record import Completed, Failed, Retry
from tests.contract.engines import _prefix, open_for_test
from tests.contract.steps import QUEUE, claim, new_job, start
from tests.servers.redis import shared_redis

MINUTE = 60_000
NOW = 1_700_000_000_000 // MINUTE * MINUTE


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Engine]:
    async with open_for_test("redis", tmp_path) as engine:
        yield engine


@pytest.fixture
def base(tmp_path: Path) -> str:
    return f"{_prefix(tmp_path)}:{QUEUE}:metrics:"


async def settle(engine: Engine, *outcomes: Any, now_ms: int, minutes: int | None) -> None:
    batch = await engine.settle(QUEUE, outcomes, None, now_ms=now_ms, metrics_minutes=minutes)
    assert batch.lost == []


async def complete(engine: Engine, count: int, *, now_ms: int, minutes: int | None = 100) -> None:
    ids = [f"{now_ms}-{number}" for number in range(count)]
    await start(engine, *ids, now_ms=now_ms)
    await settle(engine, *(Completed(id, "t1", "1") for id in ids), now_ms=now_ms, minutes=minutes)


def points(base: str, state: str = "completed") -> list[int]:
    return [int(count) for count in shared_redis().client().lrange(f"{base}{state}:data", 0, -1)]


def totals(base: str, state: str = "completed") -> dict[str, int]:
    stored: Any = shared_redis().client().hgetall(f"{base}{state}")
    return {name.decode(): int(value) for name, value in stored.items()}


async def test_each_closed_minute_has_a_point_the_newest_first(redis: Engine, base: str) -> None:
    await complete(redis, 2, now_ms=NOW)
    await complete(redis, 1, now_ms=NOW + 59_999)
    assert points(base) == []
    await complete(redis, 2, now_ms=NOW + MINUTE)
    await complete(redis, 1, now_ms=NOW + 3 * MINUTE)
    assert points(base) == [0, 2, 3]
    assert totals(base) == {"count": 6, "prevTS": NOW + 3 * MINUTE, "prevCount": 5}
    assert totals(base, "failed") == {}


async def test_only_the_newest_minutes_are_kept(redis: Engine, base: str) -> None:
    for minute in range(5):
        await complete(redis, minute + 1, now_ms=NOW + minute * MINUTE, minutes=3)
    assert points(base) == [4, 3, 2]
    await complete(redis, 1, now_ms=NOW + 10**6 * MINUTE, minutes=3)
    assert points(base) == [0, 0, 5]


async def test_a_clock_that_is_set_back_adds_no_point(redis: Engine, base: str) -> None:
    await complete(redis, 1, now_ms=NOW)
    await complete(redis, 1, now_ms=NOW - 5 * MINUTE)
    assert (points(base), totals(base)["count"]) == ([], 2)


async def test_failed_jobs_are_counted_apart_and_retries_not_at_all(
    redis: Engine, base: str
) -> None:
    await start(redis, "a", "b", "c", now_ms=NOW)
    await settle(
        redis,
        Completed("a", "t1", "1"),
        Failed("b", "t1", "no"),
        Retry("c", "t1", "no", "trace", 0),
        now_ms=NOW,
        minutes=10,
    )
    assert (totals(base)["count"], totals(base, "failed")["count"]) == (1, 1)


async def test_nothing_is_counted_unless_it_is_switched_on(redis: Engine, base: str) -> None:
    await complete(redis, 3, now_ms=NOW, minutes=None)
    assert shared_redis().client().keys(f"{base}*") == []


@pytest.mark.parametrize("key", ["completed", "completed:data"])
async def test_keys_that_another_program_has_damaged_lose_no_outcome(
    redis: Engine, base: str, key: str
) -> None:
    shared_redis().client().set(f"{base}{key}", "no metrics")
    await complete(redis, 3, now_ms=NOW)
    assert shared_redis().client().get(f"{base}{key}") == b"no metrics"
    await redis.obliterate(QUEUE)
    shared_redis().client().hset(f"{base}completed", mapping={"count": "?", "prevTS": "?"})
    await complete(redis, 3, now_ms=NOW, minutes=2)
    assert totals(base)["count"] == 3


async def test_other_stores_ignore_it(engine: Engine) -> None:
    await engine.add([new_job("a")], now_ms=NOW)
    await engine.claim(QUEUE, claim(), now_ms=NOW)
    await settle(engine, Completed("a", "t1", "1"), now_ms=NOW, minutes=5)


@pytest.mark.parametrize("wrong", [0, -1, 100_001, 1.5, True, "1w"])
def test_the_number_of_minutes_is_checked(wrong: Any) -> None:
    with pytest.raises(InvalidOption, match=r"bullmq_metrics_minutes="):
        Worker(Queue("mail", "memory://"), bullmq_metrics_minutes=wrong)
