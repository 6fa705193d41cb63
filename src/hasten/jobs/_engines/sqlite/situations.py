"""Read the facts from which `Queue.why` explains why a job does not run: `Engine.get_why_facts`."""

from __future__ import annotations

from sqlite3 import Connection

from hasten.jobs._engines.sqlite import flows, schedules
from hasten.jobs._engines.sqlite.job_rows import find_seqs, read_jobs_by_id
from hasten.jobs._engines.sqlite.job_statements import execute
from hasten.jobs._engines.sqlite.queue_ledger import Ledger
from hasten.jobs._record import CHILDREN_READ, COUNTED_AHEAD, WhyFacts
from hasten.jobs._schedule_ids import split_job_id
from hasten.jobs._states import READY, State


def read_why_facts(connection: Connection, queue: str, id: str) -> WhyFacts | None:
    """Return a job with what decides whether it runs now; None for a missing job."""
    (job,) = read_jobs_by_id(connection, queue, [id])
    if job is None:
        return None
    (seq,) = find_seqs(connection, queue, [id])
    rank, lease_until_ms = execute(connection, "read_place", seq=seq).fetchone()
    pending, children = flows.read_pending(connection, seq, CHILDREN_READ)
    return WhyFacts(
        job,
        is_paused=Ledger(connection, queue, now_ms=0).paused,
        lease_until_ms=lease_until_ms if job.state is State.ACTIVE else None,
        ahead=_count_ahead(connection, queue, job.state, rank) if job.state in READY else None,
        pending=pending,
        children=children,
        is_held=job.state is State.DELAYED and _is_held(connection, queue, id),
    )


def _is_held(connection: Connection, queue: str, id: str) -> bool:
    """Return whether a job waits until an earlier run of its schedule ends."""
    slot = split_job_id(id)
    if slot is None:
        return False
    schedule = schedules.read(connection, queue, [slot[0]]).get(slot[0])
    return schedule is not None and schedule.waits_for is not None and schedule.slot_ms == slot[1]


def _count_ahead(connection: Connection, queue: str, state: State, rank: int) -> int:
    """Count the ready jobs in front of a ready job, up to `COUNTED_AHEAD`."""
    count = _count_below_rank(connection, queue, state, rank, COUNTED_AHEAD)
    if state is State.PRIORITIZED:
        count += _count_below_rank(connection, queue, State.WAITING, 2**62, COUNTED_AHEAD - count)
    return count


def _count_below_rank(
    connection: Connection, queue: str, state: State, rank: int, limit: int
) -> int:
    """Count the jobs in a state whose rank is lower than rank, up to limit."""
    (count,) = execute(
        connection, "count_ahead", queue=queue, state=state, rank=rank, limit=limit
    ).fetchone()
    return int(count)
