"""Statements meet sessions and connections, asynchronous and not, on one path.

What is done is a generator of steps: it yields a statement with its parameters, and is sent the
result. Who drives it decides whether that is awaited.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from inspect import isawaitable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

from sqlalchemy import ClauseElement, Connection, Executable, Result
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Mapper, Session

from hasten._loops import require_asyncio
from hasten.errors import InvalidOption

T = TypeVar("T")

Executor: TypeAlias = Session | Connection
AsyncExecutor: TypeAlias = AsyncSession | AsyncConnection

if TYPE_CHECKING:
    Found: TypeAlias = Result[*tuple[Any, ...]]
    """What a statement brought."""
else:
    Found = Result

_NO_PARAMETERS: Final[Mapping[str, Any]] = MappingProxyType({})


class Step(NamedTuple):
    """A statement to execute."""

    statement: Executable
    parameters: Mapping[str, Any] = _NO_PARAMETERS


class Call(NamedTuple):
    """A function of the application's to be called with the session, and awaited where it waits."""

    function: Callable[[Any], object | Awaitable[object]]


Rows: TypeAlias = Sequence[Any]

Steps: TypeAlias = Generator[Step | Call, Any, T]
"""What to execute or to call, whose results are sent back, and what they come to."""


def dialect_of(
    executor: Executor | AsyncExecutor,
    mapper: Mapper[Any] | None,
    clause: ClauseElement | None = None,
) -> str:
    """The name of the dialect that a statement would meet."""
    if isinstance(executor, Connection | AsyncConnection):
        return executor.dialect.name
    # A scoped session has it, too.
    return executor.get_bind(mapper=mapper, clause=clause).dialect.name


def run(executor: Executor, steps: Steps[T]) -> T:
    """Go through the steps, and return what they come to."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Call):
                step = steps.send(_called(executor, step))
            else:
                step = steps.send(executor.execute(step.statement, step.parameters))
    except StopIteration as end:
        found: T = end.value
        return found
    finally:
        steps.close()


async def run_async(executor: AsyncExecutor, steps: Steps[T]) -> T:
    """The same, where results are awaited."""
    try:
        require_asyncio(f"{type(executor).__name__} of SQLAlchemy", "use .sync in a thread")
        step = next(steps)
        while True:
            if isinstance(step, Call):
                result = step.function(executor)
                step = steps.send(await result if isawaitable(result) else result)
            else:
                step = steps.send(await executor.execute(step.statement, step.parameters))
    except StopIteration as end:
        found: T = end.value
        return found
    finally:
        steps.close()


def _called(executor: Executor, call: Call) -> object:
    result = call.function(executor)
    if isawaitable(result):
        if isinstance(result, Coroutine):
            result.close()
        raise InvalidOption(
            "count", "an async function", "a plain function: .sync.page() cannot await it"
        )
    return result
