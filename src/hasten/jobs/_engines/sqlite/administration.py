"""What people do to jobs and queues: run again, cancel, remove, purge, pause.

Job by job: these calls are rare, and a readable rule for one job is worth more than a fast one for
many.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from sqlite3 import Connection

from hasten.jobs._engine import CANCELLED_ERROR, resolve_keep
from hasten.jobs._engines.sqlite.event_rows import Group
from hasten.jobs._engines.sqlite.job_rows import encode, read_json, ready_place, seqs_of
from hasten.jobs._engines.sqlite.job_statements import execute, execute_rows
from hasten.jobs._engines.sqlite.portions import LOOKED_AT_ONCE, Portion
from hasten.jobs._engines.sqlite.queue_ledger import Ledger, UnitOfWork
from hasten.jobs._engines.sqlite.retention import Retention, Rules
from hasten.jobs._options import (
    DEFAULT_KEEP_FAILED,
    DEFAULT_OPTIONS,
    Keep,
    Options,
    decode_options,
)
from hasten.jobs._states import FINISHED, State


def _find(connection: Connection, queue: str, id: str) -> tuple[int, State | None, int, str]:
    """Return a job's seq, state (None: there is no such job), priority and options."""
    (seq,) = seqs_of(connection, queue, [id])
    row = execute(connection, "read_state", seq=seq, queue=queue, id=id).fetchone()
    if row is None:
        return seq, None, 0, ""
    state, priority, opts = row
    return seq, State(state), priority, opts


def requeue(
    connection: Connection, queue: str, ids: Sequence[str], sources: Collection[State]
) -> list[State | None]:
    """Make jobs ready; see `Engine.requeue`."""
    answers: list[State | None] = []
    with UnitOfWork(connection) as unit:
        ledger = unit.open(queue)
        for id in ids:
            seq, state, priority, opts = _find(connection, queue, id)
            answers.append(state)
            if state is not None and state in sources:
                _make_ready(unit, ledger, seq, state, priority, opts)
                ledger.emit(Group("waiting", [id], previous=state))
    return answers


def _make_ready(
    unit: UnitOfWork, ledger: Ledger, seq: int, source: State, priority: int, opts: str
) -> None:
    # As in BullMQ: a finished job that runs again honours lifo, a promoted one does not.
    front = source in FINISHED and not priority and _options(opts).lifo
    state, rank = ready_place(priority, ledger.next_sequence(), front=front)
    if source is State.DELAYED:
        execute_rows(unit.connection, "make_ready", [(seq, state, rank)])
    else:
        execute(unit.connection, "run_again", seq=seq, state=state, rank=rank)
        ledger.count(source, -1)


def cancel(
    connection: Connection, queue: str, ids: Sequence[str], retention: Retention, now_ms: int
) -> list[State | None]:
    """Cancel jobs; see `Engine.cancel`. Stops after the first ids if it has deleted much."""
    answers: list[State | None] = []
    rules: Rules = set()
    portion = Portion(connection)
    with UnitOfWork(connection, now_ms) as unit:
        ledger = unit.open(queue)
        for id in ids:
            seq, state, _, opts = _find(connection, queue, id)
            answers.append(state)
            if state is State.ACTIVE:
                execute(connection, "cancel_active", seq=seq, error=CANCELLED_ERROR)
            elif state is not None and state not in FINISHED:
                keep = resolve_keep(_options(opts).keep_failed, DEFAULT_KEEP_FAILED)
                _fail_unstarted(unit, ledger, seq, keep)
                ledger.emit(Group("failed", [id], errors=[CANCELLED_ERROR], previous=state))
                if not keep.nothing:
                    rules.add((State.FAILED, keep))
                elif portion.is_full:
                    break
        retention.apply(unit, ledger, rules)
    return answers


def _fail_unstarted(unit: UnitOfWork, ledger: Ledger, seq: int, keep: Keep) -> None:
    if keep.nothing:
        execute(unit.connection, "delete_job", seq=seq)
        return
    execute(
        unit.connection, "cancel_unstarted", seq=seq, error=CANCELLED_ERROR,
        rank=ledger.next_sequence(), now=unit.now_ms,
    )  # fmt: skip
    ledger.count(State.FAILED, 1)


def _options(opts: str) -> Options:
    try:
        return decode_options(opts)
    except ValueError:  # a job that cannot be run can still be cancelled or moved
        return DEFAULT_OPTIONS


def remove(connection: Connection, queue: str, ids: Sequence[str]) -> list[State | None]:
    """Delete jobs; see `Engine.remove`. Stops after the first ids if it has deleted much."""
    answers: list[State | None] = []
    portion = Portion(connection)
    with UnitOfWork(connection) as unit:
        ledger = unit.open(queue)
        for id in ids:
            seq, state, _, _ = _find(connection, queue, id)
            answers.append(state)
            if state is None or state is State.ACTIVE:
                continue
            execute(connection, "delete_job", seq=seq)
            ledger.count(state, -1)
            ledger.emit(Group("removed", [id], previous=state))
            if portion.is_full:
                break
    return answers


def find_purgeable(
    connection: Connection,
    queue: str,
    state: State,
    before_ms: int | None,
    after: tuple[int, int],
    limit: int,
) -> tuple[list[tuple[int, str]], tuple[int, int] | None]:
    """Find the next portion of jobs to purge, behind the position after (rank, seq).

    Returns seq and id of at most limit jobs, and the position to continue from, None at the end.
    """
    rank, seq = after
    rows = read_json(
        connection, "read_purgeable", queue=queue, state=state, rank=rank, seq=seq,
        limit=LOOKED_AT_ONCE,
    )  # fmt: skip
    found: list[tuple[int, str]] = []
    for rank, seq, id, age_ms in rows:
        if before_ms is None or age_ms <= before_ms:
            found.append((seq, id))
            if len(found) == limit:
                return found, (rank, seq)
    return found, (rank, seq) if len(rows) == LOOKED_AT_ONCE else None


def purge(
    connection: Connection, queue: str, state: State, found: list[tuple[int, str]]
) -> tuple[list[str], list[tuple[int, str]]]:
    """Delete a portion of the jobs that were found, if they are still in the state.

    Returns the deleted ids, and what is left for another transaction.
    """
    seqs = encode([seq for seq, _ in found])
    still = set(read_json(connection, "still_in_state", queue=queue, state=state, seqs=seqs))
    found = [(seq, id) for seq, id in found if seq in still]
    deleted = 0

    def delete(count: int) -> int:
        nonlocal deleted
        portion = found[deleted : deleted + count]
        execute(connection, "delete_jobs", seqs=encode([seq for seq, _ in portion]))
        deleted += len(portion)
        return len(portion)

    with UnitOfWork(connection) as unit:
        ledger = unit.open(queue)
        Portion(connection).delete(delete)
        ledger.count(state, -deleted)
    return [id for _, id in found[:deleted]], found[deleted:]


def emit_cleaned(connection: Connection, queue: str, count: int) -> None:
    """Emit the event that reports how many jobs a call of `Engine.purge` has deleted."""
    with UnitOfWork(connection) as unit:
        unit.open(queue).emit(Group("cleaned", [""], count=count))


def begin_obliterating(connection: Connection, queue: str) -> None:
    """Pause the queue, so that no job is claimed any more; see `Engine.obliterate`."""
    with UnitOfWork(connection) as unit:
        unit.open(queue).paused = True


def obliterate_jobs(connection: Connection, queue: str, state: State) -> bool:
    """Delete the next portion of the jobs in a state. Returns whether there may be more."""
    with UnitOfWork(connection) as unit:
        ledger = unit.open(queue)

        def delete(count: int) -> int:
            gone = execute(connection, "obliterate_jobs", queue=queue, state=state, limit=count)
            ledger.count(state, -gone.rowcount)
            return gone.rowcount

        return Portion(connection).delete(delete)


def obliterate_events(connection: Connection, queue: str) -> bool:
    """Delete the next portion of a queue's events. Returns whether there may be more."""

    def delete(count: int) -> int:
        return execute(connection, "obliterate_events", queue=queue, limit=count).rowcount

    return Portion(connection).delete(delete)


def end_obliterating(connection: Connection, queue: str) -> None:
    """Resume the queue. Its row stays: sequence numbers must not be handed out again."""
    with UnitOfWork(connection) as unit:
        unit.open(queue).paused = False


def set_paused(connection: Connection, queue: str, *, paused: bool) -> None:
    """Pause or resume a queue; see `Engine.pause` and `Engine.resume`."""
    with UnitOfWork(connection) as unit:
        ledger = unit.open(queue)
        ledger.paused = paused
        ledger.emit(Group("paused" if paused else "resumed", [""]))
