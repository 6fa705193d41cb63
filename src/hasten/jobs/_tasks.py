"""A task: a function, and the ways to queue runs of it."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, Unpack

from hasten import _portal
from hasten.errors import InvalidOption, InvalidTask
from hasten.jobs._arguments import Parameters
from hasten.jobs._backoff import BackoffFunction
from hasten.jobs._context import Context
from hasten.jobs._definitions import Definition, Execution
from hasten.jobs._functions import describe, is_async, is_generator
from hasten.jobs._job import Job
from hasten.jobs._options import JobOptions, Options, check_job_options

if TYPE_CHECKING:
    from hasten.jobs._queue import Queue

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

RunIn = Literal["loop", "thread", "process"]
"""Where a handler runs: in the worker's event loop, in a thread, or in a process of its own."""


class TaskCore:
    """What a worker needs to know of a task."""

    def __init__(
        self,
        queue: Queue,
        function: Callable[..., Any],
        name: str,
        options: Options,
        *,
        run_in: RunIn | None,
        give_up_on: object,
        check_arguments: bool,
        backoff_function: BackoffFunction | None,
        made_in: Execution,
    ) -> None:
        self.queue = queue
        self.function = function
        self.name = name
        self.options = options
        self.run_in = _check_run_in(name, function, run_in)
        self.give_up_on = _check_give_up_on(give_up_on)
        self.check_arguments = check_arguments
        self.backoff_function = backoff_function
        self.parameters = Parameters(function, name, Context, show_values=queue.show_values)
        self.definition = Definition.of(function, made_in)

    def check(self) -> None:
        """Check what could not be checked when the task was made, as its module was not complete.

        Raises `InvalidTask` for an annotation, `InvalidOption` for run_in="process".
        """
        self.parameters.check()
        if self.run_in == "process":
            _check_found(self.name, self.function)


class Arguments(Generic[P]):
    """The arguments of one call of a task with the parameters P. Made by `Task.args`."""

    __slots__ = ("by_name",)

    def __init__(self, by_name: dict[str, Any]) -> None:
        self.by_name = by_name

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.by_name.items())
        return f"Arguments({shown})"


class Enqueuer(Generic[P, T]):
    """Queues runs of a task with certain options; P are its parameters, T is what it returns."""

    def __init__(self, core: TaskCore, options: Options, given: JobOptions) -> None:
        self._core = core
        self._options = options
        self._given = given  # what is checked against the clock at each call
        self._template = None if given else core.queue.template(core.name, options)

    def __repr__(self) -> str:
        given = ", ".join(f"{option}={value!r}" for option, value in self._given.items())
        return f"<Task {self._core.name} of {self._core.queue.name} using {given}>"

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """Queue a run with these arguments; once this returns, it is stored.

        Raises `InvalidArgument` for arguments that do not fit the task, cannot be stored, or would
        not arrive as they are, its `PayloadTooLarge` if they are too large, and `StoreError` if the
        store does not take the job.
        """
        core = self._core
        queue = core.queue
        parameters = core.parameters
        data = parameters.encode(
            parameters.bind(args, kwargs), queue.max_size, check=core.check_arguments
        )
        template = self._template or self._timed_template()
        return await queue.submit(template, data)

    def args(self, *args: P.args, **kwargs: P.kwargs) -> Arguments[P]:
        """Arguments for one of the runs of `enqueue_many`. Nothing is queued.

        Raises `InvalidArgument` for arguments that the parameters do not take.
        """
        return Arguments(self._core.parameters.bind(args, kwargs))

    async def enqueue_many(self, calls: Iterable[Arguments[P]]) -> list[Job[T]]:
        """Queue a run for each of several arguments: `send.enqueue_many(map(send.args, names))`.

        Up to 1,000 are stored in one transaction: all or none. More of them, or large ones, are
        stored in several, as `Queue.add_many` says. Raises what `enqueue` raises, and
        `AddedInPart`.
        """
        core = self._core
        template = self._template or self._timed_template()
        return await core.queue.submit_many(
            [(template, self._encode(arguments)) for arguments in calls]
        )

    def _encode(self, arguments: object) -> str:
        core = self._core
        if not isinstance(arguments, Arguments):
            expected = f"arguments that are made by {core.name}.args(…)"
            raise InvalidOption("calls", arguments, expected, is_private=True)
        return core.parameters.encode(
            arguments.by_name, core.queue.max_size, check=core.check_arguments
        )

    def using(self, **options: Unpack[JobOptions]) -> Enqueuer[P, T]:
        """The same task with other options for the calls that follow: `task.using(delay=60)`.

        Raises `InvalidOption`.
        """
        given: JobOptions = {**self._given, **options}
        now_ms = self._core.queue.clock.now_ms()
        check_job_options(given, self._options, now_ms=now_ms)
        return Enqueuer(self._core, self._options, given)

    def _timed_template(self) -> Any:
        queue = self._core.queue
        options = check_job_options(self._given, self._options, now_ms=queue.clock.now_ms())
        return queue.template(self._core.name, options)

    @property
    def sync(self) -> SyncEnqueuer[P, T]:
        """The same for code without an event loop: Flask, scripts, a shell."""
        return SyncEnqueuer(self)


class SyncEnqueuer(Generic[P, T]):
    """Queues runs of a task, blocking."""

    def __init__(self, enqueuer: Enqueuer[P, T]) -> None:
        self._enqueuer = enqueuer

    def __repr__(self) -> str:
        return f"{self._enqueuer!r}.sync"

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        return _portal.call(self._enqueuer.enqueue(*args, **kwargs))

    def args(self, *args: P.args, **kwargs: P.kwargs) -> Arguments[P]:
        return self._enqueuer.args(*args, **kwargs)

    def enqueue_many(self, calls: Iterable[Arguments[P]]) -> list[Job[T]]:
        return _portal.call(self._enqueuer.enqueue_many(calls))

    def using(self, **options: Unpack[JobOptions]) -> SyncEnqueuer[P, T]:
        return SyncEnqueuer(self._enqueuer.using(**options))


class Task(Enqueuer[P, T], Generic[P, R, T]):
    """A function of a queue. Calling it runs the function itself, here and now: as tests want it.

    P are its parameters, R is what a call returns (a coroutine for an `async def`), T is what its
    jobs return.
    """

    def __init__(self, core: TaskCore) -> None:
        functools.update_wrapper(self, core.function)  # first: an object's attributes come along
        super().__init__(core, core.options, {})
        self.core = core

    @property
    def name(self) -> str:
        """The name by which its jobs are stored."""
        return self.core.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = self.core.function(*args, **kwargs)
        return result

    def __repr__(self) -> str:
        return f"<Task {self.name} of {self.core.queue.name}>"


class ContextTask(Enqueuer[P, T], Generic[P, R, T]):
    """As `Task`, for a function whose first parameter is a `Context`.

    Only type checkers see this class: callers of the function give the context, those who
    enqueue do not.
    """

    name: str

    if TYPE_CHECKING:

        def __call__(self, ctx: Context, /, *args: P.args, **kwargs: P.kwargs) -> R: ...


def check_function(function: object) -> None:
    """Raise `InvalidTask` for what cannot be a task at all."""
    match function:
        case staticmethod() | classmethod():
            kind = type(function).__name__
            raise InvalidTask(
                f"a {kind} object cannot be a task: write @staticmethod above @queue.task, "
                "not below it, and use no @classmethod"
            )
        case type():
            raise InvalidTask(f"the class {function.__qualname__} cannot be a task: use a function")
    if not callable(function):
        raise InvalidTask(f"{function!r} cannot be a task: it is not a function (a name is name=…)")


def _check_run_in(name: str, function: Callable[..., Any], run_in: RunIn | None) -> RunIn:
    if is_generator(function):
        raise InvalidTask(f"task {name!r}: a generator cannot be a task: return a list, or enqueue")
    in_loop = is_async(function)
    match run_in:
        case None:
            return "loop" if in_loop else "thread"
        case "process":
            _check_importable(name, function)
            return run_in
        case "loop" if in_loop:
            return run_in
        case "thread" if not in_loop:
            return run_in
    expected = "'loop' or 'process'" if in_loop else "'thread' or 'process'"
    raise InvalidOption("run_in", run_in, f"{expected} for {name!r}")


def _check_importable(name: str, function: Callable[..., Any]) -> None:
    qualname = getattr(function, "__qualname__", "<none>")  # a partial or an object has none
    if "<" in qualname or inspect.ismethod(function):
        raise InvalidOption(
            "run_in", "process", f"a function at the top level of a module, for {name!r}: "
            "the other process imports it by name",
        )  # fmt: skip


def _check_found(name: str, function: Callable[..., Any]) -> None:
    found: Any = sys.modules.get(function.__module__)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    if getattr(found, "core", None) is None:
        raise InvalidOption(
            "run_in", "process", f"that {describe(function)} is decorated with @queue.task: "
            f"the other process looks for the task {name!r} under the name of its function",
        )  # fmt: skip


def _check_give_up_on(given: object) -> tuple[type[BaseException], ...]:
    kinds = given if isinstance(given, tuple) else (given,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise InvalidOption("give_up_on", given, "exception classes")
    return kinds
