"""The rows at an offset.

The database walks all that it skips. What it walks can be made narrow (the deferred join: it
skips in the index, and fetches the rows of the page alone), and never needs to be more than half
of the table (the reversed tail: a page near the end is counted from the end).
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import UnaryExpression, and_
from sqlalchemy.sql import operators

from hasten.pagination._sql.keyset import Amount, check_distinct, order_by, with_keys
from hasten.pagination._sql.reading import Expression, Reading, Selection, SortColumns, only

DEFER_FROM: Final = 1_000
"""From this offset on a join with the primary keys costs less than whole rows do."""


def page(
    reading: Reading,
    keys: SortColumns,
    *,
    limit: Amount,
    offset: Amount,
    dialect: str,
    defer: bool,
    keyed: bool = False,
) -> Selection:
    """The select of up to limit rows; keyed has the keys behind their own elements.

    Sorted by they are in any case. What nobody asked for need not leave the database for that.
    defer says whether primary keys are looked for first, which pays from `DEFER_FROM` on. What is
    grouped, DISTINCT or told apart by a key of the caller's is never deferred.
    """
    check_distinct(reading, keys)
    statement = with_keys(reading, keys) if keyed else reading.statement
    order = order_by(keys, dialect)
    if not defer or not can_defer(reading):
        return statement.order_by(*order).limit(limit).offset(offset)
    identity = [key.column for key in reading.identity]
    found = only(reading.statement, *identity).order_by(*order).limit(limit).offset(offset)
    narrow = found.subquery("hasten_found")
    same = [
        one == (_not_indexed(other) if dialect == "sqlite" else other)
        for one, other in zip(identity, narrow.c, strict=True)
    ]
    return statement.join(narrow, and_(*same)).order_by(*order)


def _not_indexed(column: Expression) -> Expression:
    """`+column`: the same value, which SQLite looks up in no index, nor makes one for it.

    So the few keys that were found stay the outer loop. SQLite 3.46 would rather walk the whole
    table in its order, and look each row up in an index of the keys that it makes for that.
    """
    return UnaryExpression(column, operator=operators.custom_op("+"), type_=column.type)


def can_defer(reading: Reading) -> bool:
    is_plain = not (reading.is_grouped or reading.is_distinct or reading.is_keyed)
    return is_plain and not any(key.nullable for key in reading.identity)


def from_end(*, limit: int, offset: int, total: int) -> tuple[int, int] | None:
    """Limit and offset of the same rows read from the end; None if the start is nearer.

    total has to be exact. The rows come last one first: turn them round.
    """
    end = min(offset + limit, total)
    skipped = total - end
    if skipped >= offset or end <= offset:
        return None
    return end - offset, skipped
