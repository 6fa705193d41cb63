"""Adding jobs."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any

from hasten.jobs._engines.sqlite.events import Group
from hasten.jobs._engines.sqlite.ledger import Ledger, open_ledger
from hasten.jobs._engines.sqlite.rows import encode, read_jobs, read_json, ready_place
from hasten.jobs._engines.sqlite.statements import execute, execute_rows
from hasten.jobs._record import Added, NewJob
from hasten.jobs._states import State


def add(connection: Connection, jobs: Sequence[NewJob], now_ms: int) -> list[Added]:
    """See `Engine.add`."""
    queues = {job.queue for job in jobs}
    if len(queues) == 1:
        return _add_to_queue(connection, queues.pop(), jobs, now_ms)
    by_queue: dict[str, list[int]] = {}
    for index, job in enumerate(jobs):
        by_queue.setdefault(job.queue, []).append(index)
    answers: dict[int, Added] = {}
    for queue, indexes in by_queue.items():
        added = _add_to_queue(connection, queue, [jobs[index] for index in indexes], now_ms)
        answers.update(zip(indexes, added, strict=True))
    return [answers[index] for index in range(len(jobs))]


def _add_to_queue(
    connection: Connection, queue: str, jobs: Sequence[NewJob], now_ms: int
) -> list[Added]:
    (last,) = execute(connection, "take_ids", count=len(jobs)).fetchone()
    seqs = range(last - len(jobs) + 1, last + 1)
    with open_ledger(connection, queue) as ledger:
        if _have_common_template(jobs):
            return _add_alike(connection, ledger, jobs, seqs, now_ms)
        return _add_mixed(connection, ledger, jobs, seqs, now_ms)


def _have_common_template(jobs: Sequence[NewJob]) -> bool:
    """Whether the jobs are plain and differ in their data only, as most jobs of one task do."""
    common = jobs[0].template
    return common.is_plain and all(
        job.id is None and (job.template is common or job.template == common) for job in jobs
    )


def _add_alike(
    connection: Connection, ledger: Ledger, jobs: Sequence[NewJob], seqs: range, now_ms: int
) -> list[Added]:
    """Bind what the jobs have in common once: half the cost of a row."""
    cursor = ledger.cursor
    rows = [(seq, job.data) for seq, job in zip(seqs, jobs, strict=True)]
    ahead = ledger.take(len(jobs))[0] - seqs[0]
    common = jobs[0].template
    alike = ledger.name, ahead, common.name, common.opts, now_ms
    execute_rows(connection, "add_alike", rows, before=alike)
    ids = [str(seq) for seq in seqs]
    ledger.tell(Group("added", ids), Group("waiting", ids))
    return [Added(id, None, cursor) for id in ids]


def _add_mixed(
    connection: Connection, ledger: Ledger, jobs: Sequence[NewJob], seqs: range, now_ms: int
) -> list[Added]:
    cursor = ledger.cursor
    seqs_by_id = _existing(connection, ledger.name, jobs)
    ids: list[str] = []
    duplicates: dict[int, int] = {}  # the places of jobs that exist, and the numbers of those
    rows: list[tuple[Any, ...]] = []
    dues: list[int] = []
    waiting = Group("waiting", [])
    delayed = Group("delayed", [], dues=dues)
    duplicated = Group("duplicated", [])
    for seq, job in zip(seqs, jobs, strict=True):
        id = str(seq) if job.id is None else job.id
        ids.append(id)
        if id in seqs_by_id:
            duplicated.ids.append(id)
            duplicates[len(ids) - 1] = seqs_by_id[id]
            continue
        if job.id is not None:
            seqs_by_id[id] = seq
        state, rank = _first_place(job, ledger, now_ms)
        template, options = job.template, job.template.options
        rows.append(
            (
                seq, ledger.name, state, rank, job.id, template.name, job.data, template.opts,
                options.priority, options.delay_ms, now_ms,
            )
        )  # fmt: skip
        if state is State.DELAYED:
            delayed.ids.append(id)
            dues.append(rank)
        else:
            waiting.ids.append(id)
    execute_rows(connection, "add", rows)
    ledger.tell(Group("added", waiting.ids + delayed.ids), waiting, delayed, duplicated)
    found = read_jobs(connection, list(set(duplicates.values()))) if duplicates else {}
    return [
        Added(id, found[duplicates[place]] if place in duplicates else None, cursor)
        for place, id in enumerate(ids)
    ]


def _existing(connection: Connection, queue: str, jobs: Sequence[NewJob]) -> dict[str, int]:
    """The ids that producers have chosen, of those that are taken already, with their numbers."""
    chosen = [job.id for job in jobs if job.id is not None]
    if not chosen:
        return {}
    return dict(read_json(connection, "find_custom", queue=queue, ids=encode(chosen)))


def _first_place(job: NewJob, ledger: Ledger, now_ms: int) -> tuple[State, int]:
    options = job.template.options
    if options.delay_ms > 0:
        return State.DELAYED, now_ms + options.delay_ms
    front = options.lifo and not options.priority
    return ready_place(options.priority, ledger.take_one(), front=front)
