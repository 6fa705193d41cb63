"""`TaskDefinition`: the function of a task and its settings, validated."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from hasten._checks import is_async
from hasten.errors import InvalidOption, InvalidTask
from hasten.jobs._arguments import TaskParameters, UnresolvedAnnotation
from hasten.jobs._backoff import BackoffFunction
from hasten.jobs._context import Context
from hasten.jobs._deduplication import check_rule_of_task
from hasten.jobs._function_origin import CodeExecution, FunctionOrigin
from hasten.jobs._functions import describe_function, is_generator
from hasten.jobs._options import Options
from hasten.jobs._schedule_wire import slot_of
from hasten.jobs._slot import Slot

RunIn = Literal["loop", "thread", "process"]
"""Where a task's function runs: in the worker's event loop, in a thread, or in a child process."""


INJECTED: Final[Mapping[type, Callable[[Any], object]]] = {
    Context: lambda context: context,
    Slot: lambda context: slot_of(context.job),
}
"""The classes of which the worker passes an object to a task, made from the context of its job."""


class TaskDefinition:
    """The name, function and settings of a task. Queues use it to add jobs, workers to run them.

    It belongs to no queue. max_size limits the arguments and the result of a job as JSON, in bytes.
    show_values is whether error messages about arguments may contain their values. made_in is the
    execution of code that called `queue.task`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        options: Options,
        *,
        run_in: RunIn | None,
        give_up_on: object,
        check_arguments: bool,
        backoff_function: BackoffFunction | None,
        max_size: int,
        show_values: bool,
        made_in: CodeExecution,
    ) -> None:
        self.function = function
        self.name = name
        self.options = options
        self.run_in = _check_run_in(name, function, run_in)
        self.give_up_on = _check_give_up_on(give_up_on)
        self.check_arguments = check_arguments
        self.backoff_function = backoff_function
        self.max_size = max_size
        self.parameters = TaskParameters(function, name, INJECTED, show_values=show_values)
        self.origin = FunctionOrigin.of(function, made_in)
        if options.deduplication is not None:
            with contextlib.suppress(UnresolvedAnnotation):  # then `check` does it
                check_rule_of_task(options.deduplication, name, self.parameters)

    def check_after_import(self) -> None:
        """Check what can only be checked after the module of the task has been executed.

        Raises `InvalidTask` for an annotation that cannot be used, and `InvalidOption` for
        run_in="process" if a child process could not import the task, or for a deduplication key
        that does not fit the parameters.
        """
        self.parameters.check_annotations()
        if self.options.deduplication is not None:
            check_rule_of_task(self.options.deduplication, self.name, self.parameters)
        if self.run_in == "process":
            _check_name_refers_to_task(self.name, self.function)


def check_function(function: object) -> None:
    """Raise `InvalidTask` for an object that cannot be a task, such as a class."""
    match function:
        case staticmethod() | classmethod():
            kind = type(function).__name__
            raise InvalidTask(
                f"a {kind} object cannot be a task: write @staticmethod above @queue.task, "
                "not below it; class methods cannot be tasks"
            )
        case type():
            raise InvalidTask(f"the class {function.__qualname__} cannot be a task: use a function")
    if not callable(function):
        raise InvalidTask(
            f"{function!r} cannot be a task: it is not a function. Write @queue.task(name=…) to "
            "set a name"
        )


def _check_run_in(name: str, function: Callable[..., Any], run_in: RunIn | None) -> RunIn:
    """Return where the task's function runs. Raises `InvalidOption` and `InvalidTask`."""
    if is_generator(function):
        raise InvalidTask(
            f"task {name!r}: a generator cannot be a task: return a list, or add a job per item"
        )
    in_loop = is_async(function)
    match run_in:
        case None:
            return "loop" if in_loop else "thread"
        case "process":
            _check_is_at_top_level(name, function)
            return run_in
        case "loop" if in_loop:
            return run_in
        case "thread" if not in_loop:
            return run_in
    expected = "'loop' or 'process'" if in_loop else "'thread' or 'process'"
    raise InvalidOption("run_in", run_in, f"{expected} for the task {name!r}")


def _check_is_at_top_level(name: str, function: Callable[..., Any]) -> None:
    """Raise `InvalidOption` unless the function is at the top level of a module."""
    # Partials and objects have no __qualname__.
    qualname = getattr(function, "__qualname__", "<none>")
    if "<" in qualname or inspect.ismethod(function):
        raise InvalidOption(
            "run_in", "process", "used only for a function at the top level of a module: the "
            f"child process imports the task {name!r} by the name of its function",
        )  # fmt: skip


def _check_name_refers_to_task(name: str, function: Callable[..., Any]) -> None:
    """Raise `InvalidOption` unless the name of the function refers to a task in its module."""
    found: Any = sys.modules.get(function.__module__)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    if not isinstance(getattr(found, "definition", None), TaskDefinition):
        raise InvalidOption(
            "run_in", "process", "used only for a function that is decorated with @queue.task: "
            f"decorate {describe_function(function)} with it, because the child process imports "
            f"the task {name!r} by the name of its function",
        )  # fmt: skip


def _check_give_up_on(given: object) -> tuple[type[BaseException], ...]:
    """Return the exception classes as a tuple. Raises `InvalidOption`."""
    kinds = given if isinstance(given, tuple) else (given,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise InvalidOption("give_up_on", given, "exception classes")
    return kinds
