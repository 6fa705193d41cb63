"""Updating jobs: progress, log lines, and changes of their data, priority or delay."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

from hasten.jobs._engine import VALUE_BYTES
from hasten.jobs._engines.sqlite.event_rows import EventGroup, make_event_group_with_values
from hasten.jobs._engines.sqlite.job_rows import find_seqs, ready_state_and_rank
from hasten.jobs._engines.sqlite.job_statements import execute
from hasten.jobs._engines.sqlite.queue_ledger import Ledger, UnitOfWork
from hasten.jobs._record import JobChange, LogLine, Progress, Update
from hasten.jobs._states import READY, State, StatesBefore


def update(
    connection: Connection, queue: str, updates: Sequence[Update], now_ms: int
) -> StatesBefore:
    """Apply updates in order; see `Engine.update`."""
    seqs = find_seqs(connection, queue, [update.id for update in updates])
    with UnitOfWork(connection, now_ms) as unit:
        ledger = unit.get_ledger(queue)
        return [
            _apply_update(unit, ledger, seq, update)
            for seq, update in zip(seqs, updates, strict=True)
        ]


def _apply_update(unit: UnitOfWork, ledger: Ledger, seq: int, update: Update) -> State | None:
    """Apply one update. Returns the state in which the job was found, None if it is missing."""
    job = {"seq": seq, "queue": ledger.name, "id": update.id}
    match update:
        case Progress(id, value):
            row = execute(unit.connection, "set_progress", **job, value=value).fetchone()
            if row is None:
                return None
            ledger.emit(_progress_event(id, value))
            return State(row[0])
        case LogLine(_, line, keep):
            row = execute(unit.connection, "next_log_line", **job).fetchone()
            if row is None:
                return None
            n, state = row
            execute(unit.connection, "add_log_line", seq=seq, n=n, line=line)
            execute(unit.connection, "trim_log", seq=seq, last=n - keep)
            return State(state)
        case JobChange():
            row = execute(unit.connection, "read_state", **job).fetchone()
            if row is None:
                return None
            found = State(row[0])
            if found in update.required_states:
                _apply_change(unit, ledger, seq, update, found)
            return found


def _apply_change(
    unit: UnitOfWork, ledger: Ledger, seq: int, change: JobChange, found: State
) -> None:
    """Change a job that was found in a state that allows the change."""
    state, rank = found, None
    if change.priority is not None and found in READY:
        state, rank = ready_state_and_rank(change.priority, ledger.next_sequence())
    if change.delay_ms is not None:
        rank = unit.now_ms + change.delay_ms
        ledger.emit(EventGroup("delayed", [change.id], dues=[rank]))
    if change.progress is not None:
        ledger.emit(_progress_event(change.id, change.progress))
    execute(
        unit.connection, "change", seq=seq, data=change.data, priority=change.priority,
        delay=change.delay_ms, progress=change.progress, state=state, rank=rank,
    )  # fmt: skip


def _progress_event(id: str, value: str) -> EventGroup:
    """Make the event that reports the progress of a job. value is JSON."""
    return make_event_group_with_values(
        "progress", [id], [value], max_bytes_at=lambda _: VALUE_BYTES
    )
