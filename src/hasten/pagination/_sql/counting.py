"""How many rows there are: to the last one, up to a cap, or as the planner guesses.

What is counted is what a full read returns. ORDER BY and options that load entities are dropped.
Unused outer joins are left in: PostgreSQL drops them where a unique key proves them harmless.
"""

from __future__ import annotations

import json
import secrets
from typing import Any, Final, Literal, TypeAlias

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

from hasten.pagination._sql.keyset import Amount, layout, order_by
from hasten.pagination._sql.reading import Reading, Selection, SortColumn, SortColumns, around, only

Relation: TypeAlias = Literal["eq", "gte", "estimate"]
"""How a total stands to the truth."""

Total: TypeAlias = tuple[int, Relation]

HERE: Final = "hasten_here"


def count(reading: Reading, *, cap: int | None = None, dialect: str = "") -> Select[int]:
    """A select of the number of rows. With a cap, counting ends at the row after it."""
    if cap is not None and dialect == "sqlite" and reading.table is not None:
        return _of_table(reading, cap)
    if cap is not None:
        some = only(reading.statement, literal_column("1")).limit(cap + 1)
        if reading.is_grouped or reading.is_distinct:
            some = _whole(reading).limit(cap + 1)
        return _of_all(some)
    if reading.is_grouped or reading.is_distinct:
        return _of_all(_whole(reading))
    counted: Any = only(reading.statement, func.count())
    found: Select[int] = counted
    return found


def _of_all(rows: Selection) -> Select[int]:
    found: Any = around(select(func.count()).select_from(rows.subquery()), rows)
    counted: Select[int] = found
    return counted


def _of_table(reading: Reading, cap: int) -> Select[int]:
    """The same of a whole table of SQLite, at less than half of what counting row by row takes.

    It looks whether there is a row behind the cap, for to skip one is cheaper than to count it. If
    there is none, the table is short, and is counted by one instruction that reads all its pages.
    """
    row = only(reading.statement, literal_column("1")).correlate(None)
    whole: Any = only(reading.statement, func.count()).correlate(None)
    is_longer = row.limit(1).offset(cap).exists()
    found: Any = around(select(case((is_longer, cap + 1), else_=whole.scalar_subquery())), row)
    counted: Select[int] = found
    return counted


def as_total(counted: int, cap: int | None) -> Total:
    """What the result of `count` says."""
    if cap is not None and counted > cap:
        return cap, "gte"
    return counted, "eq"


def _whole(reading: Reading) -> Selection:
    """Rows whose columns count, be it by DISTINCT or by HAVING."""
    statement = reading.statement
    if reading.is_distinct:
        return only(statement, *(each["expr"] for each in statement.column_descriptions))
    return only(statement, literal_column("1"))


# Estimates of PostgreSQL --------------------------------------------------------------------------


def estimate(reading: Reading) -> Executable:
    """What PostgreSQL expects without counting. `read_estimate` reads its one value."""
    if reading.table is None:
        return _Explain(_whole(reading))
    name = cast(_Name(reading.table), REGCLASS)
    catalogue = table("pg_class", column("oid", Integer), column("reltuples", BigInteger))
    return select(cast(catalogue.c.reltuples, BigInteger)).where(catalogue.c.oid == name)


def read_estimate(value: object) -> Total | None:
    """None if there is none: PostgreSQL has not looked at the table since it was made."""
    if isinstance(value, str):
        value = json.loads(value)
    if isinstance(value, list):
        return int(value[0]["Plan"]["Plan Rows"]), "estimate"
    assert value is None or isinstance(value, int)
    return None if value is None or value < 0 else (value, "estimate")


_QUOTE: Final = f"$hasten_{secrets.token_hex(8)}$"
"""Around a text that may hold quotes of its own. What it holds cannot guess it."""


class _Name(ColumnElement[str]):
    """The name of a table as a text, with the schema that schema_translate_map stands for.

    SQLAlchemy writes that into the statement when it is executed, so it cannot be a parameter.
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
    """A page whose rows carry the total behind all else. A page without rows tells no total.

    Not `count(*) OVER ()`, which reads every row of the table to the last column.
    """
    return page.add_columns(counted.correlate(None).scalar_subquery().label("hasten_total"))


def beside_skipping(page: Selection, counted: Select[int], *, offset: Amount) -> Selection:
    """The same on PostgreSQL, where a page past the end is not looked for."""
    total = select(counted.subquery().c[0].label("total")).cte("hasten_count")
    number = select(total.c.total).scalar_subquery()
    return page.where(number > offset).add_columns(number.label("hasten_total"))


def lateral(
    reading: Reading,
    page: Selection,
    counted: Select[int],
    keys: SortColumns,
    *,
    offset: Amount,
    dialect: str,
) -> Selection:
    """One row at least: the total, whether there is a row of the page, and the row.

    page selects what `with_keys` does; the keys serve to sort its rows again, and stay inside. Past
    the end it is not looked for. Columns only: what comes out of a sub-query is no entity.
    """
    total = select(counted.subquery().c[0].label("total")).subquery("hasten_count")
    marked = page.add_columns(literal_column("1", Integer).label(HERE))
    rows = marked.where(total.c.total > offset).correlate(total).lateral("hasten_page")
    columns = list(rows.c)
    moved = tuple(
        SortColumn(columns[place], key.descending, key.nullable, key.nulls)
        for place, key in zip(layout(reading, keys), keys, strict=True)
    )
    own = [
        # An expression, as of a hybrid, has no name of its own.
        column.label(getattr(each, "name", None) or f"hasten_{place}")
        for place, (column, each) in enumerate(
            zip(columns[: reading.width], page.selected_columns, strict=False)
        )
    ]
    found = (
        select(*own, columns[-1], total.c.total)
        .select_from(total.outerjoin(rows, true()))
        .order_by(*order_by(moved, dialect))
    )
    return around(found, reading.statement)
