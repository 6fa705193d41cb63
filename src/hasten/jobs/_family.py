"""The children of a stored job and their descendants: reading and cancelling them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import msgspec

from hasten.errors import JobNotFound
from hasten.jobs._engine import Engine
from hasten.jobs._record import ChildCounts, ChildJob, ChildOutcome, JobRecord, OnFailure
from hasten.jobs._states import FINISHED, State

# The children of a job are read in portions of this size, and the children of so many jobs at once.
PORTION: Final = 1_000
AT_ONCE: Final = 50

JobKey = tuple[str, str]
"""The queue and the id of a job."""


class ChildProgress(msgspec.Struct, frozen=True):
    """How many children of a job have ended, and how many are pending.

    - pending: those that the job waits for. With `on_failure="wait"`, also failed ones.
    - completed: those that have completed.
    - failed: those that have failed for good. A child with `on_failure="remove"` is not counted
      after it has failed.
    """

    pending: int = 0
    completed: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        """The number of all children."""
        return self.pending + self.completed + self.failed


def to_progress(counts: ChildCounts) -> ChildProgress:
    """Return the progress for the counts that an engine returns."""
    return ChildProgress(counts.pending, counts.completed, counts.ignored + counts.failed)


class Child(msgspec.Struct, frozen=True):
    """A child of a job, as the store has it.

    - queue, id: the child.
    - outcome: what its parent knows: "pending", "completed", "ignored" (it has failed, and the
      parent runs nevertheless) or "failed" (so the parent fails, too).
    - state: None if the child was deleted. Its parent still has its result or its error.
    - value: the result of a completed child, in the types of JSON.
    - error: the error of a failed one, if it is still known.
    - on_failure: see `Flow.after`; None if it is not known any more.
    """

    queue: str
    id: str
    outcome: ChildOutcome
    state: State | None = None
    value: Any = None
    error: str | None = None
    on_failure: OnFailure | None = None


class JobTree(msgspec.Struct):
    """A job with its children, their children, and so on, as they were when they were read.

    - queue, id, state: the job. state is None for a deleted job that its parent still knows.
    - task: the name of its task; None for a deleted job.
    - error: of a failed job.
    - outcome: what its parent knows about it; None for the root.
    - children: in the order in which they were added.
    - hidden: how many more children the job has that are not in children, because the tree is too
      deep or too large. If this is not 0, the tree is cut here.

    `print(tree)` shows it with one line for each job.
    """

    queue: str
    id: str
    state: State | None
    task: str | None = None
    error: str | None = None
    outcome: ChildOutcome | None = None
    children: list[JobTree] = []
    hidden: int = 0

    @property
    def is_cut(self) -> bool:
        """Whether children of a job in the tree are left out."""
        return any(tree.hidden for tree in self.walk())

    def walk(self) -> list[JobTree]:
        """Return this job and all jobs below it, each parent before its children."""
        found: list[JobTree] = []
        pending = [self]
        while pending:
            tree = pending.pop()
            found.append(tree)
            pending += reversed(tree.children)
        return found

    def __str__(self) -> str:
        lines: list[str] = []
        pending = [(self, 0)]
        while pending:
            tree, depth = pending.pop()
            state = "deleted" if tree.state is None else tree.state
            error = f": {tree.error.partition(chr(10))[0]}" if tree.error else ""
            lines.append(f"{'  ' * depth}{tree.task or '(unknown)'} {tree.id} {state}{error}")
            if tree.hidden:
                lines.append(f"{'  ' * (depth + 1)}… {tree.hidden:,} more")
            pending += ((child, depth + 1) for child in reversed(tree.children))
        return "\n".join(lines)


async def read_portions(
    engine: Engine, queue: str, id: str, *, offset: int = 0
) -> AsyncIterator[list[ChildJob]]:
    """Yield the children of a job in portions, in the order of adding."""
    while portion := await engine.children(queue, id, offset=offset, limit=PORTION):
        yield portion
        offset += len(portion)


async def read_tree(engine: Engine, root: JobRecord, *, max_depth: int, max_jobs: int) -> JobTree:
    """Return the tree below a job, level by level, with at most max_jobs jobs."""
    tree = JobTree(root.queue, root.id, root.state, root.name, root.error, None, [])
    level, room = [tree], max_jobs - 1
    for _ in range(max_depth):
        following: list[JobTree] = []
        for start in range(0, len(level), AT_ONCE):
            parents = level[start : start + AT_ONCE]
            pages = await asyncio.gather(*(_read_page(engine, each, room) for each in parents))
            for parent, page in zip(parents, pages, strict=True):
                shown = page[: max(room, 0)]
                room -= len(shown)
                parent.children = [
                    JobTree(each.queue, each.id, each.state, None, each.error, each.outcome, [])
                    for each in shown
                ]
                if len(page) > len(shown) or len(shown) == PORTION or room <= 0:
                    counts = await engine.count_children(parent.queue, parent.id)
                    parent.hidden = max(0, counts.total - len(shown))
                following += parent.children
        await _read_names(engine, following)
        level = following
    counted = [each for each in level if each.state is not None]
    for start in range(0, len(counted), AT_ONCE):
        parents = counted[start : start + AT_ONCE]
        found = await asyncio.gather(*(engine.count_children(p.queue, p.id) for p in parents))
        for parent, counts in zip(parents, found, strict=True):
            parent.hidden = counts.total
    return tree


async def _read_page(engine: Engine, parent: JobTree, room: int) -> list[ChildJob]:
    """Return up to room children of a job, and at most one more."""
    if parent.state is None:
        return []
    found: list[ChildJob] = []
    async for portion in read_portions(engine, parent.queue, parent.id):
        found += portion
        if len(found) > room:
            break
    return found


async def _read_names(engine: Engine, trees: Sequence[JobTree]) -> None:
    """Set the names of the tasks and the errors."""
    by_queue: dict[str, list[JobTree]] = {}
    for tree in trees:
        if tree.state is not None:
            by_queue.setdefault(tree.queue, []).append(tree)
    for queue, of_queue in by_queue.items():
        for start in range(0, len(of_queue), PORTION):
            part = of_queue[start : start + PORTION]
            records = await engine.get(queue, [tree.id for tree in part])
            for tree, record in zip(part, records, strict=True):
                if record is not None:
                    tree.task, tree.error = record.name, record.error


async def walk_levels(engine: Engine, queue: str, id: str) -> AsyncIterator[list[ChildJob]]:
    """Yield the descendants of a job in portions, each after its parent.

    Deleted ones are skipped. Also the jobs below completed ones are visited: with
    `on_failure="continue"`, a job completes while its children are unfinished.
    """
    parents: list[JobKey] = [(queue, id)]
    while parents:
        following: list[JobKey] = []
        for start in range(0, len(parents), AT_ONCE):
            # Most jobs have no children, so the first portions of several are read together.
            some = parents[start : start + AT_ONCE]
            firsts = await asyncio.gather(
                *(engine.children(name, parent, offset=0, limit=PORTION) for name, parent in some)
            )
            for (name, parent), first in zip(some, firsts, strict=True):
                portion, offset = first, len(first)
                while portion:
                    present = [child for child in portion if child.state is not None]
                    following += [(child.queue, child.id) for child in present]
                    yield present
                    portion = await engine.children(name, parent, offset=offset, limit=PORTION)
                    offset += len(portion)
        parents = following


async def has_unfinished(engine: Engine, queue: str, id: str) -> bool:
    """Return whether a descendant of a job has not finished."""
    async for portion in walk_levels(engine, queue, id):
        if any(child.state not in FINISHED for child in portion):
            return True
    return False


async def cancel_descendants(engine: Engine, queue: str, id: str, *, now_ms: int) -> int:
    """Cancel all unfinished descendants of a job. Returns how many there were."""
    cancelled = 0
    async for portion in walk_levels(engine, queue, id):
        by_queue: dict[str, list[str]] = {}
        for child in portion:
            if child.state not in FINISHED:
                by_queue.setdefault(child.queue, []).append(child.id)
        for name, ids in by_queue.items():
            found = await engine.cancel(name, ids, now_ms=now_ms)
            cancelled += sum(state is not None and state not in FINISHED for state in found)
    return cancelled


def to_child(child: ChildJob, value: Any) -> Child:
    """Return a child for users. value is its decoded result."""
    return Child(
        child.queue, child.id, child.outcome, child.state, value, child.error, child.on_failure
    )


async def require_job(engine: Engine, queue: str, id: str) -> JobRecord:
    """Return a stored job. Raises `JobNotFound`."""
    (record,) = await engine.get(queue, [id])
    if record is None:
        raise JobNotFound(queue, id)
    return record
