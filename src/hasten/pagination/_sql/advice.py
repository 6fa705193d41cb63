"""Warnings for developers: about queries that are slow on large tables, or ambiguous.

Each query plan is checked once, without access to the database. So only the indexes that the mapped
tables declare are known, not those that exist only in the database.
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
from hasten.pagination._sql.indexes import find_index_for_order

MANY_ROWS: Final = 1_000_000
"""An exact count of more rows than this causes a warning."""

_MAX_FILTER_COLUMNS: Final = 3
"""How many columns of a filter a suggested index may begin with."""

_MAX_NAME: Final = 63
"""The maximum length of an index name. PostgreSQL truncates longer names."""


class QueryAdvisor:
    """Issues the warnings about one query plan, each of them once."""

    def __init__(
        self,
        mapper: Mapper[Any],
        analyzed: AnalyzedSelect,
        keys: SortColumns,
        order: Order,
        explicit_nulls: Collection[str],
    ) -> None:
        """Store the facts about a query plan that the other methods check for problems.

        keys are the columns to sort by; order is the requested order. explicit_nulls are the fields
        whose `SortKey` declares where NULLs are sorted.
        """
        self._mapper = mapper
        self._analyzed = analyzed
        self._keys = keys
        self._order = order
        self._explicit_nulls = explicit_nulls
        self._has_checked_query = False
        self._has_warned_about_count = False
        self._has_checked_filter = False

    def warn_about_query(self, dialect: str) -> None:
        """Warn if the joins, the NULLs or the order of the query are a problem.

        Only the first call checks the query.
        """
        if not self._has_checked_query:
            self._has_checked_query = True
            for text in self._find_query_warnings(dialect):
                _issue_warning(text)

    def warn_about_large_count(self, total: int) -> None:
        """Warn once if more than `MANY_ROWS` rows were counted exactly."""
        if total > MANY_ROWS and not self._has_warned_about_count:
            self._has_warned_about_count = True
            _issue_warning(
                f"{self._mapper.class_.__name__}: {total:,} rows were counted for one page, which "
                "takes longer as the table grows. count=Capped(10_000) stops counting there; "
                'count="estimated" uses the estimate of PostgreSQL'
            )

    def warn_about_filter(self, values: Iterable[object]) -> None:
        """Warn if a value in the filter is the current time: then it differs in each request.

        Only the first call checks the values.
        """
        if self._has_checked_filter:
            return
        self._has_checked_filter = True
        now = datetime.now(UTC)
        for value in values:
            if _is_current_time(value, now):
                _issue_warning(
                    f"{self._mapper.class_.__name__}: a filter contains the time of the request "
                    f"({value}), which differs in each request. So cursors are rejected, and "
                    "cached totals and ETags are not reused. Use func.now(), which the database "
                    "evaluates, instead"
                )

    def _find_query_warnings(self, dialect: str) -> Iterator[str]:
        yield from _find_repeated_row_warnings(self._mapper.class_.__name__, self._analyzed)
        yield from _find_null_order_warnings(
            self._mapper, self._keys, self._order, self._explicit_nulls
        )
        yield from _find_index_warnings(self._mapper, self._analyzed, self._keys, dialect)


def _is_current_time(value: object, now: datetime) -> bool:
    """Return whether a value seems to be a time that was read from the clock in the last second.

    It may be a datetime, or a timestamp in seconds or milliseconds. A datetime may differ from now
    by a multiple of five minutes, as in ``now - timedelta(days=7)`` or in another time zone.
    """
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
            # The difference may be a multiple of five minutes, because of a time zone or because
            # the application subtracted some hours.
            return any((clock - value) % _FIVE_MINUTES < _SECOND for clock in clocks)
    return False


_FIVE_MINUTES: Final = timedelta(minutes=5)
_SECOND: Final = timedelta(seconds=1)


def _issue_warning(text: str) -> None:
    """Issue a warning that points to the line of the application that called hasten."""
    warnings.warn(text, PaginationWarning, stacklevel=_find_application_stacklevel())


def _find_application_stacklevel() -> int:
    """Return the ``stacklevel`` of the nearest caller outside of hasten.

    The level is counted from the function that calls this one, which issues the warning.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _is_hasten_module(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    return level


def _is_hasten_module(module: str) -> bool:
    return module == "hasten" or module.startswith("hasten.")


# Joins and NULLs ----------------------------------------------------------------------------------


def _find_repeated_row_warnings(model_name: str, analyzed: AnalyzedSelect) -> Iterator[str]:
    """Return a warning if a join would repeat rows, and so was replaced by a semi-join."""
    if analyzed.repeated_by:
        tables = ", ".join(str(source) for source in analyzed.repeated_by)
        yield (
            f"{model_name}: the join to {tables} repeats rows, so hasten replaced it by WHERE … IN "
            f"(SELECT …), which returns and counts each {model_name} once. To avoid this warning, "
            f"write .where({model_name}.….any(…)) or .where(exists().where(…)) in the select "
            "instead of the join"
        )


def _find_null_order_warnings(
    mapper: Mapper[Any], keys: SortColumns, order: Order, explicit_nulls: Collection[str]
) -> Iterator[str]:
    """Return a warning for each nullable sort key whose place of NULLs is not declared."""
    model = mapper.class_.__name__
    for key in order:
        if key.nullable and key.name not in explicit_nulls:
            yield (
                f"{model} sorted by {key.name}: sort= does not say where NULLs are sorted, so they "
                f'are sorted last. Use SortKey("{key.name}", nulls="last") in sort=, or '
                'nulls="first"'
            )
    if order:
        return
    for each in keys:
        if isinstance(each.column, Column) and each.nullable and each.nulls is None:
            name = _format_attribute(mapper, each)
            yield (
                f"{model} sorted by {name}: order_by() does not say where NULLs are sorted, and "
                f"databases differ. Use {name}.nulls_last() or {name}.nulls_first() in order_by()"
            )


# Indexes ------------------------------------------------------------------------------------------


def _find_index_warnings(
    mapper: Mapper[Any], analyzed: AnalyzedSelect, keys: SortColumns, dialect: str
) -> Iterator[str]:
    """Return a warning if no declared index has the order of the keys, with the index to add."""
    tables = {getattr(key.column, "table", None) for key in keys}
    table = getattr(next(iter(tables)), "element", next(iter(tables)))
    if len(tables) > 1 or not isinstance(table, Table) or analyzed.is_grouped:
        return  # no index can have this order, or no declared index is known
    if not all(isinstance(key.column, Column) for key in keys):
        return
    filtered = _find_equality_columns(analyzed, keys)
    if _has_index_for_first_keys(filtered, keys, dialect, len(keys)):
        return
    sort = ", ".join(_format_attribute(mapper, key) + " DESC" * key.descending for key in keys)
    numbers = range(len(keys) - 1, 0, -1)
    known = next((n for n in numbers if _has_index_for_first_keys(filtered, keys, dialect, n)), 0)
    if known:
        some = ", ".join(_format_attribute(mapper, key) for key in keys[:known])
        yield (
            f"{mapper.class_.__name__} sorted by {sort}: an index only has the order of {some}, "
            "so the database sorts the rows with equal values for each page. If there are many "
            f"of them, add {_format_index_to_add(mapper, table, filtered, keys, dialect)}"
        )
    else:
        yield (
            f"{mapper.class_.__name__} sorted by {sort}: no index has this order, so the database "
            "sorts all rows for each page. Add "
            f"{_format_index_to_add(mapper, table, filtered, keys, dialect)}"
        )


def _find_equality_columns(analyzed: AnalyzedSelect, keys: SortColumns) -> SortColumns:
    """Return the columns that WHERE compares with ``=``, because an index may begin with them."""
    table = getattr(keys[0].column, "table", None)
    names: dict[str, SortColumn] = {}
    for column, source in analyzed.sources.equal:
        is_fixed = source is None and isinstance(column, Column) and column.table == table
        if is_fixed and not any(column.name == getattr(key.column, "name", "") for key in keys):
            names.setdefault(str(column.name), SortColumn(column))
    return tuple(names.values())[:_MAX_FILTER_COLUMNS]


def _has_index_for_first_keys(
    equality_columns: SortColumns, keys: SortColumns, dialect: str, key_count: int
) -> bool:
    """Return whether an index has the order of the first key_count keys.

    The index may begin with any of equality_columns, because all rows of the query have the same
    value in them.
    """
    wanted = keys[:key_count]
    for size in range(len(equality_columns) + 1):
        for prefix in permutations(equality_columns, size):
            indexed = find_index_for_order(prefix, wanted, dialect)
            if indexed is not None and _has_nulls_in_same_place(indexed[size], wanted[0], dialect):
                return True
    return False


def _has_nulls_in_same_place(indexed: SortColumn, key: SortColumn, dialect: str) -> bool:
    """Return whether a column of an index has NULLs where a sort key wants them.

    Only PostgreSQL has NULLS FIRST and NULLS LAST in indexes. On other databases, the result is
    True, because no better index could be suggested.
    """
    is_same = indexed.sorts_nulls_first(dialect) == key.sorts_nulls_first(dialect)
    return not key.nullable or is_same or dialect != "postgresql"


def _format_index_to_add(
    mapper: Mapper[Any],
    table: Table,
    equality_columns: SortColumns,
    keys: SortColumns,
    dialect: str,
) -> str:
    """Return the Python code of the suggested index, as it is written in ``__table_args__``."""
    # Databases can read an index backwards, so it needs no desc() if all keys descend.
    are_plain = all(
        key.matches_default_null_order(dialect) or dialect != "postgresql" for key in keys
    )
    is_read_backwards = are_plain and all(key.descending for key in keys)
    parts = [_format_attribute(mapper, key) for key in equality_columns]
    for key in keys:
        part = _format_attribute(mapper, key)
        if key.descending and not is_read_backwards:
            part += ".desc()"
        if dialect == "postgresql" and not key.matches_default_null_order(dialect):
            part += ".nulls_first()" if key.sorts_nulls_first(dialect) else ".nulls_last()"
        parts.append(part)
    names = [str(getattr(key.column, "name", "")) for key in (*equality_columns, *keys)]
    name = "_".join(["ix", table.name, *names])[:_MAX_NAME]
    return f'Index("{name}", {", ".join(parts)})'


def _format_attribute(mapper: Mapper[Any], key: SortColumn) -> str:
    """Return the attribute of a column as Python code, such as "Post.created_at"."""
    column: Any = key.column
    for each in mapper.columns:
        if each.name == column.name:
            return f"{mapper.class_.__name__}.{mapper.get_property_by_column(each).key}"
    return str(column)
