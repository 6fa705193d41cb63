"""Verbs that are one script call on Redis, also where flows and schedulers are involved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hasten.jobs._engines.redis import RedisEngine
from hasten.jobs._record import Completed
from hasten.jobs._states import State
from tests.contract.engines import open_for_test
from tests.contract.steps import NOW, QUEUE, add, claim, ids_in, job, start, take, taken
from tests.servers.redis import shared_redis


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[RedisEngine]:
    async with open_for_test("redis", tmp_path) as engine:
        assert isinstance(engine, RedisEngine)
        yield engine


@pytest.fixture
def scripts(engine: RedisEngine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the scripts that the engine runs."""
    run, names = engine._server.run, []

    async def recorded(script: Any, *args: Any, **options: Any) -> Any:
        names.append(script.name)
        return await run(script, *args, **options)

    monkeypatch.setattr(engine._server, "run", recorded)
    return names


def key(engine: RedisEngine, id: str) -> str:
    return f"{engine._keys.base(QUEUE)}{id}"


class TestParentThatCannotComplete:
    @pytest.mark.parametrize(
        ("suffix", "error"),
        [
            ("dependencies", "it has children that have not finished"),
            ("unsuccessful", "a child of it has failed"),
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
    async def test_applies_a_rule_once_for_all_parents_that_have_it(
        self, engine: RedisEngine
    ) -> None:
        ids = [f"parent-{number}" for number in range(20)]
        await start(engine, *ids, opts='{"removeOnFail":{"count":3}}')
        with shared_redis().client() as client:
            for id in ids:
                client.zadd(key(engine, f"{id}:unsuccessful"), {"bull:child:1": 1})
            client.config_resetstat()
            await engine.settle(QUEUE, [Completed(id, "t1", "1") for id in ids], None, now_ms=NOW)
            assert client.info("commandstats")["cmdstat_zcard"]["calls"] == 1
        assert len(await ids_in(engine, State.FAILED)) == 3

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


async def test_a_client_without_croniter_leaves_cron_jobs_to_other_workers(
    engine: RedisEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If it ran one, nobody would add the next job, and the schedule would end."""
    await add(engine, "a", opts='{"repeat":{"pattern":"* * * * *"}}')
    await add(engine, "b", opts='{"repeat":{"every":1000}}')
    await add(engine, "c")
    with shared_redis().client() as client:
        for id in ("a", "b"):
            client.hset(key(engine, id), "rjk", "scheduler")
    with monkeypatch.context() as patched:
        patched.setattr(engine, "_has_cron", False)
        assert await take(engine, 9) == ["b", "c"]
        assert (await job(engine, "a")).state is State.DELAYED
        assert "queue mail: job a: left to other workers" in caplog.text
        assert "pip install hasten[schedules]" in caplog.text
    assert await take(engine, 9, "t2", now_ms=NOW + 5_000) == ["a"]


async def test_a_claim_cancelled_while_it_adds_a_cron_job_is_orphaned(
    engine: RedisEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its jobs are leased already. The next claim returns them, not the expiry of their leases."""
    await add(engine, "a", opts='{"repeat":{"pattern":"* * * * *"}}')
    with shared_redis().client() as client:
        client.hset(key(engine, "a"), "rjk", "scheduler")

    async def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(engine, "_add_next_runs", cancelled)
        with pytest.raises(asyncio.CancelledError):
            await take(engine)
    assert await take(engine, 1, "t2") == ["a"]
