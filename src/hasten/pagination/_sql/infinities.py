"""The infinities of PostgreSQL, which drivers read as the first and last date of Python.

asyncpg reads ``infinity`` as ``date.max`` or ``datetime.max``, and writes these as ``infinity``: so
a position with such a value does not show which of the two its row has. (psycopg cannot read an
infinity at all.) The statement checks which of the two the column contains.
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


def finite_or_infinite(key: SortColumn, value: object) -> Expression | None:
    """Return an expression for a value that may be an infinity, None for every other value.

    If the column contains both the finite value and the infinity, the statement fails: an error is
    better than a wrong page.
    """
    infinity = _infinity_for(value)
    table: Any = getattr(key.column, "table", None)
    if infinity is None or table is None or not isinstance(key.column.type, Date | DateTime):
        return None
    # As text, which no driver converts.
    finite, infinite = (_as_text(text, key) for text in (_written(value), infinity))
    # An alias, because the sub-query must not refer to the row of the outer select.
    beside = table.alias()
    column = beside.corresponding_column(key.column)
    has_finite, has_infinite = (
        exists(select(literal(1)).select_from(beside).where(column == each)).correlate(None)
        for each in (finite, infinite)
    )
    # Not a constant, because PostgreSQL evaluates constants first and would always fail.
    error: Any = func.concat("cannot be distinguished from infinity: ", has_finite, type_=String)
    return case(
        (has_finite & has_infinite, cast(error, key.column.type)),
        (has_infinite, infinite),
        else_=finite,
    )


def may_be_infinite(position: Sequence[object], keys: SortColumns) -> bool:
    """Return whether a position has a value that may be an infinity."""
    pairs = zip(keys, position, strict=True)
    return any(
        _infinity_for(value) is not None and finite_or_infinite(key, value) is not None
        for key, value in pairs
    )


def _infinity_for(value: object) -> str | None:
    if isinstance(value, datetime):
        return _DATETIMES.get(value.replace(tzinfo=None))
    return _DATES.get(value) if isinstance(value, date) else None


def _written(value: object) -> str:
    assert isinstance(value, date)
    return value.isoformat()


def _as_text(text: str, key: SortColumn) -> Expression:
    return cast(literal(text, String), key.column.type)
