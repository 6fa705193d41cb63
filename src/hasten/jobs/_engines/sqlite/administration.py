"""What people do to jobs and queues: run again, cancel, remove, clean, pause.

Job by job: these are rare, and a readable rule for one job is worth more than a fast one for many.
"""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

from hasten.jobs._engine import CANCELLED_ERROR, keep_or
from hasten.jobs._engines.sqlite.events import Group
from hasten.jobs._engines.sqlite.ledger import Ledger, open_ledger
from hasten.jobs._engines.sqlite.portions import LOOKED_AT_ONCE, Portion
from hasten.jobs._engines.sqlite.rows import encode, read_json, ready_place, seqs_of
from hasten.jobs._engines.sqlite.statements import execute, execute_rows
from hasten.jobs._engines.sqlite.working import Retention
from hasten.jobs._options import (
    DEFAULT_KEEP_FAILED,
    DEFAULT_OPTIONS,
    Keep,
    Options,
    decode_options,
)
from hasten.jobs._states import FINISHED, State


def _find(connection: Connection, queue: str, id: str) -> tuple[int, State | None, int, str]:
    """A job's number, state (None: there is no such job), priority and options."""
    (seq,) = seqs_of(connection, queue, [id])
    row = execute(connection, "read_state", seq=seq, queue=queue, id=id).fetchone()
    if row is None:
        return seq, None, 0, ""
    state, priority, opts = row
    return seq, State(state), priority, opts


def requeue(
    connection: Connection, queue: str, ids: Sequence[str], source: State
) -> list[State | None]:
    """See `Engine.requeue`."""
    answers: list[State | None] = []
    with open_ledger(connection, queue) as ledger:
        for id in ids:
            seq, state, priority, opts = _find(connection, queue, id)
            answers.append(state)
            if state is not source:
                continue
            # As in BullMQ: a job run again honours lifo, a promoted one does not.
            front = source in FINISHED and not priority and _options(opts).lifo
            state, rank = ready_place(priority, ledger.take_one(), front=front)
            if source is State.DELAYED:
                execute_rows(connection, "make_ready", [(seq, state, rank)])
            else:
                execute(connection, "run_again", seq=seq, state=state, rank=rank)
                ledger.count(source, -1)
            ledger.tell(Group("waiting", [id], previous=source))
    return answers


def cancel(
    connection: Connection, queue: str, ids: Sequence[str], retention: Retention, now_ms: int
) -> list[State | None]:
    """See `Engine.cancel`. Answers for the first ids only, where it has deleted much."""
    answers: list[State | None] = []
    rules: set[tuple[State, Keep]] = set()
    portion = Portion(connection)
    with open_ledger(connection, queue) as ledger:
        for id in ids:
            seq, state, _, opts = _find(connection, queue, id)
            answers.append(state)
            if state is State.ACTIVE:
                execute(connection, "cancel_active", seq=seq, error=CANCELLED_ERROR)
            elif state is not None and state not in FINISHED:
                keep = keep_or(_options(opts).keep_failed, DEFAULT_KEEP_FAILED)
                _fail_unstarted(connection, ledger, seq, keep, now_ms)
                ledger.tell(Group("failed", [id], errors=[CANCELLED_ERROR], previous=state))
                if not keep.nothing:
                    rules.add((State.FAILED, keep))
                elif portion.is_full:
                    break
        retention.apply(connection, ledger, rules, now_ms)
    return answers


def _fail_unstarted(
    connection: Connection, ledger: Ledger, seq: int, keep: Keep, now_ms: int
) -> None:
    if keep.nothing:
        execute(connection, "delete_job", seq=seq)
        return
    rank = ledger.take_one()
    execute(connection, "cancel_unstarted", seq=seq, error=CANCELLED_ERROR, rank=rank, now=now_ms)
    ledger.count(State.FAILED, 1)


def _options(opts: str) -> Options:
    try:
        return decode_options(opts)
    except ValueError:  # a job that cannot be run can still be cancelled, or moved
        return DEFAULT_OPTIONS


def remove(connection: Connection, queue: str, ids: Sequence[str]) -> list[State | None]:
    """See `Engine.remove`. Answers for the first ids only, where it has deleted much."""
    answers: list[State | None] = []
    portion = Portion(connection)
    with open_ledger(connection, queue) as ledger:
        for id in ids:
            seq, state, _, _ = _find(connection, queue, id)
            answers.append(state)
            if state is None or state is State.ACTIVE:
                continue
            execute(connection, "delete_job", seq=seq)
            ledger.count(state, -1)
            ledger.tell(Group("removed", [id], previous=state))
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
    """Look at a portion of the jobs in a state, behind a place: rank and number.

    Returns number and id of at most limit of them that may be deleted, and the place of the last
    one that was looked at; None if there are no more.
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

    Returns the ids that are gone, and those that are left to another transaction.
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

    with open_ledger(connection, queue) as ledger:
        Portion(connection).delete(delete)
        ledger.count(state, -deleted)
    return [id for _, id in found[:deleted]], found[deleted:]


def tell_cleaned(connection: Connection, queue: str, count: int) -> None:
    """Say how many jobs a call of `Engine.purge` has deleted."""
    with open_ledger(connection, queue) as ledger:
        ledger.tell(Group("cleaned", [""], count=count))


def begin_obliterating(connection: Connection, queue: str) -> None:
    """See `Engine.obliterate`. Nobody takes a job of the queue any longer."""
    with open_ledger(connection, queue) as ledger:
        ledger.paused = True


def obliterate_jobs(connection: Connection, queue: str, state: State) -> bool:
    """Delete a portion of the jobs in a state. Returns whether there may be more."""
    with open_ledger(connection, queue) as ledger:

        def delete(count: int) -> int:
            gone = execute(connection, "obliterate_jobs", queue=queue, state=state, limit=count)
            ledger.count(state, -gone.rowcount)
            return gone.rowcount

        return Portion(connection).delete(delete)


def obliterate_events(connection: Connection, queue: str) -> bool:
    """Delete a portion of a queue's events. Returns whether there may be more."""

    def delete(count: int) -> int:
        return execute(connection, "obliterate_events", queue=queue, limit=count).rowcount

    return Portion(connection).delete(delete)


def end_obliterating(connection: Connection, queue: str) -> None:
    """The ledger stays, for its tickets must not be given out again."""
    with open_ledger(connection, queue) as ledger:
        ledger.paused = False


def set_paused(connection: Connection, queue: str, *, paused: bool) -> None:
    """See `Engine.pause` and `Engine.resume`."""
    with open_ledger(connection, queue) as ledger:
        ledger.paused = paused
        ledger.tell(Group("paused" if paused else "resumed", [""]))
