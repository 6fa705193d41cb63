"""Statements that count the rows of a select: exactly, up to a cap, or by PostgreSQL's estimate.

They count all rows that the select returns, not only those of one page. ORDER BY and loader options
are removed. Outer joins whose columns are not used stay: PostgreSQL removes them itself if a unique
key proves that they repeat no row.
"""

from __future__ import annotations

import json
import secrets
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    Integer,
    Select,
    String,
    Table,
    case,
    cast,
    column,
    func,
    literal_column,
    select,
    table,
    true,
)
from sqlalchemy.dialects.postgresql import REGCLASS
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import InternalTraversal

from hasten._sqlalchemy.analysis import AnalyzedSelect
from hasten._sqlalchemy.selects import Selection, copy_orm_filters_to_outer, select_only
from hasten._sqlalchemy.sort_columns import SortColumn, SortColumns, make_order_by_terms
from hasten.pagination._counts import Count
from hasten.pagination._sql.keyset import Amount, find_key_indexes

HERE: Final = "hasten_here"
"""The label of the column that is 1 in the rows of a page, and NULL if the page is empty."""


def make_count_select(
    analyzed: AnalyzedSelect, *, cap: int | None = None, dialect: str = ""
) -> Select[int]:
    """Return a select that counts the rows. With a cap, counting stops at cap + 1."""
    if cap is not None and dialect == "sqlite" and analyzed.table is not None:
        return _make_capped_sqlite_row_count(analyzed, cap)
    if cap is not None:
        some = select_only(analyzed.statement, literal_column("1")).limit(cap + 1)
        if analyzed.is_grouped or analyzed.is_distinct:
            some = _select_columns_needed_to_count(analyzed).limit(cap + 1)
        return _make_subquery_count(some)
    if analyzed.is_grouped or analyzed.is_distinct:
        return _make_subquery_count(_select_columns_needed_to_count(analyzed))
    counted: Any = select_only(analyzed.statement, func.count())
    found: Select[int] = counted
    return found


def _make_subquery_count(rows: Selection) -> Select[int]:
    """Return ``SELECT count(*) FROM (rows)``."""
    found: Any = copy_orm_filters_to_outer(rows, select(func.count()).select_from(rows.subquery()))
    counted: Select[int] = found
    return counted


def _make_capped_sqlite_row_count(analyzed: AnalyzedSelect, cap: int) -> Select[int]:
    """Return a select that counts all rows of a SQLite table, up to cap + 1.

    This takes less than half the time of counting a sub-query with a LIMIT. It first checks whether
    there is a row after the first cap rows: skipping a row is cheaper than counting it. If there is
    none, the table is small, and ``count(*)`` without a condition is one fast instruction.
    """
    row = select_only(analyzed.statement, literal_column("1")).correlate(None)
    whole: Any = select_only(analyzed.statement, func.count()).correlate(None)
    is_longer = row.limit(1).offset(cap).exists()
    total = case((is_longer, cap + 1), else_=whole.scalar_subquery())
    found: Any = copy_orm_filters_to_outer(row, select(total))
    counted: Select[int] = found
    return counted


def to_capped_count(counted_rows: int, cap: int | None) -> Count:
    """Convert the number that a select of `make_count_select` returned to a `Count`.

    Above the cap, which must be the one that the select was built with, the `Count` is "at least
    cap".
    """
    if cap is not None and counted_rows > cap:
        return Count(cap, "gte")
    return Count(counted_rows)


def _select_columns_needed_to_count(analyzed: AnalyzedSelect) -> Selection:
    """Return a select with as many rows, but only with the columns that their number depends on.

    Those are the columns that DISTINCT compares. Without DISTINCT, the column is the constant 1.
    """
    statement = analyzed.statement
    if analyzed.is_distinct:
        return select_only(statement, *(each["expr"] for each in statement.column_descriptions))
    return select_only(statement, literal_column("1"))


# Estimates of PostgreSQL --------------------------------------------------------------------------


def make_estimate_statement(analyzed: AnalyzedSelect) -> Executable:
    """Return a PostgreSQL statement that estimates the number of rows.

    `parse_estimated_count` converts its result. For a whole table, the statement reads the
    statistics of the table; for another select, it is EXPLAIN.
    """
    if analyzed.table is None:
        return _Explain(_select_columns_needed_to_count(analyzed))
    name = cast(_TableName(analyzed.table), REGCLASS)
    catalogue = table("pg_class", column("oid", Integer), column("reltuples", BigInteger))
    return select(cast(catalogue.c.reltuples, BigInteger)).where(catalogue.c.oid == name)


def parse_estimated_count(plan_or_reltuples: object) -> Count | None:
    """Convert the result of `make_estimate_statement` to a `Count`.

    That is the plan of EXPLAIN, or ``reltuples`` of the table. Returns None if PostgreSQL has no
    statistics yet.
    """
    value = plan_or_reltuples
    if isinstance(value, str):
        value = json.loads(value)
    if isinstance(value, list):
        return Count(int(value[0]["Plan"]["Plan Rows"]), "estimate")
    assert value is None or isinstance(value, int)
    return None if value is None or value < 0 else Count(value, "estimate")


_QUOTE: Final = f"$hasten_{secrets.token_hex(8)}$"
"""The delimiter of a dollar-quoted string in PostgreSQL. The string contains a table name, which
may contain quotes; the random delimiter is in no table name."""


class _TableName(ColumnElement[str]):
    """An SQL string literal that contains the name of a table, with its schema.

    A parameter cannot be used: only in the text of the statement does SQLAlchemy replace the schema
    as ``schema_translate_map`` says.
    """

    inherit_cache = True
    _traverse_internals = [("table_named", InternalTraversal.dp_clauseelement)]  # noqa: RUF012

    def __init__(self, table_named: Table) -> None:
        self.table_named = table_named
        self.type = String()


@compiles(_TableName)
def _compile_name(element: _TableName, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ARG001
    return _QUOTE + compiler.preparer.format_table(element.table_named) + _QUOTE


class _Explain(Executable, ClauseElement):
    """``EXPLAIN (FORMAT JSON)`` of a select, as a SQLAlchemy statement."""

    inherit_cache = False

    def __init__(self, statement: Selection) -> None:
        self.statement = statement


@compiles(_Explain)
def _compile_explain(element: _Explain, compiler: SQLCompiler, **options: Any) -> str:
    return "EXPLAIN (FORMAT JSON) " + compiler.process(element.statement, **options)


# Page and total in one statement ------------------------------------------------------------------


def add_total_column(page: Selection, count_select: Select[int]) -> Selection:
    """Append the total to the rows of a page, as a sub-query in its columns.

    An empty page has no row to carry the total. (``count(*) OVER ()`` is not used, because it would
    read all columns of every row of the table.)
    """
    return page.add_columns(count_select.correlate(None).scalar_subquery().label("hasten_total"))


def add_total_column_unless_past_end(
    page: Selection, count_select: Select[int], *, offset: Amount
) -> Selection:
    """Append the total to the rows of a page, but return no rows if the page is past the end.

    PostgreSQL counts once, and does not read the page if the total is not higher than the offset.
    """
    total = select(count_select.subquery().c[0].label("total")).cte("hasten_count")
    number = select(total.c.total).scalar_subquery()
    return page.where(number > offset).add_columns(number.label("hasten_total"))


def left_join_page_to_total(
    analyzed: AnalyzedSelect,
    page: Selection,
    count_select: Select[int],
    keys: SortColumns,
    *,
    offset: Amount,
    dialect: str,
) -> Selection:
    """Return a PostgreSQL select of the total, joined with the rows of a page.

    It returns at least one row, so an empty page has a total, too. Each row is a row of the page,
    followed by the column `HERE` (NULL if the page is empty) and the total. A page past the end is
    not read. The page must select its sort keys (see `append_sort_keys`), by which the joined rows
    are sorted again, and only columns: a sub-query cannot return ORM objects.
    """
    total = select(count_select.subquery().c[0].label("total")).subquery("hasten_count")
    marked = page.add_columns(literal_column("1", Integer).label(HERE))
    rows = marked.where(total.c.total > offset).correlate(total).lateral("hasten_page")
    columns = list(rows.c)
    moved = tuple(
        SortColumn(columns[place], key.descending, key.nullable, key.nulls)
        for place, key in zip(find_key_indexes(analyzed, keys), keys, strict=True)
    )
    own = [
        # An expression, such as that of a hybrid property, has no name.
        column.label(getattr(each, "name", None) or f"hasten_{place}")
        for place, (column, each) in enumerate(
            zip(columns[: analyzed.width], page.selected_columns, strict=False)
        )
    ]
    found = (
        select(*own, columns[-1], total.c.total)
        .select_from(total.outerjoin(rows, true()))
        .order_by(*make_order_by_terms(moved, dialect))
    )
    return copy_orm_filters_to_outer(analyzed.statement, found)
