"""Flows: jobs that are parents and children of each other.

A parent has the column `pending`: how many of its children it waits for. Each child has a row in
the table `hasten_children`, which stays when the child is deleted, and is deleted with the parent.
A parent in waiting-children is released, which means that it becomes ready or delayed, when it
waits for no other child.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Any, Final, NamedTuple

import msgspec

from hasten.errors import InvalidOption, JobNotFound, WrongState
from hasten.jobs._engine import check_flow_jobs, resolve_keep
from hasten.jobs._engines.sqlite.adding import find_state_and_rank
from hasten.jobs._engines.sqlite.event_rows import EventGroup
from hasten.jobs._engines.sqlite.job_rows import (
    decode_options_or_default,
    encode_json,
    find_seqs,
    read_json,
    read_with_shrinking_count,
    ready_state_and_rank,
)
from hasten.jobs._engines.sqlite.job_statements import execute, execute_rows
from hasten.jobs._engines.sqlite.queue_ledger import Ledger, UnitOfWork
from hasten.jobs._engines.sqlite.transaction_limits import DeletionBudget
from hasten.jobs._options import DEFAULT_KEEP_FAILED
from hasten.jobs._record import (
    AddResult,
    ChildCounts,
    ChildJob,
    ChildOutcome,
    Completed,
    Failed,
    NewJob,
    OnFailure,
    Outcome,
    Parked,
)
from hasten.jobs._states import FINISHED, State

# The errors of parents that cannot complete. Workers store the same ones on Redis.
UNFINISHED_CHILDREN: Final = "its children have not all finished"
FAILED_CHILD: Final = "one of its children failed"

JobKey = tuple[str, str]
"""The queue and the id of a job."""


class ChildExists(Exception):
    """A child cannot be added, because another job with its id exists. The caller converts it."""


class ChildEnd(NamedTuple):
    """How a job has ended that may be a child: its seq, and its result or its error.

    state is None if the job was deleted before it had finished. is_deleted: the job does not exist
    any more.
    """

    seq: int
    state: State | None
    value: str | None = None
    is_deleted: bool = False


# Adding -----------------------------------------------------------------------------------------


def add_flow(
    connection: Connection, jobs: Sequence[NewJob], now_ms: int, touched: set[str]
) -> list[AddResult]:
    """Add jobs that are parents and children of each other; see `Engine.add_flow`.

    Adds the names of the changed queues to touched.
    """
    with UnitOfWork(connection, now_ms) as unit:
        for queue, ids in _ids_by_queue(jobs).items():
            existing = dict(_find_parents_of_existing(connection, queue, ids))
            taken = next((id for id in ids if id in existing), None)
            if taken is not None:
                expected = f"an id that no job of queue {queue!r} has"
                raise InvalidOption("job_id", taken, expected, code="duplicate")
        parents = _find_stored_parents(connection, jobs)
        cursors = {
            queue: unit.get_ledger(queue).cursor_before_new_events
            for queue in {job.queue for job in jobs}
        }
        _insert(unit, jobs, parents)
        touched.update(unit.queues)
    return [AddResult(_id_of(job), None, cursors[job.queue]) for job in jobs]


def _find_stored_parents(connection: Connection, jobs: Sequence[NewJob]) -> dict[JobKey, int]:
    """Return the seqs of the parents that are not among the new jobs.

    Raises `JobNotFound` if one does not exist, and `WrongState` if it has finished.
    """
    new = {(job.queue, job.id) for job in jobs}
    seqs: dict[JobKey, int] = {}
    for job in jobs:
        if job.parent is None or (job.parent.queue, job.parent.id) in new:
            continue
        queue, id = job.parent.queue, job.parent.id
        if (queue, id) in seqs:
            continue
        (seq,) = find_seqs(connection, queue, [id])
        row = execute(connection, "read_state", seq=seq, queue=queue, id=id).fetchone()
        if row is None:
            raise JobNotFound(queue, id)
        if State(row[0]) in FINISHED:
            raise WrongState(queue, id, row[0], ["unfinished"])
        seqs[queue, id] = seq
    return seqs


def _id_of(job: NewJob) -> str:
    assert job.id is not None  # as the contract requires
    return job.id


def _ids_by_queue(jobs: Sequence[NewJob]) -> dict[str, list[str]]:
    """Return the ids of the new jobs of a flow by queue.

    Raises `InvalidOption` if two jobs have the same id, or one has a deduplication key.
    """
    check_flow_jobs(jobs)
    found: dict[str, dict[str, None]] = {}
    for job in jobs:
        ids, id = found.setdefault(job.queue, {}), _id_of(job)
        if id in ids:
            expected = "an id that no other job of the flow has"
            raise InvalidOption("job_id", id, expected, code="duplicate")
        ids[id] = None
    return {queue: list(ids) for queue, ids in found.items()}


def _find_parents_of_existing(
    connection: Connection, queue: str, ids: Sequence[str]
) -> list[tuple[str, int | None]]:
    """Return which of these ids exist in a queue, each with the seq of the job's parent."""
    found = read_json(connection, "find_custom_jobs", queue=queue, ids=encode_json(ids))
    return [(id, parent) for id, parent in found]


def _insert(unit: UnitOfWork, jobs: Sequence[NewJob], known: Mapping[JobKey, int]) -> None:
    """Insert jobs whose ids are new. known are the seqs of parents that exist."""
    (last,) = execute(unit.connection, "take_ids", count=len(jobs)).fetchone()
    seqs = dict(known)
    pending = Counter((job.parent.queue, job.parent.id) for job in jobs if job.parent is not None)
    rows: list[tuple[Any, ...]] = []
    children: list[tuple[Any, ...]] = []
    events: dict[str, _AddedEvents] = {}
    for seq, job in enumerate(jobs, last - len(jobs) + 1):
        id, options, link = _id_of(job), job.template.options, job.parent
        ledger = unit.get_ledger(job.queue)
        ledger.linked = True
        waits_for = pending.get((job.queue, id))
        state, rank = State.WAITING_CHILDREN, unit.now_ms
        if waits_for is None:
            state, rank = find_state_and_rank(job, ledger, unit.now_ms)
        parent = None if link is None else seqs[link.queue, link.id]
        seqs[job.queue, id] = seq
        rows.append(
            (
                seq, job.queue, state, rank, id, job.template.name, job.data, job.template.opts,
                options.priority, options.delay_ms, unit.now_ms,
                parent, None if link is None else link.on_failure, waits_for,
            )
        )  # fmt: skip
        if link is not None:
            children.append((seq, parent, job.queue, id, link.on_failure))
        events.setdefault(job.queue, _AddedEvents()).add(id, state, rank)
    execute_rows(unit.connection, "add_linked", rows)
    execute_rows(unit.connection, "add_children", children)
    for queue, of_queue in events.items():
        unit.get_ledger(queue).emit(*of_queue.groups)
    for job_key, seq in known.items():
        if pending[job_key]:
            unit.get_ledger(job_key[0]).linked = True
            execute(unit.connection, "change_pending", seq=seq, change=pending[job_key])


class _AddedEvents:
    """The events of the jobs that are added to one queue."""

    def __init__(self) -> None:
        self._waiting_children = EventGroup("waiting-children", [])
        self._waiting = EventGroup("waiting", [])
        self._dues: list[int] = []
        self._delayed = EventGroup("delayed", [], dues=self._dues)
        self._added = EventGroup("added", [])

    def add(self, id: str, state: State, rank: int) -> None:
        """Add the events of a job that was added in this state."""
        self._added.ids.append(id)
        if state is State.WAITING_CHILDREN:
            self._waiting_children.ids.append(id)
        elif state is State.DELAYED:
            self._delayed.ids.append(id)
            self._dues.append(rank)
        else:
            self._waiting.ids.append(id)

    @property
    def groups(self) -> list[EventGroup]:
        return [self._added, self._waiting_children, self._waiting, self._delayed]


# Parents that have run --------------------------------------------------------------------------


def replace_blocked(
    unit: UnitOfWork, ledger: Ledger, pairs: Sequence[tuple[int, Outcome]]
) -> list[tuple[int, Outcome]]:
    """Replace the outcomes of parents that may not complete because of their children by failures.

    pairs are the seqs of jobs and the outcomes of their runs.
    """
    seqs = [seq for seq, end in pairs if isinstance(end, Completed | Parked)]
    if not ledger.linked or not seqs:
        return list(pairs)
    found = read_json(unit.connection, "find_blocked_parents", seqs=encode_json(seqs))
    blocked = {seq: (bool(has_failed), opts) for seq, has_failed, opts in found}
    return [
        (seq, _fail_if_blocked(end, *blocked[seq]) if seq in blocked else end) for seq, end in pairs
    ]


def _fail_if_blocked(end: Outcome, has_failed: bool, opts: str) -> Outcome:
    """Return the outcome of a parent with unfinished or failed children."""
    if isinstance(end, Completed) or (isinstance(end, Parked) and has_failed):
        keep = resolve_keep(decode_options_or_default(opts).keep_failed, DEFAULT_KEEP_FAILED)
        error = FAILED_CHILD if has_failed else UNFINISHED_CHILDREN
        return Failed(end.id, end.token, error, None, keep)
    return end


def store_parked(unit: UnitOfWork, ledger: Ledger, pairs: Sequence[tuple[int, Parked]]) -> int:
    """Add the children of jobs, and make the jobs wait for them. Returns how many it has changed.

    Raises `ChildExists` if a child cannot be added.
    """
    changed = 0
    for seq, end in pairs:
        children = _without_known(unit.connection, seq, end)
        row = execute(unit.connection, "read_blocking", seq=seq).fetchone()
        is_cancelled = row is not None and row[-1] is not None
        if children and not is_cancelled:
            _insert(unit, children, {(ledger.name, end.id): seq})
        row = execute(
            unit.connection, "park", seq=seq, queue=ledger.name, token=end.token, now=unit.now_ms,
            sequence=ledger.next_sequence(), add_calls=0 if is_cancelled else end.add_calls,
        ).fetchone()  # fmt: skip
        if row is not None:
            changed += 1
            kind = "waiting" if State(row[0]) is not State.WAITING_CHILDREN else row[0]
            ledger.emit(EventGroup(kind, [end.id], previous=State.ACTIVE))
    return changed


def _without_known(connection: Connection, seq: int, end: Parked) -> list[NewJob]:
    """Return the children to add, without those that were added before, and their descendants."""
    parents = {
        (queue, id): parent
        for queue, ids in _ids_by_queue(end.children).items()
        for id, parent in _find_parents_of_existing(connection, queue, ids)
    }
    known: set[JobKey] = set()
    new: list[NewJob] = []
    for child in end.children:
        own = child.queue, _id_of(child)
        if child.parent is None:
            if own not in parents:
                new.append(child)
        elif (child.parent.queue, child.parent.id) in known or parents.get(own) == seq:
            known.add(own)
        elif own in parents:
            raise ChildExists(
                f"its child {child.id!r} cannot be added: "
                f"another job of queue {child.queue!r} has this id"
            )
        else:
            new.append(child)
    return new


# Children that have ended -----------------------------------------------------------------------


@dataclass(slots=True)
class _Change:
    """What the ends of children in one operation mean for their parent."""

    ended: int = 0  # how many children are no longer pending
    deleted: bool = False  # one was deleted while it was pending
    failed: JobKey | None = None  # one that fails the parent
    continues: bool = False  # one has failed with on_failure="continue"


def end_children(unit: UnitOfWork, ledger: Ledger, ends: Iterable[ChildEnd]) -> None:
    """Record in their parents that jobs have ended, and release parents that wait for no other.

    ends may include jobs that are no children. Does not change the jobs that have ended. ledger is
    that of their queue.
    """
    if not ledger.linked:
        return
    by_seq = {end.seq: end for end in ends}
    if not by_seq:
        return
    found = read_json(unit.connection, "read_pending_children", seqs=encode_json(list(by_seq)))
    changes: dict[int, _Change] = {}
    recorded: list[tuple[int, ChildOutcome, str | None]] = []
    gone: list[int] = []
    for seq, parent, queue, id, on_failure in found:
        end = by_seq[seq]
        outcome = _outcome_of(end, on_failure)
        if outcome == "pending":
            continue
        change = changes.setdefault(parent, _Change())
        change.ended += 1
        if outcome is None:
            gone.append(seq)
            change.deleted |= end.state is None or on_failure == "wait"
            continue
        recorded.append((seq, outcome, end.value))
        if outcome == "failed":
            change.failed = change.failed or (queue, id)
        elif outcome == "ignored" and on_failure == "continue":
            change.continues = True
    execute_rows(unit.connection, "end_children", recorded)
    if gone:
        execute(unit.connection, "delete_children", seqs=encode_json(gone))
    for parent, change in changes.items():
        _resolve_parent(unit, parent, change)


def _outcome_of(end: ChildEnd, on_failure: str) -> ChildOutcome | None:
    """Return what a parent knows about a child that has ended; None if it is no child any more."""
    if end.state is State.COMPLETED:
        return "completed"
    if end.state is State.FAILED:
        match on_failure:
            case "fail":
                return "failed"
            case "continue" | "ignore":
                return "ignored"
            case "wait" if not end.is_deleted:
                return "pending"
            case _:
                return None  # "remove", or deleted at once
    return None


def _resolve_parent(unit: UnitOfWork, seq: int, change: _Change) -> None:
    """Apply the ends of children to their parent."""
    row = execute(unit.connection, "change_pending", seq=seq, change=-change.ended).fetchone()
    if row is None:
        return
    queue, id, stored, priority, delay_ms, pending = row
    state, ledger = State(stored), unit.get_ledger(queue)
    if change.failed is not None and state not in FINISHED:
        error = "child {}:{} failed".format(*change.failed)
        execute(unit.connection, "defer_failure", seq=seq, error=error)
        if state is State.DELAYED:
            _move(unit, ledger, seq, id, state, priority, 0)
    if state is not State.WAITING_CHILDREN:
        return
    if change.failed is not None or change.continues:
        _move(unit, ledger, seq, id, state, priority, delay_ms)
    elif pending == 0 and change.deleted:
        _move(unit, ledger, seq, id, state, 0, 0)  # as in BullMQ, without its priority and delay
    elif pending == 0:
        _move(unit, ledger, seq, id, state, priority, delay_ms)


def _move(
    unit: UnitOfWork,
    ledger: Ledger,
    seq: int,
    id: str,
    source: State,
    priority: int,
    delay_ms: int,
) -> None:
    """Make a parent ready, or delayed if it has a delay. source is the state that it leaves."""
    if delay_ms > 0:
        state, rank = State.DELAYED, unit.now_ms + delay_ms
        ledger.emit(EventGroup("delayed", [id], dues=[rank]))
    else:
        state, rank = ready_state_and_rank(priority, ledger.next_sequence(), front=not priority)
        ledger.emit(EventGroup("waiting", [id], previous=source))
    execute(unit.connection, "move_parent", seq=seq, state=state, rank=rank, delay=delay_ms)


def end_settled(unit: UnitOfWork, ledger: Ledger, pairs: Sequence[tuple[int, Outcome]]) -> None:
    """Call `end_children` for the runs that have finished their jobs."""
    ends: list[ChildEnd] = []
    for seq, end in pairs:
        match end:
            case Completed():
                ends.append(ChildEnd(seq, State.COMPLETED, end.result))
            case Failed():
                ends.append(ChildEnd(seq, State.FAILED, end.error, end.keep.keeps_nothing))
    end_children(unit, ledger, ends)


def unlink(unit: UnitOfWork, ledger: Ledger, seqs: Sequence[int]) -> None:
    """Release parents from those of the jobs that were deleted before they had finished."""
    end_children(unit, ledger, [ChildEnd(seq, None) for seq in seqs])


def relink(unit: UnitOfWork, ledger: Ledger, seq: int) -> None:
    """Make a finished job that runs again pending for its parent, if it is a child."""
    if ledger.linked:
        row = execute(unit.connection, "relink_child", seq=seq).fetchone()
        if row is not None:
            execute(unit.connection, "change_pending", seq=row[0], change=1)


def waits_again(unit: UnitOfWork, ledger: Ledger, seq: int) -> bool:
    """Return whether a finished job that runs again has to wait for pending children.

    A parent with a failed child does not wait: it gets a `deferred_failure`.
    """
    if not ledger.linked:
        return False
    pending, failed, _ = execute(unit.connection, "read_blocking", seq=seq).fetchone()
    if failed is not None:
        execute(unit.connection, "defer_failure", seq=seq, error=f"child {failed} failed")
        return False
    return bool(pending)


# Deleting ---------------------------------------------------------------------------------------


def find_descendants(connection: Connection, ledger: Ledger, seq: int) -> tuple[list[int], bool]:
    """Return the seqs of the descendants of a job, and whether one of them is running.

    Each parent comes before its children. If one is running, the list is empty.
    """
    if not ledger.linked:
        return [], False
    found = read_json(connection, "find_family", seq=seq)
    if any(state == State.ACTIVE for _, state in found):
        return [], True
    return [seq for seq, _ in found], False


def delete_descendants(unit: UnitOfWork, seqs: Sequence[int], budget: DeletionBudget) -> list[int]:
    """Delete the descendants of deleted jobs, as many as the budget allows.

    seqs are what `find_descendants` has returned. Those that run meanwhile are not deleted. Returns
    the seqs that are left for the next transaction.
    """
    done = 0
    by_place: dict[tuple[str, State], list[str]] = {}

    def delete(count: int) -> int:
        nonlocal done
        portion = list(seqs[done : done + count])
        found = read_json(unit.connection, "read_many_states", seqs=encode_json(portion))
        gone = [row for row in found if row[3] != State.ACTIVE]
        execute(unit.connection, "delete_jobs", seqs=encode_json([row[0] for row in gone]))
        for _, queue, id, state in gone:
            by_place.setdefault((queue, State(state)), []).append(id)
        if gone:  # a parent of theirs that has started meanwhile stays, and must not wait for them
            unlink(unit, unit.get_ledger(gone[0][1]), [row[0] for row in gone])
        done += len(portion)
        return len(portion)

    if seqs:
        budget.delete_until_exhausted(delete)
    for (queue, state), ids in by_place.items():
        ledger = unit.get_ledger(queue)
        ledger.adjust_count(state, -len(ids))
        ledger.emit(EventGroup("removed", ids, previous=state))
    return list(seqs[done:])


def delete_next_descendants(
    connection: Connection, seqs: Sequence[int], touched: set[str]
) -> list[int]:
    """Delete descendants in a transaction of their own; see `delete_descendants`."""
    with UnitOfWork(connection) as unit:
        left = delete_descendants(unit, seqs, DeletionBudget(connection))
        touched.update(unit.queues)
    return left


# Reading ----------------------------------------------------------------------------------------


def read_children(
    connection: Connection, queue: str, id: str, offset: int, limit: int
) -> list[ChildJob]:
    """Return a page of the children of a job; see `Engine.children`.

    It may have fewer children than limit, if their results are large.
    """
    seq = _find_seq(connection, queue, id)

    def read(count: int) -> Any:
        return read_json(connection, "read_children", seq=seq, limit=count, offset=offset)

    rows = read_with_shrinking_count(read, limit)
    return [msgspec.convert(row, _StoredChild).to_child() for row in rows]


def read_failed_children(connection: Connection, queue: str, id: str, limit: int) -> list[ChildJob]:
    """Return some children of a job that have failed; see `Engine.failed_children`."""
    seq = _find_seq(connection, queue, id)
    rows = read_json(connection, "read_failed_children", seq=seq, limit=limit)
    return [msgspec.convert(row, _StoredChild).to_child() for row in rows]


def count_children(connection: Connection, queue: str, id: str) -> ChildCounts:
    """Return how many children a job has; see `Engine.count_children`."""
    seq = _find_seq(connection, queue, id)
    return msgspec.convert(read_json(connection, "count_children", seq=seq), ChildCounts)


def read_pending(connection: Connection, seq: int, limit: int) -> tuple[int, list[ChildJob]]:
    """Return how many children a job waits for, and up to limit of them, failed ones first."""
    pending, _, _ = execute(connection, "read_blocking", seq=seq).fetchone()
    if not pending:
        return 0, []
    rows = read_json(connection, "read_pending_of", seq=seq, limit=limit)
    return pending, [msgspec.convert(row, _StoredChild).to_child() for row in rows]


class _StoredChild(msgspec.Struct, array_like=True):
    """A row of `read_children.sql` or `read_pending_of.sql`."""

    queue: str
    id: str
    state: State | None
    error: str | None
    on_failure: OnFailure
    value: str | None = None
    outcome: ChildOutcome = "pending"

    def to_child(self) -> ChildJob:
        return ChildJob(
            self.queue, self.id, self.state, self.error, self.value, self.outcome, self.on_failure
        )


def _find_seq(connection: Connection, queue: str, id: str) -> int:
    """Return the seq of a job, 0 if there is no such job."""
    (seq,) = find_seqs(connection, queue, [id])
    row = execute(connection, "read_state", seq=seq, queue=queue, id=id).fetchone()
    return 0 if row is None else seq
