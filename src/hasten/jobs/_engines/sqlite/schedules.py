"""Schedules: storing, pausing and deleting them, and adding their jobs.

The claim of the pending job of a schedule adds the next one: see `scheduled_runs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection
from typing import Final

import msgspec

from hasten.jobs._engines.sqlite.event_rows import EventGroup
from hasten.jobs._engines.sqlite.job_rows import encode_json, read_json, ready_state_and_rank
from hasten.jobs._engines.sqlite.job_statements import execute
from hasten.jobs._engines.sqlite.queue_ledger import Ledger, UnitOfWork
from hasten.jobs._engines.sqlite.transaction_limits import DeletionBudget
from hasten.jobs._options import decode_options
from hasten.jobs._schedule_changes import ScheduleChange, plan_pause, plan_resume, plan_upsert
from hasten.jobs._schedule_ids import job_id_of
from hasten.jobs._schedule_record import NewSchedule, SchedulePolicy, ScheduleRecord, ScheduleRule
from hasten.jobs._schedule_times import jitter_of, next_slot_ms
from hasten.jobs._schedule_wire import make_job_options, with_slot
from hasten.jobs._states import State

MAX_RUNS: Final = 100
"""How many runs of a schedule are remembered as possibly unfinished."""


class StoredSchedule(msgspec.Struct, frozen=True):
    """A row of the table of schedules, with columns of the pending job."""

    id: str
    rule: str
    policy: str
    task: str
    data: str
    opts: str
    declared: int
    paused: int
    ended: int
    count: int
    slot_ms: int | None
    previous_ms: int | None
    dropped: int
    skipped: int
    caught_up: int
    runs: str
    waits_for: int | None
    job: int | None  # the seq of the pending job, None if it does not exist
    job_state: str | None
    job_due_ms: int | None

    def to_record(self, queue: str) -> ScheduleRecord:
        """Return the schedule as a record."""
        return ScheduleRecord(
            queue=queue,
            id=self.id,
            rule=decode_rule(self.rule),
            policy=decode_policy(self.policy),
            task=self.task,
            data=self.data,
            opts=self.opts,
            count=self.count,
            slot_ms=self.slot_ms,
            due_ms=self.job_due_ms,
            pending=None if self.job_state is None else State(self.job_state),
            previous_ms=self.previous_ms,
            dropped=self.dropped,
            is_held=self.waits_for is not None,
            is_paused=bool(self.paused),
            is_declared=bool(self.declared),
            has_ended=bool(self.ended),
        )


_rules: Final = msgspec.json.Decoder(ScheduleRule)
_policies: Final = msgspec.json.Decoder(SchedulePolicy)


def decode_rule(text: str) -> ScheduleRule:
    """Return the rule of a stored schedule."""
    return _rules.decode(text)


def decode_policy(text: str) -> SchedulePolicy:
    """Return the policy of a stored schedule. One of a later version is replaced by the default."""
    try:
        return _policies.decode(text)
    except msgspec.ValidationError:
        return SchedulePolicy()


# Reading ------------------------------------------------------------------------------------------


def read(connection: Connection, queue: str, ids: Sequence[str]) -> dict[str, StoredSchedule]:
    """Return the schedules with these ids, by id."""
    rows = execute(connection, "read_schedules", queue=queue, ids=encode_json(ids)).fetchall()
    return {row[0]: StoredSchedule(*row) for row in rows}


def get(connection: Connection, queue: str, ids: Sequence[str]) -> list[ScheduleRecord | None]:
    """Return schedules by their ids; see `Engine.get_schedules`."""
    found = read(connection, queue, ids)
    return [found[id].to_record(queue) if id in found else None for id in ids]


def read_page(connection: Connection, queue: str, offset: int, limit: int) -> list[ScheduleRecord]:
    """Return a page of schedules; see `Engine.list_schedules`."""
    rows = execute(connection, "list_schedules", queue=queue, offset=offset, limit=limit)
    return [StoredSchedule(*row).to_record(queue) for row in rows.fetchall()]


def count(connection: Connection, queue: str) -> int:
    """Return how many schedules a queue has; see `Engine.count_schedules`."""
    (found,) = execute(connection, "count_schedules", queue=queue).fetchone()
    return int(found)


def read_late(
    connection: Connection, queue: str, before_ms: int, limit: int
) -> list[ScheduleRecord]:
    """Return schedules that are late; see `Engine.late_schedules`."""
    rows = execute(connection, "read_late_schedules", queue=queue, before=before_ms, limit=limit)
    return [StoredSchedule(*row).to_record(queue) for row in rows.fetchall()]


def find_pending_runs(connection: Connection, ledger: Ledger, seqs: Sequence[int]) -> set[int]:
    """Return those of the jobs that are pending jobs of schedules. They must not be deleted."""
    if not ledger.linked or not seqs:
        return set()
    return set(read_json(connection, "find_pending_runs", seqs=encode_json(seqs)))


# Changing -----------------------------------------------------------------------------------------


def upsert(
    connection: Connection, queue: str, schedule: NewSchedule, now_ms: int
) -> ScheduleRecord | None:
    """Store a schedule; see `Engine.upsert_schedule`."""
    stored = read(connection, queue, [schedule.id]).get(schedule.id)
    record = None if stored is None else stored.to_record(queue)
    change = plan_upsert(schedule, record, now_ms)
    if change is None:
        return record
    if stored is None and change.has_ended:
        return None
    _write(connection, queue, schedule.id, stored, change, now_ms)
    return get(connection, queue, [schedule.id])[0]


def pause(connection: Connection, queue: str, id: str, now_ms: int) -> bool:
    """Pause a schedule; see `Engine.pause_schedule`."""
    stored = read(connection, queue, [id]).get(id)
    if stored is None:
        return False
    change = plan_pause(stored.to_record(queue))
    if change is not None:
        _write(connection, queue, id, stored, change, now_ms)
    return True


def resume(connection: Connection, queue: str, id: str, now_ms: int) -> bool:
    """End the pause of a schedule; see `Engine.resume_schedule`."""
    stored = read(connection, queue, [id]).get(id)
    if stored is None:
        return False
    change = plan_resume(stored.to_record(queue), now_ms)
    if change is not None:
        _write(connection, queue, id, stored, change, now_ms)
    return True


def _write(
    connection: Connection,
    queue: str,
    id: str,
    stored: StoredSchedule | None,
    change: ScheduleChange,
    now_ms: int,
) -> None:
    """Store a change of a schedule, and replace its pending job."""
    with UnitOfWork(connection, now_ms) as unit:
        ledger = unit.get_ledger(queue)
        ledger.linked = True
        if stored is not None:
            _delete_pending(unit, ledger, stored)
        slot_ms = None if change.is_paused or stored is None else _started_slot(stored, queue)
        free_ms = first_free_slot(connection, queue, id, change.rule, change.first_ms)
        if free_ms is not None:
            slot_ms = free_ms
            add_job(unit, ledger, id, change, slot_ms, change.count)
        execute(
            connection, "write_schedule", queue=queue, id=id, rule=encode_json(change.rule),
            policy=encode_json(change.policy), task=change.task, data=change.data,
            opts=change.opts, declared=change.is_declared, paused=change.is_paused,
            ended=change.has_ended if change.is_paused else free_ms is None,
            count=change.count, slot=slot_ms,
        )  # fmt: skip


def first_free_slot(
    connection: Connection, queue: str, schedule: str, rule: ScheduleRule, slot_ms: int | None
) -> int | None:
    """Return the first slot from slot_ms on for which no job exists; None if there is none.

    If the clock was set back, slots may have had their runs.
    """
    while slot_ms is not None:
        ids = encode_json([job_id_of(schedule, slot_ms)])
        if not read_json(connection, "find_custom_ids", queue=queue, ids=ids):
            break
        slot_ms = next_slot_ms(rule, slot_ms)
    return slot_ms


def _started_slot(stored: StoredSchedule, queue: str) -> int | None:
    """Return the slot of the latest run of a schedule; None if there was none."""
    is_started = stored.slot_ms is not None and not stored.to_record(queue).is_pending
    return stored.slot_ms if is_started else stored.previous_ms


def _delete_pending(unit: UnitOfWork, ledger: Ledger, stored: StoredSchedule) -> None:
    """Delete the pending job of a schedule if it has not started."""
    if stored.job is not None and stored.to_record(ledger.name).is_pending:
        execute(unit.connection, "delete_job", seq=stored.job)
        assert stored.slot_ms is not None
        id = job_id_of(stored.id, stored.slot_ms)
        ledger.emit(EventGroup("removed", [id], previous=State(stored.job_state or "")))


def add_job(
    unit: UnitOfWork,
    ledger: Ledger,
    schedule: str,
    source: ScheduleChange | StoredSchedule,
    slot_ms: int,
    count: int,
) -> None:
    """Add the pending job of a schedule for a slot. count is the number of the run."""
    rule, policy = source.rule, source.policy
    rule = decode_rule(rule) if isinstance(rule, str) else rule
    policy = decode_policy(policy) if isinstance(policy, str) else policy
    job_id = job_id_of(schedule, slot_ms)
    delay_ms = max(0, slot_ms + jitter_of(policy, schedule, slot_ms) - unit.now_ms)
    opts = make_job_options(
        source.opts, schedule, rule, job_id=job_id, slot_ms=slot_ms, delay_ms=delay_ms,
        now_ms=unit.now_ms, count=count,
    )  # fmt: skip
    _insert(unit, ledger, schedule, source, job_id, opts, delay_ms)


def _insert(
    unit: UnitOfWork,
    ledger: Ledger,
    schedule: str,
    source: ScheduleChange | StoredSchedule,
    job_id: str | None,
    opts: str,
    delay_ms: int,
) -> tuple[int, str]:
    """Add a job of a schedule. Returns its seq and its id."""
    (seq,) = execute(unit.connection, "take_ids", count=1).fetchone()
    options = decode_options(source.opts)
    front = options.lifo and not options.priority
    state, rank = ready_state_and_rank(options.priority, ledger.next_sequence(), front=front)
    if delay_ms:
        state, rank = State.DELAYED, unit.now_ms + delay_ms
    execute(
        unit.connection, "add_scheduled", seq=seq, queue=ledger.name, state=state, rank=rank,
        id=job_id, task=source.task, data=source.data, opts=opts, priority=options.priority,
        delay=delay_ms, now=unit.now_ms, schedule=schedule,
    )  # fmt: skip
    id = str(seq) if job_id is None else job_id
    ledger.emit(EventGroup("added", [id]))
    if delay_ms:
        ledger.emit(EventGroup("delayed", [id], dues=[rank]))
    else:
        ledger.emit(EventGroup("waiting", [id]))
    return seq, id


def run(connection: Connection, queue: str, id: str, now_ms: int) -> str | None:
    """Add a job of a schedule that is ready now; see `Engine.run_schedule`."""
    stored = read(connection, queue, [id]).get(id)
    if stored is None:
        return None
    with UnitOfWork(connection, now_ms) as unit:
        ledger = unit.get_ledger(queue)
        opts = with_slot(stored.opts, now_ms, stored.previous_ms, 0)
        seq, job_id = _insert(unit, ledger, id, stored, None, opts, 0)
        runs = encode_json([*unfinished_runs(connection, stored), seq][-MAX_RUNS:])
        execute(connection, "set_schedule_runs", queue=queue, id=id, runs=runs)
    return job_id


def unfinished_runs(connection: Connection, stored: StoredSchedule) -> list[int]:
    """Return the seqs of the runs of a schedule that have not finished."""
    seqs: list[int] = read_json(connection, "find_unfinished", seqs=stored.runs)
    return seqs


def remove(connection: Connection, queue: str, ids: Sequence[str], now_ms: int) -> list[bool]:
    """Delete schedules; see `Engine.remove_schedules`."""
    found = read(connection, queue, ids)
    with UnitOfWork(connection, now_ms) as unit:
        ledger = unit.get_ledger(queue)
        for id, stored in found.items():
            if stored.job_state == State.DELAYED:
                _delete_pending(unit, ledger, stored)
            execute(connection, "delete_schedule", queue=queue, id=id)
    return [id in found for id in ids]


def obliterate_next(connection: Connection, queue: str) -> bool:
    """Delete schedules, up to the limits of one transaction. Returns whether more may exist."""

    def delete(count: int) -> int:
        return execute(connection, "obliterate_schedules", queue=queue, limit=count).rowcount

    return DeletionBudget(connection).delete_until_exhausted(delete)
