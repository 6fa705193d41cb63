"""Schedules: each slot gets one job, whatever the number of workers, crashes and clock steps."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
from msgspec import structs

from hasten.errors import WrongState
from hasten.jobs._engine import Engine
from hasten.jobs._options import DEFAULT_OPTIONS, Options, decode_options
from hasten.jobs._record import Completed, Failed, Lease, Released, Retry
from hasten.jobs._schedule_ids import split_job_id
from hasten.jobs._schedule_record import (
    MAX_CATCH_UP,
    NewSchedule,
    SchedulePolicy,
    ScheduleRecord,
    ScheduleRule,
)
from hasten.jobs._schedule_times import jitter_of
from hasten.jobs._schedule_wire import slot_of
from hasten.jobs._states import State
from tests.contract.steps import (
    LEASE_MS,
    NOW,
    QUEUE,
    add,
    claim,
    counts,
    cursor,
    exists,
    happened,
    ids_in,
    job,
    settled,
    soon,
    waiting,
)

MINUTE: Final = 60_000
EVERY: Final = ScheduleRule(every_ms=MINUTE)
DAILY: Final = ScheduleRule(cron="30 2 * * *", tz="Europe/Madrid")


def schedule(
    id: str = "tick",
    rule: ScheduleRule = EVERY,
    *,
    data: str = "{}",
    task: str = "send",
    options: Options = DEFAULT_OPTIONS,
    is_declared: bool = False,
    **policy: Any,
) -> NewSchedule:
    return NewSchedule(id, rule, SchedulePolicy(**policy), task, data, options, is_declared)


async def upsert(engine: Engine, new: NewSchedule, *, now_ms: int = NOW) -> ScheduleRecord:
    record = await engine.upsert_schedule(QUEUE, new, now_ms=now_ms)
    assert record is not None
    return record


async def get(engine: Engine, id: str = "tick") -> ScheduleRecord:
    (record,) = await engine.get_schedules(QUEUE, [id])
    assert record is not None
    return record


async def claim_all(engine: Engine, now_ms: int, token: str = "t1") -> list[Lease]:
    """Claim until nothing is ready."""
    leases: list[Lease] = []
    while batch := (await engine.claim(QUEUE, claim(50, token), now_ms=now_ms)).leases:
        leases += batch
    return leases


async def run_all(engine: Engine, now_ms: int, token: str = "t1") -> list[int]:
    """Run all jobs that are ready, to their end. Returns their slots."""
    slots: list[int] = []
    while batch := (await engine.claim(QUEUE, claim(50, token), now_ms=now_ms)).leases:
        slots += map(slot_ms, batch)
        await complete(engine, batch, now_ms=now_ms)
    return slots


async def complete(engine: Engine, leases: list[Lease], *, now_ms: int = NOW) -> None:
    ends = [Completed(lease.job.id, lease.token, "null") for lease in leases]
    await settled(engine, *ends, now_ms=now_ms)


def slot_ms(lease: Lease) -> int:
    slot = split_job_id(lease.job.id)
    assert slot is not None
    return slot[1]


async def pending(engine: Engine) -> list[str]:
    """Return the ids of the jobs that have not started."""
    return [
        id
        for state in (State.WAITING, State.PRIORITIZED, State.DELAYED)
        for id in await ids_in(engine, state)
    ]


def ms(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


class TestUpsert:
    async def test_an_interval_begins_now(self, engine: Engine) -> None:
        record = await upsert(engine, schedule(data='{"a":1}'))
        assert record == await get(engine)
        assert (record.slot_ms, record.count, record.pending) == (NOW, 1, State.WAITING)
        assert (record.task, record.data) == ("send", '{"a":1}')
        assert record.rule == ScheduleRule(every_ms=MINUTE, offset_ms=NOW % MINUTE)
        (lease,) = await claim_all(engine, NOW)
        assert (lease.job.id, lease.job.name) == (f"repeat:tick:{NOW}", "send")
        assert lease.job.data == '{"a":1}'

    async def test_a_cron_pattern_begins_at_its_next_match(self, engine: Engine) -> None:
        now_ms = ms("2026-06-01 02:30", "Europe/Madrid")
        record = await upsert(engine, schedule(rule=DAILY), now_ms=now_ms)
        assert record.slot_ms == ms("2026-06-02 02:30", "Europe/Madrid")
        assert record.rule == DAILY
        (id,) = await ids_in(engine, State.DELAYED)
        assert (await job(engine, id)).due_ms == record.slot_ms

    @pytest.mark.parametrize(
        ("rule", "first_ms"),
        [
            ({"offset_ms": 5_000}, 16 * MINUTE + 5_000 + MINUTE),
            ({"offset_ms": 0}, 17 * MINUTE),
            ({"start_ms": NOW + 7}, NOW + 7),
            ({"start_ms": NOW - 7}, NOW - 7 + MINUTE),
            ({"start_ms": NOW + 7, "offset_ms": 0}, 17 * MINUTE),
        ],
    )
    async def test_the_slots_of_an_interval_may_be_aligned(
        self, engine: Engine, rule: dict[str, Any], first_ms: int
    ) -> None:
        """NOW is 16 minutes and 40 seconds after 1970."""
        record = await upsert(engine, schedule(rule=ScheduleRule(every_ms=MINUTE, **rule)))
        assert record.slot_ms == first_ms

    @pytest.mark.parametrize("times", [1, 3])
    async def test_without_a_change_nothing_happens(self, engine: Engine, times: int) -> None:
        first = await upsert(engine, schedule(rule=EVERY, data='{"a":1}'))
        after = await cursor(engine)
        for number in range(times):
            assert await upsert(engine, schedule(data='{"a":1}'), now_ms=NOW + number) == first
        assert await happened(engine, after) == []

    async def test_without_a_change_a_run_is_not_repeated(self, engine: Engine) -> None:
        """As at a deployment, while the handler runs and after it has ended."""
        await upsert(engine, schedule())
        leases = await claim_all(engine, NOW)
        before = await get(engine)
        assert await upsert(engine, schedule(), now_ms=NOW + 1) == before
        await complete(engine, leases)
        assert await upsert(engine, schedule(), now_ms=NOW + 2) == before
        assert (before.slot_ms, before.count) == (NOW + MINUTE, 2)

    async def test_many_processes_store_one_schedule(self, engine: Engine) -> None:
        made = await asyncio.gather(
            *(
                upsert(engine, schedule(f"s{number % 3}", rule), now_ms=NOW + number)
                for number in range(12)
                for rule in (EVERY,)
            )
        )
        assert {record.count for record in made} == {1}
        assert len(await pending(engine)) == 3

    async def test_a_changed_template_is_used_by_the_pending_job(self, engine: Engine) -> None:
        await upsert(engine, schedule(data='{"a":1}'))
        await run_all(engine, NOW)
        options = Options(attempts=7, priority=3)
        changed = schedule(data='{"a":2}', task="other", options=options)
        record = await upsert(engine, changed, now_ms=NOW + 1)
        assert (record.slot_ms, record.count) == (NOW + MINUTE, 2)
        assert await pending(engine) == [f"repeat:tick:{NOW + MINUTE}"]
        (lease,) = await claim_all(engine, NOW + MINUTE)
        assert (lease.job.name, lease.job.data, lease.job.priority) == ("other", '{"a":2}', 3)
        assert json.loads(lease.job.opts)["attempts"] == 7
        (lease,) = await claim_all(engine, NOW + 2 * MINUTE)
        assert (lease.job.name, lease.job.data, lease.job.priority) == ("other", '{"a":2}', 3)

    async def test_a_changed_interval_goes_on_from_the_slot_before(self, engine: Engine) -> None:
        """It does not begin with a run: a deployment would cause one."""
        await upsert(engine, schedule())
        await run_all(engine, NOW)
        longer = schedule(rule=ScheduleRule(every_ms=10 * MINUTE))
        record = await upsert(engine, longer, now_ms=NOW + 1)
        assert (record.slot_ms, record.count) == (NOW + MINUTE, 2)
        assert len(await pending(engine)) == 1
        assert await run_all(engine, NOW + MINUTE) == [NOW + MINUTE]
        assert (await get(engine)).slot_ms == NOW + 11 * MINUTE
        shorter = schedule(rule=ScheduleRule(every_ms=1000))
        record = await upsert(engine, shorter, now_ms=NOW + MINUTE + 1)
        assert record.slot_ms == NOW + MINUTE + 1000

    @pytest.mark.parametrize("cron", [None, "* * * * *"])
    async def test_a_start_that_is_the_current_time_moves_nothing(
        self, engine: Engine, cron: str | None
    ) -> None:
        """As code at the start of a process may pass it. Each process has another one."""
        slots = []
        for now_ms in range(NOW, NOW + 4 * MINUTE, 20_000):
            rule = ScheduleRule(
                every_ms=None if cron else MINUTE, cron=cron, tz=cron and "UTC", start_ms=now_ms
            )
            await upsert(engine, schedule(rule=rule), now_ms=now_ms)
            slots += await run_all(engine, now_ms)
        first_ms = NOW if cron is None else 17 * MINUTE
        assert slots == [first_ms + minute * MINUTE for minute in range(4)]

    async def test_a_start_in_the_future_moves_the_slots(self, engine: Engine) -> None:
        for start_ms in NOW + 5_000, NOW + 7_000:
            rule = ScheduleRule(every_ms=MINUTE, start_ms=start_ms)
            assert (await upsert(engine, schedule(rule=rule))).slot_ms == start_ms
        assert len(await pending(engine)) == 1

    async def test_an_interval_becomes_a_cron_pattern(self, engine: Engine) -> None:
        await upsert(engine, schedule())
        record = await upsert(engine, schedule(rule=DAILY))
        assert record.rule == DAILY
        assert (await pending(engine)) == [f"repeat:tick:{record.slot_ms}"]
        record = await upsert(engine, schedule())
        assert record.rule.cron is None
        assert len(await pending(engine)) == 1

    async def test_a_changed_time_zone_moves_the_next_slot(self, engine: Engine) -> None:
        await upsert(engine, schedule(rule=DAILY), now_ms=ms("2026-06-01"))
        rule = ScheduleRule(cron="30 2 * * *", tz="UTC")
        record = await upsert(engine, schedule(rule=rule), now_ms=ms("2026-06-01"))
        assert record.slot_ms == ms("2026-06-01 02:30")

    async def test_a_change_while_the_run_is_active(self, engine: Engine) -> None:
        await upsert(engine, schedule())
        leases = await claim_all(engine, NOW)
        await upsert(engine, schedule(data='{"a":2}'))
        await complete(engine, leases)
        (lease,) = await claim_all(engine, NOW + MINUTE)
        assert lease.job.data == '{"a":2}'

    async def test_a_slot_that_has_had_its_run_gets_no_other(self, engine: Engine) -> None:
        """The schedule was removed and stored again, and the clock set back."""
        rule = ScheduleRule(cron="* * * * *", tz="UTC")
        await upsert(engine, schedule(rule=rule), now_ms=0)
        assert await run_all(engine, MINUTE) == [MINUTE]
        await engine.remove_schedules(QUEUE, ["tick"], now_ms=MINUTE)
        record = await upsert(engine, schedule(rule=rule), now_ms=0)
        assert record.slot_ms == 2 * MINUTE

    async def test_the_next_slot_may_have_had_its_run(self, engine: Engine) -> None:
        """As above, and only some of the slots had one."""
        rule = ScheduleRule(every_ms=MINUTE, offset_ms=0)
        await upsert(engine, schedule(rule=rule), now_ms=0)
        for minute in 1, 2, 5, 6:
            await run_all(engine, minute * MINUTE)
        await engine.remove_schedules(QUEUE, ["tick"], now_ms=6 * MINUTE)
        assert await run_all(engine, 6 * MINUTE) == []
        await upsert(engine, schedule(rule=rule), now_ms=0)
        slots = [slot for minute in range(10) for slot in await run_all(engine, minute * MINUTE)]
        assert slots == [minute * MINUTE for minute in (4, 5, 7, 8, 9)]

    async def test_a_schedule_without_a_slot_is_not_stored(self, engine: Engine) -> None:
        over = schedule(rule=ScheduleRule(every_ms=MINUTE, end_ms=NOW - 1))
        assert await engine.upsert_schedule(QUEUE, over, now_ms=NOW) is None
        assert await engine.list_schedules(QUEUE, offset=0, limit=9) == []
        assert await counts(engine) == {}

    async def test_a_lost_job_is_added_again(self, engine: Engine) -> None:
        """For instance, another program has deleted it."""
        await upsert(engine, schedule())
        await engine.obliterate(QUEUE)
        assert await engine.get_schedules(QUEUE, ["tick"]) == [None]
        record = await upsert(engine, schedule())
        assert record.pending is State.WAITING

    async def test_large_arguments_and_odd_texts(self, engine: Engine) -> None:
        data = json.dumps({"a": "é\u2028" * 100_000})
        await upsert(engine, schedule("ünïcode name {x}", data=data))
        record = await get(engine, "ünïcode name {x}")
        assert record.data == data
        (lease,) = await claim_all(engine, NOW)
        assert lease.job.data == data


class TestClaim:
    async def test_each_slot_gets_one_job(self, engine: Engine) -> None:
        await upsert(engine, schedule())
        slots = [
            slot for minute in range(5) for slot in await run_all(engine, NOW + minute * MINUTE)
        ]
        assert slots == [NOW + minute * MINUTE for minute in range(5)]
        assert (await get(engine)).count == 6

    async def test_one_job_is_pending(self, engine: Engine) -> None:
        await upsert(engine, schedule())
        await claim_all(engine, NOW)
        assert await pending(engine) == [f"repeat:tick:{NOW + MINUTE}"]

    async def test_a_claim_of_several_schedules(self, engine: Engine) -> None:
        for number in range(20):
            await upsert(engine, schedule(f"s{number:02}"))
        await add(engine, "a", "b")
        assert len(await claim_all(engine, NOW)) == 22
        assert len(await pending(engine)) == 20

    async def test_another_attempt_adds_no_job(self, engine: Engine) -> None:
        await upsert(engine, schedule())
        (lease,) = await claim_all(engine, NOW)
        await settled(engine, Retry(lease.job.id, lease.token, "error", "", 0))
        (again,) = await claim_all(engine, NOW, "t2")
        assert again.job.id == lease.job.id
        await complete(engine, [again])
        await engine.requeue(QUEUE, [lease.job.id], [State.COMPLETED], now_ms=NOW)
        (again,) = await claim_all(engine, NOW, "t3")
        assert again.job.id == lease.job.id
        assert len(await pending(engine)) == 1
        assert (await get(engine)).count == 2

    async def test_a_run_that_is_handed_back_adds_no_job(self, engine: Engine) -> None:
        await upsert(engine, schedule())
        (lease,) = await claim_all(engine, NOW)
        await settled(engine, Released(lease.job.id, lease.token))
        assert await run_all(engine, NOW) == [NOW]
        assert (await get(engine)).count == 2

    async def test_a_run_whose_worker_dies_adds_no_job(self, engine: Engine) -> None:
        await upsert(engine, schedule())
        await claim_all(engine, NOW)
        assert await engine.reclaim(QUEUE, crash_limit=9, now_ms=NOW + LEASE_MS)
        assert await run_all(engine, NOW + LEASE_MS) == [NOW]
        assert (await get(engine)).count == 2

    async def test_the_clock_may_be_set_back(self, engine: Engine) -> None:
        await upsert(engine, schedule())
        slots = []
        for now_ms in (NOW, NOW + MINUTE, NOW - 60 * MINUTE, NOW + MINUTE, NOW + 2 * MINUTE):
            slots += await run_all(engine, now_ms)
        assert slots == [NOW, NOW + MINUTE, NOW + 2 * MINUTE]

    async def test_the_clock_may_be_set_forward(self, engine: Engine) -> None:
        await upsert(engine, schedule())
        slots = []
        for now_ms in (NOW, NOW + 60 * MINUTE, NOW + 2 * MINUTE, NOW + 61 * MINUTE):
            slots += await run_all(engine, now_ms)
        assert slots == [NOW, NOW + MINUTE, NOW + 61 * MINUTE]

    async def test_a_promoted_job_runs_early_and_once(self, engine: Engine) -> None:
        await upsert(engine, schedule())
        await run_all(engine, NOW)
        await engine.requeue(QUEUE, await pending(engine), [State.DELAYED], now_ms=NOW)
        assert await run_all(engine, NOW) == [NOW + MINUTE]
        assert await run_all(engine, NOW + MINUTE) == []
        assert await run_all(engine, NOW + 2 * MINUTE) == [NOW + 2 * MINUTE]

    async def test_waiting_workers_are_woken(self, engine: Engine) -> None:
        async with waiting(engine) as task:
            await upsert(engine, schedule())
            await soon(task)

    async def test_priority_and_lifo(self, engine: Engine) -> None:
        await add(engine, "a", "b")
        await upsert(engine, schedule("first", options=Options(lifo=True)))
        await upsert(engine, schedule("last", options=Options(priority=5)))
        ids = [lease.job.id for lease in await claim_all(engine, NOW)]
        assert ids == [f"repeat:first:{NOW}", "a", "b", f"repeat:last:{NOW}"]
        for id in await pending(engine):
            await engine.requeue(QUEUE, [id], [State.DELAYED], now_ms=NOW)
        await add(engine, "c")
        assert [lease.job.id for lease in await claim_all(engine, NOW, "t2")] == [
            f"repeat:first:{NOW + MINUTE}", "c", f"repeat:last:{NOW + MINUTE}",
        ]  # fmt: skip

    @pytest.mark.parametrize("kind_of_end", ["limit", "end"])
    async def test_a_schedule_ends(self, engine: Engine, kind_of_end: str) -> None:
        rules = {
            "limit": ScheduleRule(every_ms=MINUTE, limit=3),
            "end": ScheduleRule(every_ms=MINUTE, end_ms=NOW + 3 * MINUTE - 1),
        }
        new = schedule(rule=rules[kind_of_end])
        await upsert(engine, new)
        slots = []
        for minute in range(6):
            assert not (await get(engine)).has_ended or minute >= 3
            slots += await run_all(engine, NOW + minute * MINUTE)
        assert slots == [NOW, NOW + MINUTE, NOW + 2 * MINUTE]
        record = await get(engine)
        assert record.has_ended
        assert not record.is_broken
        assert await upsert(engine, new, now_ms=NOW + 9 * MINUTE) == record
        assert await pending(engine) == []
        assert await engine.late_schedules(QUEUE, before_ms=NOW + 99 * MINUTE, limit=9) == []

    async def test_the_limit_counts_over_the_whole_life(self, engine: Engine) -> None:
        """A deployment that changes the arguments grants no further runs."""
        rule = ScheduleRule(every_ms=MINUTE, limit=3)
        slots = []
        for minute in range(6):
            new = schedule(rule=rule, data=json.dumps({"deployment": minute}))
            await engine.upsert_schedule(QUEUE, new, now_ms=NOW + minute * MINUTE)
            slots += await run_all(engine, NOW + minute * MINUTE)
        assert slots == [NOW, NOW + MINUTE, NOW + 2 * MINUTE]

    async def test_a_higher_limit_continues_the_schedule(self, engine: Engine) -> None:
        await upsert(engine, schedule(rule=ScheduleRule(every_ms=MINUTE, limit=1)))
        assert await run_all(engine, NOW) == [NOW]
        await upsert(engine, schedule(rule=ScheduleRule(every_ms=MINUTE, limit=2)))
        assert await run_all(engine, NOW + 9 * MINUTE) == [NOW + MINUTE]
        assert (await get(engine)).has_ended

    async def test_a_lower_limit_ends_the_schedule(self, engine: Engine) -> None:
        await upsert(engine, schedule())
        for minute in range(3):
            await run_all(engine, NOW + minute * MINUTE)
        record = await upsert(engine, schedule(rule=ScheduleRule(every_ms=MINUTE, limit=2)))
        assert record.has_ended
        assert await pending(engine) == []

    async def test_jitter_delays_the_job_and_not_the_slot(self, engine: Engine) -> None:
        dues = set()
        for number in range(20):
            record = await upsert(engine, schedule(f"s{number}", jitter_ms=30_000))
            assert record.slot_ms == NOW
            due_ms = record.due_ms or NOW
            assert NOW <= due_ms <= NOW + 30_000
            dues.add(due_ms)
        assert len(dues) > 10
        slots = set(await run_all(engine, NOW + 30_000))
        assert slots == {NOW}
        record = await get(engine, "s7")
        assert record.slot_ms == NOW + MINUTE
        assert record == await upsert(engine, schedule("s7", jitter_ms=30_000), now_ms=NOW + 40_000)

    async def test_the_expiry_counts_from_each_slot(self, engine: Engine) -> None:
        await upsert(engine, schedule(options=Options(expires_ms=5_000)))
        for minute in range(3):
            (lease,) = await claim_all(engine, NOW + minute * MINUTE)
            assert decode_options(lease.job.opts).expires_at_ms == NOW + minute * MINUTE + 5_000

    @pytest.mark.parametrize("jitter_ms", [0, 30_000])
    async def test_the_expiry_of_a_late_job_counts_from_its_slot(
        self, engine: Engine, jitter_ms: int
    ) -> None:
        """Also if the job was added late: because of missed slots, or of another upsert."""
        new = schedule(options=Options(expires_ms=5_000), missed="all", jitter_ms=jitter_ms)
        await upsert(engine, new)
        late_ms = NOW + 2 * MINUTE + 40_000
        await upsert(engine, structs.replace(new, data='{"a":1}'), now_ms=late_ms)
        leases = await claim_all(engine, late_ms)
        assert len(leases) == 3
        for lease in leases:
            due_ms = slot_ms(lease) + jitter_of(new.policy, new.id, slot_ms(lease))
            assert decode_options(lease.job.opts).expires_at_ms == due_ms + 5_000


class TestTimeZones:
    @pytest.mark.parametrize(
        ("pattern", "first", "count", "expected"),
        [
            # 2026-03-29: clocks go from 02:00 to 03:00.
            ("30 2 * * *", "2026-03-28 00:00", 3, ["28 02:30 +01", "29 03:30 +02", "30 02:30 +02"]),
            ("0 * * * *", "2026-03-29 00:30", 3, ["29 01:00 +01", "29 03:00 +02", "29 04:00 +02"]),
            # 2026-10-25: clocks go from 03:00 to 02:00.
            ("30 2 * * *", "2026-10-24 00:00", 3, ["24 02:30 +02", "25 02:30 +02", "26 02:30 +01"]),
            ("30 * * * *", "2026-10-25 01:00", 4,
             ["25 01:30 +02", "25 02:30 +02", "25 02:30 +01", "25 03:30 +01"]),
        ],
    )  # fmt: skip
    async def test_slots_when_clocks_change(
        self, engine: Engine, pattern: str, first: str, count: int, expected: list[str]
    ) -> None:
        zone = ZoneInfo("Europe/Madrid")
        rule = ScheduleRule(cron=pattern, tz="Europe/Madrid")
        await upsert(engine, schedule(rule=rule), now_ms=ms(first, "Europe/Madrid"))
        shown = []
        for _ in range(count):
            slot_ms = (await get(engine)).slot_ms
            assert slot_ms is not None
            assert await run_all(engine, slot_ms) == [slot_ms]
            at = datetime.fromtimestamp(slot_ms / 1000, UTC).astimezone(zone)
            shown.append(f"{at:%d %H:%M %z}"[:-2])
        assert shown == expected

    async def test_an_interval_is_elapsed_time(self, engine: Engine) -> None:
        now_ms = ms("2026-03-28 12:00", "Europe/Madrid")
        await upsert(engine, schedule(rule=ScheduleRule(every_ms=86_400_000)), now_ms=now_ms)
        await run_all(engine, now_ms)
        assert (await get(engine)).slot_ms == now_ms + 86_400_000


CRON: Final = ScheduleRule(cron="* * * * *", tz="UTC")
START: Final = 20 * MINUTE


@pytest.mark.parametrize("rule", [EVERY, CRON], ids=["every", "cron"])
class TestMissed:
    """All slots are full minutes. The first one is START."""

    async def begin(self, engine: Engine, rule: ScheduleRule, **policy: Any) -> None:
        first_ms = START if rule.cron is None else START - 1
        await upsert(engine, schedule(rule=rule, **policy), now_ms=first_ms)
        assert await run_all(engine, START) == [START]

    async def test_last_runs_one_late_job(self, engine: Engine, rule: ScheduleRule) -> None:
        await self.begin(engine, rule, missed="last")
        (lease,) = await claim_all(engine, START + 5 * MINUTE + 1)
        assert slot_ms(lease) == START + MINUTE
        slot = slot_of(lease.job)
        assert (slot.planned, slot.previous, slot.missed) == (at(START + MINUTE), at(START), 4)
        await complete(engine, [lease])
        record = await get(engine)
        assert (record.slot_ms, record.dropped) == (START + 6 * MINUTE, 4)
        (lease,) = await claim_all(engine, START + 6 * MINUTE)
        slot = slot_of(lease.job)
        assert (slot.previous, slot.missed) == (at(START + MINUTE), 0)

    async def test_skip_runs_none_of_them(self, engine: Engine, rule: ScheduleRule) -> None:
        await self.begin(engine, rule, missed="skip")
        after = await cursor(engine)
        assert await claim_all(engine, START + 5 * MINUTE + 1) == []
        kinds = [event.kind for event in await happened(engine, after)]
        assert kinds == ["waiting", "removed", "added", "delayed"]
        assert len(await claim_all(engine, START)) == 1  # the job with which the events were read
        record = await get(engine)
        assert (record.slot_ms, record.dropped) == (START + 6 * MINUTE, 5)
        assert record.previous_ms == START
        (lease,) = await claim_all(engine, START + 6 * MINUTE + 59_999)
        slot = slot_of(lease.job)
        assert (slot_ms(lease), slot.previous, slot.missed) == (START + 6 * MINUTE, at(START), 5)
        assert not await exists(engine, f"repeat:tick:{START + MINUTE}")

    async def test_all_runs_each_of_them(self, engine: Engine, rule: ScheduleRule) -> None:
        await self.begin(engine, rule, missed="all")
        slots = await run_all(engine, START + 5 * MINUTE + 1)
        assert slots == [START + minute * MINUTE for minute in range(1, 6)]
        record = await get(engine)
        assert (record.slot_ms, record.dropped) == (START + 6 * MINUTE, 0)

    async def test_the_next_slot_may_be_now(self, engine: Engine, rule: ScheduleRule) -> None:
        """A claim at the very time of the next slot is late for the one before."""
        await self.begin(engine, rule, missed="skip")
        assert await run_all(engine, START + 2 * MINUTE) == []
        assert (await get(engine)).slot_ms == START + 3 * MINUTE

    async def test_a_run_that_only_has_to_fail_is_not_dropped(
        self, engine: Engine, rule: ScheduleRule
    ) -> None:
        await self.begin(engine, rule, missed="skip")
        (id,) = await pending(engine)
        await engine.requeue(QUEUE, [id], [State.DELAYED], now_ms=START)
        leases = await claim_all(engine, START)
        await engine.cancel(QUEUE, [id], now_ms=START)
        await settled(engine, Released(id, leases[0].token))
        (lease,) = await claim_all(engine, START + 9 * MINUTE + 1, "t2")
        assert lease.job.deferred_failure is not None


def at(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)


async def test_all_has_a_cap(engine: Engine) -> None:
    """An outage of a month of a schedule for each second must not fill the store."""
    rule = ScheduleRule(every_ms=1000)
    await upsert(engine, schedule(rule=rule, missed="all"), now_ms=START)
    last_ms = START + 5000 * 1000
    slots = await run_all(engine, last_ms)
    assert slots == [START + number * 1000 for number in range(MAX_CATCH_UP + 1)]
    record = await get(engine)
    assert (record.slot_ms, record.dropped) == (last_ms + 1000, 5000 - MAX_CATCH_UP)
    assert await run_all(engine, last_ms + 1000) == [last_ms + 1000]


@pytest.mark.parametrize("rule", [EVERY, CRON], ids=["every", "cron"])
class TestOverlap:
    async def begin(self, engine: Engine, rule: ScheduleRule, **policy: Any) -> list[Lease]:
        first_ms = START if rule.cron is None else START - 1
        await upsert(engine, schedule(rule=rule, **policy), now_ms=first_ms)
        return await claim_all(engine, START)

    async def test_allow_runs_both(self, engine: Engine, rule: ScheduleRule) -> None:
        await self.begin(engine, rule, overlap="allow")
        assert len(await claim_all(engine, START + MINUTE)) == 1

    async def test_skip_runs_no_second_one(self, engine: Engine, rule: ScheduleRule) -> None:
        leases = await self.begin(engine, rule, overlap="skip")
        for minute in 1, 2, 3:
            assert await claim_all(engine, START + minute * MINUTE) == []
        record = await get(engine)
        assert (record.dropped, record.slot_ms) == (3, START + 4 * MINUTE)
        await complete(engine, leases)
        (lease,) = await claim_all(engine, START + 4 * MINUTE)
        slot = slot_of(lease.job)
        assert (slot.previous, slot.missed) == (at(START), 3)

    @pytest.mark.parametrize("how", ["retry", "fail", "reclaim"])
    async def test_a_run_is_unfinished_until_its_last_attempt(
        self, engine: Engine, rule: ScheduleRule, how: str
    ) -> None:
        (lease,) = await self.begin(engine, rule, overlap="skip")
        id = lease.job.id
        if how == "retry":
            await settled(engine, Retry(id, lease.token, "no", "", 10 * MINUTE), now_ms=START)
        elif how == "reclaim":
            await engine.reclaim(QUEUE, crash_limit=9, now_ms=START + LEASE_MS)
        else:
            await settled(engine, Failed(id, lease.token, "no"), now_ms=START)
        claimed = await claim_all(engine, START + MINUTE, "t2")
        expected = {"retry": [], "reclaim": [START], "fail": [START + MINUTE]}
        assert list(map(slot_ms, claimed)) == expected[how]

    async def test_another_attempt_drops_no_slots(
        self, engine: Engine, rule: ScheduleRule, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Even if it starts after the next slots, whose jobs have run."""
        (lease,) = await self.begin(engine, rule)
        id = lease.job.id
        await settled(engine, Retry(id, lease.token, "no", "", 3 * MINUTE), now_ms=START)
        for minute in 1, 2:
            await claim_all(engine, START + minute * MINUTE)
        claimed = await engine.claim(QUEUE, claim(50), now_ms=START + 3 * MINUTE)
        assert id in [each.job.id for each in claimed.leases]
        assert (claimed.dropped_slots, caplog.messages) == (0, [])

    async def test_queue_holds_the_second_one(self, engine: Engine, rule: ScheduleRule) -> None:
        leases = await self.begin(engine, rule, overlap="queue")
        for seconds in range(60, 300, 20):
            assert await claim_all(engine, START + seconds * 1000) == []
        record = await get(engine)
        assert (record.is_held, record.slot_ms, record.dropped) == (True, START + MINUTE, 0)
        assert record.pending is State.DELAYED
        facts = await engine.get_why_facts(QUEUE, f"repeat:tick:{START + MINUTE}", now_ms=START)
        assert facts is not None
        assert facts.is_held
        assert await engine.late_schedules(QUEUE, before_ms=START + 300_000, limit=9) == []
        now_ms = START + 300_000
        ends = [Completed(lease.job.id, lease.token, "null") for lease in leases]
        batch = await engine.settle(QUEUE, ends, claim(5, "t2"), now_ms=now_ms)
        assert list(map(slot_ms, batch.leases)) == [START + MINUTE]
        assert batch.leases[0].job.attempts_started == 1
        record = await get(engine)
        assert (record.is_held, record.slot_ms) == (False, START + 6 * MINUTE)
        assert record.dropped == 4

    @pytest.mark.parametrize("how", ["fail", "cancel", "remove", "purge"])
    async def test_the_held_one_starts_at_any_end(
        self, engine: Engine, rule: ScheduleRule, how: str
    ) -> None:
        (lease,) = await self.begin(engine, rule, overlap="queue")
        id = lease.job.id
        if how == "fail":
            assert await claim_all(engine, START + MINUTE) == []
            await settled(engine, Failed(id, lease.token, "no"), now_ms=START + MINUTE)
        else:
            await settled(engine, Retry(id, lease.token, "no", "", 99 * MINUTE), now_ms=START)
            assert await claim_all(engine, START + MINUTE) == []
            if how == "cancel":
                await engine.cancel(QUEUE, [id], now_ms=START + MINUTE)
            elif how == "remove":
                await engine.remove(QUEUE, [id], now_ms=START + MINUTE)
            else:
                await engine.purge(
                    QUEUE, [State.DELAYED], before_ms=None, limit=None, now_ms=START + MINUTE
                )
        assert await run_all(engine, START + MINUTE, "t2") == [START + MINUTE]

    async def test_a_held_one_is_woken_for(self, engine: Engine, rule: ScheduleRule) -> None:
        leases = await self.begin(engine, rule, overlap="queue")
        batch = await engine.claim(QUEUE, claim(5, "t2"), now_ms=START + MINUTE)
        assert batch.leases == []
        async with waiting(engine, next_due_ms=batch.next_due_ms) as task:
            await complete(engine, leases, now_ms=START + MINUTE)
            await soon(task)

    async def test_queue_with_all_runs_one_after_the_other(
        self, engine: Engine, rule: ScheduleRule
    ) -> None:
        leases = await self.begin(engine, rule, overlap="queue", missed="all")
        slots: list[int] = []
        now_ms = START + 3 * MINUTE
        for _ in range(3):
            assert await claim_all(engine, now_ms, "t2") == []
            ends = [Completed(lease.job.id, lease.token, "null") for lease in leases]
            leases = (await engine.settle(QUEUE, ends, claim(5, "t3"), now_ms=now_ms)).leases
            slots += map(slot_ms, leases)
        assert slots == [START + MINUTE, START + 2 * MINUTE, START + 3 * MINUTE]

    async def test_skip_with_queue_drops_what_was_held_too_long(
        self, engine: Engine, rule: ScheduleRule
    ) -> None:
        leases = await self.begin(engine, rule, overlap="queue", missed="skip")
        assert await claim_all(engine, START + MINUTE) == []
        await complete(engine, leases, now_ms=START + 3 * MINUTE)
        assert await claim_all(engine, START + 3 * MINUTE) == []
        assert await run_all(engine, START + 4 * MINUTE) == [START + 4 * MINUTE]

    @pytest.mark.parametrize("overlap", ["skip", "queue"])
    async def test_an_extra_run_counts(
        self, engine: Engine, rule: ScheduleRule, overlap: str
    ) -> None:
        leases = await self.begin(engine, rule, overlap=overlap)
        await complete(engine, leases)
        id = await engine.run_schedule(QUEUE, "tick", now_ms=START + 1)
        extra = await claim_all(engine, START + 1)
        assert [lease.job.id for lease in extra] == [id]
        assert await claim_all(engine, START + MINUTE) == []
        await complete(engine, extra, now_ms=START + MINUTE)
        assert await run_all(engine, START + MINUTE) == (
            [] if overlap == "skip" else [START + MINUTE]
        )


class TestAdministration:
    async def test_pause_and_resume(self, engine: Engine) -> None:
        await upsert(engine, schedule())
        await run_all(engine, NOW)
        for _ in range(2):
            assert await engine.pause_schedule(QUEUE, "tick", now_ms=NOW)
        record = await get(engine)
        assert (record.is_paused, record.slot_ms, record.has_ended) == (True, None, False)
        assert (record.is_broken, record.previous_ms) == (False, NOW)
        assert await run_all(engine, NOW + 5 * MINUTE) == []
        assert await pending(engine) == []
        assert await engine.late_schedules(QUEUE, before_ms=NOW + 99 * MINUTE, limit=9) == []
        for _ in range(2):
            assert await engine.resume_schedule(QUEUE, "tick", now_ms=NOW + 5 * MINUTE + 1)
        record = await get(engine)
        assert (record.is_paused, record.slot_ms, record.count) == (False, NOW + 6 * MINUTE, 2)
        assert await run_all(engine, NOW + 6 * MINUTE) == [NOW + 6 * MINUTE]

    async def test_a_pause_after_the_end(self, engine: Engine) -> None:
        await upsert(engine, schedule(rule=structs.replace(EVERY, limit=1)))
        await run_all(engine, NOW)
        await engine.pause_schedule(QUEUE, "tick", now_ms=NOW)
        record = await get(engine)
        assert (record.is_paused, record.has_ended) == (True, True)
        await engine.resume_schedule(QUEUE, "tick", now_ms=NOW)
        record = await get(engine)
        assert (record.is_paused, record.has_ended, record.is_pending) == (False, True, False)

    @pytest.mark.parametrize("how", ["resume", "upsert"])
    async def test_a_change_ends_the_silence_after_a_wrong_clock(
        self, engine: Engine, how: str
    ) -> None:
        """A worker whose clock was a day fast has run a slot of the next day."""
        day_ms = 1440 * MINUTE
        await upsert(engine, schedule())
        await run_all(engine, NOW)
        assert await run_all(engine, NOW + day_ms) == [NOW + MINUTE]
        assert await run_all(engine, NOW + day_ms + MINUTE) == [NOW + day_ms + MINUTE]
        now_ms = NOW + 5 * MINUTE + 1
        if how == "resume":
            await engine.pause_schedule(QUEUE, "tick", now_ms=now_ms)
            await engine.resume_schedule(QUEUE, "tick", now_ms=now_ms)
            record = await get(engine)
        else:
            record = await upsert(
                engine, schedule(rule=ScheduleRule(every_ms=2 * MINUTE)), now_ms=now_ms
            )
        assert record.slot_ms is not None
        assert now_ms < record.slot_ms <= now_ms + 2 * MINUTE
        assert await run_all(engine, record.slot_ms) == [record.slot_ms]

    async def test_a_paused_schedule_stays_paused(self, engine: Engine) -> None:
        await upsert(engine, schedule(is_declared=True))
        await engine.pause_schedule(QUEUE, "tick", now_ms=NOW)
        for data in "{}", '{"a":2}', '{"a":2}':
            record = await upsert(engine, schedule(data=data))
            assert record.is_paused
            assert record.is_declared
        assert await pending(engine) == []
        await engine.resume_schedule(QUEUE, "tick", now_ms=NOW)
        (lease,) = await claim_all(engine, NOW + MINUTE)
        assert lease.job.data == '{"a":2}'

    async def test_a_pause_does_not_stop_a_run(self, engine: Engine) -> None:
        await upsert(engine, schedule())
        leases = await claim_all(engine, NOW)
        await engine.pause_schedule(QUEUE, "tick", now_ms=NOW)
        await complete(engine, leases)

    async def test_missing_schedules(self, engine: Engine) -> None:
        assert await engine.get_schedules(QUEUE, ["a", "b"]) == [None, None]
        assert not await engine.pause_schedule(QUEUE, "a", now_ms=NOW)
        assert not await engine.resume_schedule(QUEUE, "a", now_ms=NOW)
        assert await engine.run_schedule(QUEUE, "a", now_ms=NOW) is None
        await upsert(engine, schedule("b"))
        assert await engine.remove_schedules(QUEUE, ["a", "b"], now_ms=NOW) == [False, True]
        assert await engine.remove_schedules(QUEUE, ["b"], now_ms=NOW) == [False]

    async def test_removal(self, engine: Engine) -> None:
        await upsert(engine, schedule())
        await run_all(engine, NOW)
        await engine.remove_schedules(QUEUE, ["tick"], now_ms=NOW)
        assert await engine.get_schedules(QUEUE, ["tick"]) == [None]
        assert await pending(engine) == []

    async def test_removal_keeps_a_job_that_is_ready(self, engine: Engine) -> None:
        """As in BullMQ."""
        await upsert(engine, schedule())
        await engine.remove_schedules(QUEUE, ["tick"], now_ms=NOW)
        assert await run_all(engine, NOW) == [NOW]
        assert await pending(engine) == []

    async def test_removal_of_a_paused_one(self, engine: Engine) -> None:
        await upsert(engine, schedule())
        await engine.pause_schedule(QUEUE, "tick", now_ms=NOW)
        assert await engine.remove_schedules(QUEUE, ["tick"], now_ms=NOW) == [True]
        assert await engine.list_schedules(QUEUE, offset=0, limit=9) == []

    async def test_an_extra_run(self, engine: Engine) -> None:
        await upsert(engine, schedule(data='{"a":1}', options=Options(attempts=3, priority=2)))
        await run_all(engine, NOW)
        before = await get(engine)
        id = await engine.run_schedule(QUEUE, "tick", now_ms=NOW + 5)
        assert id is not None
        (lease,) = await claim_all(engine, NOW + 5)
        assert (lease.job.id, lease.job.name, lease.job.data) == (id, "send", '{"a":1}')
        assert (lease.job.priority, json.loads(lease.job.opts)["attempts"]) == (2, 3)
        slot = slot_of(lease.job)
        assert (slot.planned, slot.previous, slot.missed) == (at(NOW + 5), at(NOW), 0)
        await complete(engine, [lease])
        assert await get(engine) == before

    async def test_an_extra_run_of_a_paused_one(self, engine: Engine) -> None:
        await upsert(engine, schedule())
        await engine.pause_schedule(QUEUE, "tick", now_ms=NOW)
        id = await engine.run_schedule(QUEUE, "tick", now_ms=NOW)
        assert [lease.job.id for lease in await claim_all(engine, NOW)] == [id]
        assert (await get(engine)).is_paused

    async def test_the_list_is_in_the_order_of_slots(self, engine: Engine) -> None:
        for number, every_ms in enumerate((3 * MINUTE, MINUTE, 2 * MINUTE, 4 * MINUTE)):
            await upsert(engine, schedule(f"s{number}", ScheduleRule(every_ms=every_ms)))
        await run_all(engine, NOW)
        await engine.pause_schedule(QUEUE, "s1", now_ms=NOW)
        found = await engine.list_schedules(QUEUE, offset=0, limit=9)
        assert [record.id for record in found] == ["s2", "s0", "s3", "s1"]
        for offset in range(5):
            page = await engine.list_schedules(QUEUE, offset=offset, limit=2)
            assert page == found[offset : offset + 2]
        assert await engine.list_schedules("other", offset=0, limit=9) == []

    async def test_late_ones(self, engine: Engine) -> None:
        """A run that has started is not late, and neither is one that waits for its jitter."""
        for number in range(3):
            await upsert(engine, schedule(f"s{number}"), now_ms=NOW + number)
        late = await engine.late_schedules(QUEUE, before_ms=NOW + 2, limit=9)
        assert [record.id for record in late] == ["s0", "s1"]
        assert [r.id for r in await engine.late_schedules(QUEUE, before_ms=NOW + 2, limit=1)] == [
            "s0"
        ]
        assert len(await claim_all(engine, NOW)) == 3
        assert await engine.late_schedules(QUEUE, before_ms=NOW + 2, limit=9) == []
        late = await engine.late_schedules(QUEUE, before_ms=NOW + MINUTE + 2, limit=9)
        assert [record.id for record in late] == ["s0", "s1"]

    async def test_the_pending_job_is_not_removed(self, engine: Engine) -> None:
        """Without it the schedule would add no further jobs."""
        await upsert(engine, schedule("ready"))
        await upsert(engine, schedule("later", CRON))
        await add(engine, "a", "b")
        ids = await pending(engine)
        with pytest.raises(WrongState, match="the next run of a schedule"):
            await engine.remove(QUEUE, ["a", *ids], now_ms=NOW)
        with pytest.raises(WrongState, match="the next run of a schedule"):
            await engine.cancel(QUEUE, ["b", *ids], now_ms=NOW)
        states = set(State) - {State.ACTIVE, State.FAILED}
        assert await engine.purge(QUEUE, states, before_ms=None, limit=None, now_ms=NOW) == []
        assert sorted(await pending(engine)) == sorted(set(ids) - {"a", "b"})

    async def test_the_limit_of_a_purge_counts_deleted_jobs(self, engine: Engine) -> None:
        for number in range(3):
            await upsert(engine, schedule(f"s{number}"))
        await add(engine, "a", "b", "c")
        purge = engine.purge(QUEUE, [State.WAITING], before_ms=None, limit=2, now_ms=NOW)
        assert await purge == ["a", "b"]

    async def test_a_run_that_has_ended_is_removed(self, engine: Engine) -> None:
        await upsert(engine, schedule())
        await run_all(engine, NOW)
        id = f"repeat:tick:{NOW}"
        assert await engine.remove(QUEUE, [id], now_ms=NOW) == [State.COMPLETED]

    async def test_queues_are_separate(self, engine: Engine) -> None:
        await upsert(engine, schedule())
        await engine.upsert_schedule("other", schedule(data='{"b":1}'), now_ms=NOW)
        await engine.remove_schedules("other", ["tick"], now_ms=NOW)
        assert (await get(engine)).pending is State.WAITING


async def test_n_workers_with_wrong_clocks_run_each_slot_once(engine: Engine) -> None:
    """Eight workers, whose clocks differ by minutes and jump, claim at the same time."""
    await upsert(engine, schedule("every", missed="all"))
    await upsert(engine, schedule("cron", CRON, missed="all"))
    await upsert(engine, schedule("last"))
    slots: dict[str, list[int]] = {"every": [], "cron": [], "last": []}

    async def work(number: int, now_ms: int) -> None:
        token = f"w{number}-{now_ms}"
        batch = await engine.claim(QUEUE, claim(3, token), now_ms=now_ms)
        for lease in batch.leases:
            of = split_job_id(lease.job.id)
            assert of is not None
            slots[of[0]].append(of[1])
        await complete(engine, batch.leases, now_ms=now_ms)

    steps = [0, 1, 2, 3, 2, 1, 4, 5, 9, 8, 7, 10]
    for step in steps:
        await asyncio.gather(
            *(work(number, NOW + step * MINUTE + number * 20_000) for number in range(8))
        )
    for id, found in slots.items():
        assert len(found) == len(set(found)), id
        last_ms = max(found)
        first_ms = min(found)
        grid = list(range(first_ms, last_ms + 1, MINUTE))
        assert set(found) <= set(grid)
        if id != "last":
            assert sorted(found) == grid
