"""Add the jobs of a flow through the middlewares of their queues, with one call of the store."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from msgspec.structs import replace

from hasten.errors import InvalidOption, UsageError
from hasten.jobs import _moments as moments
from hasten.jobs._built_in_tasks import FLOW_TASK
from hasten.jobs._engine import Engine
from hasten.jobs._flow import Arguments, Flow, Moment, PlannedJob, plan_jobs
from hasten.jobs._job import Job, build_record
from hasten.jobs._middleware import EnqueueCall, add_many_through
from hasten.jobs._options import Options
from hasten.jobs._producer import Producer, have_equal_templates
from hasten.jobs._record import AddResult, JobRecord, JobTemplate, NewJob, ParentLink
from hasten.jobs._states import State
from hasten.jobs._tracing import get_spans_if_tracing

MAX_FLOW_CHARACTERS: Final = 64 * 1024 * 1024
"""The limit for the arguments of all jobs of a flow together: they are stored in one step."""


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job of a flow whose arguments are checked. data is their JSON.

    defaults are the options of its task. template is that of the job, if no middleware changes it
    and it does not depend on the time.
    """

    producer: Producer
    call: EnqueueCall
    defaults: Options
    data: str
    template: JobTemplate | None


class _PreparingTask(Protocol):
    """An `Enqueuer`, as this module uses it."""

    def prepare(self, arguments: Arguments[Any, Any]) -> PreparedJob: ...


_Store = Callable[[list[NewJob]], Awaitable[list[AddResult]]]
"""Stores jobs, or keeps them to be stored later. Returns one result per job."""


async def add_flow(flow: Flow[Any]) -> Job[Any]:
    """Add all jobs of a flow in one step, and return its root. See `Flow.enqueue`."""
    named = dict(flow.hooks)
    policy = moments.policy_of(named)
    plan = plan_jobs([(flow, policy)], option="flow", may_have_hooks=True)
    hooks = [PlannedJob(job, None, "fail", has_children=False) for _, job in flow.hooks]
    flow_id = uuid.uuid4().hex

    async def store(new: list[NewJob]) -> list[AddResult]:
        jobs, later = new[: len(plan)], new[len(plan) :]
        if link is None:
            return await engine.add_flow(jobs, now_ms=now_ms)
        engine.check_flow_queues({job.queue for job in new})
        watcher = moments.make_watcher(
            FLOW_TASK, link.queue, link.id, dict(zip(named, later, strict=True)), now_ms=now_ms
        )
        _, *added = await engine.add_flow([watcher, *jobs], now_ms=now_ms)
        return [*added, *(AddResult(job.id or "") for job in later)]

    prepared = _prepare([*plan, *hooks], option="flow")
    engine, now_ms = prepared[0].producer.queue.engine, prepared[0].producer.now_ms()
    link: ParentLink | None = None
    if hooks:  # the watcher is in the queue of the first hook, which workers of hasten serve
        queue = prepared[len(plan)].producer.queue_name
        link = ParentLink(queue, moments.watcher_id(flow_id), policy)
    ids = [f"{flow_id}-{n}" for n in range(len(plan))]
    ids += [moments.hook_id(flow_id, moment) for moment, _ in flow.hooks]
    adding = _Adding([*plan, *hooks], prepared, ids, link, now_ms, store)
    return (await adding.add())[0]


async def add_members(
    nodes: Sequence[Arguments[Any, Any] | Flow[Any]],
    parent: ParentLink,
    engine: Engine,
    *,
    check_store: Callable[[Producer], None],
) -> list[Job[Any]]:
    """Add jobs and flows as children of a stored job, in one step. Returns the jobs of nodes."""
    plan = plan_jobs([(node, parent.on_failure) for node in nodes], option="nodes")
    prepared = _prepare(plan, option="nodes")
    if not prepared:
        return []
    check_store(prepared[0].producer)
    now_ms = prepared[0].producer.now_ms()

    async def store(new: list[NewJob]) -> list[AddResult]:
        return await engine.add_flow(new, now_ms=now_ms)

    group = uuid.uuid4().hex
    ids = [f"{group}-{n}" for n in range(len(plan))]
    jobs = await _Adding(plan, prepared, ids, parent, now_ms, store).add()
    return [job for job, each in zip(jobs, plan, strict=True) if each.parent is None]


async def prepare_hooks(
    producer: Producer, group: str, hooks: Mapping[Moment, Arguments[..., Any]]
) -> dict[Moment, NewJob]:
    """Return the jobs that are added at the moments of a batch with this id.

    producer is that of the queue of the batch. Raises the exceptions of `Flow.enqueue`.
    """
    plan = [PlannedJob(job, None, "fail", has_children=False) for job in hooks.values()]
    prepared = _prepare(plan, option="on_…")
    jobs: list[NewJob] = []
    if prepared:
        check_same_store(producer, prepared[0].producer, "on_…")

    async def keep(new: list[NewJob]) -> list[AddResult]:
        jobs.extend(new)
        return [AddResult(job.id or "") for job in new]

    if plan:
        ids = [moments.hook_id(group, moment) for moment in hooks]
        await _Adding(plan, prepared, ids, None, producer.now_ms(), keep).add()
    producer.queue.engine.check_flow_queues({producer.queue_name, *(job.queue for job in jobs)})
    return dict(zip(hooks, jobs, strict=True))


async def prepare_children(
    plan: Sequence[PlannedJob], parent: ParentLink, ids: Sequence[str]
) -> list[NewJob]:
    """Return the jobs that the outcome of a running job adds as its children.

    ids are those of the jobs that have no job_id. Raises the exceptions of `Flow.enqueue`.
    """
    prepared = _prepare(plan, option="nodes")
    producer = prepared[0].producer
    children: list[NewJob] = []

    async def keep(new: list[NewJob]) -> list[AddResult]:
        producer.queue.engine.check_flow_queues({parent.queue, *(job.queue for job in new)})
        children.extend(new)
        return [AddResult(job.id or "") for job in new]

    await _Adding(plan, prepared, ids, parent, producer.now_ms(), keep).add()
    return children


def _prepare(plan: Sequence[PlannedJob], option: str) -> list[PreparedJob]:
    """Check the arguments, the sizes and the stores of planned jobs."""
    prepared = [
        cast(_PreparingTask, planned.arguments.task).prepare(planned.arguments) for planned in plan
    ]
    size = sum(len(each.data) for each in prepared)
    if size > MAX_FLOW_CHARACTERS:
        raise InvalidOption(
            option,
            f"{size:,} characters of arguments",
            f"at most {MAX_FLOW_CHARACTERS:,}: store the data elsewhere and pass references",
        )
    producers = {id(each.producer): each.producer for each in prepared}
    first, *others = producers.values() if producers else [None]
    for other in others:
        assert first is not None
        assert other is not None
        check_same_store(first, other, option)
    return prepared


def check_same_store(first: Producer, other: Producer, option: str) -> None:
    """Raise `InvalidOption` if the queues of jobs that belong together are in different stores."""
    if not first.queue.shares_store_with(other.queue):
        raise InvalidOption(
            option,
            f"jobs of the queues {first.queue_name!r} and {other.queue_name!r}",
            "jobs of one store: create both queues with the same Store object or the same URL "
            "(two queues with memory:// share nothing)",
        )


class _Adding:
    """One call that adds jobs which are parents and children of each other.

    ids are those of the jobs that have no job_id. parent is the parent of the jobs without one in
    the plan, if any.
    """

    def __init__(
        self,
        plan: Sequence[PlannedJob],
        prepared: Sequence[PreparedJob],
        ids: Sequence[str],
        parent: ParentLink | None,
        now_ms: int,
        store: _Store,
    ) -> None:
        self._plan = plan
        self._prepared = prepared
        self._ids = ids
        self._parent = parent
        self._now_ms = now_ms
        self._store = store
        self._last: tuple[EnqueueCall, Options, JobTemplate] | None = None

    async def add(self) -> list[Job[Any]]:
        """Add the jobs through the middlewares of their queues. Returns one `Job` for each."""
        if any(each.producer.middlewares for each in self._prepared):
            calls = [(each.producer.middlewares, each.call) for each in self._prepared]
            return await add_many_through(calls, self._add_calls)
        return await self._send([self._find_template(index) for index in range(len(self._plan))])

    async def _add_calls(self, calls: Mapping[int, EnqueueCall]) -> list[Job[Any]]:
        """Add the jobs as the middlewares have passed them on, by their place."""
        for index, each in enumerate(self._prepared):
            if index not in calls:
                raise UsageError(
                    f"a middleware did not call call_next() for a job of a flow (task "
                    f"{each.call.task!r}): the other jobs depend on it, so pass it on or raise"
                )
        return await self._send([self._find_template(index, calls[index]) for index in calls])

    def _find_template(self, index: int, call: EnqueueCall | None = None) -> JobTemplate:
        """Return the template of a job: the one of the job before it, if that is the same.

        Jobs with the same template are stored faster.
        """
        prepared = self._prepared[index]
        if call is None and prepared.template is not None:
            template = prepared.template
        else:
            call = prepared.call if call is None else call
            last = self._last
            if last is None or not have_equal_templates(last[0], call, last[1], prepared.defaults):
                made = prepared.producer.make_template_of_call(call, prepared.defaults)
                last = self._last = call, prepared.defaults, made
            template = last[2]
        rule = template.options.deduplication
        if rule is not None:
            raise InvalidOption.conflict(
                rule.mode,
                rule.key,
                f"a flow: a job that is dropped cannot be a parent or a child. Use "
                f"{template.name}.using({rule.mode}=None) in the flow",
            )
        return template

    async def _send(self, templates: Sequence[JobTemplate]) -> list[Job[Any]]:
        jobs = [
            (template, each.data) for template, each in zip(templates, self._prepared, strict=True)
        ]
        spans = get_spans_if_tracing()
        if spans is None:
            return await self._store_jobs(jobs)
        return await spans.send_many(self._prepared[0].producer.queue_name, jobs, self._store_jobs)

    async def _store_jobs(self, jobs: Sequence[tuple[JobTemplate, str]]) -> list[Job[Any]]:
        new: list[NewJob] = []
        for index, (template, data) in enumerate(jobs):
            id = template.options.job_id or self._ids[index]
            queue = self._prepared[index].producer.queue_name
            new.append(NewJob(queue, template, data, id, self._link_of(index, new)))
        added = await self._store(new)
        return [
            Job(
                each.producer.queue,
                result.id,
                (job, self._now_ms) if not planned.has_children else self._build_parent(job),
                result.cursor or None,
            )
            for each, planned, job, result in zip(
                self._prepared, self._plan, new, added, strict=True
            )
        ]

    def _link_of(self, index: int, new: Sequence[NewJob]) -> ParentLink | None:
        """Return the link of a job to its parent. new are the jobs before it."""
        planned = self._plan[index]
        if planned.parent is not None:
            parent = new[planned.parent]
            return ParentLink(parent.queue, parent.id or "", planned.on_failure)
        if self._parent is None:
            return None
        return ParentLink(self._parent.queue, self._parent.id, planned.on_failure)

    def _build_parent(self, job: NewJob) -> JobRecord:
        record = build_record(job.id or "", job, self._now_ms)
        return replace(record, state=State.WAITING_CHILDREN, due_ms=None)
