"""What people do to jobs and queues: run again, cancel, remove, clean, pause.

Job by job: these are rare, and a readable rule for one job is worth more than a fast one for many.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from sqlite3 import Connection

from hasten.errors import JobNotFound
from hasten.jobs.engine import CANCELLED_REASON, keep_or
from hasten.jobs.engines.sqlite.events import Group
from hasten.jobs.engines.sqlite.ledger import Ledger, open_ledger
from hasten.jobs.engines.sqlite.rows import encode, read_json, ready_place, seqs_of
from hasten.jobs.engines.sqlite.statements import execute, execute_rows
from hasten.jobs.engines.sqlite.working import Retention
from hasten.jobs.options import DEFAULT_KEEP_FAILED, DEFAULT_OPTIONS, Options, decode_options
from hasten.jobs.states import FINISHED, State


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
            if state is None:
                raise JobNotFound(queue, id)
            if state is not source:
                answers.append(state)
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
            answers.append(None)
    return answers


def cancel(
    connection: Connection, queue: str, ids: Sequence[str], now_ms: int
) -> list[State | None]:
    """See `Engine.cancel`."""
    answers: list[State | None] = []
    with open_ledger(connection, queue) as ledger:
        for id in ids:
            seq, state, _, opts = _find(connection, queue, id)
            answers.append(state)
            if state is State.ACTIVE:
                execute(connection, "cancel_active", seq=seq, reason=CANCELLED_REASON)
            elif state is not None and state not in FINISHED:
                _fail_unstarted(connection, ledger, seq, opts, now_ms)
                ledger.tell(Group("failed", [id], reasons=[CANCELLED_REASON], previous=state))
    return answers


def _fail_unstarted(
    connection: Connection, ledger: Ledger, seq: int, opts: str, now_ms: int
) -> None:
    keep = keep_or(_options(opts).keep_failed, DEFAULT_KEEP_FAILED)
    if keep.nothing:
        execute(connection, "delete_job", seq=seq)
        return
    rank = ledger.take_one()
    execute(connection, "cancel_unstarted", seq=seq, reason=CANCELLED_REASON, rank=rank, now=now_ms)
    ledger.count(State.FAILED, 1)
    Retention().apply(connection, ledger, [(State.FAILED, keep)], now_ms)


def _options(opts: str) -> Options:
    try:
        return decode_options(opts)
    except ValueError:  # a job that cannot be run can still be cancelled, or moved
        return DEFAULT_OPTIONS


def remove(connection: Connection, queue: str, ids: Sequence[str]) -> list[State | None]:
    """See `Engine.remove`."""
    answers: list[State | None] = []
    with open_ledger(connection, queue) as ledger:
        for id in ids:
            seq, state, _, _ = _find(connection, queue, id)
            answers.append(state)
            if state is None or state is State.ACTIVE:
                continue
            execute(connection, "delete_job", seq=seq)
            ledger.count(state, -1)
            ledger.tell(Group("removed", [id], previous=state))
    return answers


def purge(
    connection: Connection,
    queue: str,
    states: Collection[State],
    before_ms: int | None,
    limit: int | None,
) -> list[str]:
    """See `Engine.purge`."""
    purged: list[str] = []
    with open_ledger(connection, queue) as ledger:
        for state in (state for state in State if state in states):
            left = -1 if limit is None else limit - len(purged)
            found = read_json(
                connection, "read_purgeable", queue=queue, state=state, before=before_ms, limit=left
            )
            execute(connection, "delete_jobs", seqs=encode([seq for seq, _ in found]))
            ledger.count(state, -len(found))
            purged += [id for _, id in found]
        ledger.tell(Group("cleaned", [""], count=len(purged)))
    return purged


def forget(connection: Connection, queue: str) -> None:
    """See `Engine.forget`. The ledger stays, for its tickets must not be given out again."""
    execute(connection, "forget_jobs", queue=queue)
    execute(connection, "forget_events", queue=queue)
    with open_ledger(connection, queue) as ledger:
        ledger.paused = False
        ledger.finished = dict.fromkeys(ledger.finished, 0)


def set_paused(connection: Connection, queue: str, *, paused: bool) -> None:
    """See `Engine.pause` and `Engine.resume`."""
    with open_ledger(connection, queue) as ledger:
        ledger.paused = paused
        ledger.tell(Group("paused" if paused else "resumed", [""]))
