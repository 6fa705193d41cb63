"""Selects of the number of rows: exact, up to a cap, or estimated by the planner.

They count what the select returns without LIMIT. ORDER BY and options that load entities are
removed. Unused outer joins stay: PostgreSQL removes them where a unique key proves that they repeat
no row.
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
from hasten._sqlalchemy.selects import Selection, copy_orm_filters, select_only
from hasten._sqlalchemy.sort_columns import SortColumn, SortColumns, order_by
from hasten.pagination._counts import Count
from hasten.pagination._sql.keyset import Amount, layout

HERE: Final = "hasten_here"


def count(analyzed: AnalyzedSelect, *, cap: int | None = None, dialect: str = "") -> Select[int]:
    """Return a select of the number of rows. With a cap, it stops at the row after the cap."""
    if cap is not None and dialect == "sqlite" and analyzed.table is not None:
        return _of_table(analyzed, cap)
    if cap is not None:
        some = select_only(analyzed.statement, literal_column("1")).limit(cap + 1)
        if analyzed.is_grouped or analyzed.is_distinct:
            some = _whole(analyzed).limit(cap + 1)
        return _of_all(some)
    if analyzed.is_grouped or analyzed.is_distinct:
        return _of_all(_whole(analyzed))
    counted: Any = select_only(analyzed.statement, func.count())
    found: Select[int] = counted
    return found


def _of_all(rows: Selection) -> Select[int]:
    found: Any = copy_orm_filters(rows, select(func.count()).select_from(rows.subquery()))
    counted: Select[int] = found
    return counted


def _of_table(analyzed: AnalyzedSelect, cap: int) -> Select[int]:
    """Count a whole table of SQLite up to a cap, in less than half of the time.

    It checks whether there is a row after the cap, because skipping a row is cheaper than counting
    it. If there is none, the table is short, and one instruction counts it by reading all pages.
    """
    row = select_only(analyzed.statement, literal_column("1")).correlate(None)
    whole: Any = select_only(analyzed.statement, func.count()).correlate(None)
    is_longer = row.limit(1).offset(cap).exists()
    total = case((is_longer, cap + 1), else_=whole.scalar_subquery())
    found: Any = copy_orm_filters(row, select(total))
    counted: Select[int] = found
    return counted


def to_count(counted: int, cap: int | None) -> Count:
    """Convert the number that the select of `count` returned."""
    if cap is not None and counted > cap:
        return Count(cap, "gte")
    return Count(counted)


def _whole(analyzed: AnalyzedSelect) -> Selection:
    """Return a select of the rows with only the columns that DISTINCT compares."""
    statement = analyzed.statement
    if analyzed.is_distinct:
        return select_only(statement, *(each["expr"] for each in statement.column_descriptions))
    return select_only(statement, literal_column("1"))


# Estimates of PostgreSQL --------------------------------------------------------------------------


def estimate(analyzed: AnalyzedSelect) -> Executable:
    """Return a statement whose one value `read_estimate` reads: PostgreSQL's estimate."""
    if analyzed.table is None:
        return _Explain(_whole(analyzed))
    name = cast(_Name(analyzed.table), REGCLASS)
    catalogue = table("pg_class", column("oid", Integer), column("reltuples", BigInteger))
    return select(cast(catalogue.c.reltuples, BigInteger)).where(catalogue.c.oid == name)


def read_estimate(value: object) -> Count | None:
    """Return the estimate, None if PostgreSQL has not analyzed the table yet."""
    if isinstance(value, str):
        value = json.loads(value)
    if isinstance(value, list):
        return Count(int(value[0]["Plan"]["Plan Rows"]), "estimate")
    assert value is None or isinstance(value, int)
    return None if value is None or value < 0 else Count(value, "estimate")


_QUOTE: Final = f"$hasten_{secrets.token_hex(8)}$"
"""A dollar quote, around a text that may hold other quotes. It is random, so it is not in there."""


class _Name(ColumnElement[str]):
    """The name of a table as a text, with the schema of schema_translate_map.

    SQLAlchemy writes the schema into the statement at execution, so it cannot be a parameter.
    """

    inherit_cache = True
    _traverse_internals = [("table_named", InternalTraversal.dp_clauseelement)]  # noqa: RUF012

    def __init__(self, table_named: Table) -> None:
        self.table_named = table_named
        self.type = String()


@compiles(_Name)
def _name(element: _Name, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ARG001
    return _QUOTE + compiler.preparer.format_table(element.table_named) + _QUOTE


class _Explain(Executable, ClauseElement):
    inherit_cache = False

    def __init__(self, statement: Selection) -> None:
        self.statement = statement


@compiles(_Explain)
def _explain(element: _Explain, compiler: SQLCompiler, **options: Any) -> str:
    return "EXPLAIN (FORMAT JSON) " + compiler.process(element.statement, **options)


# Page and total in one statement ------------------------------------------------------------------


def beside(page: Selection, counted: Select[int]) -> Selection:
    """Return a select whose rows end with the total. A page without rows has no total.

    `count(*) OVER ()` would read every row of the table with all columns.
    """
    return page.add_columns(counted.correlate(None).scalar_subquery().label("hasten_total"))


def beside_skipping(page: Selection, counted: Select[int], *, offset: Amount) -> Selection:
    """Return the same for PostgreSQL, which does not search for a page past the end."""
    total = select(counted.subquery().c[0].label("total")).cte("hasten_count")
    number = select(total.c.total).scalar_subquery()
    return page.where(number > offset).add_columns(number.label("hasten_total"))


def lateral(
    analyzed: AnalyzedSelect,
    page: Selection,
    counted: Select[int],
    keys: SortColumns,
    *,
    offset: Amount,
    dialect: str,
) -> Selection:
    """Return a select of at least one row: the row, whether it is of the page, and the total.

    page selects its keys (see `with_keys`); they sort the rows again and are not selected. A page
    past the end is not searched for. For columns only: a sub-query returns no entities.
    """
    total = select(counted.subquery().c[0].label("total")).subquery("hasten_count")
    marked = page.add_columns(literal_column("1", Integer).label(HERE))
    rows = marked.where(total.c.total > offset).correlate(total).lateral("hasten_page")
    columns = list(rows.c)
    moved = tuple(
        SortColumn(columns[place], key.descending, key.nullable, key.nulls)
        for place, key in zip(layout(analyzed, keys), keys, strict=True)
    )
    own = [
        # An expression, as of a hybrid, has no name.
        column.label(getattr(each, "name", None) or f"hasten_{place}")
        for place, (column, each) in enumerate(
            zip(columns[: analyzed.width], page.selected_columns, strict=False)
        )
    ]
    found = (
        select(*own, columns[-1], total.c.total)
        .select_from(total.outerjoin(rows, true()))
        .order_by(*order_by(moved, dialect))
    )
    return copy_orm_filters(analyzed.statement, found)
