"""The statements of one select in one order, each built once.

Numbers and positions are parameters, so the statement and its text are the same for all pages, and
SQLAlchemy, the driver and the database find it in their caches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, Final

from sqlalchemy import BigInteger, BindParameter, Executable, Select, bindparam

from hasten._sqlalchemy.analysis import AnalyzedSelect
from hasten._sqlalchemy.selects import Selection
from hasten._sqlalchemy.sort_columns import SortColumns
from hasten.pagination._sql import counting, keyset, offset_select
from hasten.pagination._sql.infinities import may_be_infinite

MAX_STATEMENTS: Final = 64
"""How many are kept: there is one for each set of keys that are NULL at a position."""


def _number(name: str) -> BindParameter[int]:
    return bindparam(name, type_=BigInteger, required=True)


_LIMIT: Final = _number("hasten_limit")
_OFFSET: Final = _number("hasten_offset")
_KNOWN: Final = _number("hasten_known")
_AT: Final = "hasten_at_"


class PageStatements:
    """The statements that read pages of a select in an order, and count its rows."""

    def __init__(self, analyzed: AnalyzedSelect, keys: SortColumns) -> None:
        self.analyzed: Final = analyzed
        self.keys: Final = keys
        self._build: Callable[..., Any] = lru_cache(MAX_STATEMENTS)(
            lambda build, *options: build(analyzed, keys, *options)
        )

    @cached_property
    def places(self) -> list[int]:
        """The indexes of the values of the keys in a row of these statements."""
        return keyset.layout(self.analyzed, self.keys)

    def at_offset(self, dialect: str, *, defer: bool, backwards: bool = False) -> Selection:
        """Return a select of up to limit rows at an offset; backwards from the end, in reverse."""
        found: Selection = self._build(_at_offset, dialect, defer, backwards)
        return found

    def at_offset_with_count(self, dialect: str, cap: int | None) -> Selection:
        """Return a select of the rows of a page, each with the total as its last element.

        If `has_total_row`, there is at least one row, and the element before the total is NULL if
        the page is empty. Otherwise an empty page has no total.
        """
        found: Selection = self._build(_at_offset_with_count, dialect, cap)
        return found

    def has_total_row(self, dialect: str) -> bool:
        """Return whether `at_offset_with_count` returns a row even if the page is empty."""
        return dialect == "postgresql" and not self.analyzed.holds_entities

    def count(self, dialect: str, cap: int | None) -> Select[int]:
        """Return a select of the number of rows. See `counting.count`."""
        found: Select[int] = self._build(_count, dialect, cap)
        return found

    def estimate(self) -> Executable:
        """Return a statement whose value `counting.read_estimate` reads."""
        found: Executable = self._build(_estimate)
        return found

    def after(
        self, dialect: str, position: Sequence[object] | None, *, backwards: bool
    ) -> list[Selection]:
        """Return the statements that read the rows after a position, to be executed in turn."""
        nulls = None
        if position is not None:
            keyset.check_position(position, self.keys)
            if dialect == "postgresql" and may_be_infinite(position, self.keys):
                # The value is part of the statement, which is built for this position only.
                return keyset.after(
                    self.analyzed, self.keys, position,
                    limit=_LIMIT, dialect=dialect, backwards=backwards,
                )  # fmt: skip
            nulls = tuple([value is None for value in position])
        found: list[Selection] = self._build(_after, dialect, nulls, backwards)
        return found


def offset_parameters(*, limit: int, offset: int = 0, cap: int | None = None) -> dict[str, object]:
    """Return the parameters of a page at an offset."""
    # A count that stopped at the cap does not show whether there are rows after it.
    known = offset if cap is None else min(offset, cap)
    return {_LIMIT.key: limit, _OFFSET.key: offset, _KNOWN.key: known}


def keyset_parameters(position: Sequence[object] | None, *, limit: int) -> Mapping[str, object]:
    """Return the parameters of the rows after a position."""
    at = {f"{_AT}{place}": value for place, value in enumerate(position or ())}
    return {**at, _LIMIT.key: limit}


def _at_offset(
    analyzed: AnalyzedSelect,
    keys: SortColumns,
    dialect: str,
    defer: bool,
    backwards: bool,
    keyed: bool = False,
) -> Selection:
    if backwards:
        keys = tuple(key.reversed(dialect) for key in keys)
    return offset_select.page(
        analyzed, keys, limit=_LIMIT, offset=_OFFSET, dialect=dialect, defer=defer, keyed=keyed
    )


def _at_offset_with_count(
    analyzed: AnalyzedSelect, keys: SortColumns, dialect: str, cap: int | None
) -> Selection:
    is_lateral = dialect == "postgresql" and not analyzed.holds_entities
    page = _at_offset(analyzed, keys, dialect, defer=False, backwards=False, keyed=is_lateral)
    counted = counting.count(analyzed, cap=cap, dialect=dialect)
    if dialect != "postgresql":
        return counting.beside(page, counted)
    if analyzed.holds_entities:
        return counting.beside_skipping(page, counted, offset=_KNOWN)
    return counting.lateral(analyzed, page, counted, keys, offset=_KNOWN, dialect=dialect)


def _count(
    analyzed: AnalyzedSelect,
    keys: SortColumns,  # noqa: ARG001
    dialect: str,
    cap: int | None,
) -> Select[int]:
    return counting.count(analyzed, cap=cap, dialect=dialect)


def _estimate(analyzed: AnalyzedSelect, keys: SortColumns) -> Executable:  # noqa: ARG001
    return counting.estimate(analyzed)


def _after(
    analyzed: AnalyzedSelect,
    keys: SortColumns,
    dialect: str,
    nulls: Sequence[bool] | None,
    backwards: bool,
) -> list[Selection]:
    position = None
    if nulls is not None:
        position = [
            None if is_null else bindparam(f"{_AT}{place}", type_=key.column.type, required=True)
            for place, (key, is_null) in enumerate(zip(keys, nulls, strict=True))
        ]
    return keyset.after(
        analyzed, keys, position, limit=_LIMIT, dialect=dialect, backwards=backwards
    )
