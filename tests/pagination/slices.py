"""Fetch slices of selects without a paginator."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from hasten._coroutines import run_without_loop
from hasten._sqlalchemy.analysis import AnalyzedSelect
from hasten._sqlalchemy.execution import AsyncExecutor, Executor, asynchronous, blocking
from hasten._sqlalchemy.sort_columns import SortColumns
from hasten.pagination._sql.page_statements import PageStatements

T = TypeVar("T")

Fetch = Callable[..., Coroutine[Any, Any, T]]
"""One of the functions of `hasten.pagination._sql.fetching`."""


def fetch(
    executor: Executor,
    function: Fetch[T],
    analyzed: AnalyzedSelect,
    keys: SortColumns,
    *arguments: object,
    **options: object,
) -> T:
    """Fetch on a blocking session or connection."""
    statements, execute = PageStatements(analyzed, keys), blocking(executor).execute
    return run_without_loop(function(statements, execute, *arguments, **options))


async def fetch_async(
    executor: AsyncExecutor,
    function: Fetch[T],
    analyzed: AnalyzedSelect,
    keys: SortColumns,
    *arguments: object,
    **options: object,
) -> T:
    """Fetch on an asynchronous session or connection."""
    statements, execute = PageStatements(analyzed, keys), asynchronous(executor).execute
    return await function(statements, execute, *arguments, **options)
