"""`Task`: a function, and the methods that add jobs which run it."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack

from hasten import _portal
from hasten.errors import InvalidOption
from hasten.jobs._context import Context
from hasten.jobs._job import Job
from hasten.jobs._middleware import EnqueueCall
from hasten.jobs._options import JobOptions, Options, merge_job_options
from hasten.jobs._producer import Producer
from hasten.jobs._record import JobTemplate
from hasten.jobs._task_definition import TaskDefinition

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Arguments(Generic[P]):
    """The arguments of one call of a task with the parameters P. Created by `Task.args`."""

    __slots__ = ("by_name",)

    def __init__(self, by_name: dict[str, Any]) -> None:
        self.by_name = by_name

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.by_name.items())
        return f"Arguments({shown})"


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
        # A template has the absolute time of expiry, so with `expires` each call needs a new one.
        depends_on_time = bool(given) or options.expires_ms is not None
        self._template = (
            None if depends_on_time else producer.make_template(definition.name, options)
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
        return await self._producer.submit(self._template or self._make_template(), data)

    def args(self, *args: P.args, **kwargs: P.kwargs) -> Arguments[P]:
        """Return the arguments of a call, to pass several of them to `enqueue_many`. Adds no job.

        Raises `InvalidArgument` for arguments that the parameters do not accept.
        """
        return Arguments(self.definition.parameters.bind(args, kwargs))

    async def enqueue_many(self, calls: Iterable[Arguments[P]]) -> list[Job[T]]:
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
        template = self._template or self._make_template()
        return await self._producer.submit_many(
            [(template, self._encode_arguments(arguments)) for arguments in calls]
        )

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

    def using(self, **options: Unpack[JobOptions]) -> Enqueuer[P, T]:
        """Return an object that adds jobs of this task with these options.

        Options that are not given stay as they are for this object.
        Example: `task.using(delay=60).enqueue(…)`. Raises `InvalidOption`.
        """
        given: JobOptions = {**self._overrides, **options}
        merge_job_options(given, self._options, now_ms=self._producer.now_ms())
        return Enqueuer(self.definition, self._producer, self._options, given)

    def _make_template(self) -> JobTemplate:
        """Return the template of jobs that are added now."""
        options = merge_job_options(self._overrides, self._options, now_ms=self._producer.now_ms())
        return self._producer.make_template(self.definition.name, options)

    @property
    def sync(self) -> SyncEnqueuer[P, T]:
        """Blocking versions of these methods, for code that does not run in an event loop.

        For instance for Flask, scripts or an interactive shell.
        """
        return SyncEnqueuer(self)


class SyncEnqueuer(Generic[P, T]):
    """Adds jobs of one task, blocking until they are stored; see `Enqueuer`."""

    def __init__(self, enqueuer: Enqueuer[P, T]) -> None:
        self._enqueuer = enqueuer

    def __repr__(self) -> str:
        return f"{self._enqueuer!r}.sync"

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """Add a job that calls the task with these arguments; see `Enqueuer.enqueue`."""
        return _portal.run_for_sync_method(self._enqueuer.enqueue(*args, **kwargs))

    def args(self, *args: P.args, **kwargs: P.kwargs) -> Arguments[P]:
        """Return the arguments of a call, for `enqueue_many`; see `Enqueuer.args`."""
        return self._enqueuer.args(*args, **kwargs)

    def enqueue_many(self, calls: Iterable[Arguments[P]]) -> list[Job[T]]:
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
