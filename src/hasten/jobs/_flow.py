"""`Flow`: jobs that wait for other jobs, described before any of them is added."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Generic, Literal, ParamSpec, Protocol, TypeAlias, TypeVar

from hasten import _portal
from hasten.errors import InvalidOption
from hasten.jobs._job import Job
from hasten.jobs._record import ON_FAILURE, NewJob, OnFailure, ParentLink

P = ParamSpec("P")
T = TypeVar("T")

MAX_FLOW_JOBS: Final = 10_000
"""One call adds at most so many jobs of a flow: it is one transaction, which others wait for."""

Moment = Literal["first_failure", "ended", "succeeded"]
"""The moments of a flow or a batch for which a job can be added: see `Flow.on_ended`."""

MOMENTS: Final[tuple[Moment, ...]] = ("first_failure", "ended", "succeeded")


class NodeTask(Protocol):
    """What a node of a flow uses of the `Enqueuer` that has created it."""

    async def enqueue_flow(self, flow: Flow[Any]) -> Job[Any]:
        """Add a flow. Called on the task of its root."""

    async def prepare_children(
        self, plan: Sequence[PlannedJob], parent: ParentLink, ids: Sequence[str]
    ) -> list[NewJob]:
        """Return the jobs to add as children of a job, as the middlewares have changed them."""


class Arguments(Generic[P, T]):
    """The arguments of one call of a task. Created by `Task.args` and `Task.many`.

    P are the parameters of the task, T is the type of its result. Pass several of them to
    `Task.enqueue_many`, or let them wait for other jobs with `after`.
    """

    __slots__ = ("by_name", "task")

    def __init__(self, task: NodeTask, by_name: dict[str, Any]) -> None:
        self.task = task
        self.by_name = by_name

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.by_name.items())
        return f"Arguments({shown})"

    def after(self, children: Nodes, *, on_failure: OnFailure = "fail") -> Flow[T]:
        """Return a flow whose last job has these arguments, and runs after other jobs.

        See `Flow`. Adds no job.
        """
        return Flow(self).after(children, on_failure=on_failure)


class Flow(Generic[T]):
    """A tree of jobs in which each parent waits for its children: `merge.after(chunk.many(rows))`.

    Created by `after` of a task, of `Task.args` or of another flow. The children are `Arguments` or
    other flows, of any tasks and queues of one store. A chain is a flow in which each job has one
    child: `third.after(second.after(first.args(1)))`. T is the type of the result of the last job,
    which is the root of the tree.

    Methods that begin with `on_` and `after` return a new flow. No job is added before `enqueue`.
    """

    __slots__ = ("children", "hooks", "root")

    def __init__(
        self,
        root: Arguments[..., T],
        children: Sequence[tuple[Node, OnFailure]] = (),
        hooks: Sequence[tuple[Moment, Arguments[..., Any]]] = (),
    ) -> None:
        self.root = root
        self.children = children
        self.hooks = hooks

    def __repr__(self) -> str:
        return f"<Flow of {self.root!r} after {len(self.children)} children>"

    def after(self, children: Nodes, *, on_failure: OnFailure = "fail") -> Flow[T]:
        """Return this flow with more children of its root.

        children is a node (the arguments of a job, or a flow) or several. An empty list adds none.
        on_failure is what happens to the root when one of these children fails for good:

        - "fail": the root fails, too, without being run.
        - "continue": the root runs at once, although other children may not have finished.
        - "ignore": the root runs after its other children, and can read the error of the failed
          one.
        - "remove": the root runs after its other children, and the failed one is no longer its
          child.
        - "wait": the root waits until the failed child is retried and completes, or is deleted. It
          may wait for ever.
        """
        nodes = check_nodes(children)
        policy = check_on_failure(on_failure)
        return Flow(self.root, [*self.children, *((node, policy) for node in nodes)], self.hooks)

    def on_first_failure(self, job: Arguments[..., Any]) -> Flow[T]:
        """Return this flow with a job that is added when the flow has failed: when its root fails.

        If children have `on_failure="fail"`, the root fails at the first failure of one of them,
        while others may still run. The job is added once, also if other jobs fail later or a failed
        job is retried.
        """
        return self._with_hook("first_failure", job)

    def on_ended(self, job: Arguments[..., Any]) -> Flow[T]:
        """Return this flow with a job that is added when all jobs of the flow have ended for good.

        That is when the root has completed or failed, and no job of the tree is unfinished. It is
        added once.
        """
        return self._with_hook("ended", job)

    def on_succeeded(self, job: Arguments[..., Any]) -> Flow[T]:
        """Return this flow with a job that is added when the root has completed. It is added once.

        If the root has failed and is retried before the job of `on_ended` is added, its success
        counts.
        """
        return self._with_hook("succeeded", job)

    def _with_hook(self, moment: Moment, job: Arguments[..., Any]) -> Flow[T]:
        check_hook(moment, job)
        if any(known == moment for known, _ in self.hooks):
            raise InvalidOption(f"on_{moment}", job, "called once for each flow", is_private=True)
        return Flow(self.root, self.children, [*self.hooks, (moment, job)])

    async def enqueue(self) -> Job[T]:
        """Add all jobs of the flow, or none if it raises. Returns the root.

        The flow is stored in one step, whatever the number of its queues, so it has at most 10,000
        jobs. Their ids are `<a common random text>-<number>`, unless `job_id` was given.

        Raises `InvalidArgument` as `Task.enqueue` does, `StoreError`, and `InvalidOption`:

        - if a job with one of the given ids exists already
        - if the queues are in different stores, or on a Redis Cluster in different hash slots
        - if a node is used twice, or there are too many of them.
        """
        job: Job[T] = await self.root.task.enqueue_flow(self)
        return job

    @property
    def sync(self) -> SyncFlow[T]:
        """Blocking versions of these methods, for code that does not run in an event loop."""
        return SyncFlow(self)


class SyncFlow(Generic[T]):
    """Adds the jobs of a flow, blocking until they are stored; see `Flow`."""

    __slots__ = ("_flow",)

    def __init__(self, flow: Flow[T]) -> None:
        self._flow = flow

    def __repr__(self) -> str:
        return f"{self._flow!r}.sync"

    def after(self, children: Nodes, *, on_failure: OnFailure = "fail") -> SyncFlow[T]:
        """Return this flow with more children of its root; see `Flow.after`."""
        return SyncFlow(self._flow.after(children, on_failure=on_failure))

    def on_first_failure(self, job: Arguments[..., Any]) -> SyncFlow[T]:
        """Return this flow with a job that is added when it fails; see `Flow.on_first_failure`."""
        return SyncFlow(self._flow.on_first_failure(job))

    def on_ended(self, job: Arguments[..., Any]) -> SyncFlow[T]:
        """Return this flow with a job that is added when it has ended; see `Flow.on_ended`."""
        return SyncFlow(self._flow.on_ended(job))

    def on_succeeded(self, job: Arguments[..., Any]) -> SyncFlow[T]:
        """Return this flow with a job for its success; see `Flow.on_succeeded`."""
        return SyncFlow(self._flow.on_succeeded(job))

    def enqueue(self) -> Job[T]:
        """Add all jobs of the flow, and return the root; see `Flow.enqueue`."""
        return _portal.run_for_sync_method(self._flow.enqueue())


Node: TypeAlias = Arguments[..., Any] | Flow[Any]
"""A job of a flow with what it waits for: the arguments of a job, or a flow."""

Nodes: TypeAlias = Node | Iterable[Node]
"""One node of a flow, or several."""


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A job of a flow. parent is the place of its parent in the plan, None if that has none."""

    arguments: Arguments[..., Any]
    parent: int | None
    on_failure: OnFailure
    has_children: bool


def check_nodes(nodes: object, option: str = "children") -> list[Node]:
    """Return nodes as a list. Raises `InvalidOption` for other objects and too many of them."""
    expected = "jobs as task.args(…), task.many(…) or task.after(…), one or several"
    if isinstance(nodes, Arguments | Flow):
        return [nodes]
    if isinstance(nodes, str) or not isinstance(nodes, Iterable):
        raise InvalidOption(option, nodes, expected, is_private=True)
    found = list(islice(nodes, MAX_FLOW_JOBS + 1))
    for node in found:
        if not isinstance(node, Arguments | Flow):
            raise InvalidOption(option, node, expected, is_private=True)
    if len(found) > MAX_FLOW_JOBS:
        raise _too_many(option)
    return found


def check_on_failure(on_failure: object) -> OnFailure:
    """Return what the failure of a child does to its parent. Raises `InvalidOption`."""
    for policy in ON_FAILURE:
        if on_failure == policy:
            return policy
    names = ", ".join(repr(policy) for policy in ON_FAILURE)
    raise InvalidOption("on_failure", on_failure, f"one of {names}")


def check_hook(moment: Moment, job: object) -> Arguments[..., Any]:
    """Return the job that is added at a moment. Raises `InvalidOption`."""
    if not isinstance(job, Arguments):
        expected = "one job without children: task.args(…)"
        raise InvalidOption(f"on_{moment}", job, expected, is_private=True)
    return job


def plan_jobs(
    roots: Sequence[tuple[Node, OnFailure]], *, option: str, may_have_hooks: bool = False
) -> list[PlannedJob]:
    """Return the jobs of trees, each parent before its children, and the children in their order.

    Raises `InvalidOption` with the name of the option if there are too many, a node is used twice,
    or has jobs for its moments: only roots may have these, and only with may_have_hooks.
    """
    plan: list[PlannedJob] = []
    seen: set[int] = set()
    pending: list[tuple[Node, OnFailure, int | None]]
    pending = [(node, policy, None) for node, policy in reversed(roots)]
    while pending:
        node, policy, parent = pending.pop()
        if isinstance(node, Flow):
            arguments, children = node.root, node.children
            if node.hooks and not (may_have_hooks and parent is None):
                expected = "a flow without on_… jobs: only the outermost flow may have them"
                raise InvalidOption(option, node, expected, is_private=True)
        else:
            arguments, children = node, ()
        if id(arguments) in seen:
            expected = "used once in a flow: call task.args(…) again for another job"
            raise InvalidOption(option, arguments, expected, is_private=True)
        seen.add(id(arguments))
        if len(plan) == MAX_FLOW_JOBS:
            raise _too_many(option)
        place = len(plan)
        plan.append(PlannedJob(arguments, parent, policy, bool(children)))
        pending += ((child, policy, place) for child, policy in reversed(children))
    return plan


def _too_many(option: str) -> InvalidOption:
    expected = (
        f"at most {MAX_FLOW_JOBS:,} jobs in one flow: add further ones with ctx.children.add in a "
        "running job, or use a Batch"
    )
    return InvalidOption(option, f"more than {MAX_FLOW_JOBS:,} jobs", expected)
