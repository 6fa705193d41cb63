"""Which index has rows in an order, as far as the tables of the application say.

Indexes that only the database knows are not seen. Nothing gets wrong by that: what is found here
decides on the words of a statement, not on its rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, SmallInteger, Table, UniqueConstraint
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import UnaryExpression

from hasten.pagination._sql.reading import SortColumn, SortColumns


def find_index(prefix: SortColumns, rest: SortColumns, dialect: str) -> SortColumns | None:
    """The keys in the words of an index that has rows in this order, None if none has.

    In each key of prefix all rows are the same, so that its direction is of no matter; the first
    key of rest is NULL in all rows or in none.
    """
    keys = (*prefix, *rest)
    tables = {getattr(key.column, "table", None) for key in keys}
    if len(tables) != 1:
        return None
    (table,) = tables
    table = getattr(table, "element", table)
    if not isinstance(table, Table):
        return None
    found = [
        words
        for index in _orders_of(table, dialect)
        for words in (index, tuple(key.reversed(dialect) for key in index))
        if _serves(words, prefix, rest, dialect)
    ]
    if not found:
        return None
    first, place = rest[0], len(prefix)
    # Of several, rather the one that also has the NULLs of the first key where they are wanted.
    words = max(
        found, key=lambda each: each[place].nulls_first(dialect) == first.nulls_first(dialect)
    )
    return tuple(replace(word, column=key.column) for key, word in zip(keys, words, strict=False))


def _serves(words: SortColumns, prefix: SortColumns, rest: SortColumns, dialect: str) -> bool:
    keys = (*prefix, *rest)
    if len(words) < len(keys) or any(
        word.column.name != getattr(key.column, "name", None)
        for word, key in zip(words, keys, strict=False)
    ):
        return False
    for number, (word, key) in enumerate(zip(words[len(prefix) :], rest, strict=False)):
        if word.descending != key.descending:
            return False
        if number and key.nullable and word.nulls_first(dialect) != key.nulls_first(dialect):
            return False
    return True


def _orders_of(table: Table, dialect: str) -> Iterator[SortColumns]:
    yield tuple(SortColumn(column, nullable=True) for column in table.primary_key)
    last = _row_id(table) if dialect == "sqlite" else ()
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            yield (*(SortColumn(column, nullable=True) for column in constraint.columns), *last)
    for index in sorted(table.indexes, key=lambda each: each.name or ""):
        if not _is_partial(index):
            keys = tuple(_leading(index))
            yield (*keys, *last) if len(keys) == len(index.expressions) else keys


def _row_id(table: Table) -> SortColumns:
    """What SQLite has behind all other columns of an index, if it is a column of the table."""
    columns = list(table.primary_key)
    kind = columns[0].type if len(columns) == 1 else None
    is_integer = isinstance(kind, Integer) and not isinstance(kind, BigInteger | SmallInteger)
    has_one = table.dialect_options["sqlite"].get("with_rowid", True)
    return (SortColumn(columns[0]),) if is_integer and has_one else ()


def _is_partial(index: Index) -> bool:
    names = ("postgresql", "sqlite")
    return any(index.dialect_options[name].get("where") is not None for name in names)


def _leading(index: Index) -> Iterator[SortColumn]:
    """The columns of an index, up to the first expression that is none."""
    for expression in index.expressions:
        descending, nulls = False, None
        inner: Any = expression
        while isinstance(inner, UnaryExpression):
            descending |= inner.modifier is operators.desc_op
            if inner.modifier is operators.nulls_first_op:
                nulls = "first"
            elif inner.modifier is operators.nulls_last_op:
                nulls = "last"
            inner = inner.element
        if not isinstance(inner, Column):
            return
        yield SortColumn(inner, descending, nullable=True, nulls=nulls)  # type: ignore[arg-type]
