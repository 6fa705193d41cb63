"""The SQL statements that read the pages of one select in one order. Each is built once.

Limits, offsets and positions are parameters. So all pages share the same statements, and the
caches of SQLAlchemy, of the driver and of the database work.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, Final, TypeVar

from sqlalchemy import BigInteger, BindParameter, Executable, Select, bindparam

from hasten._sqlalchemy.analysis import AnalyzedSelect
from hasten._sqlalchemy.selects import Selection
from hasten._sqlalchemy.sort_columns import SortColumns
from hasten.pagination._sql import counting, keyset, offset_select
from hasten.pagination._sql.infinities import may_contain_infinity

S = TypeVar("S")

MAX_STATEMENTS: Final = 64
"""The number of statements to cache. Pages by cursor need one for each combination of sort keys
that are NULL at the position."""


def _integer_parameter(name: str) -> BindParameter[int]:
    return bindparam(name, type_=BigInteger, required=True)


_LIMIT: Final = _integer_parameter("hasten_limit")
_OFFSET: Final = _integer_parameter("hasten_offset")
_KNOWN: Final = _integer_parameter("hasten_known")
"""The offset, or the cap of the count if that is lower. A page is read only if the total is higher.
"""
_AT: Final = "hasten_at_"
"""The prefix of the parameters for the values of a position."""


class PageStatements:
    """The statements that read pages of one select in one order, and count its rows."""

    def __init__(self, analyzed: AnalyzedSelect, keys: SortColumns) -> None:
        self.analyzed: Final = analyzed
        self.keys: Final = keys
        self._built: Callable[..., Any] = lru_cache(MAX_STATEMENTS)(self._build)

    @cached_property
    def key_indexes(self) -> list[int]:
        """The index of each sort key's value in a result row of the keyset statements."""
        return keyset.find_key_indexes(self.analyzed, self.keys)

    def get_or_build_statement(self, build: Callable[..., S], *build_arguments: Hashable) -> S:
        """Return the cached statement that ``build(analyzed, keys, *build_arguments)`` builds.

        build is one of the functions below.
        """
        statement: S = self._built(build, *build_arguments)
        return statement

    def select_after_position(
        self, dialect: str, position: Sequence[object] | None, *, backwards: bool
    ) -> list[Selection]:
        """Return the statements that read the rows after a position, or before it if backwards.

        They are to be executed one after the other, until the page is full. position has a value
        for each sort key; None stands for the start of all rows (backwards: for their end).
        """
        nulls = None
        if position is not None:
            keyset.check_position_matches_keys(position, self.keys)
            if dialect == "postgresql" and may_contain_infinity(position, self.keys):
                # The value becomes part of the statement, so this statement is not cached.
                return keyset.select_rows_after(
                    self.analyzed, self.keys, position,
                    limit=_LIMIT, dialect=dialect, backwards=backwards,
                )  # fmt: skip
            nulls = tuple([value is None for value in position])
        return self.get_or_build_statement(_select_after_bound_position, dialect, nulls, backwards)

    def _build(self, build: Callable[..., S], *build_arguments: Hashable) -> S:
        return build(self.analyzed, self.keys, *build_arguments)


def offset_parameters(*, limit: int, offset: int = 0, cap: int | None = None) -> dict[str, object]:
    """Return the parameters for the statements that read at an offset.

    cap is the cap of the total, if the statement also counts the rows up to a cap.
    """
    # A count that stopped at the cap does not show whether there are rows at a higher offset.
    known = offset if cap is None else min(offset, cap)
    return {_LIMIT.key: limit, _OFFSET.key: offset, _KNOWN.key: known}


def keyset_parameters(position: Sequence[object] | None, *, limit: int) -> Mapping[str, object]:
    """Return the parameters for the statements that read after a position."""
    at = {f"{_AT}{place}": value for place, value in enumerate(position or ())}
    return {**at, _LIMIT.key: limit}


def select_at_offset(
    analyzed: AnalyzedSelect,
    keys: SortColumns,
    dialect: str,
    use_deferred_join: bool,
    from_end: bool = False,
    with_sort_keys: bool = False,
) -> Selection:
    """Return a select of the rows at an offset.

    If from_end, the offset counts from the last row, and the rows are in reverse order. For
    use_deferred_join and with_sort_keys, see `offset_select.select_page_at_offset`.
    """
    if from_end:
        keys = tuple(key.reverse(dialect) for key in keys)
    return offset_select.select_page_at_offset(
        analyzed,
        keys,
        limit=_LIMIT,
        offset=_OFFSET,
        dialect=dialect,
        use_deferred_join=use_deferred_join,
        with_sort_keys=with_sort_keys,
    )


def select_at_offset_with_count(
    analyzed: AnalyzedSelect, keys: SortColumns, dialect: str, cap: int | None
) -> Selection:
    """Return a select of the rows at an offset that also counts: each row ends with the total.

    On PostgreSQL, if no ORM objects are selected, the select always returns at least one row. If
    the page is empty, the element before the total is NULL in this row. In all other cases, an
    empty page has no row to carry the total, so the caller must count separately.
    """
    is_lateral = dialect == "postgresql" and not analyzed.holds_entities
    page = select_at_offset(
        analyzed, keys, dialect, use_deferred_join=False, with_sort_keys=is_lateral
    )
    counted = counting.make_count_select(analyzed, cap=cap, dialect=dialect)
    if dialect != "postgresql":
        return counting.add_total_column(page, counted)
    if analyzed.holds_entities:
        return counting.add_total_column_unless_past_end(page, counted, offset=_KNOWN)
    return counting.left_join_page_to_total(
        analyzed, page, counted, keys, offset=_KNOWN, dialect=dialect
    )


def make_count_select(
    analyzed: AnalyzedSelect,
    _keys: SortColumns,
    dialect: str,
    cap: int | None,
) -> Select[int]:
    """Return a select that counts the rows, up to cap + 1 if there is a cap."""
    return counting.make_count_select(analyzed, cap=cap, dialect=dialect)


def make_estimate_statement(analyzed: AnalyzedSelect, _keys: SortColumns) -> Executable:
    """Return a PostgreSQL statement that estimates the number of rows.

    `counting.parse_estimated_count` converts its result.
    """
    return counting.make_estimate_statement(analyzed)


def _select_after_bound_position(
    analyzed: AnalyzedSelect,
    keys: SortColumns,
    dialect: str,
    null_flags_of_position: Sequence[bool] | None,
    backwards: bool,
) -> list[Selection]:
    """Return the statements for the rows after a position whose values are bound parameters.

    null_flags_of_position has a bool for each value of the position: whether it is NULL. None
    stands for the start of all rows.
    """
    position = None
    if null_flags_of_position is not None:
        position = [
            None if is_null else bindparam(f"{_AT}{place}", type_=key.column.type, required=True)
            for place, (key, is_null) in enumerate(zip(keys, null_flags_of_position, strict=True))
        ]
    return keyset.select_rows_after(
        analyzed, keys, position, limit=_LIMIT, dialect=dialect, backwards=backwards
    )
