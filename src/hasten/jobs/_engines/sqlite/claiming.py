"""Claiming jobs: first, delayed jobs that are due become ready; then, ready jobs are leased."""

from __future__ import annotations

from typing import Final

import msgspec

from hasten.jobs._engines.skipped_runs import SkippedScheduledJobs
from hasten.jobs._engines.sqlite.event_rows import EventGroup
from hasten.jobs._engines.sqlite.job_rows import (
    read_json,
    read_with_shrinking_count,
    ready_state_and_rank,
)
from hasten.jobs._engines.sqlite.job_statements import execute, execute_rows
from hasten.jobs._engines.sqlite.queue_ledger import Ledger, UnitOfWork
from hasten.jobs._engines.sqlite.scheduled_runs import start_runs
from hasten.jobs._record import ClaimedJobs, ClaimRequest, JobRecord, Lease
from hasten.jobs._states import State

PROMOTE_AT_ONCE: Final = 1000  # how many delayed jobs one claim makes ready, at most

# A claim stops when it has read about this much. If the jobs of the queue are SMALL on average, a
# claim reads all of them with one statement, otherwise it begins with one job and doubles.
BYTES_AT_ONCE: Final = 4_000_000
SMALL: Final = 10_000

JobSizes = dict[str, int]
"""By queue: the average size of the jobs in the last claim, in characters."""

_record_decoder: Final = msgspec.json.Decoder(list[JobRecord])


def claim_jobs(
    unit: UnitOfWork,
    ledger: Ledger,
    claim: ClaimRequest,
    lost_ids: list[str],
    sizes: JobSizes,
    skipped: SkippedScheduledJobs,
) -> ClaimedJobs:
    """Lease ready jobs, and return them in a batch; see `Engine.claim`.

    lost_ids are the jobs whose leases the settle step before found lost; the result includes them.
    sizes has the average size of the jobs in the last claim of each queue. The claim decides by it
    how many jobs to read at once, and then updates it. skipped is for `start_runs`.
    """
    if ledger.has_due:
        _promote_due(unit, ledger)
    leases: list[Lease] = []
    dropped_slots = 0
    if not ledger.paused:
        leases = _lease_ready(unit, ledger.name, claim, sizes)
        if leases and ledger.linked:
            leases, dropped_slots = start_runs(unit, ledger, leases, skipped)
    if leases:
        ids = [lease.job.id for lease in leases]
        ledger.emit(EventGroup("active", ids, previous=State.WAITING))
    next_due_ms = None
    if len(leases) < claim.count:
        (next_due_ms,) = execute(unit.connection, "next_due", queue=ledger.name).fetchone()
    return ClaimedJobs(leases, next_due_ms, lost_ids, dropped_slots)


def _promote_due(unit: UnitOfWork, ledger: Ledger) -> None:
    """Move the delayed jobs whose due time has come to a ready state."""
    due = read_json(
        unit.connection, "read_due", queue=ledger.name, now=unit.now_ms, limit=PROMOTE_AT_ONCE
    )
    sequences = ledger.next_sequences(len(due))
    rows = [
        (seq, *ready_state_and_rank(priority, sequence))
        for (seq, _, priority), sequence in zip(due, sequences, strict=True)
    ]
    execute_rows(unit.connection, "make_ready", rows)
    ledger.emit(EventGroup("waiting", [id for _, id, _ in due], previous=State.DELAYED))


def _lease_ready(unit: UnitOfWork, queue: str, claim: ClaimRequest, sizes: JobSizes) -> list[Lease]:
    """Lease the jobs that are first in line: as many as claimed, or about `BYTES_AT_ONCE`."""
    leases: list[Lease] = []
    size = 0
    is_small = sizes.get(queue, SMALL) < SMALL
    for state in (State.WAITING, State.PRIORITIZED):
        limit = claim.count if is_small else 1
        while (left := claim.count - len(leases)) and size < BYTES_AT_ONCE:
            some, length = _lease_in_state(unit, queue, state, claim, min(limit, left))
            leases += some
            size += length
            if len(some) < min(limit, left):
                break
            limit *= 2
    if leases:
        sizes[queue] = size // len(leases)
    return leases


def _lease_in_state(
    unit: UnitOfWork, queue: str, state: State, claim: ClaimRequest, count: int
) -> tuple[list[Lease], int]:
    """Lease up to count jobs in a ready state. Returns them and their total size in characters."""
    which = {"queue": queue, "state": state, "now": unit.now_ms, "worker": claim.worker}

    def read_ready(limit: int) -> str:
        which["limit"] = limit
        text: str = execute(unit.connection, "read_ready", **which).fetchone()[0]
        return text

    text = read_with_shrinking_count(read_ready, count)
    leases = [Lease(record, claim.token) for record in _record_decoder.decode(text)]
    if leases:
        until_ms, length_ms = unit.now_ms + claim.lease_ms, claim.lease_ms
        execute(
            unit.connection, "claim", **which, token=claim.token, until=until_ms, length=length_ms
        )
    return leases, len(text)
