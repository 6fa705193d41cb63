"""Infinite dates of PostgreSQL, which asyncpg cannot distinguish from Python's extreme dates.

asyncpg reads ``infinity`` as ``date.max`` or ``datetime.max`` (``-infinity`` as ``min``), and
writes these values as infinities. So if a cursor contains such a value, its row may contain either
the date or the infinity. The SQL expressions of this module look in the table which of the two the
column contains. (psycopg raises an error when it reads an infinity.)
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import Date, DateTime, String, case, cast, exists, func, literal, select

from hasten._sqlalchemy.selects import Expression
from hasten._sqlalchemy.sort_columns import SortColumn, SortColumns

_DATES: Final = {date.max: "infinity", date.min: "-infinity"}
_DATETIMES: Final = {
    datetime.max: "infinity",  # noqa: DTZ901 - whatever the zone
    datetime.min: "-infinity",  # noqa: DTZ901
}


def make_date_or_infinity_expression(key: SortColumn, value: object) -> Expression | None:
    """Return an SQL expression whose value is the date or the infinity.

    It is the infinity if the column contains that. asyncpg reads both as value, which is the first
    or the last date of Python. Returns None for other values. If the column contains both the date
    and the infinity, executing the expression fails: an error is better than a wrong page.
    """
    infinity = _to_infinity_name(value)
    table: Any = getattr(key.column, "table", None)
    if infinity is None or table is None or not isinstance(key.column.type, Date | DateTime):
        return None
    # Drivers convert dates but not texts, so the values are passed as text and cast in SQL.
    finite, infinite = (_cast_text(text, key) for text in (_to_iso_text(value), infinity))
    # An alias, because the sub-query must search the whole table, not the row of the outer select.
    searched = table.alias()
    column = searched.corresponding_column(key.column)
    has_finite, has_infinite = (
        exists(select(literal(1)).select_from(searched).where(column == each)).correlate(None)
        for each in (finite, infinite)
    )
    # The text is no date, so casting it fails. It ends with the result of a sub-query, because
    # PostgreSQL evaluates constants when it plans the statement, which would then always fail.
    error: Any = func.concat("cannot be distinguished from infinity: ", has_finite, type_=String)
    return case(
        (has_finite & has_infinite, cast(error, key.column.type)),
        (has_infinite, infinite),
        else_=finite,
    )


def may_contain_infinity(position: Sequence[object], keys: SortColumns) -> bool:
    """Return whether a position contains a value that may stand for an infinity."""
    pairs = zip(keys, position, strict=True)
    return any(
        _to_infinity_name(value) is not None
        and make_date_or_infinity_expression(key, value) is not None
        for key, value in pairs
    )


def _to_infinity_name(value: object) -> str | None:
    """Return the infinity that asyncpg reads as this value; None for other values."""
    if isinstance(value, datetime):
        return _DATETIMES.get(value.replace(tzinfo=None))
    return _DATES.get(value) if isinstance(value, date) else None


def _to_iso_text(value: object) -> str:
    assert isinstance(value, date)
    return value.isoformat()


def _cast_text(text: str, key: SortColumn) -> Expression:
    """Return a text, cast to the type of a column in SQL."""
    return cast(literal(text, String), key.column.type)
