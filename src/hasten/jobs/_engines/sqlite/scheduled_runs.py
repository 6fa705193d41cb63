"""The runs of schedules: the claim of a pending job adds the next one, and decides whether it runs.

See `_schedule_times.plan_slot` for missed slots. The overlap of runs is decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import structs

from hasten._logs import get_logger
from hasten.errors import MissingExtra
from hasten.jobs import _cron as cron
from hasten.jobs._engines.skipped_runs import SkippedScheduledJobs
from hasten.jobs._engines.sqlite import schedules
from hasten.jobs._engines.sqlite.event_rows import EventGroup
from hasten.jobs._engines.sqlite.job_rows import encode_json, ready_state_and_rank
from hasten.jobs._engines.sqlite.job_statements import execute, execute_rows
from hasten.jobs._engines.sqlite.queue_ledger import Ledger, UnitOfWork
from hasten.jobs._engines.sqlite.schedules import MAX_RUNS, StoredSchedule
from hasten.jobs._options import decode_options
from hasten.jobs._record import Lease
from hasten.jobs._schedule_ids import job_id_of, split_job_id
from hasten.jobs._schedule_log import log_left_out
from hasten.jobs._schedule_times import SlotPlan, plan_slot
from hasten.jobs._schedule_wire import with_slot
from hasten.jobs._states import State

logger: Final = get_logger("hasten.sqlite")

# How long a pending job is delayed: until an earlier run ends, which makes the job ready, or until
# a worker with croniter claims it.
HELD_MS: Final = 60_000
SKIPPED_MS: Final = 5_000


def start_runs(
    unit: UnitOfWork, ledger: Ledger, leases: list[Lease], skipped: SkippedScheduledJobs
) -> tuple[list[Lease], int]:
    """Add the next jobs of the schedules whose pending jobs were leased.

    Returns the leases without those of jobs that must not run now, and how many slots get no run.
    skipped logs the jobs that only a worker with croniter can run.
    """
    slots = [split_job_id(lease.job.id) for lease in leases]
    ids = [slot[0] for slot in slots if slot is not None]
    if not ids:
        return leases, 0
    found = schedules.read(unit.connection, ledger.name, ids)
    started = []
    dropped = 0
    for lease, slot in zip(leases, slots, strict=True):
        schedule = None if slot is None else found.get(slot[0])
        # Otherwise it is a job without a schedule, or another attempt of an earlier run.
        if slot is not None and schedule is not None and _is_pending(schedule, slot[1]):
            run, without_run = _start_run(unit, ledger, lease, schedule, slot[1], skipped)
            dropped += without_run
            if run is not None:
                started.append(run)
        else:
            started.append(lease)
    return started, dropped


def _is_pending(schedule: StoredSchedule, slot_ms: int) -> bool:
    """Return whether the slot is the next one. The last run may be claimed again for a retry."""
    return schedule.slot_ms == slot_ms != schedule.previous_ms


def _start_run(
    unit: UnitOfWork,
    ledger: Ledger,
    lease: Lease,
    schedule: StoredSchedule,
    slot_ms: int,
    skipped: SkippedScheduledJobs,
) -> tuple[Lease | None, int]:
    """Decide what happens with the pending job of a schedule.

    Returns its lease if it runs now, and how many slots get no run.
    """
    must_run = lease.job.deferred_failure is not None  # it only has to fail
    policy = schedules.decode_policy(schedule.policy)
    try:
        rule = schedules.decode_rule(schedule.rule)
        if rule.cron is not None and not cron.is_croniter_installed() and not must_run:
            _put_back(unit, ledger, lease, schedule, SKIPPED_MS)
            skipped.add(ledger.name, [lease.job.id])
            return None, 0
        plan = plan_slot(rule, policy, slot_ms, unit.now_ms, schedule.caught_up)
    except (ValueError, ArithmeticError, MissingExtra) as error:
        logger.error(
            "queue %s: cannot add the next run of schedule %s: %s", ledger.name, schedule.id, error
        )
        return lease, 0
    runs = schedules.unfinished_runs(unit.connection, schedule)
    is_dropped = plan.is_dropped and not must_run
    overlaps = bool(runs) and policy.overlap != "allow" and not must_run
    if overlaps and policy.overlap == "queue" and not is_dropped:
        _put_back(unit, ledger, lease, schedule, HELD_MS)
        execute(
            unit.connection, "hold_schedule", queue=ledger.name, id=schedule.id, waits_for=runs[0]
        )
        return None, 0
    is_dropped = is_dropped or overlaps
    log_left_out(
        ledger.name, schedule.id, slot_ms, plan, is_dropped=is_dropped, overlaps=overlaps
    )  # fmt: skip
    if is_dropped:
        _drop(unit, ledger, lease, schedule, plan, runs)
        return None, plan.passed + 1
    return _run(unit, ledger, lease, schedule, plan, runs), plan.passed


def _run(
    unit: UnitOfWork,
    ledger: Ledger,
    lease: Lease,
    schedule: StoredSchedule,
    plan: SlotPlan,
    runs: list[int],
) -> Lease:
    """Add the next job of a schedule whose pending job runs now. Returns the lease of the run."""
    assert schedule.slot_ms is not None
    assert schedule.job is not None
    missed = schedule.skipped + plan.passed
    opts = with_slot(lease.job.opts, schedule.slot_ms, schedule.previous_ms, missed)
    execute(unit.connection, "set_options", seq=schedule.job, opts=opts)
    _advance(
        unit, ledger, schedule, plan, count=schedule.count + 1, previous=schedule.slot_ms,
        dropped=schedule.dropped + plan.passed, skipped=0, runs=[*runs, schedule.job],
    )  # fmt: skip
    return structs.replace(lease, job=structs.replace(lease.job, opts=opts))


def _drop(
    unit: UnitOfWork,
    ledger: Ledger,
    lease: Lease,
    schedule: StoredSchedule,
    plan: SlotPlan,
    runs: list[int],
) -> None:
    """Delete the pending job of a schedule, which gets no run, and add the next one."""
    execute(unit.connection, "delete_job", seq=schedule.job)
    ledger.emit(EventGroup("removed", [lease.job.id], previous=State.WAITING))
    left_out = plan.passed + 1
    _advance(
        unit, ledger, schedule, plan, count=schedule.count, previous=schedule.previous_ms,
        dropped=schedule.dropped + left_out, skipped=schedule.skipped + left_out, runs=runs,
    )  # fmt: skip


def _advance(
    unit: UnitOfWork,
    ledger: Ledger,
    schedule: StoredSchedule,
    plan: SlotPlan,
    *,
    count: int,
    previous: int | None,
    dropped: int,
    skipped: int,
    runs: list[int],
) -> None:
    """Store how far a schedule has come, and add its next job. count is the number of that job."""
    rule = schedules.decode_rule(schedule.rule)
    slot_ms = plan.next_ms if rule.limit is None or count <= rule.limit else None
    slot_ms = schedules.first_free_slot(
        unit.connection, ledger.name, schedule.id, rule, slot_ms
    )  # fmt: skip
    if slot_ms is not None:
        schedules.add_job(unit, ledger, schedule.id, schedule, slot_ms, count)
    execute(
        unit.connection, "advance_schedule", queue=ledger.name, id=schedule.id,
        slot=schedule.slot_ms if slot_ms is None else slot_ms, ended=slot_ms is None,
        count=schedule.count if slot_ms is None else count, previous=previous, dropped=dropped,
        skipped=skipped, caught_up=plan.caught_up, runs=encode_json(runs[-MAX_RUNS:]),
    )  # fmt: skip


def _put_back(
    unit: UnitOfWork, ledger: Ledger, lease: Lease, schedule: StoredSchedule, delay_ms: int
) -> None:
    """Delay the pending job of a schedule, as if it had not been claimed."""
    due_ms = unit.now_ms + delay_ms
    execute(unit.connection, "put_back_claimed", seq=schedule.job, rank=due_ms)
    ledger.emit(EventGroup("delayed", [lease.job.id], dues=[due_ms]))


def end_runs(unit: UnitOfWork, ledger: Ledger, seqs: Sequence[int]) -> None:
    """Start the pending jobs that wait for the end of one of these jobs, if it has ended."""
    if not ledger.linked or not seqs:
        return
    rows = execute(
        unit.connection, "find_held", queue=ledger.name, seqs=encode_json(seqs)
    ).fetchall()
    found = schedules.read(unit.connection, ledger.name, [id for (id,) in rows]) if rows else {}
    for schedule in found.values():
        runs = schedules.unfinished_runs(unit.connection, schedule)
        execute(
            unit.connection, "hold_schedule", queue=ledger.name, id=schedule.id,
            waits_for=runs[0] if runs else None,
        )  # fmt: skip
        if not runs and schedule.job_state == State.DELAYED:
            _release(unit, ledger, schedule)


def _release(unit: UnitOfWork, ledger: Ledger, schedule: StoredSchedule) -> None:
    """Make the pending job of a schedule ready, which waited for the end of an earlier run."""
    assert schedule.slot_ms is not None
    priority = decode_options(schedule.opts).priority
    place = ready_state_and_rank(priority, ledger.next_sequence(), front=True)
    execute_rows(unit.connection, "make_ready", [(schedule.job, *place)])
    id = job_id_of(schedule.id, schedule.slot_ms)
    ledger.emit(EventGroup("waiting", [id], previous=State.DELAYED))
