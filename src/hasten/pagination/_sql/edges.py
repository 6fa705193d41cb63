"""The first and the last date of Python, which may stand for an infinity of PostgreSQL.

asyncpg reads ``infinity`` as ``date.max`` or ``datetime.max``, and writes these as ``infinity``: so
a position that holds one of them does not say which of the two its row had. (psycopg refuses to
read an infinity at all.) The database knows: unless it holds both, it is the one that it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import Date, DateTime, String, case, cast, exists, func, literal, select

from hasten.pagination._sql.reading import Expression, SortColumn, SortColumns

_OF_DAYS: Final = {date.max: "infinity", date.min: "-infinity"}
_OF_MOMENTS: Final = {
    datetime.max: "infinity",  # noqa: DTZ901 - whatever the zone
    datetime.min: "-infinity",  # noqa: DTZ901
}


def at_edge(key: SortColumn, value: object) -> Expression | None:
    """The value as PostgreSQL has it; None for one that is no edge.

    Where the column holds both the edge and the infinity beyond it, the statement fails: no page
    is better than a wrong one.
    """
    infinity = _infinity_for(value)
    table: Any = getattr(key.column, "table", None)
    if infinity is None or table is None or not isinstance(key.column.type, Date | DateTime):
        return None
    # As text, which no driver takes for something else.
    finite, infinite = (_as_text(text, key) for text in (_written(value), infinity))
    # An alias, or the select would be one of the row that it stands beside.
    beside = table.alias()
    column = beside.corresponding_column(key.column)
    has_finite, has_infinite = (
        exists(select(literal(1)).select_from(beside).where(column == edge)).correlate(None)
        for edge in (finite, infinite)
    )
    # Not a constant, or it would fail before anybody looked at the row.
    told_apart: Any = func.concat("not to be told from infinity: ", has_finite, type_=String)
    return case(
        (has_finite & has_infinite, cast(told_apart, key.column.type)),
        (has_infinite, infinite),
        else_=finite,
    )


def is_at_edge(position: Sequence[object], keys: SortColumns) -> bool:
    """Whether a position holds such a value."""
    pairs = zip(keys, position, strict=True)
    return any(
        _infinity_for(value) is not None and at_edge(key, value) is not None for key, value in pairs
    )


def _infinity_for(value: object) -> str | None:
    if isinstance(value, datetime):
        return _OF_MOMENTS.get(value.replace(tzinfo=None))
    return _OF_DAYS.get(value) if isinstance(value, date) else None


def _written(value: object) -> str:
    assert isinstance(value, date)
    return value.isoformat()


def _as_text(text: str, key: SortColumn) -> Expression:
    return cast(literal(text, String), key.column.type)
