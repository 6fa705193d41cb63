"""The SQL expressions that read the fields of jobs and schedules, in the order of the fields."""

from __future__ import annotations

from typing import Final

from hasten.jobs._record import JobRecord

_COLUMNS: Final = {
    "queue": "queue",
    "id": "coalesce(custom_id, CAST(seq AS TEXT))",
    "name": "name",
    "data": "data",
    "opts": "opts",
    "state": "state",
    "priority": "priority",
    "delay_ms": "delay_ms",
    "created_ms": "created_ms",
    "attempts_made": "attempts_made",
    "attempts_started": "attempts_started",
    "crashes": "crashes",
    "deferred_failure": "deferred_failure",
    "started_ms": "processed_ms",
    "worker": "worker",
    "progress": "progress",
    "error": "failed_reason",
    "due_ms": "CASE state WHEN 'delayed' THEN rank END",
    "finished_ms": "finished_ms",
    "result": "result",
    "tracebacks": (
        "json(CASE WHEN :tracebacks AND json_valid(stacktrace) THEN stacktrace ELSE '[]' END)"
    ),
    "cancel_requested": "json(CASE cancel_requested WHEN 0 THEN 'false' ELSE 'true' END)",
    "parent": (
        "json((SELECT json_array(queue, coalesce(custom_id, CAST(seq AS TEXT)), stored.on_failure) "
        "FROM hasten_jobs WHERE seq = stored.parent))"
    ),
}

# The expressions for a job that is being claimed. The fields from `due_ms` on are not set while a
# job is active, so they are not read.
_CLAIMED: Final = {
    "state": "'active'",
    "attempts_started": "attempts_started + 1",
    "started_ms": ":now",
    "worker": ":worker",
}

_FIELDS: Final = JobRecord.__struct_fields__

RECORD: Final = ", ".join(_COLUMNS[field] for field in _FIELDS)
"""The columns of a stored job, for SELECT from jobs that are named `stored`."""

CLAIMED_RECORD: Final = ", ".join(
    _CLAIMED.get(field, _COLUMNS[field]) for field in _FIELDS[: _FIELDS.index("due_ms")]
)
"""The columns of a job as they are after its claim, read before the claim is written."""

PENDING_ID: Final = "'repeat:' || schedule.id || ':' || schedule.slot_ms"
"""The id of the pending job of a schedule."""

SCHEDULE: Final = """schedule.id, rule, policy, task, schedule.data, schedule.opts, declared,
    paused, ended, count, slot_ms, previous_ms, dropped, skipped, caught_up, runs, waits_for,
    job.seq, job.state, CASE job.state WHEN 'delayed' THEN job.rank END"""
"""The columns of a schedule and of its pending job, in the order of the fields of `StoredSchedule`.
"""
