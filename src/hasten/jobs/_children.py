"""`Children`: the child jobs of a running job, `ctx.children`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar, overload

from hasten import _portal
from hasten.errors import InvalidOption, StoreError, UnawaitedChildren
from hasten.jobs import _family as family
from hasten.jobs._control_exceptions import RetryAfter, WaitForChildren
from hasten.jobs._encoding import decode_json
from hasten.jobs._family import Child, ChildProgress
from hasten.jobs._flow import (
    MAX_FLOW_JOBS,
    Node,
    Nodes,
    PlannedJob,
    check_nodes,
    check_on_failure,
    plan_jobs,
)
from hasten.jobs._job import JobQueue
from hasten.jobs._record import ChildCounts, ChildJob, JobRecord, NewJob, OnFailure, ParentLink

T = TypeVar("T")

# If the store fails while a handler waits for its children, the job runs again after this time.
RETRY_SECONDS: Final = 1.0
T_co = TypeVar("T_co", covariant=True)


class ResultDecoder(Protocol[T_co]):
    """A task, as `results` uses it: it knows the type of the results of its jobs."""

    def decode_result(self, text: str) -> T_co:
        """Return the result of a job of the task. text is its JSON."""


class NewChildren(NamedTuple):
    """The children to add when the run ends, and the number of calls of `add` that are then done.

    See `Parked`.
    """

    jobs: list[NewJob]
    add_calls: int


class _AddCall(NamedTuple):
    """One call of `Children.add`. number counts the calls of this run, from 1."""

    number: int
    plan: list[PlannedJob]


class Children:
    """The child jobs of the running job: those of its flow, and those that its handler adds.

    A handler gets it as `ctx.children`::

        @queue.task
        async def report(ctx: Context, user: int) -> int:
            ctx.children.add(chunk.many(range(10)))
            await ctx.children.wait()
            return sum(await ctx.children.results(chunk))

    `wait` ends the run, which frees the slot of the worker. When the children have ended, **the
    handler runs again from its beginning**, and makes the same calls: the n-th call of `add` adds
    nothing if the n-th call of an earlier run, or of an earlier attempt, has added its jobs. So the
    calls of `add` must not depend on what the children return, except after a `wait`.

    `sync` has blocking versions of the methods, for handlers that are plain functions.
    """

    __slots__ = ("_adds", "_calls", "_job", "_queue", "_unawaited", "parked")

    def __init__(self, queue: JobQueue, job: JobRecord) -> None:
        self._queue = queue
        self._job = job
        self._calls = 0  # of `add` in this run
        self._adds: list[_AddCall] = []
        self._unawaited = False  # `add` was called after the last `wait`
        self.parked: NewChildren | None = None  # set when `wait` ends the run

    def __repr__(self) -> str:
        return f"<Children of job {self._job.id}>"

    def add(self, nodes: Nodes, *, on_failure: OnFailure = "fail") -> None:
        """Add child jobs to this job: they are stored by the next `wait`, all or none.

        nodes are `Arguments` of tasks, or flows, one or several. on_failure is what happens to this
        job when one of them fails for good: see `Flow.after`. The ids of the jobs are
        `<id of this job>-<number of the call>-<number>`, unless `job_id` was given.

        Raises `InvalidOption`, also for more than 10,000 jobs in one run. The arguments are checked
        by `wait`.
        """
        policy = check_on_failure(on_failure)
        roots: list[tuple[Node, OnFailure]] = [
            (node, policy) for node in check_nodes(nodes, "nodes")
        ]
        plan = plan_jobs(roots, option="nodes")
        if sum(len(call.plan) for call in self._adds) + len(plan) > MAX_FLOW_JOBS:
            expected = f"at most {MAX_FLOW_JOBS:,} jobs in one run of a handler"
            raise InvalidOption("nodes", f"{len(plan):,} more jobs", expected)
        self._calls += 1
        self._unawaited = True
        if plan:
            self._adds.append(_AddCall(self._calls, plan))

    async def wait(self) -> None:
        """Store the added children, end this run, and run the job again when they have ended.

        Returns at once if no child is pending and none is new. It also returns if children are
        pending, but one with `on_failure="continue"` has failed. The runs do not count as attempts.

        It ends the run with the exception `WaitForChildren`, which is no `Exception`: do not catch
        it. If the store fails, it raises `RetryAfter`: the job runs again a little later. Raises
        `InvalidArgument` and the other exceptions of `Flow.enqueue`.
        """
        if await self._prepare_to_wait():
            raise WaitForChildren

    async def _prepare_to_wait(self) -> bool:
        """Set `parked` and return True if the run must end, so that the job waits."""
        try:
            counts = await self._count()
            new = [call for call in self._adds if call.number > counts.add_calls]
            if not new and (not counts.pending or await self._has_continued(counts)):
                self._unawaited = False
                return False
        except StoreError as error:
            raise RetryAfter(RETRY_SECONDS) from error
        self._unawaited = False
        self.parked = NewChildren(await self._prepare_jobs(new), max(self._calls, counts.add_calls))
        return True

    async def _prepare_jobs(self, calls: Sequence[_AddCall]) -> list[NewJob]:
        """Return the jobs of calls of `add`."""
        plan: list[PlannedJob] = []
        ids: list[str] = []
        prefix = self._job.id.replace(":", ".")  # ":" separates the parts of a Redis key
        for call in calls:
            start = len(plan)
            for n, job in enumerate(call.plan):
                parent = None if job.parent is None else job.parent + start
                plan.append(PlannedJob(job.arguments, parent, job.on_failure, job.has_children))
                ids.append(f"{prefix}-{call.number}-{n}")
        if not plan:
            return []
        link = ParentLink(self._job.queue, self._job.id)
        return await plan[0].arguments.task.prepare_children(plan, link, ids)

    async def _has_continued(self, counts: ChildCounts) -> bool:
        """Return whether a child with `on_failure="continue"` has failed."""
        if not counts.ignored:
            return False
        async for portion in family.read_portions(
            self._queue.engine, self._job.queue, self._job.id
        ):
            if any(c.outcome == "ignored" and c.on_failure == "continue" for c in portion):
                return True
        return False

    @overload
    async def results(self) -> list[Any]: ...
    @overload
    async def results(self, task: ResultDecoder[T]) -> list[T]: ...

    async def results(self, task: ResultDecoder[Any] | None = None) -> list[Any]:
        """Return the results of the completed children, in the order in which they were added.

        If all children are jobs of one task, pass it: then the results have its return type.
        Otherwise they have the types of JSON.
        """
        decode = decode_json if task is None else task.decode_result
        return [
            decode(child.value)
            async for child in self._read()
            if child.outcome == "completed" and child.value is not None
        ]

    async def failures(self) -> list[Child]:
        """Return the children that have failed for good, in the order in which they were added.

        Those are the ones with `on_failure="continue"` or "ignore".
        """
        return [
            family.to_child(child, None)
            async for child in self._read()
            if child.outcome in {"ignored", "failed"}
        ]

    async def progress(self) -> ChildProgress:
        """Return how many children are pending, have completed or have failed."""
        return family.to_progress(await self._count())

    async def _read(self) -> AsyncIterator[ChildJob]:
        async for portion in family.read_portions(
            self._queue.engine, self._job.queue, self._job.id
        ):
            for child in portion:
                yield child

    async def _count(self) -> ChildCounts:
        return await self._queue.engine.count_children(self._job.queue, self._job.id)

    async def _check_after_return(self) -> None:
        if self.parked is not None:
            raise UnawaitedChildren(
                "the handler has caught the exception with which ctx.children.wait() ends the run: "
                "let it pass, and do not use `except:` or `except BaseException:` around it"
            )
        if not self._unawaited:
            return
        added = (await self._count()).add_calls
        missing = sum(len(call.plan) for call in self._adds if call.number > added)
        if missing:
            raise UnawaitedChildren(
                f"the handler has returned without storing {missing:,} child jobs of "
                "ctx.children.add(): call `await ctx.children.wait()` after it"
            )

    @property
    def sync(self) -> SyncChildren:
        """Blocking versions of these methods, for handlers that are plain functions."""
        return SyncChildren(self)


class SyncChildren:
    """Blocking versions of the methods of `Children`, for handlers that are plain functions."""

    __slots__ = ("_children",)

    def __init__(self, children: Children) -> None:
        self._children = children

    def __repr__(self) -> str:
        return f"{self._children!r}.sync"

    def add(self, nodes: Nodes, *, on_failure: OnFailure = "fail") -> None:
        """Add child jobs, which are stored by `wait`; see `Children.add`."""
        self._children.add(nodes, on_failure=on_failure)

    def wait(self) -> None:
        """Store the children, and end this run until they have ended; see `Children.wait`."""
        if _portal.run_for_sync_method(self._children._prepare_to_wait(), may_deadlock=True):
            raise WaitForChildren

    @overload
    def results(self) -> list[Any]: ...
    @overload
    def results(self, task: ResultDecoder[T]) -> list[T]: ...

    def results(self, task: ResultDecoder[Any] | None = None) -> list[Any]:
        """Return the results of the completed children; see `Children.results`."""
        if task is None:
            return _portal.run_for_sync_method(self._children.results())
        return _portal.run_for_sync_method(self._children.results(task))

    def failures(self) -> list[Child]:
        """Return the failed children; see `Children.failures`."""
        return _portal.run_for_sync_method(self._children.failures())

    def progress(self) -> ChildProgress:
        """Return how many children have ended; see `Children.progress`."""
        return _portal.run_for_sync_method(self._children.progress())


async def check_after_return(children: Children) -> None:
    """Raise `UnawaitedChildren` if a handler has returned without waiting for its children."""
    await children._check_after_return()
