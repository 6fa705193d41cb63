"""Storing the outcomes of runs, and claiming the next jobs in the same transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from sqlite3 import Connection
from typing import Any, Final, TypeAlias

from hasten.jobs._engine import max_event_result_bytes
from hasten.jobs._engines.skipped_runs import SkippedScheduledJobs
from hasten.jobs._engines.sqlite import flows
from hasten.jobs._engines.sqlite.claiming import JobSizes, claim_jobs
from hasten.jobs._engines.sqlite.ending_keys import release_keys_of_ended_jobs
from hasten.jobs._engines.sqlite.event_rows import EventGroup, make_event_group_with_values
from hasten.jobs._engines.sqlite.job_rows import encode_json, find_seqs, read_json
from hasten.jobs._engines.sqlite.job_statements import execute, execute_rows
from hasten.jobs._engines.sqlite.leasing import read_tokens
from hasten.jobs._engines.sqlite.links import LinkedJob, read_links
from hasten.jobs._engines.sqlite.queue_ledger import Ledger, UnitOfWork
from hasten.jobs._engines.sqlite.retention import Retention, Rules
from hasten.jobs._engines.sqlite.scheduled_runs import end_runs
from hasten.jobs._record import (
    ClaimedJobs,
    ClaimRequest,
    Completed,
    Failed,
    Outcome,
    Parked,
    Postponed,
    Released,
    Retry,
)
from hasten.jobs._states import State

SeqAndOutcome: TypeAlias = tuple[int, Any]
"""The seq (primary key) of a job, and the outcome of its run."""

ChangedRows: TypeAlias = int
"""How many rows of the table of jobs a function has changed."""


class LeaseMismatch(Exception):
    """A lease in the batch is lost. The caller repeats the call with check_leases=True."""


def settle(
    connection: Connection,
    queue: str,
    outcomes: Sequence[Outcome],
    claim: ClaimRequest | None,
    retention: Retention,
    sizes: JobSizes,
    skipped: SkippedScheduledJobs,
    now_ms: int,
    touched: set[str],
    *,
    check_leases: bool,
) -> ClaimedJobs:
    """Store outcomes, then claim jobs; see `Engine.settle`.

    Lost leases are rare. Without check_leases, only the number of changed rows is compared with the
    number of outcomes. If they differ, `LeaseMismatch` is raised, which rolls the transaction back.
    With check_leases, each lease is checked first, and outcomes without a valid lease are left out.
    sizes and skipped are for `claim_jobs`. Adds the names of other changed queues to touched.
    """
    lost: list[str] = []
    with UnitOfWork(connection, now_ms) as unit:
        ledger = unit.get_ledger(queue)
        if outcomes:
            seqs = find_seqs(connection, queue, [outcome.id for outcome in outcomes])
            pairs: list[SeqAndOutcome] = list(zip(seqs, outcomes, strict=True))
            if check_leases:
                pairs, lost = _separate_lost(connection, queue, pairs)
            links: list[LinkedJob] = []
            if ledger.linked:
                pairs = flows.replace_blocked(unit, ledger, pairs)
                ended = [seq for seq, end in pairs if isinstance(end, Completed | Failed)]
                links = read_links(connection, ledger, ended)
                release_keys_of_ended_jobs(unit, ledger, links, keeps_windows=True)
            _store_outcomes(unit, ledger, pairs, links, retention)
            end_runs(unit, ledger, [job.seq for job in links if job.schedule is not None])
            touched.update(unit.queues)
        batch = ClaimedJobs([], None, lost)
        if claim is not None:
            batch = claim_jobs(unit, ledger, claim, lost, sizes, skipped)
        if outcomes and not batch.leases and _is_drained(connection, queue):
            ledger.emit(EventGroup("drained", [""]))
    return batch


def _separate_lost(
    connection: Connection, queue: str, pairs: Sequence[SeqAndOutcome]
) -> tuple[list[SeqAndOutcome], list[str]]:
    """Return the outcomes whose lease is valid, and the ids of the jobs whose lease is lost."""
    tokens = read_tokens(connection, queue, [seq for seq, _ in pairs])
    valid, lost = [], []
    for seq, outcome in pairs:
        # `pop`, because a second outcome of the same run must be rejected.
        if tokens.pop(seq, None) == outcome.token:
            valid.append((seq, outcome))
        else:
            lost.append(outcome.id)
    return valid, lost


def _is_drained(connection: Connection, queue: str) -> bool:
    """Return whether the queue has no ready, active or delayed jobs."""
    return execute(connection, "is_drained", queue=queue).fetchone() is not None


def _store_outcomes(
    unit: UnitOfWork,
    ledger: Ledger,
    pairs: Sequence[SeqAndOutcome],
    links: Sequence[LinkedJob],
    retention: Retention,
) -> None:
    """Store outcomes, one kind at a time. Raises `LeaseMismatch` if too few jobs were changed.

    links are the links of the jobs that end.
    """
    by_kind: dict[type[Outcome], list[SeqAndOutcome]] = {}
    for pair in pairs:
        by_kind.setdefault(type(pair[1]), []).append(pair)
    changed = 0
    rules: Rules = set()
    for kind, of_kind in by_kind.items():
        changed += _STORE_BY_KIND[kind](unit, ledger, of_kind, rules)
    if changed != len(pairs):
        raise LeaseMismatch
    children = {job.seq for job in links if job.parent is not None}
    if children:
        flows.end_settled(unit, ledger, [pair for pair in pairs if pair[0] in children])
    retention.apply(unit, ledger, rules)


def _store_completed(
    unit: UnitOfWork, ledger: Ledger, pairs: Sequence[SeqAndOutcome], rules: Rules
) -> ChangedRows:
    """Store the outcomes of completed jobs. Returns how many jobs were changed."""
    kept = [(seq, end) for seq, end in pairs if not end.keep.keeps_nothing]
    rules.update({(State.COMPLETED, keep) for keep in {end.keep for _, end in kept}})
    ledger.adjust_count(State.COMPLETED, len(kept))
    ids, results = [end.id for _, end in pairs], [end.result for _, end in pairs]
    ledger.emit(
        make_event_group_with_values(
            "completed", ids, results,
            max_bytes_at=lambda index: max_event_result_bytes(pairs[index][1].keep),
            previous_state=State.ACTIVE,
        )
    )  # fmt: skip
    return _write_kept_completed(unit, ledger, kept) + _delete_not_kept(unit, ledger, pairs)


def _write_kept_completed(
    unit: UnitOfWork, ledger: Ledger, kept: Sequence[SeqAndOutcome]
) -> ChangedRows:
    """Write the state and the result of completed jobs that are kept. Returns their number."""
    seqs = [seq for seq, _ in kept]
    if len({(end.token, end.result) for _, end in kept}) == 1 and seqs == sorted(seqs):
        # Most handlers return nothing. Token and result are then passed to SQLite only once.
        (_, end), rank = kept[0], ledger.next_sequence()
        return execute(
            unit.connection, "complete_with_common_result", queue=ledger.name,
            seqs=encode_json(seqs), token=end.token, result=end.result, rank=rank, now=unit.now_ms,
        ).rowcount  # fmt: skip
    rows = [
        (seq, end.token, end.result, rank, unit.now_ms)
        for (seq, end), rank in zip(kept, ledger.next_sequences(len(kept)), strict=True)
    ]
    return execute_rows(unit.connection, "complete", rows, ledger.name)


def _store_failed(
    unit: UnitOfWork, ledger: Ledger, pairs: Sequence[SeqAndOutcome], rules: Rules
) -> ChangedRows:
    """Store the outcomes of jobs that failed for good. Returns how many jobs were changed."""
    kept = [(seq, end) for seq, end in pairs if not end.keep.keeps_nothing]
    rows = [
        (seq, end.token, end.error, end.traceback, end.counts, rank, unit.now_ms)
        for (seq, end), rank in zip(kept, ledger.next_sequences(len(kept)), strict=True)
    ]
    rules.update((State.FAILED, end.keep) for _, end in kept)
    ledger.adjust_count(State.FAILED, len(kept))
    ids, errors = [end.id for _, end in pairs], [end.error for _, end in pairs]
    ledger.emit(
        EventGroup("failed", ids, errors=errors, previous=State.ACTIVE),
        EventGroup("retries-exhausted", [end.id for _, end in pairs if end.exhausted]),
    )
    changed = execute_rows(unit.connection, "fail", rows, ledger.name)
    return changed + _delete_not_kept(unit, ledger, pairs)


def _delete_not_kept(
    unit: UnitOfWork, ledger: Ledger, pairs: Sequence[SeqAndOutcome]
) -> ChangedRows:
    """Delete finished jobs whose keep rule keeps nothing. Returns how many were deleted."""
    rows = [(seq, end.token) for seq, end in pairs if end.keep.keeps_nothing]
    return execute_rows(unit.connection, "discard", rows, ledger.name)


def _return_to_queue(
    unit: UnitOfWork, ledger: Ledger, pairs: Sequence[SeqAndOutcome], _rules: Rules
) -> ChangedRows:
    """Make jobs ready or delayed again after a run that did not finish them.

    All outcomes are of the same kind: `Retry`, `Postponed` or `Released`. Returns how many jobs
    were changed.
    """
    # In front of the queue, a larger sequence number comes first. The first job gets the largest.
    sequences: Iterable[int] = ledger.next_sequences(len(pairs))
    if isinstance(pairs[0][1], Released):
        sequences = reversed(ledger.next_sequences(len(pairs)))
    rows: list[tuple[Any, ...]] = []
    waiting, delayed, dues = [], [], []
    for (seq, end), sequence in zip(pairs, sequences, strict=True):
        delay_ms = 0 if isinstance(end, Released) else end.delay_ms
        rows.append((seq, end.token, *_put_back_values(end), delay_ms, sequence, unit.now_ms))
        if delay_ms > 0:
            delayed.append(end.id)
            dues.append(unit.now_ms + delay_ms)
        else:
            waiting.append(end.id)
    ledger.emit(
        EventGroup("delayed", delayed, dues=dues),
        EventGroup("waiting", waiting, previous=State.ACTIVE),
    )
    return execute_rows(unit.connection, "put_back", rows, ledger.name)


def _park(
    unit: UnitOfWork, ledger: Ledger, pairs: Sequence[SeqAndOutcome], _rules: Rules
) -> ChangedRows:
    """Make jobs wait for their children. Returns how many jobs were changed."""
    return flows.store_parked(unit, ledger, pairs)


def _put_back_values(end: Retry | Postponed | Released) -> tuple[str, str | None, str | None]:
    """Return the values for put_back.sql: the kind of the outcome, its error and its traceback."""
    match end:
        case Retry(_, _, error, traceback):
            return "retry", error, traceback
        case Postponed():
            return "postpone", None, None
        case Released():
            return "release", None, None


_STORE_BY_KIND: Final[
    Mapping[type[Outcome], Callable[[UnitOfWork, Ledger, Sequence[SeqAndOutcome], Rules], int]]
] = {
    Completed: _store_completed,
    Failed: _store_failed,
    Retry: _return_to_queue,
    Postponed: _return_to_queue,
    Released: _return_to_queue,
    Parked: _park,
}
"""For each kind of outcome, the function that stores outcomes of this kind.

It adds the keep rules to apply to its last argument, and returns how many jobs it has changed.
"""


def release_jobs_of_claim(
    connection: Connection,
    queue: str,
    token: str,
    retention: Retention,
    sizes: JobSizes,
    skipped: SkippedScheduledJobs,
    now_ms: int,
) -> None:
    """Make the jobs of a claim ready again, because the caller that claimed them was cancelled.

    sizes and skipped are not used, because no jobs are claimed here.
    """
    ids = read_json(connection, "read_claimed", queue=queue, token=token)
    released = [Released(id, token) for id in ids]
    settle(
        connection,
        queue,
        released,
        None,
        retention,
        sizes,
        skipped,
        now_ms,
        set(),
        check_leases=True,
    )
