"""A task: a function, and the ways to add jobs that run it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack

from hasten import _portal
from hasten.errors import InvalidOption
from hasten.jobs._context import Context
from hasten.jobs._job import Job
from hasten.jobs._middleware import EnqueueCall, Middleware
from hasten.jobs._options import JobOptions, Options, check_job_options
from hasten.jobs._producer import Producer
from hasten.jobs._record import JobTemplate
from hasten.jobs._task_definition import TaskDefinition

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Arguments(Generic[P]):
    """The arguments of one call of a task with the parameters P. Made by `Task.args`."""

    __slots__ = ("by_name",)

    def __init__(self, by_name: dict[str, Any]) -> None:
        self.by_name = by_name

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.by_name.items())
        return f"Arguments({shown})"


class Enqueuer(Generic[P, T]):
    """Adds jobs of a task with certain options; P are its parameters, T is what it returns."""

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
        self._given = given  # checked at each call, because `at` depends on the time
        # A template holds the time of expiry, so one with `expires` is made at each call, too.
        is_timed = bool(given) or options.expires_ms is not None
        self._template = None if is_timed else producer.template(definition.name, options)

    def __repr__(self) -> str:
        given = ", ".join(f"{option}={value!r}" for option, value in self._given.items())
        return f"<Task {self.definition.name} of {self._producer.queue_name} using {given}>"

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """Add a job with these arguments. It is stored when this returns.

        Raises `InvalidArgument` for arguments that do not fit the task, cannot be stored, or would
        arrive as something else, its `PayloadTooLarge` if they are too large, and `StoreError` if
        the store does not accept the job.
        """
        definition = self.definition
        parameters = definition.parameters
        arguments = parameters.bind(args, kwargs)
        data = parameters.encode(arguments, definition.max_size, check=definition.check_arguments)
        if self._producer.middlewares:
            return await self._producer.submit_through(self._call(arguments), self._options, data)
        return await self._producer.submit(self._template or self._timed_template(), data)

    def args(self, *args: P.args, **kwargs: P.kwargs) -> Arguments[P]:
        """Make the arguments of one of the jobs of `enqueue_many`. Adds nothing.

        Raises `InvalidArgument` for arguments that the parameters do not accept.
        """
        return Arguments(self.definition.parameters.bind(args, kwargs))

    async def enqueue_many(self, calls: Iterable[Arguments[P]]) -> list[Job[T]]:
        """Add a job for each of several arguments: `send.enqueue_many(map(send.args, names))`.

        Up to 1,000 are stored in one transaction: all or none. More jobs, or large ones, are stored
        in several; see `Queue.add_many`. Raises what `enqueue` raises, and `AddedInPart`.
        """
        if self._producer.middlewares:
            return await self._producer.submit_many_through(
                [
                    (self._call(arguments.by_name), self._options, self._encode(arguments))
                    for arguments in calls
                ]
            )
        template = self._template or self._timed_template()
        return await self._producer.submit_many(
            [(template, self._encode(arguments)) for arguments in calls]
        )

    def _call(self, arguments: dict[str, Any]) -> EnqueueCall:
        given: JobOptions = {**self._given}
        return EnqueueCall(self._producer.queue_name, self.definition.name, arguments, given)

    def _encode(self, arguments: object) -> str:
        definition = self.definition
        if not isinstance(arguments, Arguments):
            expected = f"arguments that are made by {definition.name}.args(…)"
            raise InvalidOption("calls", arguments, expected, is_private=True)
        return definition.parameters.encode(
            arguments.by_name, definition.max_size, check=definition.check_arguments
        )

    def using(self, **options: Unpack[JobOptions]) -> Enqueuer[P, T]:
        """Return the same task with other options: `task.using(delay=60).enqueue(…)`.

        Raises `InvalidOption`.
        """
        given: JobOptions = {**self._given, **options}
        check_job_options(given, self._options, now_ms=self._producer.now_ms())
        return Enqueuer(self.definition, self._producer, self._options, given)

    def _timed_template(self) -> JobTemplate:
        options = check_job_options(self._given, self._options, now_ms=self._producer.now_ms())
        return self._producer.template(self.definition.name, options)

    @property
    def sync(self) -> SyncEnqueuer[P, T]:
        """The same methods, blocking, for code without an event loop: Flask, scripts, a shell."""
        return SyncEnqueuer(self)


class SyncEnqueuer(Generic[P, T]):
    """Adds jobs of a task, blocking; see `Enqueuer`."""

    def __init__(self, enqueuer: Enqueuer[P, T]) -> None:
        self._enqueuer = enqueuer

    def __repr__(self) -> str:
        return f"{self._enqueuer!r}.sync"

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """Add a job; see `Enqueuer.enqueue`."""
        return _portal.call(self._enqueuer.enqueue(*args, **kwargs))

    def args(self, *args: P.args, **kwargs: P.kwargs) -> Arguments[P]:
        """Make the arguments of a job; see `Enqueuer.args`."""
        return self._enqueuer.args(*args, **kwargs)

    def enqueue_many(self, calls: Iterable[Arguments[P]]) -> list[Job[T]]:
        """Add jobs; see `Enqueuer.enqueue_many`."""
        return _portal.call(self._enqueuer.enqueue_many(calls))

    def using(self, **options: Unpack[JobOptions]) -> SyncEnqueuer[P, T]:
        """Return the same task with other options; see `Enqueuer.using`."""
        return SyncEnqueuer(self._enqueuer.using(**options))


class Task(Enqueuer[P, T], Generic[P, R, T]):
    """A function that jobs of a queue run. Calling it runs the function itself, here and now.

    P are its parameters, R is what a call returns (a coroutine for an `async def`), T is what its
    jobs return.
    """

    def __init__(self, definition: TaskDefinition, producer: Producer) -> None:
        functools.update_wrapper(self, definition.function)  # first: it copies attributes
        super().__init__(definition, producer, definition.options, {})

    @property
    def name(self) -> str:
        """The name under which its jobs are stored."""
        return self.definition.name

    @property
    def middlewares(self) -> Sequence[Middleware]:
        """The middlewares of its queue."""
        return self._producer.middlewares

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = self.definition.function(*args, **kwargs)
        return result

    def __repr__(self) -> str:
        return f"<Task {self.name} of {self._producer.queue_name}>"


class ContextTask(Enqueuer[P, T], Generic[P, R, T]):
    """A `Task` whose function has a `Context` as its first parameter.

    Only type checkers see this class: callers of the function pass the context, and `enqueue` does
    not take it.
    """

    name: str

    if TYPE_CHECKING:

        def __call__(self, ctx: Context, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
