"""Fetch slices of selects without a paginator."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from hasten._coroutines import run_without_suspending
from hasten._sqlalchemy.analysis import AnalyzedSelect
from hasten._sqlalchemy.execution import (
    AsyncExecutor,
    Executor,
    wrap_async_session,
    wrap_blocking_session,
)
from hasten._sqlalchemy.sort_columns import SortColumns
from hasten.pagination._slices import KeysetSlice, OffsetSlice
from hasten.pagination._sql.fetching import fetch_keyset_slice, fetch_offset_slice
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
    statements, execute = PageStatements(analyzed, keys), wrap_blocking_session(executor).execute
    return run_without_suspending(function(statements, execute, *arguments, **options))


async def fetch_async(
    executor: AsyncExecutor,
    function: Fetch[T],
    analyzed: AnalyzedSelect,
    keys: SortColumns,
    *arguments: object,
    **options: object,
) -> T:
    """Fetch on an asynchronous session or connection."""
    statements, execute = PageStatements(analyzed, keys), wrap_async_session(executor).execute
    return await function(statements, execute, *arguments, **options)


def keyset_slice(
    executor: Executor, analyzed: AnalyzedSelect, keys: SortColumns, position: object, **how: object
) -> KeysetSlice:
    """Fetch the rows after a position on a blocking session or connection."""
    return fetch(executor, fetch_keyset_slice, analyzed, keys, position, **how)


def offset_slice(
    executor: Executor, analyzed: AnalyzedSelect, keys: SortColumns, **how: object
) -> OffsetSlice:
    """Fetch the rows at an offset on a blocking session or connection."""
    return fetch(executor, fetch_offset_slice, analyzed, keys, **how)


async def keyset_slice_async(
    executor: AsyncExecutor,
    analyzed: AnalyzedSelect,
    keys: SortColumns,
    position: object,
    **how: object,
) -> KeysetSlice:
    """Fetch the rows after a position on an asynchronous session or connection."""
    return await fetch_async(executor, fetch_keyset_slice, analyzed, keys, position, **how)


async def offset_slice_async(
    executor: AsyncExecutor, analyzed: AnalyzedSelect, keys: SortColumns, **how: object
) -> OffsetSlice:
    """Fetch the rows at an offset on an asynchronous session or connection."""
    return await fetch_async(executor, fetch_offset_slice, analyzed, keys, **how)
