"""What a developer should know of a query before its table is large.

Said once for each query that is planned, as warnings; nothing here asks a database anything. What
is said of indexes is what the tables of the application say: those that only the database knows
are not seen.
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

from hasten.errors import PaginationWarning
from hasten.pagination._order import Order
from hasten.pagination._sql.indexes import find_index
from hasten.pagination._sql.reading import Reading, SortColumn, SortColumns

MANY_ROWS: Final = 1_000_000
"""From here on counting them for each page is worth a word."""

_MAX_FIXED: Final = 3
"""So many columns of a filter are looked for in front of an index."""

_MAX_NAME: Final = 63
"""What PostgreSQL leaves of a name."""


class Advisor:
    """Says what there is to say of one query, each thing once."""

    def __init__(
        self,
        mapper: Mapper[Any],
        reading: Reading,
        keys: SortColumns,
        order: Order,
        ruled: Collection[str],
    ) -> None:
        """order is what was asked for by name; of ruled somebody said where NULLs stand."""
        self._mapper = mapper
        self._reading = reading
        self._keys = keys
        self._order = order
        self._ruled = ruled
        self._has_seen_it = False
        self._has_seen_many = False
        self._has_seen_filter = False

    def on_query(self, dialect: str) -> None:
        """When it is executed for the first time, on this kind of database."""
        if not self._has_seen_it:
            self._has_seen_it = True
            for text in self._of_query(dialect):
                _warn(text)

    def on_count(self, total: int) -> None:
        """When so many rows were counted one by one."""
        if total > MANY_ROWS and not self._has_seen_many:
            self._has_seen_many = True
            _warn(
                f"{self._mapper.class_.__name__}: {total:,} rows were counted for one page, which "
                "costs the more the larger the table grows. count=Capped(10_000) stops there, and "
                'says that there are more; count="estimated" asks the planner of PostgreSQL'
            )

    def on_filter(self, values: Iterable[object]) -> None:
        """When its filter is compared with that of other requests for the first time."""
        if self._has_seen_filter:
            return
        self._has_seen_filter = True
        now = datetime.now(UTC)
        for value in values:
            if _is_of_now(value, now):
                _warn(
                    f"{self._mapper.class_.__name__}: a filter holds the time of the request "
                    f"({value}), so it is another filter in each request: cursors are refused, and "
                    "totals and versions are not found again. Use func.now(), which the database "
                    "evaluates"
                )

    def _of_query(self, dialect: str) -> Iterator[str]:
        yield from _of_joins(self._mapper.class_.__name__, self._reading)
        yield from _of_nulls(self._mapper, self._keys, self._order, self._ruled)
        yield from _of_indexes(self._mapper, self._reading, self._keys, dialect)


def _is_of_now(value: object, now: datetime) -> bool:
    """Whether it seems to have been computed from the clock within the last second."""
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
            # Or so many minutes before or after it.
            return any((clock - value) % _MINUTES < _SECOND for clock in clocks)
    return False


_MINUTES: Final = timedelta(minutes=5)
_SECOND: Final = timedelta(seconds=1)


def _warn(text: str) -> None:
    """About the first line on the stack that is not of hasten."""
    warnings.warn(text, PaginationWarning, stacklevel=_outside())


def _outside() -> int:
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _is_of_hasten(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    return level


def _is_of_hasten(module: str) -> bool:
    return module == "hasten" or module.startswith("hasten.")


# Joins and NULLs ----------------------------------------------------------------------------------


def _of_joins(model: str, reading: Reading) -> Iterator[str]:
    if reading.repeated_by:
        tables = ", ".join(str(leaf) for leaf in reading.repeated_by)
        yield (
            f"{model}: the join to {tables} repeats rows, so it was turned into WHERE … IN "
            f"(SELECT …), and each {model} is read and counted once. Say it like this in the "
            f"select: .where({model}.….any(…)), or .where(exists().where(…))"
        )


def _of_nulls(
    mapper: Mapper[Any], keys: SortColumns, order: Order, ruled: Collection[str]
) -> Iterator[str]:
    model = mapper.class_.__name__
    for key in order:
        if key.nullable and key.name not in ruled:
            yield (
                f"{model} sorted by {key.name}: sort= does not say where rows without a value "
                "stand, so they come last. "
                f'Use SortKey("{key.name}", nulls="last") in sort=, or nulls="first"'
            )
    if order:
        return
    for each in keys:
        if isinstance(each.column, Column) and each.nullable and each.nulls is None:
            name = _attribute(mapper, each)
            yield (
                f"{model} sorted by {name}: order_by() does not say where rows without a value "
                f"stand, and databases differ. Use {name}.nulls_last() in it, or nulls_first()"
            )


# Indexes ------------------------------------------------------------------------------------------


def _of_indexes(
    mapper: Mapper[Any], reading: Reading, keys: SortColumns, dialect: str
) -> Iterator[str]:
    tables = {getattr(key.column, "table", None) for key in keys}
    table = getattr(next(iter(tables)), "element", next(iter(tables)))
    if len(tables) > 1 or not isinstance(table, Table) or reading.is_grouped:
        return  # no index can have that, or none that could be seen from here
    if not all(isinstance(key.column, Column) for key in keys):
        return
    fixed = _fixed(reading, keys)
    if _serving(fixed, keys, dialect, len(keys)):
        return
    sort = ", ".join(_attribute(mapper, key) + " DESC" * key.descending for key in keys)
    known = next((n for n in range(len(keys) - 1, 0, -1) if _serving(fixed, keys, dialect, n)), 0)
    if known:
        some = ", ".join(_attribute(mapper, key) for key in keys[:known])
        yield (
            f"{mapper.class_.__name__} sorted by {sort}: an index has the order of {some} alone, "
            "so rows that are equal in it are sorted for each page. That is well while they are "
            f"few; otherwise add {_line(mapper, table, fixed, keys, dialect)}"
        )
    else:
        yield (
            f"{mapper.class_.__name__} sorted by {sort}: no index has this order, so the rows are "
            f"sorted for each page. Add {_line(mapper, table, fixed, keys, dialect)}"
        )


def _fixed(reading: Reading, keys: SortColumns) -> SortColumns:
    """The columns that a filter holds at one value each: an index may begin with them."""
    table = getattr(keys[0].column, "table", None)
    names: dict[str, SortColumn] = {}
    for column, source in reading.leaves.equal:
        is_fixed = source is None and isinstance(column, Column) and column.table == table
        if is_fixed and not any(column.name == getattr(key.column, "name", "") for key in keys):
            names.setdefault(str(column.name), SortColumn(column))
    return tuple(names.values())[:_MAX_FIXED]


def _serving(fixed: SortColumns, keys: SortColumns, dialect: str, number: int) -> bool:
    """Whether an index has the order of the first keys, behind columns that are fixed or not."""
    wanted = keys[:number]
    for size in range(len(fixed) + 1):
        for prefix in permutations(fixed, size):
            words = find_index(prefix, wanted, dialect)
            if words is not None and _has_nulls(words[size], wanted[0], dialect):
                return True
    return False


def _has_nulls(word: SortColumn, key: SortColumn, dialect: str) -> bool:
    # Elsewhere an index cannot be told where they stand, so there is no index to be added.
    is_same = word.nulls_first(dialect) == key.nulls_first(dialect)
    return not key.nullable or is_same or dialect != "postgresql"


def _line(
    mapper: Mapper[Any], table: Table, fixed: SortColumns, keys: SortColumns, dialect: str
) -> str:
    """The index to add, as it is written below the class."""
    # An index can be read from its end: where all keys descend, none needs to say so.
    are_plain = all(key.is_native(dialect) or dialect != "postgresql" for key in keys)
    turned = are_plain and all(key.descending for key in keys)
    parts = [_attribute(mapper, key) for key in fixed]
    for key in keys:
        part = _attribute(mapper, key)
        if key.descending and not turned:
            part += ".desc()"
        if dialect == "postgresql" and not key.is_native(dialect):
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
