"""Selects of the rows at an offset.

The database reads all rows that it skips. A *deferred join* makes that cheaper: it skips in the
index and fetches only the rows of the page. A page near the end is read from the end, so that it
never skips more than half of the table.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import UnaryExpression, and_
from sqlalchemy.sql import operators

from hasten._sqlalchemy.analysis import AnalyzedSelect
from hasten._sqlalchemy.selects import Expression, Selection, select_only
from hasten._sqlalchemy.sort_columns import SortColumns, order_by
from hasten.pagination._sql.keyset import Amount, check_distinct, with_keys

DEFER_FROM: Final = 1_000
"""From this offset on, a join with the primary keys is cheaper than skipping whole rows."""


def page(
    analyzed: AnalyzedSelect,
    keys: SortColumns,
    *,
    limit: Amount,
    offset: Amount,
    dialect: str,
    defer: bool,
    keyed: bool = False,
) -> Selection:
    """Return a select of up to limit rows at an offset.

    keyed also selects the keys (see `with_keys`); otherwise they are sorted by and not selected.
    defer finds the primary keys first, which is cheaper from `DEFER_FROM` on. Rows that are
    grouped, DISTINCT or identified by a key of the caller are never deferred.
    """
    check_distinct(analyzed, keys)
    statement = with_keys(analyzed, keys) if keyed else analyzed.statement
    order = order_by(keys, dialect)
    if not defer or not can_defer(analyzed):
        return statement.order_by(*order).limit(limit).offset(offset)
    identity = [key.column for key in analyzed.identity]
    found = select_only(analyzed.statement, *identity).order_by(*order).limit(limit).offset(offset)
    narrow = found.subquery("hasten_found")
    same = [
        one == (_not_indexed(other) if dialect == "sqlite" else other)
        for one, other in zip(identity, narrow.c, strict=True)
    ]
    return statement.join(narrow, and_(*same)).order_by(*order)


def _not_indexed(column: Expression) -> Expression:
    """`+column`: the same value, for which SQLite uses and builds no index.

    So the few keys that were found stay the outer loop. SQLite 3.46 would otherwise scan the whole
    table in order, and look up each row in an index on the keys that it builds first.
    """
    return UnaryExpression(column, operator=operators.custom_op("+"), type_=column.type)


def can_defer(analyzed: AnalyzedSelect) -> bool:
    """Return whether the primary keys can be found first, and then joined."""
    is_plain = not (analyzed.is_grouped or analyzed.is_distinct or analyzed.is_keyed)
    return is_plain and not any(key.nullable for key in analyzed.identity)


def from_end(*, limit: int, offset: int, total: int) -> tuple[int, int] | None:
    """Return the limit and offset of the same rows from the end; None if the start is nearer.

    total has to be exact. The rows come in reverse order.
    """
    end = min(offset + limit, total)
    skipped = total - end
    if skipped >= offset or end <= offset:
        return None
    return end - offset, skipped
