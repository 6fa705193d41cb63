"""What is said of a job while it is there: progress, log lines, changes from outside."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

from hasten.jobs._engine import VALUE_BYTES
from hasten.jobs._engines.sqlite.events import Group, with_values
from hasten.jobs._engines.sqlite.ledger import Ledger, open_ledger
from hasten.jobs._engines.sqlite.rows import ready_place, seqs_of
from hasten.jobs._engines.sqlite.statements import execute
from hasten.jobs._record import Change, LogLine, Progress, Update
from hasten.jobs._states import READY, State


def update(
    connection: Connection, queue: str, updates: Sequence[Update], now_ms: int
) -> list[State | None]:
    """See `Engine.update`."""
    seqs = seqs_of(connection, queue, [update.id for update in updates])
    with open_ledger(connection, queue) as ledger:
        return [
            _apply(connection, ledger, seq, update, now_ms)
            for seq, update in zip(seqs, updates, strict=True)
        ]


def _apply(
    connection: Connection, ledger: Ledger, seq: int, update: Update, now_ms: int
) -> State | None:
    job = {"seq": seq, "queue": ledger.name, "id": update.id}
    match update:
        case Progress(id, value):
            row = execute(connection, "set_progress", **job, value=value).fetchone()
            if row is None:
                return None
            ledger.tell(_progress(id, value))
            return State(row[0])
        case LogLine(_, line, keep):
            row = execute(connection, "next_log_line", **job).fetchone()
            if row is None:
                return None
            n, state = row
            execute(connection, "add_log_line", seq=seq, n=n, line=line)
            execute(connection, "trim_log", seq=seq, last=n - keep)
            return State(state)
        case Change():
            row = execute(connection, "read_state", **job).fetchone()
            if row is None:
                return None
            found = State(row[0])
            if found in update.states:
                _change(connection, ledger, seq, update, found, now_ms)
            return found


def _change(
    connection: Connection, ledger: Ledger, seq: int, change: Change, found: State, now_ms: int
) -> None:
    state, rank = found, None
    if change.priority is not None and found in READY:
        state, rank = ready_place(change.priority, ledger.take_one())
    if change.delay_ms is not None:
        rank = now_ms + change.delay_ms
        ledger.tell(Group("delayed", [change.id], dues=[rank]))
    if change.progress is not None:
        ledger.tell(_progress(change.id, change.progress))
    execute(
        connection, "change", seq=seq, data=change.data, priority=change.priority,
        delay=change.delay_ms, progress=change.progress, state=state, rank=rank,
    )  # fmt: skip


def _progress(id: str, value: str) -> Group:
    return with_values("progress", [id], [value], most=lambda _: VALUE_BYTES)
