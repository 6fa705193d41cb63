"""Operations that are one script on Redis, also with flows and schedulers."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hasten.jobs._engines import skipped_runs
from hasten.jobs._engines.redis import RedisEngine
from hasten.jobs._engines.redis.redis_engine import JOBS_AT_ONCE
from hasten.jobs._record import Completed
from hasten.jobs._states import State
from tests.contract.engines import open_for_test
from tests.contract.steps import (
    NOW,
    QUEUE,
    add,
    claim,
    counts,
    cursor,
    event,
    happened,
    ids_in,
    job,
    soon,
    start,
    take,
    taken,
)
from tests.servers.redis import shared_redis


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[RedisEngine]:
    async with open_for_test("redis", tmp_path) as engine:
        assert isinstance(engine, RedisEngine)
        yield engine


@pytest.fixture
def scripts(engine: RedisEngine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the scripts that the engine has run."""
    run, names = engine._server.run_script, []

    async def recorded(script: Any, *args: Any, **options: Any) -> Any:
        names.append(script.name)
        return await run(script, *args, **options)

    monkeypatch.setattr(engine._server, "run_script", recorded)
    return names


def key(engine: RedisEngine, id: str) -> str:
    return f"{engine._keys.queue_prefix(QUEUE)}{id}"


class TestParentThatCannotComplete:
    @pytest.mark.parametrize(
        ("suffix", "error"),
        [
            ("dependencies", "its children have not all finished"),
            ("unsuccessful", "one of its children failed"),
        ],
    )
    async def test_fails_in_the_step_that_claims_the_next_job(
        self, engine: RedisEngine, scripts: list[str], suffix: str, error: str
    ) -> None:
        """In two steps, a failure between them would lose the jobs of the claim."""
        await start(engine, "parent")
        await add(engine, "next")
        with shared_redis().client() as client:
            if suffix == "dependencies":
                client.sadd(key(engine, "parent:dependencies"), "bull:child:1")
            else:
                client.zadd(key(engine, "parent:unsuccessful"), {"bull:child:1": 1})
        scripts.clear()
        outcome = Completed("parent", "t1", "1")
        batch = await engine.settle(QUEUE, [outcome], claim(1, "t2"), now_ms=NOW)
        assert (scripts, taken(batch.leases), batch.lost) == (["settle"], ["next"], [])
        record = await job(engine, "parent")
        assert (record.state, record.error, record.attempts_made) == (State.FAILED, error, 1)

    async def test_is_kept_by_its_own_rule(self, engine: RedisEngine) -> None:
        await start(engine, "parent", opts='{"removeOnFail":true}')
        with shared_redis().client() as client:
            client.zadd(key(engine, "parent:unsuccessful"), {"bull:child:1": 1})
        await engine.settle(QUEUE, [Completed("parent", "t1", "1")], None, now_ms=NOW)
        assert await engine.get(QUEUE, ["parent"]) == [None]

    async def test_applies_a_rule_once_for_all_its_parents(self, engine: RedisEngine) -> None:
        ids = [f"parent-{number}" for number in range(20)]
        await start(engine, *ids, opts='{"removeOnFail":{"count":3}}')
        with shared_redis().client() as client:
            for id in ids:
                client.zadd(key(engine, f"{id}:unsuccessful"), {"bull:child:1": 1})
            client.config_resetstat()
            await engine.settle(QUEUE, [Completed(id, "t1", "1") for id in ids], None, now_ms=NOW)
            assert client.info("commandstats")["cmdstat_zcard"]["calls"] == 1
        assert len(await ids_in(engine, State.FAILED)) == 3


class TestCancel:
    @pytest.mark.parametrize(
        ("rule", "kept"),
        [
            ("true", []),
            ("0", []),
            ('"0"', []),
            ("1", ["b"]),
            ("0.5", ["b"]),
            ('{"count":1}', ["b"]),
            ('{"age":0.001}', ["b"]),
            ("false", ["a", "b"]),
            ("-1", ["a", "b"]),
            ("null", ["a", "b"]),
            ("{}", ["a", "b"]),
            ('"many"', ["a", "b"]),
            ("[1]", ["a", "b"]),
            ('{"count":true}', ["a", "b"]),
        ],
    )
    async def test_reads_the_rule_of_the_job_in_the_same_step(
        self, engine: RedisEngine, scripts: list[str], rule: str, kept: list[str]
    ) -> None:
        await add(engine, "a", "b", opts=f'{{"removeOnFail":{rule}}}')
        scripts.clear()
        await engine.cancel(QUEUE, ["a"], now_ms=NOW)
        await engine.cancel(QUEUE, ["b"], now_ms=NOW + 1)
        assert scripts == ["cancel", "cancel"]
        assert await ids_in(engine, State.FAILED) == kept


async def add_run(
    engine: RedisEngine,
    scheduler: str,
    repeat: dict[str, Any] | None = None,
    *,
    scheduled_ms: int = NOW,
    pending_ms: int | None = NOW,
    delay_ms: int = 0,
) -> str:
    """Add a run of a cron scheduler whose pending run is at pending_ms (None: it was removed)."""
    id = f"repeat:{scheduler}:{scheduled_ms}"
    opts = json.dumps({"repeat": {"pattern": "* * * * *", "count": 1, **(repeat or {})}})
    await add(engine, id, opts=opts, delay_ms=delay_ms)
    with shared_redis().client() as client:
        client.hset(key(engine, id), "rjk", scheduler)
        if pending_ms is not None:
            client.zadd(key(engine, "repeat"), {scheduler: pending_ms})
    return id


class TestClientWithoutCroniter:
    """If it ran the pending run of a cron scheduler, nobody would add the next one."""

    @pytest.fixture(autouse=True)
    def without_croniter(self, engine: RedisEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine, "_can_parse_cron", False)
        monkeypatch.setitem(sys.modules, "croniter", None)

    async def test_leaves_the_pending_run_to_other_workers(
        self, engine: RedisEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = await add_run(engine, "nightly")
        await add(engine, "b", opts='{"repeat":{"every":1000}}')
        await add(engine, "c")
        with shared_redis().client() as client:
            client.hset(key(engine, "b"), "rjk", "hourly")
        assert await take(engine, 9) == ["b", "c"]
        assert (await job(engine, run)).state is State.DELAYED
        assert await take(engine, 9, "t2", now_ms=NOW + 5_000) == []
        monkeypatch.undo()
        assert await take(engine, 9, "t3", now_ms=NOW + 10_000) == [run]

    @pytest.mark.parametrize(
        ("repeat", "pending_ms"),
        [({}, NOW + 60_000), ({}, None), ({"limit": 1}, NOW), ({"endDate": NOW - 1}, NOW)],
        ids=[
            "retried, requeued or reclaimed",
            "scheduler removed",
            "last by limit",
            "last by date",
        ],
    )
    async def test_runs_a_job_that_needs_no_next_run(
        self, engine: RedisEngine, caplog: pytest.LogCaptureFixture, repeat: Any, pending_ms: Any
    ) -> None:
        run = await add_run(engine, "nightly", repeat, pending_ms=pending_ms)
        assert await take(engine) == [run]
        assert caplog.messages == []

    @pytest.mark.parametrize("repeat", [{"limit": 2}, {"endDate": NOW}])
    async def test_leaves_a_run_before_the_last_one(self, engine: RedisEngine, repeat: Any) -> None:
        await add_run(engine, "nightly", repeat)
        assert await take(engine) == []

    async def test_runs_a_job_if_the_schedulers_are_damaged(self, engine: RedisEngine) -> None:
        run = await add_run(engine, "nightly", pending_ms=None)
        with shared_redis().client() as client:
            client.set(key(engine, "repeat"), "not a sorted set")
        assert await take(engine) == [run]

    async def test_claims_a_run_that_only_has_to_fail(
        self, engine: RedisEngine, caplog: pytest.LogCaptureFixture
    ) -> None:
        run = await add_run(engine, "nightly")
        with shared_redis().client() as client:
            client.hset(key(engine, run), "defa", "a reason")
        assert await take(engine) == [run]
        assert "queue mail: cannot add the next run of scheduler nightly" in caplog.text

    async def test_claims_the_jobs_behind(self, engine: RedisEngine) -> None:
        for number in range(3):
            await add_run(engine, f"nightly-{number}")
        await add(engine, "a", "b", "c")
        assert await take(engine, 2) == ["a", "b"]

    async def test_skips_a_limited_number_in_one_call(self, engine: RedisEngine) -> None:
        for number in range(JOBS_AT_ONCE + 1):
            await add_run(engine, f"nightly-{number}")
        await add(engine, "a")
        assert await take(engine) == []
        assert (await counts(engine))[State.DELAYED] == JOBS_AT_ONCE
        await soon(engine.wait_for_jobs(QUEUE, next_due_ms=NOW + 5_000))  # others are still ready
        assert await take(engine, 1, "t2") == ["a"]

    async def test_is_woken_when_the_skipped_run_is_due(self, engine: RedisEngine) -> None:
        await add(engine, "later", delay_ms=60_000)
        await add_run(engine, "nightly")
        batch = await engine.claim(QUEUE, claim(2), now_ms=NOW)
        assert (batch.leases, batch.next_due_ms) == ([], NOW + 5_000)

    async def test_reports_it_by_one_warning_a_minute(
        self, engine: RedisEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        now = [0.0]
        monkeypatch.setattr(skipped_runs, "monotonic", lambda: now[0])
        for number in range(3):
            await add_run(engine, f"nightly-{number}")
        for second in range(0, 61, 5):
            now[0] = second
            if second == 5:
                await add_run(engine, "weekly")
            assert await take(engine, 9, now_ms=NOW + second * 1000) == []
        assert {record.levelname for record in caplog.records} == {"WARNING"}
        assert caplog.messages == [
            f"queue mail: scheduled jobs left to other workers: {count}. Their cron patterns need "
            "croniter: pip install 'hasten[schedules]'"
            for count in (3, 4)
        ]

    async def test_emits_no_events_while_a_run_stays_delayed(self, engine: RedisEngine) -> None:
        run = await add_run(engine, "nightly")
        overdue = await add_run(engine, "weekly", delay_ms=100, scheduled_ms=NOW + 100,
                                pending_ms=NOW + 100)  # fmt: skip
        before = await cursor(engine)
        for second in range(0, 61, 5):
            assert await take(engine, 9, now_ms=NOW + second * 1000) == []
        assert await happened(engine, before) == [event("delayed", run, due_ms=NOW + 5_000)]
        assert (await job(engine, overdue)).due_ms == NOW + 65_000


async def test_a_claim_cancelled_while_it_adds_a_cron_job_is_orphaned(
    engine: RedisEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its jobs are leased already, so the next claim returns them before the leases expire."""
    run = await add_run(engine, "nightly")

    async def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(engine, "_start_scheduled", cancelled)
        with pytest.raises(asyncio.CancelledError):
            await take(engine)
    assert await take(engine, 1, "t2") == [run]
