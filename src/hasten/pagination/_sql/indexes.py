"""Find an index that has a sort order, among the indexes that the mapped tables declare.

Indexes that exist only in the database are not found. That is harmless: the result decides how a
statement is written, not which rows it returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sqlalchemy import BigInteger, Column, Index, Integer, SmallInteger, Table, UniqueConstraint

from hasten._sqlalchemy.from_sources import is_partial
from hasten._sqlalchemy.sort_columns import SortColumn, SortColumns, to_sort_column


def find_index_for_order(
    equality_columns: SortColumns, sort_keys: SortColumns, dialect: str
) -> SortColumns | None:
    """Find an index that returns rows in the order of equality_columns + sort_keys.

    Returns these keys with the directions of the index, or None if there is no such index. Each of
    equality_columns has one value in all rows that are read, so its direction need not match. The
    first of sort_keys is NULL in all of these rows or in none, so the index may have NULLs in
    another place.
    """
    keys = (*equality_columns, *sort_keys)
    tables = {getattr(key.column, "table", None) for key in keys}
    if len(tables) != 1:
        return None
    (table,) = tables
    table = getattr(table, "element", table)
    if not isinstance(table, Table):
        return None
    found = [
        index_columns
        for index in _iter_declared_indexes(table, dialect)
        for index_columns in (index, tuple(key.reverse(dialect) for key in index))
        if _index_has_order(index_columns, equality_columns, sort_keys, dialect)
    ]
    if not found:
        return None
    first, place = sort_keys[0], len(equality_columns)
    # Prefer an index that also sorts the NULLs of the first key as requested.
    index_columns = max(
        found,
        key=lambda each: each[place].sorts_nulls_first(dialect) == first.sorts_nulls_first(dialect),
    )
    return tuple(
        replace(indexed, column=key.column)
        for key, indexed in zip(keys, index_columns, strict=False)
    )


def _index_has_order(
    index_columns: SortColumns, equality_columns: SortColumns, sort_keys: SortColumns, dialect: str
) -> bool:
    """Return whether the columns of an index begin with these keys. See `find_index_for_order`."""
    keys = (*equality_columns, *sort_keys)
    if len(index_columns) < len(keys) or any(
        indexed.column.name != getattr(key.column, "name", None)
        for indexed, key in zip(index_columns, keys, strict=False)
    ):
        return False
    for number, (indexed, key) in enumerate(
        zip(index_columns[len(equality_columns) :], sort_keys, strict=False)
    ):
        if indexed.descending != key.descending:
            return False
        if (
            number
            and key.nullable
            and indexed.sorts_nulls_first(dialect) != key.sorts_nulls_first(dialect)
        ):
            return False
    return True


def _iter_declared_indexes(table: Table, dialect: str) -> Iterator[SortColumns]:
    """Return the columns of each index: of the primary key, unique constraints and indexes.

    Partial indexes are left out. Of an index with expressions, only the columns before the first
    expression are returned.
    """
    yield tuple(SortColumn(column, nullable=True) for column in table.primary_key)
    # SQLite appends the row id to each index.
    last = _find_sqlite_row_id_column(table) if dialect == "sqlite" else ()
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            yield (*(SortColumn(column, nullable=True) for column in constraint.columns), *last)
    for index in sorted(table.indexes, key=lambda each: each.name or ""):
        if not is_partial(index):
            keys = tuple(_iter_columns_before_expression(index))
            yield (*keys, *last) if len(keys) == len(index.expressions) else keys


def _find_sqlite_row_id_column(table: Table) -> SortColumns:
    """Return the column of a SQLite table that is its row id; () if it has none.

    That is an INTEGER PRIMARY KEY, unless the table is declared WITHOUT ROWID.
    """
    columns = list(table.primary_key)
    kind = columns[0].type if len(columns) == 1 else None
    is_integer = isinstance(kind, Integer) and not isinstance(kind, BigInteger | SmallInteger)
    has_one = table.dialect_options["sqlite"].get("with_rowid", True)
    return (SortColumn(columns[0]),) if is_integer and has_one else ()


def _iter_columns_before_expression(index: Index) -> Iterator[SortColumn]:
    """Return the columns of an index, up to the first expression that is not a column."""
    for expression in index.expressions:
        key = to_sort_column(expression)
        if not isinstance(key.column, Column):
            return
        yield key
