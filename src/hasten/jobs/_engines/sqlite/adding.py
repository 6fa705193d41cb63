"""Adding jobs to queues."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any

from hasten.jobs._engines.sqlite.deduplicating import NewJobKeys
from hasten.jobs._engines.sqlite.event_rows import EventGroup
from hasten.jobs._engines.sqlite.job_rows import (
    encode_json,
    read_jobs,
    read_json,
    ready_state_and_rank,
)
from hasten.jobs._engines.sqlite.job_statements import execute, execute_rows
from hasten.jobs._engines.sqlite.queue_ledger import Ledger, UnitOfWork
from hasten.jobs._record import AddResult, JobRecord, NewJob, record_of_deleted_owner
from hasten.jobs._states import State


def add(connection: Connection, jobs: Sequence[NewJob], now_ms: int) -> list[AddResult]:
    """Add jobs to one or more queues; see `Engine.add`."""
    queues = {job.queue for job in jobs}
    with UnitOfWork(connection, now_ms) as unit:
        if len(queues) == 1:
            return add_to_queue(unit, queues.pop(), jobs)
        by_queue: dict[str, list[int]] = {}
        for index, job in enumerate(jobs):
            by_queue.setdefault(job.queue, []).append(index)
        answers: dict[int, AddResult] = {}
        for queue, indexes in by_queue.items():
            added = add_to_queue(unit, queue, [jobs[index] for index in indexes])
            answers.update(zip(indexes, added, strict=True))
        return [answers[index] for index in range(len(jobs))]


def add_to_queue(unit: UnitOfWork, queue: str, jobs: Sequence[NewJob]) -> list[AddResult]:
    """Add jobs to one queue. Each gets a new seq (the primary key)."""
    (last,) = execute(unit.connection, "take_ids", count=len(jobs)).fetchone()
    seqs = range(last - len(jobs) + 1, last + 1)
    if _differ_only_in_data(jobs):
        return _add_with_common_template(unit, unit.get_ledger(queue), jobs, seqs)
    return _add_with_any_templates(unit, unit.get_ledger(queue), jobs, seqs)


def _differ_only_in_data(jobs: Sequence[NewJob]) -> bool:
    """Return whether the jobs have the same template, no id or key, and no special options.

    That is usual for the jobs of one task, and allows a faster statement.
    """
    common = jobs[0].template
    return (
        common.is_fifo
        and common.deduplication is None
        and all(
            job.id is None and (job.template is common or job.template == common) for job in jobs
        )
    )


def _add_with_common_template(
    unit: UnitOfWork, ledger: Ledger, jobs: Sequence[NewJob], seqs: range
) -> list[AddResult]:
    """Add jobs that differ only in their data.

    Name and options are passed to SQLite once instead of with each row, which halves the cost.
    """
    cursor = ledger.cursor_before_new_events
    rows = [(seq, job.data) for seq, job in zip(seqs, jobs, strict=True)]
    ahead = ledger.next_sequences(len(jobs))[0] - seqs[0]
    common = jobs[0].template
    alike = ledger.name, ahead, common.name, common.opts, unit.now_ms
    execute_rows(unit.connection, "add_with_common_template", rows, leading=alike)
    ids = [str(seq) for seq in seqs]
    ledger.emit(EventGroup("added", ids), EventGroup("waiting", ids))
    return [AddResult(id, None, cursor) for id in ids]


def _add_with_any_templates(
    unit: UnitOfWork, ledger: Ledger, jobs: Sequence[NewJob], seqs: range
) -> list[AddResult]:
    """Add jobs with any templates, ids and deduplication keys, except duplicates.

    seqs are the seqs that the jobs get.
    """
    cursor = ledger.cursor_before_new_events
    seqs_by_id = _find_existing_seqs(unit.connection, ledger.name, jobs)
    keys = None
    if any(job.template.deduplication for job in jobs):
        keys = NewJobKeys(unit, ledger, jobs)
    ids: list[str] = []
    duplicates: dict[int, int] = {}  # index in the call → seq of the existing job, or the owner
    rows: list[tuple[Any, ...]] = []
    dues: list[int] = []
    waiting = EventGroup("waiting", [])
    delayed = EventGroup("delayed", [], dues=dues)
    duplicated = EventGroup("duplicated", [])
    for seq, job in zip(seqs, jobs, strict=True):
        id = str(seq) if job.id is None else job.id
        ids.append(id)
        if id in seqs_by_id:
            duplicated.ids.append(id)
            duplicates[len(ids) - 1] = seqs_by_id[id]
            continue
        if job.id is not None:
            seqs_by_id[id] = seq
        state, rank = find_state_and_rank(job, ledger, unit.now_ms)
        if keys is not None and job.template.deduplication is not None:
            owner = keys.take_key_or_find_owner(seq, job, rank if state is State.DELAYED else None)
            if owner is not None:
                duplicates[len(ids) - 1] = owner
                ids[-1] = str(owner)
                continue
        template, options = job.template, job.template.options
        rows.append(
            (
                seq, ledger.name, state, rank, job.id, template.name, job.data, template.opts,
                options.priority, options.delay_ms, unit.now_ms,
            )
        )  # fmt: skip
        if state is State.DELAYED:
            delayed.ids.append(id)
            dues.append(rank)
        else:
            waiting.ids.append(id)
    execute_rows(unit.connection, "add", rows)
    ledger.emit(EventGroup("added", waiting.ids + delayed.ids), waiting, delayed, duplicated)
    if keys is not None:
        keys.write_changes()
    found = read_jobs(unit.connection, list(set(duplicates.values()))) if duplicates else {}
    return [
        AddResult(
            id,
            _get_existing_job(found, duplicates[index], id, job) if index in duplicates else None,
            cursor,
        )
        for index, (id, job) in enumerate(zip(ids, jobs, strict=True))
    ]


def _get_existing_job(found: dict[int, JobRecord], seq: int, id: str, job: NewJob) -> JobRecord:
    """Return the existing job of which a new job is a duplicate.

    The job that owns the key of a throttle may have been deleted when it ended. Then a record like
    the new job stands for it.
    """
    return found.get(seq) or record_of_deleted_owner(job, id)


def _find_existing_seqs(
    connection: Connection, queue: str, jobs: Sequence[NewJob]
) -> dict[str, int]:
    """Return which of the new jobs' ids exist in the queue, with the seqs of the existing jobs.

    Ids that the engine generates never exist already, and are not looked up.
    """
    chosen = [job.id for job in jobs if job.id is not None]
    if not chosen:
        return {}
    return dict(read_json(connection, "find_custom_ids", queue=queue, ids=encode_json(chosen)))


def find_state_and_rank(job: NewJob, ledger: Ledger, now_ms: int) -> tuple[State, int]:
    """Return the state of a new job, and its rank, which orders the jobs in this state."""
    options = job.template.options
    if options.delay_ms > 0:
        return State.DELAYED, now_ms + options.delay_ms
    front = options.lifo and not options.priority
    return ready_state_and_rank(options.priority, ledger.next_sequence(), front=front)
