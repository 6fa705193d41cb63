"""Crashes between the steps of a claim on Redis: no slot is lost, and none has two runs.

SQLite claims a job and adds the next one in one transaction. On Redis these are two scripts,
because the server cannot parse cron patterns.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from hasten.errors import StoreInterrupted, StoreRejected, StoreUnavailable
from hasten.jobs._engines.redis import RedisEngine
from hasten.jobs._record import Completed
from hasten.jobs._schedule_record import ScheduleRule
from hasten.jobs._states import State
from tests.contract.engines import open_for_test
from tests.contract.steps import LEASE_MS, NOW, QUEUE, add, claim, counts, job, settled, start
from tests.contract.test_schedules import (
    CRON,
    EVERY,
    MINUTE,
    claim_all,
    complete,
    get,
    pending,
    run_all,
    schedule,
    slot_ms,
    upsert,
)
from tests.servers.redis import shared_redis

RULES: Final = pytest.mark.parametrize("rule", [EVERY, CRON], ids=["every", "cron"])


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[RedisEngine]:
    async with open_for_test("redis", tmp_path) as engine:
        assert isinstance(engine, RedisEngine)
        yield engine


class Breaks:
    """Makes scripts fail: `before` they are run, or `after` that, so that the reply is lost."""

    def __init__(self, engine: RedisEngine) -> None:
        self._run = engine._run_script
        self.before: dict[str, Exception] = {}
        self.after: dict[str, Exception] = {}

    async def run(self, verb: str, queue: str, request: Any, *, repeatable: bool = False) -> Any:
        if (error := self.before.pop(verb, None)) is not None:
            raise error
        reply = await self._run(verb, queue, request, repeatable=repeatable)
        if (error := self.after.pop(verb, None)) is not None:
            raise error
        return reply


@pytest.fixture
def breaks(engine: RedisEngine, monkeypatch: pytest.MonkeyPatch) -> Breaks:
    found = Breaks(engine)
    monkeypatch.setattr(engine, "_run_script", found.run)
    return found


async def first_slot(engine: RedisEngine, rule: ScheduleRule) -> int:
    await upsert(engine, schedule(rule=rule, overlap="skip"))
    slot = (await get(engine)).slot_ms
    assert slot is not None
    return slot


@RULES
class TestCrash:
    async def test_of_the_worker_before_the_next_job_is_added(
        self, engine: RedisEngine, breaks: Breaks, rule: ScheduleRule
    ) -> None:
        """Nobody knows of the claim. The lease expires, and another worker adds the next job."""
        slot = await first_slot(engine, rule)
        breaks.before["start_runs"] = StoreInterrupted("redis", "killed")
        with pytest.raises(StoreInterrupted):
            await engine.claim(QUEUE, claim(5), now_ms=slot)
        engine._orphans._until_ms.clear()  # the memory of the worker is lost, too
        assert await counts(engine) == {State.ACTIVE: 1}
        with shared_redis().client() as client:  # the lock of the test never expires by itself
            client.delete(f"{engine._keys.queue_prefix(QUEUE)}repeat:tick:{slot}:lock")
        await engine.reclaim(QUEUE, crash_limit=9, now_ms=slot + LEASE_MS)
        assert await run_all(engine, slot + LEASE_MS, "t2") == [slot]
        assert (await get(engine)).slot_ms == slot + MINUTE
        assert await run_all(engine, slot + MINUTE, "t3") == [slot + MINUTE]

    @pytest.mark.parametrize("when", ["before", "after"])
    async def test_of_the_store(
        self, engine: RedisEngine, breaks: Breaks, rule: ScheduleRule, when: str
    ) -> None:
        """The next claim of the worker continues at once."""
        slot = await first_slot(engine, rule)
        getattr(breaks, when)["start_runs"] = StoreUnavailable("redis", "away")
        with pytest.raises(StoreInterrupted, match="away"):
            await engine.claim(QUEUE, claim(5), now_ms=slot)
        (lease,) = await claim_all(engine, slot, "t2")
        assert slot_ms(lease) == slot
        assert (await get(engine)).count == 2
        await complete(engine, [lease], now_ms=slot)
        assert await run_all(engine, slot + MINUTE, "t3") == [slot + MINUTE]

    async def test_while_outcomes_are_stored(
        self, engine: RedisEngine, breaks: Breaks, rule: ScheduleRule
    ) -> None:
        """The caller repeats the call, as after any lost reply. The outcome is stored once."""
        await start(engine, "a")
        slot = await first_slot(engine, rule)
        breaks.before["start_runs"] = StoreInterrupted("redis", "killed")
        ends = [Completed("a", "t1", "1")]
        with pytest.raises(StoreInterrupted):
            await engine.settle(QUEUE, ends, claim(5, "t2"), now_ms=slot)
        batch = await engine.settle(QUEUE, ends, claim(5, "t3"), now_ms=slot)
        assert batch.lost == ["a"]
        assert (await job(engine, "a")).state is State.COMPLETED
        assert list(map(slot_ms, batch.leases)) == [slot]

    async def test_of_a_cancelled_claim(
        self, engine: RedisEngine, breaks: Breaks, rule: ScheduleRule
    ) -> None:
        slot = await first_slot(engine, rule)
        await add(engine, "a")
        started = asyncio.Event()

        async def hang(*_: object, **__: object) -> None:
            started.set()
            await asyncio.Event().wait()

        run = engine._start_scheduled
        engine._start_scheduled = hang  # type: ignore[assignment, method-assign]
        task = asyncio.create_task(engine.claim(QUEUE, claim(5), now_ms=slot))
        await started.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        engine._start_scheduled = run  # type: ignore[method-assign]
        leases = await claim_all(engine, slot, "t2")
        assert {lease.job.id for lease in leases} == {"a", f"repeat:tick:{slot}"}

    async def test_in_the_middle_of_a_change(
        self, engine: RedisEngine, breaks: Breaks, rule: ScheduleRule
    ) -> None:
        """The reply to a change is lost. The same call has no further effect."""
        breaks.after["write_schedule"] = StoreInterrupted("redis", "killed")
        with pytest.raises(StoreInterrupted):
            await upsert(engine, schedule(rule=rule))
        before = await get(engine)
        assert await upsert(engine, schedule(rule=rule)) == before
        assert before.count == 1


@RULES
async def test_a_run_that_is_changed_between_the_steps(
    engine: RedisEngine, monkeypatch: pytest.MonkeyPatch, rule: ScheduleRule
) -> None:
    """Another process stores the schedule again, with other arguments. The claimed job runs."""
    slot = await first_slot(engine, rule)
    start_scheduled = engine._start_scheduled

    async def change_first(*args: Any) -> Any:
        await upsert(engine, schedule(rule=rule, overlap="skip", data='{"a":2}'), now_ms=slot)
        return await start_scheduled(*args)

    with monkeypatch.context() as patched:
        patched.setattr(engine, "_start_scheduled", change_first)
        (lease,) = (await engine.claim(QUEUE, claim(5), now_ms=slot)).leases
    assert slot_ms(lease) == slot
    assert await pending(engine) == [f"repeat:tick:{slot + MINUTE}"]
    await settled(engine, Completed(lease.job.id, lease.token, "1"), now_ms=slot)
    (lease,) = await claim_all(engine, slot + MINUTE, "t2")
    assert lease.job.data == '{"a":2}'


async def test_damaged_keys_do_not_stop_the_queue(
    engine: RedisEngine, caplog: pytest.LogCaptureFixture
) -> None:
    slot = await first_slot(engine, CRON)
    prefix = engine._keys.queue_prefix(QUEUE)
    with shared_redis().client() as client:
        client.hset(f"{prefix}hasten:schedules", "tick", "[not JSON")
    assert (await get(engine)).previous_ms is None
    assert await run_all(engine, slot) == [slot]
    with shared_redis().client() as client:
        client.delete(f"{prefix}hasten:schedules")
        client.set(f"{prefix}hasten:schedules", "not a hash")
    await add(engine, "a")
    ids = [lease.job.id for lease in await claim_all(engine, slot + MINUTE)]
    assert ids == ["a", f"repeat:tick:{slot + MINUTE}"]
    assert "cannot add the next run of schedule tick" in caplog.text


@pytest.mark.parametrize("repeat", [{}, {"every": 0}, {"every": 1e300}, {"pattern": "x"}, 7, None])
async def test_one_damaged_job_does_not_affect_others(
    engine: RedisEngine, caplog: pytest.LogCaptureFixture, repeat: object
) -> None:
    """Without a rule, it runs, but adds no other job."""
    await upsert(engine, schedule("other"))
    slot = await first_slot(engine, EVERY)
    damaged = f"{engine._keys.queue_prefix(QUEUE)}repeat:tick:{slot}"
    with shared_redis().client() as client:
        opts = {**json.loads(client.hget(damaged, "opts")), "repeat": repeat}
        client.hset(damaged, "opts", json.dumps(opts))
    assert await run_all(engine, slot) == [slot, slot]
    assert await pending(engine) == [f"repeat:other:{slot + MINUTE}"]
    assert "cannot add the next run of schedule tick" in caplog.text
    assert (await get(engine)).is_broken
    (late,) = await engine.late_schedules(QUEUE, before_ms=slot + 1, limit=9)
    assert late.id == "tick"
    await upsert(engine, schedule(overlap="skip"), now_ms=slot + 1)
    assert len(await pending(engine)) == 2


async def test_a_rejected_change_is_reported(engine: RedisEngine, breaks: Breaks) -> None:
    breaks.before["write_schedule"] = StoreRejected("redis", "too large")
    with pytest.raises(StoreRejected, match="too large"):
        await upsert(engine, schedule())


async def test_a_damaged_schedule_does_not_stop_a_queue_in_sqlite(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A later version, or another program, has written it. Its pending job runs."""
    async with open_for_test("sqlite-file", tmp_path) as engine:
        await upsert(engine, schedule("tick"))
        await upsert(engine, schedule("other"))
        with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as connection, connection:
            connection.execute("UPDATE hasten_schedules SET rule = '[7]' WHERE id = 'tick'")
        assert len(await run_all(engine, NOW)) == 2
        assert await pending(engine) == [f"repeat:other:{NOW + MINUTE}"]
        assert "cannot add the next run of schedule tick" in caplog.text


@pytest.mark.parametrize("kind", ["sqlite-memory", "redis"])
async def test_a_worker_without_croniter_leaves_patterns_to_others(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_for_test(kind, tmp_path) as engine:
        await upsert(engine, schedule(rule=CRON))
        await upsert(engine, schedule("other"))
        slot = (await get(engine)).slot_ms
        assert slot is not None
        with monkeypatch.context() as patched:
            patched.setattr("hasten.jobs._cron.is_croniter_installed", lambda: False)
            patched.setattr(engine, "_can_parse_cron", False, raising=False)
            assert len(await run_all(engine, slot)) == 1
        assert "pip install 'hasten[schedules]'" in caplog.text
        assert await run_all(engine, slot + 5_000) == [slot]
        assert (await get(engine)).slot_ms == slot + MINUTE
