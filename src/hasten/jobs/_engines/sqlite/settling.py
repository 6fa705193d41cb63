"""Storing the outcomes of runs, and claiming the next jobs in the same transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from sqlite3 import Connection
from typing import Any, Final

from hasten.jobs._engine import max_result_in_event
from hasten.jobs._engines.sqlite.claiming import JobSizes, claim_jobs
from hasten.jobs._engines.sqlite.event_rows import Group, with_values
from hasten.jobs._engines.sqlite.job_rows import encode, read_json, seqs_of
from hasten.jobs._engines.sqlite.job_statements import execute, execute_rows
from hasten.jobs._engines.sqlite.leasing import read_tokens
from hasten.jobs._engines.sqlite.queue_ledger import Ledger, UnitOfWork
from hasten.jobs._engines.sqlite.retention import Retention, Rules
from hasten.jobs._record import (
    Batch,
    Claim,
    Completed,
    Failed,
    Outcome,
    Postponed,
    Released,
    Retry,
)
from hasten.jobs._states import State

Pair = tuple[int, Any]
"""The seq of a job, and the outcome of its run."""


class LeaseMismatch(Exception):
    """A lease in the batch is lost: settle again, and check each lease first."""


def settle(
    connection: Connection,
    queue: str,
    outcomes: Sequence[Outcome],
    claim: Claim | None,
    retention: Retention,
    sizes: JobSizes,
    now_ms: int,
    *,
    check_leases: bool,
) -> Batch:
    """Store outcomes, then claim jobs; see `Engine.settle`.

    Leases are lost so rarely that only the number of changed rows is checked first. If it is wrong,
    `LeaseMismatch` rolls everything back, and the caller tries again with check_leases.
    """
    lost: list[str] = []
    with UnitOfWork(connection, now_ms) as unit:
        ledger = unit.open(queue)
        if outcomes:
            seqs = seqs_of(connection, queue, [outcome.id for outcome in outcomes])
            pairs: list[Pair] = list(zip(seqs, outcomes, strict=True))
            if check_leases:
                pairs, lost = _drop_lost(connection, queue, pairs)
            _store(unit, ledger, pairs, retention)
        batch = Batch([], None, lost)
        if claim is not None:
            batch = claim_jobs(unit, ledger, claim, lost, sizes)
        if outcomes and not batch.leases and _is_drained(connection, queue):
            ledger.emit(Group("drained", [""]))
    return batch


def _drop_lost(
    connection: Connection, queue: str, pairs: Sequence[Pair]
) -> tuple[list[Pair], list[str]]:
    """Divide outcomes into those whose lease is valid and the ids of the others."""
    tokens = read_tokens(connection, queue, [seq for seq, _ in pairs])
    valid, lost = [], []
    for seq, outcome in pairs:
        # `pop`: the lease is gone for a second outcome of the same run.
        if tokens.pop(seq, None) == outcome.token:
            valid.append((seq, outcome))
        else:
            lost.append(outcome.id)
    return valid, lost


def _is_drained(connection: Connection, queue: str) -> bool:
    return execute(connection, "is_drained", queue=queue).fetchone() is not None


def _store(unit: UnitOfWork, ledger: Ledger, pairs: Sequence[Pair], retention: Retention) -> None:
    by_kind: dict[type[Outcome], list[Pair]] = {}
    for pair in pairs:
        by_kind.setdefault(type(pair[1]), []).append(pair)
    changed = 0
    rules: Rules = set()
    for kind, of_kind in by_kind.items():
        changed += _STORE[kind](unit, ledger, of_kind, rules)
    if changed != len(pairs):
        raise LeaseMismatch
    retention.apply(unit, ledger, rules)


def _store_completed(unit: UnitOfWork, ledger: Ledger, pairs: Sequence[Pair], rules: Rules) -> int:
    kept = [(seq, end) for seq, end in pairs if not end.keep.nothing]
    rules.update({(State.COMPLETED, keep) for keep in {end.keep for _, end in kept}})
    ledger.count(State.COMPLETED, len(kept))
    ids, results = [end.id for _, end in pairs], [end.result for _, end in pairs]
    ledger.emit(
        with_values(
            "completed", ids, results,
            most=lambda index: max_result_in_event(pairs[index][1].keep), previous=State.ACTIVE,
        )
    )  # fmt: skip
    return _keep_completed(unit, ledger, kept) + _discard(unit, ledger, pairs)


def _keep_completed(unit: UnitOfWork, ledger: Ledger, kept: Sequence[Pair]) -> int:
    seqs = [seq for seq, _ in kept]
    if len({(end.token, end.result) for _, end in kept}) == 1 and seqs == sorted(seqs):
        # Most handlers return nothing: what the jobs have in common is bound once.
        (_, end), rank = kept[0], ledger.next_sequence()
        return execute(
            unit.connection, "complete_alike", queue=ledger.name, seqs=encode(seqs),
            token=end.token, result=end.result, rank=rank, now=unit.now_ms,
        ).rowcount  # fmt: skip
    rows = [
        (seq, end.token, end.result, rank, unit.now_ms)
        for (seq, end), rank in zip(kept, ledger.next_sequences(len(kept)), strict=True)
    ]
    return execute_rows(unit.connection, "complete", rows, ledger.name)


def _store_failed(unit: UnitOfWork, ledger: Ledger, pairs: Sequence[Pair], rules: Rules) -> int:
    kept = [(seq, end) for seq, end in pairs if not end.keep.nothing]
    rows = [
        (seq, end.token, end.error, end.traceback, end.counts, rank, unit.now_ms)
        for (seq, end), rank in zip(kept, ledger.next_sequences(len(kept)), strict=True)
    ]
    rules.update((State.FAILED, end.keep) for _, end in kept)
    ledger.count(State.FAILED, len(kept))
    ids, errors = [end.id for _, end in pairs], [end.error for _, end in pairs]
    ledger.emit(
        Group("failed", ids, errors=errors, previous=State.ACTIVE),
        Group("retries-exhausted", [end.id for _, end in pairs if end.exhausted]),
    )
    changed = execute_rows(unit.connection, "fail", rows, ledger.name)
    return changed + _discard(unit, ledger, pairs)


def _discard(unit: UnitOfWork, ledger: Ledger, pairs: Sequence[Pair]) -> int:
    rows = [(seq, end.token) for seq, end in pairs if end.keep.nothing]
    return execute_rows(unit.connection, "discard", rows, ledger.name)


def _put_back(unit: UnitOfWork, ledger: Ledger, pairs: Sequence[Pair], _rules: Rules) -> int:
    # A larger sequence number is nearer to the front: the first released job gets the largest.
    sequences: Iterable[int] = ledger.next_sequences(len(pairs))
    if isinstance(pairs[0][1], Released):
        sequences = reversed(ledger.next_sequences(len(pairs)))
    rows: list[tuple[Any, ...]] = []
    waiting, delayed, dues = [], [], []
    for (seq, end), sequence in zip(pairs, sequences, strict=True):
        delay_ms = 0 if isinstance(end, Released) else end.delay_ms
        rows.append((seq, end.token, *_describe(end), delay_ms, sequence, unit.now_ms))
        if delay_ms > 0:
            delayed.append(end.id)
            dues.append(unit.now_ms + delay_ms)
        else:
            waiting.append(end.id)
    ledger.emit(
        Group("delayed", delayed, dues=dues), Group("waiting", waiting, previous=State.ACTIVE)
    )
    return execute_rows(unit.connection, "put_back", rows, ledger.name)


def _describe(end: Retry | Postponed | Released) -> tuple[str, str | None, str | None]:
    """Return kind, error and traceback of a run that did not finish its job."""
    match end:
        case Retry(_, _, error, traceback):
            return "retry", error, traceback
        case Postponed():
            return "postpone", None, None
        case Released():
            return "release", None, None


_STORE: Final[
    Mapping[type[Outcome], Callable[[UnitOfWork, Ledger, Sequence[Pair], Rules], int]]
] = {
    Completed: _store_completed,
    Failed: _store_failed,
    Retry: _put_back,
    Postponed: _put_back,
    Released: _put_back,
}
"""How outcomes of each kind are stored. Each returns how many jobs it has changed."""


def release_claim(
    connection: Connection,
    queue: str,
    token: str,
    retention: Retention,
    sizes: JobSizes,
    now_ms: int,
) -> None:
    """Release the jobs of a claim whose caller was cancelled."""
    ids = read_json(connection, "read_claimed", queue=queue, token=token)
    released = [Released(id, token) for id in ids]
    settle(connection, queue, released, None, retention, sizes, now_ms, check_leases=True)
