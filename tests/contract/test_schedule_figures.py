"""What an engine counts of schedules, for the metrics of workers."""

from __future__ import annotations

import pytest

from hasten.jobs._engine import Engine
from hasten.jobs._record import ClaimedJobs
from hasten.jobs._schedule_record import Missed, Overlap, ScheduleRule
from tests.contract.steps import NOW, QUEUE, claim
from tests.contract.test_schedules import EVERY, MINUTE, complete, schedule, upsert


async def claim_jobs(engine: Engine, now_ms: int) -> ClaimedJobs:
    return await engine.claim(QUEUE, claim(50), now_ms=now_ms)


class TestCount:
    async def test_has_all_schedules_of_the_queue(self, engine: Engine) -> None:
        assert await engine.count_schedules(QUEUE) == 0
        for id in ("a", "b", "c"):
            await upsert(engine, schedule(id))
        await engine.upsert_schedule("other", schedule("d"), now_ms=NOW)
        await engine.pause_schedule(QUEUE, "a", now_ms=NOW)
        assert await engine.count_schedules(QUEUE) == 3
        await engine.remove_schedules(QUEUE, ["a", "b"], now_ms=NOW)
        assert await engine.count_schedules(QUEUE) == 1

    async def test_has_those_that_have_ended(self, engine: Engine) -> None:
        await upsert(engine, schedule(rule=ScheduleRule(every_ms=MINUTE, limit=1)))
        await claim_jobs(engine, NOW)
        assert await engine.count_schedules(QUEUE) == 1


class TestDroppedSlots:
    @pytest.mark.parametrize(("missed", "dropped"), [("last", 3), ("skip", 4), ("all", 0)])
    @pytest.mark.parametrize(
        "rule", [EVERY, ScheduleRule(cron="* * * * *", tz="UTC")], ids=["every", "cron"]
    )
    async def test_missed_ones_are_counted_by_the_claim(
        self, engine: Engine, rule: ScheduleRule, missed: Missed, dropped: int
    ) -> None:
        record = await upsert(engine, schedule(rule=rule, missed=missed))
        assert record.slot_ms is not None
        claimed = await claim_jobs(engine, record.slot_ms + 3 * MINUTE)
        assert claimed.dropped_slots == dropped
        assert (await engine.get_schedules(QUEUE, ["tick"]))[0] is not None

    @pytest.mark.parametrize(("overlap", "dropped"), [("allow", 0), ("skip", 1), ("queue", 0)])
    async def test_overlapping_ones_are_counted_by_the_claim(
        self, engine: Engine, overlap: Overlap, dropped: int
    ) -> None:
        await upsert(engine, schedule(overlap=overlap))
        first = await claim_jobs(engine, NOW)
        assert (len(first.leases), first.dropped_slots) == (1, 0)
        assert (await claim_jobs(engine, NOW + MINUTE)).dropped_slots == dropped
        await complete(engine, first.leases, now_ms=NOW + MINUTE)

    async def test_a_claim_without_schedules_has_none(self, engine: Engine) -> None:
        assert (await claim_jobs(engine, NOW)).dropped_slots == 0


class TestLate:
    async def test_at_most_the_limit_is_returned_the_latest_first(self, engine: Engine) -> None:
        for number in range(130):
            await upsert(engine, schedule(f"s{number:03}"), now_ms=NOW + number)
        for limit in (0, 1, 100, 129, 130, 131, 1_000):
            found = await engine.late_schedules(QUEUE, before_ms=NOW + MINUTE, limit=limit)
            assert [each.id for each in found] == [f"s{n:03}" for n in range(min(limit, 130))]
        found = await engine.late_schedules(QUEUE, before_ms=NOW + 5, limit=100)
        assert len(found) == 5

    async def test_those_that_have_ended_do_not_use_up_the_limit(self, engine: Engine) -> None:
        for number in range(12):
            once = ScheduleRule(every_ms=MINUTE, limit=1)
            await upsert(engine, schedule(f"ended{number}", once))
        await complete(engine, (await claim_jobs(engine, NOW)).leases)
        for number in range(3):
            await upsert(engine, schedule(f"late{number}"), now_ms=NOW + 1 + number)
        found = await engine.late_schedules(QUEUE, before_ms=NOW + MINUTE, limit=2)
        assert [each.id for each in found] == ["late0", "late1"]
