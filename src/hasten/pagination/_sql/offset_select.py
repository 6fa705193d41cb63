"""Selects that read the rows at an offset.

A database reads all rows that OFFSET skips. Two techniques make that cheaper. A *deferred join*
finds the primary keys of the page in an index first, and then reads only these rows. And a page
near the end is read from the end, so that at most half of the rows are skipped.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import UnaryExpression, and_
from sqlalchemy.sql import operators

from hasten._sqlalchemy.analysis import AnalyzedSelect
from hasten._sqlalchemy.selects import Expression, Selection, select_only
from hasten._sqlalchemy.sort_columns import SortColumns, make_order_by_terms
from hasten.pagination._sql.keyset import Amount, append_sort_keys, check_keys_selected_if_distinct

DEFER_FROM: Final = 1_000
"""The offset from which on a deferred join is cheaper than skipping whole rows."""


def select_page_at_offset(
    analyzed: AnalyzedSelect,
    keys: SortColumns,
    *,
    limit: Amount,
    offset: Amount,
    dialect: str,
    use_deferred_join: bool,
    with_sort_keys: bool = False,
) -> Selection:
    """Return a select of up to limit rows at an offset.

    If with_sort_keys, the sort keys are appended to the columns (see `append_sort_keys`). If
    use_deferred_join, the select uses a deferred join, unless `can_use_deferred_join` is False.
    """
    check_keys_selected_if_distinct(analyzed, keys)
    statement = append_sort_keys(analyzed, keys) if with_sort_keys else analyzed.statement
    order = make_order_by_terms(keys, dialect)
    if not use_deferred_join or not can_use_deferred_join(analyzed):
        return statement.order_by(*order).limit(limit).offset(offset)
    identity = [key.column for key in analyzed.identity]
    found = select_only(analyzed.statement, *identity).order_by(*order).limit(limit).offset(offset)
    narrow = found.subquery("hasten_found")
    same = [
        one == (_prevent_sqlite_index_use(other) if dialect == "sqlite" else other)
        for one, other in zip(identity, narrow.c, strict=True)
    ]
    return statement.join(narrow, and_(*same)).order_by(*order)


def _prevent_sqlite_index_use(column: Expression) -> Expression:
    """Return ``+column``: the same value, but SQLite does not use an index to compare it.

    So SQLite loops over the few primary keys that were found, and looks up their rows. Otherwise,
    SQLite 3.46 would loop over the whole table, and look up each row among the keys.
    """
    return UnaryExpression(column, operator=operators.custom_op("+"), type_=column.type)


def can_use_deferred_join(analyzed: AnalyzedSelect) -> bool:
    """Return whether a deferred join is possible: the primary keys identify the rows.

    They do not if the rows are grouped, DISTINCT, or identified by columns that the caller named.
    """
    is_plain = not (analyzed.is_grouped or analyzed.is_distinct or analyzed.is_keyed)
    return is_plain and not any(key.nullable for key in analyzed.identity)


def to_limit_and_offset_from_end_if_cheaper(
    *, limit: int, offset: int, total: int
) -> tuple[int, int] | None:
    """Convert the limit and offset of a page for reading it from the end, in reverse order.

    Returns None if reading from the start skips fewer rows. total must be exact.
    """
    end = min(offset + limit, total)
    skipped = total - end
    if skipped >= offset or end <= offset:
        return None
    return end - offset, skipped
