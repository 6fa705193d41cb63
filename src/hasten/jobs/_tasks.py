"""`Task`: a function, and the methods that add jobs which run it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack

from hasten import _portal
from hasten.errors import InvalidOption
from hasten.jobs import _flow_adding as flow_adding
from hasten.jobs._context import Context
from hasten.jobs._flow import MAX_FLOW_JOBS, Arguments, Flow, Nodes, PlannedJob, SyncFlow
from hasten.jobs._flow_adding import PreparedJob
from hasten.jobs._job import Job
from hasten.jobs._middleware import EnqueueCall
from hasten.jobs._options import JobOptions, Options, merge_job_options
from hasten.jobs._producer import Producer
from hasten.jobs._record import JobTemplate, NewJob, OnFailure, ParentLink
from hasten.jobs._task_definition import TaskDefinition

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Enqueuer(Generic[P, T]):
    """Adds jobs of one task, all with the same options.

    `Task.using` returns one. P are the parameters of the task, T is the type of its result. options
    are those of the task, given are the options that `using` has set in addition.
    """

    def __init__(
        self,
        definition: TaskDefinition,
        producer: Producer,
        options: Options,
        given: JobOptions,
    ) -> None:
        self.definition = definition
        self._producer = producer
        self._options = options
        # Merged into _options at each call, because `at` depends on the time.
        self._overrides = given
        # A template has the absolute time of expiry and the deduplication key, so with `expires` or
        # a key each call needs a new one.
        depends_on_call = bool(given) or options.expires_ms is not None or options.deduplication
        self._node_task = _NodeTask(self)
        self._template = (
            None if depends_on_call else producer.make_template(definition.name, options)
        )

    @property
    def queue_name(self) -> str:
        """The name of the queue that the jobs are added to."""
        return self._producer.queue_name

    def __repr__(self) -> str:
        given = ", ".join(f"{option}={value!r}" for option, value in self._overrides.items())
        return f"<Task {self.definition.name} of {self._producer.queue_name} using {given}>"

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """Add a job that calls the task with these arguments. It is stored when this returns.

        Raises `InvalidArgument` for arguments that do not fit the task, cannot be stored as JSON,
        or would reach the task as another type; its subclass `PayloadTooLarge` if they are too
        large; and `StoreError` if the job could not be stored.
        """
        definition = self.definition
        parameters = definition.parameters
        arguments = parameters.bind(args, kwargs)
        data = parameters.encode(
            arguments, definition.max_size, check_decodable=definition.check_arguments
        )
        if self._producer.middlewares:
            call = self._make_call(arguments)
            return await self._producer.submit_through_middlewares(call, self._options, data)
        return await self._producer.submit(self._template or self._make_template(arguments), data)

    def args(self, *args: P.args, **kwargs: P.kwargs) -> Arguments[P, T]:
        """Return the arguments of a call, for `enqueue_many` and for flows. Adds no job.

        Raises `InvalidArgument` for arguments that the parameters do not accept.
        """
        return Arguments(self._node_task, self.definition.parameters.bind(args, kwargs))

    def many(self, items: Iterable[Any]) -> list[Arguments[P, T]]:
        """Return the arguments of one call for each item, which is its first argument.

        For flows: `merge.after(chunk.many(rows))`. Adds no job. Raises `InvalidArgument`, and
        `InvalidOption` for more items than a flow may have jobs.
        """
        found = list(islice(items, MAX_FLOW_JOBS + 1))
        if len(found) > MAX_FLOW_JOBS:
            expected = f"at most {MAX_FLOW_JOBS:,} items"
            raise InvalidOption("items", f"more than {MAX_FLOW_JOBS:,} items", expected)
        bind = self.definition.parameters.bind
        return [Arguments(self._node_task, bind((item,), {})) for item in found]

    def after(self, children: Nodes, *, on_failure: OnFailure = "fail") -> Flow[T]:
        """Return a flow whose last job runs this task without arguments, after other jobs.

        Short for `task.args().after(…)`; see `Flow`. Adds no job.
        """
        return self.args().after(children, on_failure=on_failure)  # type: ignore[call-arg]

    async def enqueue_many(self, calls: Iterable[Arguments[P, T]]) -> list[Job[T]]:
        """Add one job for each of several calls: `send.enqueue_many(map(send.args, names))`.

        Up to 1,000 jobs are stored in one transaction: all or none. More jobs, or large ones, are
        stored in several transactions; see `Queue.add_many`. Raises the exceptions of `enqueue`,
        and `AddedInPart`.
        """
        if self._producer.middlewares:
            return await self._producer.submit_many_through_middlewares(
                [
                    (
                        self._make_call(arguments.by_name),
                        self._options,
                        self._encode_arguments(arguments),
                    )
                    for arguments in calls
                ]
            )
        template = self._template
        options = self._options if template is not None else self._merge_options()
        jobs: list[tuple[JobTemplate, str]] = []
        for arguments in calls:
            data = self._encode_arguments(arguments)
            if template is None or template.deduplication is not None:
                name = self.definition.name
                template = self._producer.make_template(name, options, arguments.by_name)
            jobs.append((template, data))
        return await self._producer.submit_many(jobs)

    def _make_call(self, arguments: dict[str, Any]) -> EnqueueCall:
        """Return what the middlewares of the queue receive for a job with these arguments."""
        given: JobOptions = {**self._overrides}
        return EnqueueCall(self._producer.queue_name, self.definition.name, arguments, given)

    def _encode_arguments(self, arguments: object) -> str:
        """Return the arguments of a call as JSON."""
        definition = self.definition
        if not isinstance(arguments, Arguments):
            expected = f"arguments created with {definition.name}.args(…)"
            raise InvalidOption("calls", arguments, expected, is_private=True)
        return definition.parameters.encode(
            arguments.by_name, definition.max_size, check_decodable=definition.check_arguments
        )

    def decode_result(self, text: str) -> T:
        """Return the result of a job of this task. text is its JSON."""
        result: T = self.definition.parameters.decode_result(text)
        return result

    def using(self, **options: Unpack[JobOptions]) -> Enqueuer[P, T]:
        """Return an object that adds jobs of this task with these options.

        Options that are not given stay as they are for this object.
        Example: `task.using(delay=60).enqueue(…)`. Raises `InvalidOption`.
        """
        given: JobOptions = {**self._overrides, **options}
        merge_job_options(given, self._options, now_ms=self._producer.now_ms())
        return Enqueuer(self.definition, self._producer, self._options, given)

    def _make_template(self, arguments: dict[str, Any]) -> JobTemplate:
        """Return the template of a job with these arguments that is added now."""
        options = self._merge_options()
        return self._producer.make_template(self.definition.name, options, arguments)

    def _merge_options(self) -> Options:
        """Return the options of jobs that are added now."""
        return merge_job_options(self._overrides, self._options, now_ms=self._producer.now_ms())

    @property
    def sync(self) -> SyncEnqueuer[P, T]:
        """Blocking versions of these methods, for code that does not run in an event loop.

        For instance for Flask, scripts or an interactive shell.
        """
        return SyncEnqueuer(self)


class _NodeTask:
    """Adds the jobs of flows that one `Enqueuer` has described: a `NodeTask`."""

    def __init__(self, enqueuer: Enqueuer[Any, Any]) -> None:
        self._enqueuer = enqueuer

    async def enqueue_flow(self, flow: Flow[Any]) -> Job[Any]:
        """Add a flow, and return its root. See `Flow.enqueue`."""
        return await flow_adding.add_flow(flow)

    async def prepare_children(
        self, plan: Sequence[PlannedJob], parent: ParentLink, ids: Sequence[str]
    ) -> list[NewJob]:
        """Return the jobs to add as children of a job, as the middlewares have changed them."""
        return await flow_adding.prepare_children(plan, parent, ids)

    def prepare(self, arguments: Arguments[Any, Any]) -> PreparedJob:
        """Check the arguments of a call, and return what is needed to add it to a flow."""
        enqueuer = self._enqueuer
        return PreparedJob(
            enqueuer._producer,
            enqueuer._make_call(arguments.by_name),
            enqueuer._options,
            enqueuer._encode_arguments(arguments),
            enqueuer._template,
        )


class SyncEnqueuer(Generic[P, T]):
    """Adds jobs of one task, blocking until they are stored; see `Enqueuer`."""

    def __init__(self, enqueuer: Enqueuer[P, T]) -> None:
        self._enqueuer = enqueuer

    def __repr__(self) -> str:
        return f"{self._enqueuer!r}.sync"

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """Add a job that calls the task with these arguments; see `Enqueuer.enqueue`."""
        return _portal.run_for_sync_method(self._enqueuer.enqueue(*args, **kwargs))

    def args(self, *args: P.args, **kwargs: P.kwargs) -> Arguments[P, T]:
        """Return the arguments of a call, for `enqueue_many`; see `Enqueuer.args`."""
        return self._enqueuer.args(*args, **kwargs)

    def many(self, items: Iterable[Any]) -> list[Arguments[P, T]]:
        """Return the arguments of one call for each item; see `Enqueuer.many`."""
        return self._enqueuer.many(items)

    def after(self, children: Nodes, *, on_failure: OnFailure = "fail") -> SyncFlow[T]:
        """Return a flow whose last job runs this task after other jobs; see `Enqueuer.after`."""
        return self._enqueuer.after(children, on_failure=on_failure).sync

    def enqueue_many(self, calls: Iterable[Arguments[P, T]]) -> list[Job[T]]:
        """Add one job for each of several calls; see `Enqueuer.enqueue_many`."""
        return _portal.run_for_sync_method(self._enqueuer.enqueue_many(calls))

    def using(self, **options: Unpack[JobOptions]) -> SyncEnqueuer[P, T]:
        """Return an object that adds jobs with other options; see `Enqueuer.using`."""
        return SyncEnqueuer(self._enqueuer.using(**options))


class Task(Enqueuer[P, T], Generic[P, R, T]):
    """A function that a queue's workers can run. Calling the task calls the function directly.

    `enqueue` adds a job that runs it. P are its parameters, R is what a direct call returns (a
    coroutine for an `async def`), T is the type of the result of its jobs.
    """

    def __init__(self, definition: TaskDefinition, producer: Producer) -> None:
        # First, because it copies attributes, which __init__ may then replace.
        functools.update_wrapper(self, definition.function)
        super().__init__(definition, producer, definition.options, {})

    @property
    def name(self) -> str:
        """The name of the task, which is stored with its jobs."""
        return self.definition.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = self.definition.function(*args, **kwargs)
        return result

    def __repr__(self) -> str:
        return f"<Task {self.name} of {self._producer.queue_name}>"


class ContextTask(Enqueuer[P, T], Generic[P, R, T]):
    """A `Task` whose function has a `Context` as its first parameter.

    Only type checkers use this class. A direct call of the task passes a context, but `enqueue`
    takes only the other arguments.
    """

    name: str

    if TYPE_CHECKING:

        def __call__(self, ctx: Context, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
