"""Administration: running jobs again, cancelling and deleting jobs, pausing and deleting queues.

Unlike the other modules, this one runs several statements per job. Its operations are rare, so
simple code matters more than speed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from sqlite3 import Connection
from typing import NamedTuple, TypeAlias

from hasten.jobs._engine import CANCELLED_ERROR, resolve_keep
from hasten.jobs._engines.sqlite import flows, schedules
from hasten.jobs._engines.sqlite.deduplicating import release_keys_of_deleted_jobs
from hasten.jobs._engines.sqlite.ending_keys import release_keys_of_ended_jobs
from hasten.jobs._engines.sqlite.event_rows import EventGroup
from hasten.jobs._engines.sqlite.job_rows import (
    decode_options_or_default,
    encode_json,
    find_seqs,
    read_json,
    ready_state_and_rank,
)
from hasten.jobs._engines.sqlite.job_statements import execute, execute_rows
from hasten.jobs._engines.sqlite.links import read_links
from hasten.jobs._engines.sqlite.queue_ledger import Ledger, UnitOfWork
from hasten.jobs._engines.sqlite.retention import Retention, Rules
from hasten.jobs._engines.sqlite.scheduled_runs import end_runs
from hasten.jobs._engines.sqlite.transaction_limits import LOOKED_AT_ONCE, DeletionBudget, MoreLeft
from hasten.jobs._options import DEFAULT_KEEP_FAILED, Keep
from hasten.jobs._states import FINISHED, State, StatesBefore

SeqAndId: TypeAlias = tuple[int, str]
"""The seq (primary key) of a job, and its id."""

Position: TypeAlias = tuple[int, int]
"""The rank and the seq of a job, which order the jobs in a state."""


class _FoundJob(NamedTuple):
    """What decides how to requeue, cancel or delete a job."""

    seq: int
    state: State | None  # None for a missing job
    priority: int
    opts: str


def _find_job(connection: Connection, queue: str, id: str) -> _FoundJob:
    """Read the state, priority and options of a job."""
    (seq,) = find_seqs(connection, queue, [id])
    row = execute(connection, "read_state", seq=seq, queue=queue, id=id).fetchone()
    if row is None:
        return _FoundJob(seq, None, 0, "")
    state, priority, opts = row
    return _FoundJob(seq, State(state), priority, opts)


def requeue(
    connection: Connection,
    queue: str,
    ids: Sequence[str],
    from_states: Collection[State],
    now_ms: int,
) -> StatesBefore:
    """Make delayed or finished jobs ready; see `Engine.requeue`."""
    answers: list[State | None] = []
    with UnitOfWork(connection, now_ms) as unit:
        ledger = unit.get_ledger(queue)
        for id in ids:
            seq, state, priority, opts = _find_job(connection, queue, id)
            answers.append(state)
            if state is not None and state in from_states:
                new = _make_ready(unit, ledger, seq, state, priority, opts)
                kind = new if new is State.WAITING_CHILDREN else "waiting"
                ledger.emit(EventGroup(kind, [id], previous=state))
    return answers


def _make_ready(
    unit: UnitOfWork, ledger: Ledger, seq: int, source: State, priority: int, opts: str
) -> State:
    """Move a delayed or finished job, found in the state source, to the ready jobs.

    A parent with pending children waits for them instead. Returns the new state.
    """
    # As in BullMQ, lifo applies to finished jobs that run again, but not to promoted jobs.
    front = source in FINISHED and not priority and decode_options_or_default(opts).lifo
    state, rank = ready_state_and_rank(priority, ledger.next_sequence(), front=front)
    if source is State.DELAYED:
        execute_rows(unit.connection, "make_ready", [(seq, state, rank)])
        return state
    flows.relink(unit, ledger, seq)
    if flows.waits_again(unit, ledger, seq):
        state, rank = State.WAITING_CHILDREN, unit.now_ms
    execute(unit.connection, "run_again", seq=seq, state=state, rank=rank)
    ledger.adjust_count(source, -1)
    return state


def cancel(
    connection: Connection,
    queue: str,
    ids: Sequence[str],
    retention: Retention,
    scheduled: set[str],
    now_ms: int,
    touched: set[str],
) -> StatesBefore:
    """Cancel jobs; see `Engine.cancel`.

    Adds the names of other changed queues to touched, and the ids of the pending jobs of schedules,
    which are not cancelled, to scheduled.

    A cancelled job whose keep rule keeps nothing is deleted. If deleting takes long, only the first
    ids are handled, and their states are returned. The caller calls it again for the others.
    """
    answers: list[State | None] = []
    rules: Rules = set()
    budget = DeletionBudget(connection)
    with UnitOfWork(connection, now_ms) as unit:
        ledger = unit.get_ledger(queue)
        for id in ids:
            seq, state, _, opts = _find_job(connection, queue, id)
            answers.append(state)
            if state is State.ACTIVE:
                execute(connection, "cancel_active", seq=seq, error=CANCELLED_ERROR)
            elif schedules.find_pending_runs(connection, ledger, [seq]):
                scheduled.add(id)
            elif state is not None and state not in FINISHED:
                keep = resolve_keep(
                    decode_options_or_default(opts).keep_failed, DEFAULT_KEEP_FAILED
                )
                links = read_links(connection, ledger, [seq])
                release_keys_of_ended_jobs(unit, ledger, links, keeps_windows=False)
                _fail_unstarted(unit, ledger, seq, keep)
                end = flows.ChildEnd(seq, State.FAILED, CANCELLED_ERROR, keep.keeps_nothing)
                flows.end_children(unit, ledger, [end])
                ledger.emit(EventGroup("failed", [id], errors=[CANCELLED_ERROR], previous=state))
                end_runs(unit, ledger, [seq])
                if not keep.keeps_nothing:
                    rules.add((State.FAILED, keep))
                elif budget.is_exhausted:
                    break
        retention.apply(unit, ledger, rules)
        touched.update(unit.queues)
    return answers


def _fail_unstarted(unit: UnitOfWork, ledger: Ledger, seq: int, keep: Keep) -> None:
    """Fail a job that is not running, as cancelled. Deletes it if its keep rule keeps nothing."""
    if keep.keeps_nothing:
        execute(unit.connection, "delete_job", seq=seq)
        return
    execute(
        unit.connection, "cancel_unstarted", seq=seq, error=CANCELLED_ERROR,
        rank=ledger.next_sequence(), now=unit.now_ms,
    )  # fmt: skip
    ledger.adjust_count(State.FAILED, 1)


def remove(
    connection: Connection,
    queue: str,
    ids: Sequence[str],
    descendants: list[int],
    touched: set[str],
    scheduled: set[str],
) -> StatesBefore:
    """Delete jobs; see `Engine.remove`.

    Adds the names of other changed queues to touched, the ids of the pending jobs of schedules to
    scheduled, and the seqs of descendants that are left for the next transaction to descendants. If
    deleting takes long, only the first ids are handled, and their states are returned. The
    caller calls it again for the others.
    """
    answers: list[State | None] = []
    below: list[int] = []
    budget = DeletionBudget(connection)
    with UnitOfWork(connection) as unit:
        ledger = unit.get_ledger(queue)
        for id in ids:
            seq, state, _, _ = _find_job(connection, queue, id)
            if state is not None and state is not State.ACTIVE:
                found, is_running = flows.find_descendants(connection, ledger, seq)
                below += found
                state = State.ACTIVE if is_running else state
            answers.append(state)
            if state is None or state is State.ACTIVE:
                continue
            if schedules.find_pending_runs(connection, ledger, [seq]):
                scheduled.add(id)
                continue
            release_keys_of_deleted_jobs(unit, ledger, read_links(connection, ledger, [seq]))
            execute(connection, "delete_job", seq=seq)
            end_runs(unit, ledger, [seq])
            ledger.adjust_count(state, -1)
            ledger.emit(EventGroup("removed", [id], previous=state))
            flows.unlink(unit, ledger, [seq])
            if budget.is_exhausted:
                break
        descendants += flows.delete_descendants(unit, below, budget)
        touched.update(unit.queues)
    return answers


def find_purgeable(
    connection: Connection,
    queue: str,
    state: State,
    before_ms: int | None,
    after: Position,
    limit: int,
) -> tuple[list[SeqAndId], Position | None]:
    """Find jobs to purge among the next `LOOKED_AT_ONCE` jobs in a state. Deletes nothing.

    after is the position of the last job that was looked at. before_ms is that of `Engine.purge`.
    Returns seq and id of at most limit jobs, and the position to continue from: None if no jobs
    follow.
    """
    rank, seq = after
    rows = read_json(
        connection, "read_purgeable", queue=queue, state=state, rank=rank, seq=seq,
        limit=LOOKED_AT_ONCE,
    )  # fmt: skip
    found: list[SeqAndId] = []
    ledger = Ledger(connection, queue, now_ms=0)
    pending = schedules.find_pending_runs(connection, ledger, [seq for _, seq, _, _ in rows])
    for rank, seq, id, age_ms in rows:
        if (before_ms is None or age_ms <= before_ms) and seq not in pending:
            found.append((seq, id))
            if len(found) == limit:
                return found, (rank, seq)
    return found, (rank, seq) if len(rows) == LOOKED_AT_ONCE else None


def purge_found(
    connection: Connection, queue: str, state: State, found: list[SeqAndId], touched: set[str]
) -> tuple[list[str], list[SeqAndId]]:
    """Delete jobs that `find_purgeable` has found, up to the limits of one transaction.

    Jobs that are no longer in the state are left out. found are pairs of seq and id. Adds the names
    of other changed queues to touched. Returns the ids of the deleted jobs, and the pairs that are
    left for the next transaction.
    """
    seqs = encode_json([seq for seq, _ in found])
    still = set(read_json(connection, "still_in_state", queue=queue, state=state, seqs=seqs))
    found = [(seq, id) for seq, id in found if seq in still]
    deleted = 0

    def delete(count: int) -> int:
        nonlocal deleted
        portion = [seq for seq, _ in found[deleted : deleted + count]]
        release_keys_of_deleted_jobs(unit, ledger, read_links(connection, ledger, portion))
        execute(connection, "delete_jobs", seqs=encode_json(portion))
        deleted += len(portion)
        return len(portion)

    with UnitOfWork(connection) as unit:
        ledger = unit.get_ledger(queue)
        DeletionBudget(connection).delete_until_exhausted(delete)
        ledger.adjust_count(state, -deleted)
        flows.unlink(unit, ledger, [seq for seq, _ in found[:deleted]])
        touched.update(unit.queues)
        end_runs(unit, ledger, [seq for seq, _ in found[:deleted]])
    return [id for _, id in found[:deleted]], found[deleted:]


def emit_cleaned(connection: Connection, queue: str, count: int) -> None:
    """Emit the event "cleaned", which reports how many jobs `Engine.purge` has deleted."""
    with UnitOfWork(connection) as unit:
        unit.get_ledger(queue).emit(EventGroup("cleaned", [""], count=count))


def begin_obliterating(connection: Connection, queue: str) -> None:
    """Pause a queue before its jobs are deleted, so that no worker claims them meanwhile."""
    with UnitOfWork(connection) as unit:
        unit.get_ledger(queue).paused = True


def obliterate_next_jobs(
    connection: Connection, queue: str, state: State, touched: set[str]
) -> MoreLeft:
    """Delete jobs in a state, up to the limits of one transaction.

    Adds the names of other changed queues to touched. Returns whether more may exist.
    """
    seqs: list[int] = []
    with UnitOfWork(connection) as unit:
        ledger = unit.get_ledger(queue)

        def delete(count: int) -> int:
            of = {"queue": queue, "state": state, "limit": count}
            gone = [seq for (seq,) in execute(connection, "obliterate_jobs", **of)]
            seqs.extend(gone)
            ledger.adjust_count(state, -len(gone))
            return len(gone)

        more_left = DeletionBudget(connection).delete_until_exhausted(delete)
        flows.unlink(unit, ledger, seqs)
        touched.update(unit.queues)
    return more_left


def obliterate_next_events(connection: Connection, queue: str) -> MoreLeft:
    """Delete events, up to the limits of one transaction. Returns whether more may exist."""

    def delete(count: int) -> int:
        return execute(connection, "obliterate_events", queue=queue, limit=count).rowcount

    return DeletionBudget(connection).delete_until_exhausted(delete)


def obliterate_next_keys(connection: Connection, queue: str) -> MoreLeft:
    """Delete deduplication keys, up to the limits of one transaction.

    Returns whether more may exist.
    """

    def delete(count: int) -> int:
        return execute(connection, "obliterate_keys", queue=queue, limit=count).rowcount

    return DeletionBudget(connection).delete_until_exhausted(delete)


def end_obliterating(connection: Connection, queue: str) -> None:
    """End the pause of a deleted queue. Its row stays, so that no sequence number is reused."""
    execute(connection, "obliterate_workers", queue=queue)
    with UnitOfWork(connection) as unit:
        unit.get_ledger(queue).paused = False


def set_paused(connection: Connection, queue: str, *, paused: bool) -> None:
    """Pause or resume a queue; see `Engine.pause` and `Engine.resume`."""
    with UnitOfWork(connection) as unit:
        ledger = unit.get_ledger(queue)
        ledger.paused = paused
        ledger.emit(EventGroup("paused" if paused else "resumed", [""]))
