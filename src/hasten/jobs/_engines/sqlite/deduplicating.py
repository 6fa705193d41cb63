"""Deduplication keys: which new jobs are duplicates, and releasing keys of deleted jobs.

The rules are in `hasten.jobs._deduplication`. A key has a row in the table `hasten_deduplication`.
"""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

import msgspec

from hasten.jobs._deduplication import (
    Decision,
    Deduplication,
    DeduplicationMode,
    OwnerStage,
    debounced_due_ms,
    decide_on_new_job,
)
from hasten.jobs._engines.sqlite.event_rows import EventGroup
from hasten.jobs._engines.sqlite.job_rows import encode_json, read_json
from hasten.jobs._engines.sqlite.job_statements import execute, execute_rows
from hasten.jobs._engines.sqlite.links import LinkedJob
from hasten.jobs._engines.sqlite.queue_ledger import Ledger, UnitOfWork
from hasten.jobs._record import NewJob
from hasten.jobs._states import FINISHED, State

# How many expired rows one call deletes for each row that it adds, at least.
DELETED_PER_ROW = 2


class _TakenKey(msgspec.Struct):
    """A key that is taken, with its owner; expires_ms is None if it has no window."""

    owner: int  # the seq of the job
    stage: OwnerStage
    first_ms: int  # when the owner was added
    due_ms: int | None  # when the owner is due; None unless it is delayed
    expires_ms: int | None = None
    window_ms: int | None = None
    next_job: NewJob | None = None
    is_changed: bool = False


class NewJobKeys:
    """The deduplication keys of the jobs that one call adds to a queue."""

    def __init__(self, unit: UnitOfWork, ledger: Ledger, jobs: Sequence[NewJob]) -> None:
        self._unit = unit
        self._ledger = ledger
        keys = {job.template.deduplication.id for job in jobs if job.template.deduplication}
        self._taken = _read_taken_keys(unit.connection, ledger.name, keys, unit.now_ms)
        self._owners: list[tuple[int, str]] = []  # seq and key of the new jobs that own one
        self._replaced: dict[int, tuple[str, int | None]] = {}  # by seq: data, new due time or None
        self._delayed: list[tuple[int, int]] = []  # owner and new due time of debounced jobs
        self._dropped: dict[str, list[tuple[int, dict[str, str]]]] = {}  # by the kind of event

    def take_key_or_find_owner(self, seq: int, job: NewJob, due_ms: int | None) -> int | None:
        """Return the seq of the job of which the new job is a duplicate; None if it is added.

        due_ms is when the new job would be due, None if it would not be delayed. A job that is
        added owns the key from now on.
        """
        deduplication = job.template.deduplication
        assert deduplication is not None
        taken = self._taken.get(deduplication.id)
        owner_stage = None if taken is None else taken.stage
        has_window = taken is not None and taken.expires_ms is not None
        decision = decide_on_new_job(deduplication.mode, owner_stage, has_window=has_window)
        if decision is Decision.ADD or taken is None:
            self._take(seq, deduplication, due_ms)
            return None
        if decision is Decision.KEEP_NEXT:
            taken.next_job = job
        if decision is Decision.REPLACE:
            self._replace(taken, deduplication, job.data)
        if decision is not Decision.DROP:
            # The key is no longer bound to a time: it is free when its owner ends.
            taken.is_changed = taken.is_changed or has_window or taken.next_job is not None
            taken.expires_ms = taken.window_ms = None
        self._collect_event_of_duplicate(taken.owner, seq, deduplication)
        return taken.owner

    def _take(self, seq: int, deduplication: Deduplication, due_ms: int | None) -> None:
        now_ms, window_ms = self._unit.now_ms, None
        if deduplication.mode is DeduplicationMode.THROTTLE:
            window_ms = deduplication.window_ms
        self._taken[deduplication.id] = _TakenKey(
            seq, OwnerStage.UNSTARTED, now_ms, due_ms,
            None if window_ms is None else now_ms + window_ms, window_ms, is_changed=True,
        )  # fmt: skip
        self._owners.append((seq, deduplication.id))

    def _replace(self, taken: _TakenKey, deduplication: Deduplication, data: str) -> None:
        """Give the owner new data and, with debounce, a new due time."""
        _, moved_to_ms = self._replaced.get(taken.owner, ("", None))
        if deduplication.mode is DeduplicationMode.DEBOUNCE and taken.due_ms is not None:
            due_ms = debounced_due_ms(
                deduplication, taken.first_ms, taken.due_ms, self._unit.now_ms
            )
            if due_ms != taken.due_ms:
                taken.due_ms = moved_to_ms = due_ms
                self._delayed.append((taken.owner, due_ms))
        self._replaced[taken.owner] = data, moved_to_ms

    def _collect_event_of_duplicate(
        self, owner: int, seq: int, deduplication: Deduplication
    ) -> None:
        is_debounced = deduplication.mode is DeduplicationMode.DEBOUNCE
        details = {"deduplicationId": deduplication.id, "deduplicatedJobId": str(seq)}
        kind = "debounced" if is_debounced else "deduplicated"
        self._dropped.setdefault(kind, []).append((owner, details))

    def write_changes(self) -> None:
        """Store the changes. Called after the new jobs are stored."""
        connection, queue, now_ms = self._unit.connection, self._ledger.name, self._unit.now_ms
        if self._owners:
            self._ledger.linked = True
            execute_rows(connection, "set_dedup_keys", self._owners)
        rows = [
            (queue, key, taken.owner, taken.expires_ms, taken.window_ms, *_next_columns(taken))
            for key, taken in self._taken.items()
            if taken.is_changed
        ]
        execute_rows(connection, "write_keys", rows)
        if any(taken.is_changed and taken.expires_ms for taken in self._taken.values()):
            limit = DELETED_PER_ROW * len(rows)
            execute(connection, "delete_expired_keys", queue=queue, now=now_ms, limit=limit)
        replaced = [
            (seq, data, due_ms, None if due_ms is None else max(0, due_ms - now_ms))
            for seq, (data, due_ms) in self._replaced.items()
        ]
        execute_rows(connection, "replace_data", replaced)
        self._emit_events()

    def _emit_events(self) -> None:
        # The id of a job with a key is its seq: it cannot have a chosen id.
        owners = [str(owner) for owner, _ in self._delayed]
        self._ledger.emit(EventGroup("delayed", owners, dues=[due for _, due in self._delayed]))
        for kind, dropped in self._dropped.items():
            owners = [str(owner) for owner, _ in dropped]
            self._ledger.emit(EventGroup(kind, owners, details=[each for _, each in dropped]))


def assign_keys_to_jobs(
    unit: UnitOfWork, ledger: Ledger, owners: Sequence[tuple[int, str]]
) -> None:
    """Let jobs (seq and key) own keys until they end, whoever owned them before."""
    execute_rows(unit.connection, "set_dedup_keys", owners)
    rows = [(ledger.name, key, seq, None, None, None, None, None) for seq, key in owners]
    execute_rows(unit.connection, "write_keys", rows)


def _next_columns(taken: _TakenKey) -> tuple[str | None, str | None, str | None]:
    job = taken.next_job
    return (None,) * 3 if job is None else (job.template.name, job.template.opts, job.data)


def _read_taken_keys(
    connection: Connection, queue: str, keys: set[str], now_ms: int
) -> dict[str, _TakenKey]:
    """Return those of the keys that are taken now."""
    taken: dict[str, _TakenKey] = {}
    rows = read_json(connection, "read_keys", queue=queue, keys=encode_json(sorted(keys)))
    for key, owner, removed, expires_ms, window_ms, state, starts, created_ms, rank in rows:
        # If the end is too far in the future, the clock was set back, and the key is free.
        is_over = expires_ms is not None and not now_ms < expires_ms <= now_ms + window_ms
        if not removed and not is_over:
            stage = OwnerStage.STARTED if starts else OwnerStage.UNSTARTED
            if state is None or State(state) in FINISHED:
                stage = OwnerStage.ENDED
            due_ms = rank if state == State.DELAYED else None
            taken[key] = _TakenKey(owner, stage, created_ms or 0, due_ms, expires_ms, window_ms)
    return taken


def release_keys_of_deleted_jobs(
    unit: UnitOfWork, ledger: Ledger, deleted: Sequence[LinkedJob]
) -> None:
    """Release the deduplication keys of jobs that are deleted, with the next jobs of these keys."""
    owners = [(job.dedup_key, job.seq) for job in deleted if job.dedup_key is not None]
    if owners:
        execute(unit.connection, "release_keys", queue=ledger.name, owners=encode_json(owners))


def free_key(connection: Connection, queue: str, key: str, now_ms: int) -> bool:
    """Make a deduplication key free; see `Engine.remove_deduplication_key`."""
    row = execute(connection, "remove_key", queue=queue, key=key, now=now_ms).fetchone()
    if row is None:
        return False
    (has_next,) = row
    if not has_next:
        execute(connection, "delete_keys", queue=queue, keys=encode_json([key]))
    return True
