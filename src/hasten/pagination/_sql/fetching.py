"""Fetch the rows of one page, and the total, with as few statements as possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hasten._sqlalchemy.analysis import AnalyzedSelect
from hasten._sqlalchemy.execution import Execute, Rows
from hasten.pagination._counts import Capped, Count, UncachedCounting
from hasten.pagination._slices import KeysetSlice, OffsetSlice
from hasten.pagination._sql import counting, offset_select
from hasten.pagination._sql.page_statements import (
    PageStatements,
    keyset_parameters,
    make_count_select,
    make_estimate_statement,
    offset_parameters,
    select_at_offset,
    select_at_offset_with_count,
)


async def fetch_keyset_slice(
    statements: PageStatements,
    execute: Execute,
    position: Sequence[object] | None,
    *,
    limit: int,
    dialect: str,
    backwards: bool = False,
) -> KeysetSlice:
    """Fetch up to limit rows after a position, or before it if backwards.

    position has a value for each sort key; None stands for the start of all rows (backwards: for
    their end).
    """
    rows: list[Any] = []
    for statement in statements.select_after_position(dialect, position, backwards=backwards):
        missing = limit + 1 - len(rows)
        found = await execute(statement, keyset_parameters(position, limit=missing))
        rows += _without_repeated_objects(statements.analyzed, found).all()
        if len(rows) > limit:
            break
    has_more = len(rows) > limit
    del rows[limit:]
    if backwards:
        rows.reverse()
    places = statements.key_indexes
    ends = [tuple([row[place] for place in places]) for row in (rows[:1] + rows[-1:])]
    first, last = ends or (None, None)
    return KeysetSlice(_without_extra_columns(statements.analyzed, rows), has_more, first, last)


async def fetch_offset_slice(
    statements: PageStatements,
    execute: Execute,
    *,
    limit: int,
    offset: int,
    dialect: str,
    count: UncachedCounting = "exact",
) -> OffsetSlice:
    """Fetch up to limit rows at an offset, and the total.

    At a low offset, one statement reads the rows and counts. At a high offset, a first statement
    counts: with the total, a page near the end can be read from the end, and one past the end need
    not be read, which saves more time than the second round trip takes.
    """
    # Reading one row more than the page shows whether there are more.
    most = limit + 1
    if count == "none":
        rows = await _fetch_rows_at_offset(statements, execute, most, offset, dialect)
        return OffsetSlice(rows[:limit], len(rows) > limit)
    if count != "estimated" and offset < offset_select.DEFER_FROM:
        return await _fetch_page_and_count(
            statements, execute, limit, offset, dialect, _get_count_cap(count)
        )
    total = await fetch_count(statements, execute, dialect=dialect, count=count)
    if total.relation == "eq":
        assert total.total is not None
        if offset >= total.total:
            return OffsetSlice([], has_more=False, count=total)
        tail = offset_select.to_limit_and_offset_from_end_if_cheaper(
            limit=limit, offset=offset, total=total.total
        )
        if tail is not None:
            rows = await _fetch_rows_at_offset(statements, execute, *tail, dialect, from_end=True)
            return OffsetSlice(rows, offset + limit < total.total, total)
    rows = await _fetch_rows_at_offset(statements, execute, most, offset, dialect)
    return OffsetSlice(rows[:limit], len(rows) > limit, total)


async def fetch_count(
    statements: PageStatements, execute: Execute, *, dialect: str, count: UncachedCounting = "exact"
) -> Count:
    """Count the rows, or read PostgreSQL's estimate for ``count="estimated"``.

    If there is no estimate, and on other databases, the rows are counted.
    """
    if count == "estimated" and dialect == "postgresql":
        estimated = counting.parse_estimated_count(
            (await execute(statements.get_or_build_statement(make_estimate_statement), {})).scalar()
        )
        if estimated is not None:
            return estimated
    cap = _get_count_cap(count)
    found = await execute(statements.get_or_build_statement(make_count_select, dialect, cap), {})
    return counting.to_capped_count(int(found.scalar_one()), cap)


def _get_count_cap(count: UncachedCounting) -> int | None:
    return count.limit if isinstance(count, Capped) else None


async def _fetch_rows_at_offset(
    statements: PageStatements,
    execute: Execute,
    limit: int,
    offset: int,
    dialect: str,
    *,
    from_end: bool = False,
) -> list[Any]:
    """Fetch up to limit rows at an offset, in the requested order.

    If from_end, the offset counts from the last row backwards.
    """
    use_deferred_join = offset >= offset_select.DEFER_FROM
    statement = statements.get_or_build_statement(
        select_at_offset, dialect, use_deferred_join, from_end
    )
    found = await execute(statement, offset_parameters(limit=limit, offset=offset))
    rows = _without_extra_columns(
        statements.analyzed, list(_without_repeated_objects(statements.analyzed, found).all())
    )
    return rows[::-1] if from_end else rows


async def _fetch_page_and_count(
    statements: PageStatements,
    execute: Execute,
    limit: int,
    offset: int,
    dialect: str,
    cap: int | None,
) -> OffsetSlice:
    """Fetch up to limit rows at an offset, and the total, with one statement.

    An empty page may need a second one for the total. See `select_at_offset_with_count`.
    """
    statement = statements.get_or_build_statement(select_at_offset_with_count, dialect, cap)
    parameters = offset_parameters(limit=limit + 1, offset=offset, cap=cap)
    rows = list(
        _without_repeated_objects(statements.analyzed, await execute(statement, parameters)).all()
    )
    if not rows and offset:
        # The page is past the end, so no row carried the total.
        found = await execute(
            statements.get_or_build_statement(make_count_select, dialect, cap), {}
        )
        number = int(found.scalar_one())
    else:
        number = int(rows[0][-1]) if rows else 0
    is_lateral = dialect == "postgresql" and not statements.analyzed.holds_entities
    if is_lateral and rows[0][-2] is None:
        rows = []
    has_more = len(rows) > limit
    shown = _without_extra_columns(statements.analyzed, rows[:limit])
    return OffsetSlice(shown, has_more, counting.to_capped_count(number, cap))


# Rows ---------------------------------------------------------------------------------------------


def _without_repeated_objects(analyzed: AnalyzedSelect, rows: Rows) -> Rows:
    """Remove repeated ORM objects, which ``joinedload()`` of a collection causes."""
    return rows.unique() if analyzed.holds_entities else rows


def _without_extra_columns(analyzed: AnalyzedSelect, rows: list[Any]) -> list[Any]:
    """Return the rows without the sort keys and totals that were added to the select.

    If the select has one element, return its values instead of rows.
    """
    width = analyzed.width
    if width == 1:
        return [row[0] for row in rows]
    if not rows or len(rows[0]) == width:
        return rows
    return [row[:width] for row in rows]
