"""Runs of schedules whose workers die: they fail at the crash limit, as other jobs do."""

from __future__ import annotations

import pytest

from hasten.jobs._engine import Engine, crash_error
from hasten.jobs._schedule_record import ScheduleRule
from tests.contract.steps import LEASE_MS, NOW, QUEUE, claim, job
from tests.contract.test_schedules import EVERY, get, schedule, upsert

CRASH_LIMIT = 3
ONCE = ScheduleRule(every_ms=60_000, limit=1)


async def crash(engine: Engine, now_ms: int) -> list[str]:
    """Claim one job, and let its worker die. Returns the id of the job."""
    await engine.claim(QUEUE, claim(1, f"t{now_ms}"), now_ms=now_ms)
    return await engine.reclaim(QUEUE, crash_limit=CRASH_LIMIT, now_ms=now_ms + LEASE_MS)


@pytest.mark.parametrize("rule", [EVERY, ONCE], ids=["every", "once"])
async def test_a_run_fails_at_the_crash_limit(engine: Engine, rule: ScheduleRule) -> None:
    record = await upsert(engine, schedule(rule=rule))
    id = f"repeat:tick:{record.slot_ms}"
    for number in range(CRASH_LIMIT):
        assert (await job(engine, id)).deferred_failure is None
        assert await crash(engine, NOW + number * (LEASE_MS + 1)) == [id]
    assert (await job(engine, id)).deferred_failure == crash_error(CRASH_LIMIT)
    assert (await get(engine)).count == (2 if rule is EVERY else 1)


async def test_an_extra_run_fails_at_the_crash_limit(engine: Engine) -> None:
    await upsert(engine, schedule(rule=ScheduleRule(every_ms=10**9, start_ms=NOW + 10**9)))
    id = await engine.run_schedule(QUEUE, "tick", now_ms=NOW)
    assert id is not None
    for number in range(CRASH_LIMIT):
        assert await crash(engine, NOW + number * (LEASE_MS + 1)) == [id]
    assert (await job(engine, id)).deferred_failure == crash_error(CRASH_LIMIT)
