"""Schedules in Redis: BullMQ's job schedulers, with what only hasten knows of them beside.

The functions take the engine's way to run a script on a queue. Cron patterns cannot be parsed in a
script, so what changes a schedule is computed here: from a read, whose version the script compares.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Protocol

import msgspec
from msgspec import structs

from hasten._durations import MAX_MS
from hasten._logs import get_logger
from hasten.errors import MissingExtra, StoreError
from hasten.jobs._encoding import UNDECODABLE
from hasten.jobs._engines.redis.decoding import decode_text, parse_and_clamp_count, to_dict
from hasten.jobs._options import decode_options
from hasten.jobs._record import Lease
from hasten.jobs._schedule_changes import ScheduleChange, plan_pause, plan_resume, plan_upsert
from hasten.jobs._schedule_ids import job_id_of, split_job_id
from hasten.jobs._schedule_log import log_left_out
from hasten.jobs._schedule_record import (
    NewSchedule,
    SchedulePolicy,
    ScheduleRecord,
    ScheduleRule,
)
from hasten.jobs._schedule_times import SlotPlan, jitter_of, next_slot_ms, plan_slot
from hasten.jobs._schedule_wire import (
    decode_policy,
    decode_rule,
    encode_rule,
    make_job_options,
    with_slot,
)
from hasten.jobs._states import State

logger: Final = get_logger("hasten.schedules")

READ_AT_ONCE: Final = 100
REMOVED_AT_ONCE: Final = 250
CHECKED_AT_ONCE: Final = 1_000

# `late` checks so many schedules. Those that have ended are among them.
MOST_CHECKED: Final = 20_000

# How often a change is computed again because another process has changed the schedule meanwhile.
MAX_CONFLICTS: Final = 100

# How many slots are tried at once if a job exists for a slot, and how often.
SLOTS_AT_ONCE: Final = 10
MAX_TAKEN: Final = 100


class RunScript(Protocol):
    """Runs a script on a queue."""

    def __call__(
        self, verb: str, queue: str, request: Mapping[str, object], *, repeatable: bool = False
    ) -> Awaitable[Any]: ...


class _OwnState(msgspec.Struct):
    """The JSON in the hash `hasten:schedules`; see `lua/lib/schedule_states.lua`."""

    ran: Any = None
    held: Any = None
    dropped: Any = 0
    ended: Any = False
    declared: Any = False


_own_states: Final = msgspec.json.Decoder(_OwnState)


class StoredSchedule(msgspec.Struct, frozen=True):
    """A schedule as it was read, and the version of what was read."""

    record: ScheduleRecord
    version: str


# Reading ------------------------------------------------------------------------------------------


async def read(run: RunScript, queue: str, ids: Sequence[str]) -> list[StoredSchedule | None]:
    """Return the schedules with these ids, in the same order; None for a missing one."""
    found: list[StoredSchedule | None] = []
    while len(found) < len(ids):
        portion = ids[len(found) : len(found) + READ_AT_ONCE]
        rows = await run("get_schedules", queue, {"ids": portion}, repeatable=True)
        found += [None if row is None else _to_schedule(queue, row) for row in rows]
    return found


async def get(run: RunScript, queue: str, ids: Sequence[str]) -> list[ScheduleRecord | None]:
    """Return schedules by their ids; see `Engine.get_schedules`."""
    return [None if found is None else found.record for found in await read(run, queue, ids)]


async def read_page(run: RunScript, queue: str, offset: int, limit: int) -> list[ScheduleRecord]:
    """Return a page of schedules; see `Engine.list_schedules`."""
    found: list[ScheduleRecord] = []
    end = offset + limit
    while offset < end:
        count = min(end - offset, READ_AT_ONCE)
        page = {"offset": offset, "limit": count}
        ids = await run("list_schedules", queue, page, repeatable=True)
        found += filter(None, await get(run, queue, list(map(decode_text, ids))))
        offset += count
        if len(ids) < count:
            break
    return found


async def read_late(run: RunScript, queue: str, before_ms: int, limit: int) -> list[ScheduleRecord]:
    """Return schedules that are late; see `Engine.late_schedules`."""
    found: list[ScheduleRecord] = []
    offset = 0
    while len(found) < limit and offset < MOST_CHECKED:
        wanted = limit - len(found)
        request = {
            "before": before_ms, "offset": offset, "portion": CHECKED_AT_ONCE, "limit": wanted,
        }  # fmt: skip
        ids, checked = await run("late_schedules", queue, request, repeatable=True)
        for first in range(0, len(ids), READ_AT_ONCE):
            portion = list(map(decode_text, ids[first : first + READ_AT_ONCE]))
            records = await get(run, queue, portion)
            found += (record for record in records if record and record.is_late(before_ms))
        offset += checked
        if checked < CHECKED_AT_ONCE and len(ids) < wanted:
            break
    return found


def _to_schedule(queue: str, row: Sequence[Any]) -> StoredSchedule:
    """Convert a schedule in the reply of a script."""
    id, slot, flat, is_paused, version, state, due_ms, own_text, is_unlocked = row
    fields = to_dict(flat)
    opts = fields.get("opts", "{}")
    slot_ms = None if slot is None else parse_and_clamp_count(decode_text(slot))
    own = _decode_own_state(decode_text(own_text))
    rule = decode_rule(fields)
    pending = None if state is None else State(decode_text(state))
    count = parse_and_clamp_count(fields.get("ic")) or 0
    record = ScheduleRecord(
        queue=queue,
        id=decode_text(id),
        rule=rule,
        policy=decode_policy(opts) or SchedulePolicy(),
        task=fields.get("name", decode_text(id)),
        data=fields.get("data", "{}"),
        opts=opts,
        count=count,
        slot_ms=slot_ms,
        due_ms=int(due_ms) if due_ms and pending is State.DELAYED else None,
        pending=pending,
        previous_ms=own.ran if isinstance(own.ran, int) else None,
        dropped=own.dropped if isinstance(own.dropped, int) else 0,
        is_unlocked=bool(is_unlocked),
        is_held=own.held is not None and own.held == slot_ms,
        is_paused=bool(is_paused),
        is_declared=own.declared is True,
        has_ended=own.ended is True,
    )
    if record.is_pending:  # a worker of BullMQ has stored the schedule again
        record = structs.replace(record, has_ended=False)
    elif (record.is_broken or record.is_abandoned) and _has_ended(rule, slot_ms or 0, count):
        record = structs.replace(record, has_ended=True)
    return StoredSchedule(record, decode_text(version))


def _decode_own_state(text: str) -> _OwnState:
    try:
        return _own_states.decode(text or "{}")
    except UNDECODABLE:
        return _OwnState()


def _has_ended(rule: ScheduleRule, slot_ms: int, count: int) -> bool:
    """Return whether there is no slot after the last one. BullMQ does not store it."""
    if rule.limit is not None and count >= rule.limit:
        return True
    if rule.end_ms is None:
        return False
    try:
        return next_slot_ms(_with_known_offset(rule, slot_ms), slot_ms) is None
    except (ValueError, ArithmeticError, MissingExtra):
        return False


# Changing -----------------------------------------------------------------------------------------


async def upsert(
    run: RunScript, queue: str, new: NewSchedule, now_ms: int
) -> ScheduleRecord | None:
    """Store a schedule; see `Engine.upsert_schedule`."""
    for _ in range(MAX_CONFLICTS):
        (stored,) = await read(run, queue, [new.id])
        record = None if stored is None else stored.record
        change = plan_upsert(new, record, now_ms)
        if change is None:
            return record
        if record is None and change.has_ended:
            return None
        if await _write(run, queue, new.id, stored, change, now_ms):
            (written,) = await get(run, queue, [new.id])
            return written
    raise _conflict(queue, new.id)


async def pause(run: RunScript, queue: str, id: str, now_ms: int) -> bool:
    """Pause a schedule; see `Engine.pause_schedule`."""
    for _ in range(MAX_CONFLICTS):
        (stored,) = await read(run, queue, [id])
        if stored is None:
            return False
        change = plan_pause(stored.record)
        if change is None or await _write(run, queue, id, stored, change, now_ms):
            return True
    raise _conflict(queue, id)


async def resume(run: RunScript, queue: str, id: str, now_ms: int) -> bool:
    """End the pause of a schedule; see `Engine.resume_schedule`."""
    for _ in range(MAX_CONFLICTS):
        (stored,) = await read(run, queue, [id])
        if stored is None:
            return False
        change = plan_resume(stored.record, now_ms)
        if change is None or await _write(run, queue, id, stored, change, now_ms):
            return True
    raise _conflict(queue, id)


def _conflict(queue: str, id: str) -> StoreError:
    return StoreError(
        f"queue {queue}",
        f"schedule {id}: other processes have changed it {MAX_CONFLICTS} times meanwhile: repeat "
        "the call",
    )


async def _write(
    run: RunScript,
    queue: str,
    id: str,
    stored: StoredSchedule | None,
    change: ScheduleChange,
    now_ms: int,
) -> bool:
    """Store a change of a schedule. Returns False if it was computed from an old version."""
    options = decode_options(change.opts)
    record = None if stored is None else stored.record
    previous_ms = None
    if record is not None:
        previous_ms = record.previous_ms if record.is_pending else record.slot_ms
    request = {
        "now": now_ms,
        "id": id,
        "version": "" if stored is None else stored.version,
        "is_pending": record is not None and record.is_pending,
        "fields": _to_fields(change),
        "declared": change.is_declared,
        "paused": change.is_paused,
        "slot": now_ms if previous_ms is None else previous_ms,
        "name": change.task,
        "data": change.data,
        "priority": options.priority,
        "lifo": options.lifo,
    }
    slots = change.slots()
    count = 1
    for _ in range(MAX_TAKEN):
        runs = [_to_run(id, change, slot_ms, now_ms) for slot_ms in islice(slots, count)]
        request["ended"] = change.has_ended if change.is_paused else not runs
        done = await run("write_schedule", queue, {**request, "runs": runs})
        if done != 2:
            return bool(done)
        count = SLOTS_AT_ONCE
    return False


def _to_fields(change: ScheduleChange) -> list[str]:
    """Return the fields and values of a schedule in BullMQ's layout."""
    fields: dict[str, object] = {"name": change.task, **encode_rule(change.rule)}
    if change.rule.cron is not None:
        fields["offset"] = 0
    if change.data != "{}":
        fields["data"] = change.data
    fields |= {"opts": change.opts, "ic": change.count}
    return [str(part) for field in fields.items() for part in field]


def _to_run(id: str, change: ScheduleChange, slot_ms: int, now_ms: int) -> tuple[int, int, str]:
    """Return the slot, the delay and the options of the job for a slot."""
    due_ms = slot_ms + jitter_of(change.policy, id, slot_ms)
    delay_ms = max(0, due_ms - now_ms)
    opts = make_job_options(
        change.opts, id, change.rule, job_id=job_id_of(id, slot_ms), slot_ms=slot_ms,
        delay_ms=delay_ms, now_ms=now_ms, count=change.count,
    )  # fmt: skip
    return slot_ms, delay_ms, opts


async def run_now(run: RunScript, queue: str, id: str, now_ms: int) -> str | None:
    """Add a job of a schedule that is ready now; see `Engine.run_schedule`."""
    (stored,) = await get(run, queue, [id])
    if stored is None:
        return None
    options = decode_options(stored.opts)
    # BullMQ's workers cannot run a job of a scheduler without the option `repeat`.
    opts = json.loads(with_slot(stored.opts, now_ms, stored.previous_ms, 0))
    opts["repeat"] = encode_rule(stored.rule) | {"count": stored.count}
    request = {
        "now": now_ms, "id": id, "name": stored.task, "data": stored.data,
        "opts": json.dumps(opts), "priority": options.priority, "lifo": options.lifo,
    }  # fmt: skip
    job_id = await run("run_schedule", queue, request)
    return None if job_id is None else decode_text(job_id)


async def remove(run: RunScript, queue: str, ids: Sequence[str]) -> list[bool]:
    """Delete schedules; see `Engine.remove_schedules`."""
    removed: list[bool] = []
    for first in range(0, len(ids), REMOVED_AT_ONCE):
        portion = ids[first : first + REMOVED_AT_ONCE]
        removed += map(bool, await run("remove_schedules", queue, {"ids": portion}))
    return removed


# Runs ---------------------------------------------------------------------------------------------


class _HastenOptions(msgspec.Struct):
    caught: int = 0  # how many missed slots in a row got a run


class _JobOptions(msgspec.Struct):
    """The options of a job that determine the slots of its schedule."""

    repeat: dict[str, Any] = {}
    hasten: _HastenOptions = msgspec.field(default_factory=_HastenOptions)


_job_options: Final = msgspec.json.Decoder(_JobOptions)


class _Run(msgspec.Struct):
    """A claimed job of a schedule, and what its worker has computed."""

    id: str
    schedule: str
    token: str
    slot_ms: int
    rule: ScheduleRule
    policy: SchedulePolicy
    plan: SlotPlan | None  # None: it adds no further job, because its rule cannot be understood

    def to_row(self) -> tuple[object, ...]:
        """Return the run for the script `start_runs`."""
        if self.plan is None:
            return self.id, self.schedule, self.token, False
        next_ms = self.plan.next_ms
        jitter_ms = 0 if next_ms is None else jitter_of(self.policy, self.schedule, next_ms)
        plan = (
            False if next_ms is None else next_ms, jitter_ms, self.plan.is_dropped,
            self.plan.passed, self.plan.caught_up, self.policy.overlap,
        )  # fmt: skip
        return self.id, self.schedule, self.token, plan

    def with_next_slot(self) -> _Run:
        """Return the run with the slot after its next one, because a job exists for that."""
        if self.plan is None or self.plan.next_ms is None:
            return self
        later_ms = next_slot_ms(self.rule, self.plan.next_ms)
        plan = SlotPlan(later_ms, self.plan.is_dropped, self.plan.passed, self.plan.caught_up)
        return structs.replace(self, plan=plan)


def has_policy(opts: str) -> bool:
    """Return whether a claimed job is of a schedule that hasten has stored."""
    return decode_policy(opts) is not None


async def start_runs(
    run: RunScript, queue: str, leases: Sequence[Lease], schedules: Mapping[str, str], now_ms: int
) -> tuple[list[Lease], int]:
    """Decide whether claimed jobs of schedules run now, and add the next jobs of the schedules.

    schedules has the schedules of the jobs by job id. Returns the leases of the jobs that run, and
    how many slots get no run.
    """
    planned = [_plan(queue, lease, schedules[lease.job.id], now_ms) for lease in leases]
    by_id = {lease.job.id: lease for lease in leases}
    started: list[Lease] = []
    dropped = 0
    for _ in range(MAX_TAKEN):
        if not planned:
            break
        rows = [each.to_row() for each in planned]
        answers = await run("start_runs", queue, {"now": now_ms, "runs": rows})
        again = []
        for each, (done, opts, overlaps) in zip(planned, answers, strict=True):
            if done == b"taken":
                again.append(each.with_next_slot())
                continue
            # A run without options is another attempt: its slot has been decided before.
            is_decided = done == b"dropped" or (done == b"run" and opts is not None)
            if is_decided and each.plan is not None:
                dropped += each.plan.passed + (done == b"dropped")
                log_left_out(
                    queue, each.schedule, each.slot_ms, each.plan,
                    is_dropped=done == b"dropped", overlaps=bool(overlaps),
                )  # fmt: skip
            if done == b"failed":
                _log_no_next_run(queue, each.schedule, decode_text(opts))
                started.append(by_id[each.id])
            if done == b"run":
                lease = by_id[each.id]
                if opts is not None:
                    job = structs.replace(lease.job, opts=decode_text(opts))
                    lease = structs.replace(lease, job=job)
                started.append(lease)
        planned = again
    return started, dropped


def _plan(queue: str, lease: Lease, schedule: str, now_ms: int) -> _Run:
    """Compute the next slot of the schedule of a claimed job."""
    job = lease.job
    policy = decode_policy(job.opts) or SchedulePolicy()
    of = split_job_id(job.id)
    run = _Run(job.id, schedule, lease.token, 0, ScheduleRule(), policy, None)
    if of is None or of[0] != schedule:  # an extra run, which adds no further job
        return run
    try:
        options = _job_options.decode(job.opts)
        fields = {name: _to_text(value) for name, value in options.repeat.items()}
        rule = _with_known_offset(_check_rule(decode_rule(fields)), of[1])
        plan = plan_slot(rule, policy, of[1], now_ms, options.hasten.caught)
    except (*UNDECODABLE, ArithmeticError, MissingExtra) as error:
        _log_no_next_run(queue, schedule, error)
        return run
    return structs.replace(run, slot_ms=of[1], rule=rule, plan=plan)


def _log_no_next_run(queue: str, schedule: str, error: object) -> None:
    """Log that a claimed job runs, but its schedule adds no more jobs."""
    logger.error("queue %s: cannot add the next run of schedule %s: %s", queue, schedule, error)


def _check_rule(rule: ScheduleRule) -> ScheduleRule:
    """Return the rule in the options of a job. Raises `ValueError` if it has no usable times."""
    if rule.cron is None and not 1 <= (rule.every_ms or 0) <= MAX_MS:
        raise ValueError(f"the interval is {rule.every_ms} ms: must be from 1 to {MAX_MS:,} ms")
    return rule


def _with_known_offset(rule: ScheduleRule, slot_ms: int) -> ScheduleRule:
    """Return the rule of an interval with the offset that its slots have."""
    if rule.every_ms is None or rule.every_ms < 1:
        return rule
    return structs.replace(rule, offset_ms=slot_ms % rule.every_ms)


def _to_text(value: object) -> str:
    """Return a decoded JSON value as it is stored in a hash."""
    return value if isinstance(value, str) else json.dumps(value)
