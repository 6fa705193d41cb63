"""Statements meet sessions and connections, asynchronous and not, on one path.

What is done is a generator of steps: it yields a statement with its parameters, and is sent the
rows. Who drives it decides whether they are awaited.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from sqlalchemy import Connection, Executable
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Mapper, Session

T = TypeVar("T")

Executor: TypeAlias = Session | Connection
AsyncExecutor: TypeAlias = AsyncSession | AsyncConnection


class Step(NamedTuple):
    """A statement to execute."""

    statement: Executable
    parameters: Mapping[str, Any]


Rows: TypeAlias = Sequence[Any]

Steps: TypeAlias = Generator[Step, Rows, T]
"""Statements to execute, whose rows are sent back, and what they come to."""


def dialect_of(executor: Executor | AsyncExecutor, mapper: Mapper[Any]) -> str:
    """The name of the dialect that a statement would meet."""
    if isinstance(executor, Connection | AsyncConnection):
        return executor.dialect.name
    return executor.get_bind(mapper).dialect.name  # a scoped session has it, too


def run(executor: Executor, steps: Steps[T]) -> T:
    """Go through the steps, and return what they come to."""
    try:
        step = next(steps)
        while True:
            step = steps.send(executor.execute(step.statement, step.parameters).all())
    except StopIteration as end:
        found: T = end.value
        return found
    finally:
        steps.close()


async def run_async(executor: AsyncExecutor, steps: Steps[T]) -> T:
    """The same, where results are awaited."""
    try:
        step = next(steps)
        while True:
            step = steps.send((await executor.execute(step.statement, step.parameters)).all())
    except StopIteration as end:
        found: T = end.value
        return found
    finally:
        steps.close()
