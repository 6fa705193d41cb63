"""Warnings about queries that will be slow or ambiguous when their table is large.

Each planned query is checked once, without access to the database. Indexes are those that the
mapped tables declare: indexes that only exist in the database are not found.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any, Final

from sqlalchemy import Column, Table
from sqlalchemy.orm import Mapper

from hasten._sqlalchemy.analysis import AnalyzedSelect
from hasten._sqlalchemy.sort_columns import SortColumn, SortColumns
from hasten.errors import PaginationWarning
from hasten.pagination._order import Order
from hasten.pagination._sql.indexes import find_index

MANY_ROWS: Final = 1_000_000
"""Exact counts of more rows lead to a warning."""

_MAX_FIXED: Final = 3
"""How many columns of a filter are expected at the start of an index."""

_MAX_NAME: Final = 63
"""PostgreSQL cuts longer names."""


class Advisor:
    """Warns about one query, once for each reason."""

    def __init__(
        self,
        mapper: Mapper[Any],
        analyzed: AnalyzedSelect,
        keys: SortColumns,
        order: Order,
        explicit_nulls: Collection[str],
    ) -> None:
        """order is the requested order; explicit_nulls are names with a declared place of NULLs."""
        self._mapper = mapper
        self._analyzed = analyzed
        self._keys = keys
        self._order = order
        self._explicit_nulls = explicit_nulls
        self._has_checked_query = False
        self._has_warned_of_count = False
        self._has_checked_filter = False

    def on_query(self, dialect: str) -> None:
        """Warn about the query. Only the first call checks it."""
        if not self._has_checked_query:
            self._has_checked_query = True
            for text in self._of_query(dialect):
                _warn(text)

    def on_count(self, total: int) -> None:
        """Warn if many rows were counted exactly."""
        if total > MANY_ROWS and not self._has_warned_of_count:
            self._has_warned_of_count = True
            _warn(
                f"{self._mapper.class_.__name__}: {total:,} rows were counted for one page, which "
                "takes longer as the table grows. count=Capped(10_000) stops counting there; "
                'count="estimated" uses the estimate of PostgreSQL'
            )

    def on_filter(self, values: Iterable[object]) -> None:
        """Warn if a value of the filter is the current time. Only the first call checks."""
        if self._has_checked_filter:
            return
        self._has_checked_filter = True
        now = datetime.now(UTC)
        for value in values:
            if _is_of_now(value, now):
                _warn(
                    f"{self._mapper.class_.__name__}: a filter holds the time of the request "
                    f"({value}), so it differs in each request: cursors are rejected, and cached "
                    "totals and versions are not reused. Use func.now(), which the database "
                    "evaluates"
                )

    def _of_query(self, dialect: str) -> Iterator[str]:
        yield from _of_joins(self._mapper.class_.__name__, self._analyzed)
        yield from _of_nulls(self._mapper, self._keys, self._order, self._explicit_nulls)
        yield from _of_indexes(self._mapper, self._analyzed, self._keys, dialect)


def _is_of_now(value: object, now: datetime) -> bool:
    """Return whether a value seems to be computed from the clock within the last second."""
    match value:
        case bool():
            return False
        case int() | float():
            seconds = now.timestamp()
            return any(0 <= seconds * unit - value < unit for unit in (1, 1_000))
        case datetime() if value.microsecond:
            clocks = [now]
            if value.tzinfo is None:
                clocks = [now.replace(tzinfo=None), now.astimezone().replace(tzinfo=None)]
            # Also some whole minutes before or after the current time.
            return any((clock - value) % _MINUTES < _SECOND for clock in clocks)
    return False


_MINUTES: Final = timedelta(minutes=5)
_SECOND: Final = timedelta(seconds=1)


def _warn(text: str) -> None:
    """Issue a warning that points to the line of the application that called hasten."""
    warnings.warn(text, PaginationWarning, stacklevel=_outside())


def _outside() -> int:
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _is_of_hasten(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    return level


def _is_of_hasten(module: str) -> bool:
    return module == "hasten" or module.startswith("hasten.")


# Joins and NULLs ----------------------------------------------------------------------------------


def _of_joins(model: str, analyzed: AnalyzedSelect) -> Iterator[str]:
    if analyzed.repeated_by:
        tables = ", ".join(str(source) for source in analyzed.repeated_by)
        yield (
            f"{model}: the join to {tables} repeats rows, so it was replaced by WHERE … IN "
            f"(SELECT …), which returns and counts each {model} once. Write the condition in the "
            f"select as .where({model}.….any(…)) or .where(exists().where(…))"
        )


def _of_nulls(
    mapper: Mapper[Any], keys: SortColumns, order: Order, explicit_nulls: Collection[str]
) -> Iterator[str]:
    model = mapper.class_.__name__
    for key in order:
        if key.nullable and key.name not in explicit_nulls:
            yield (
                f"{model} sorted by {key.name}: sort= does not declare where NULLs are sorted, "
                "so they come last. "
                f'Use SortKey("{key.name}", nulls="last") in sort=, or nulls="first"'
            )
    if order:
        return
    for each in keys:
        if isinstance(each.column, Column) and each.nullable and each.nulls is None:
            name = _attribute(mapper, each)
            yield (
                f"{model} sorted by {name}: order_by() does not declare where NULLs are sorted, "
                f"and databases differ. Use {name}.nulls_last() or {name}.nulls_first() in it"
            )


# Indexes ------------------------------------------------------------------------------------------


def _of_indexes(
    mapper: Mapper[Any], analyzed: AnalyzedSelect, keys: SortColumns, dialect: str
) -> Iterator[str]:
    tables = {getattr(key.column, "table", None) for key in keys}
    table = getattr(next(iter(tables)), "element", next(iter(tables)))
    if len(tables) > 1 or not isinstance(table, Table) or analyzed.is_grouped:
        return  # no index can have this order, or no declared one
    if not all(isinstance(key.column, Column) for key in keys):
        return
    fixed = _fixed(analyzed, keys)
    if _serving(fixed, keys, dialect, len(keys)):
        return
    sort = ", ".join(_attribute(mapper, key) + " DESC" * key.descending for key in keys)
    known = next((n for n in range(len(keys) - 1, 0, -1) if _serving(fixed, keys, dialect, n)), 0)
    if known:
        some = ", ".join(_attribute(mapper, key) for key in keys[:known])
        yield (
            f"{mapper.class_.__name__} sorted by {sort}: an index only has the order of {some}, "
            "so rows with equal values are sorted for each page. If there are many of them, add "
            f"{_line(mapper, table, fixed, keys, dialect)}"
        )
    else:
        yield (
            f"{mapper.class_.__name__} sorted by {sort}: no index has this order, so the rows are "
            f"sorted for each page. Add {_line(mapper, table, fixed, keys, dialect)}"
        )


def _fixed(analyzed: AnalyzedSelect, keys: SortColumns) -> SortColumns:
    """Return the columns that a filter compares with one value: an index may begin with them."""
    table = getattr(keys[0].column, "table", None)
    names: dict[str, SortColumn] = {}
    for column, source in analyzed.sources.equal:
        is_fixed = source is None and isinstance(column, Column) and column.table == table
        if is_fixed and not any(column.name == getattr(key.column, "name", "") for key in keys):
            names.setdefault(str(column.name), SortColumn(column))
    return tuple(names.values())[:_MAX_FIXED]


def _serving(fixed: SortColumns, keys: SortColumns, dialect: str, number: int) -> bool:
    """Return whether an index has the order of the first keys, after any of the fixed columns."""
    wanted = keys[:number]
    for size in range(len(fixed) + 1):
        for prefix in permutations(fixed, size):
            indexed = find_index(prefix, wanted, dialect)
            if indexed is not None and _has_nulls(indexed[size], wanted[0], dialect):
                return True
    return False


def _has_nulls(indexed: SortColumn, key: SortColumn, dialect: str) -> bool:
    # Only PostgreSQL has NULLS FIRST and LAST in indexes: elsewhere there is no index to add.
    is_same = indexed.nulls_first(dialect) == key.nulls_first(dialect)
    return not key.nullable or is_same or dialect != "postgresql"


def _line(
    mapper: Mapper[Any], table: Table, fixed: SortColumns, keys: SortColumns, dialect: str
) -> str:
    """Return the index to add, as it is written in ``__table_args__``."""
    # An index can be read from its end: where all keys descend, it needs no desc().
    are_plain = all(key.has_native_nulls(dialect) or dialect != "postgresql" for key in keys)
    is_read_backwards = are_plain and all(key.descending for key in keys)
    parts = [_attribute(mapper, key) for key in fixed]
    for key in keys:
        part = _attribute(mapper, key)
        if key.descending and not is_read_backwards:
            part += ".desc()"
        if dialect == "postgresql" and not key.has_native_nulls(dialect):
            part += ".nulls_first()" if key.nulls_first(dialect) else ".nulls_last()"
        parts.append(part)
    names = [str(getattr(key.column, "name", "")) for key in (*fixed, *keys)]
    name = "_".join(["ix", table.name, *names])[:_MAX_NAME]
    return f'Index("{name}", {", ".join(parts)})'


def _attribute(mapper: Mapper[Any], key: SortColumn) -> str:
    column: Any = key.column
    for each in mapper.columns:
        if each.name == column.name:
            return f"{mapper.class_.__name__}.{mapper.get_property_by_column(each).key}"
    return str(column)
