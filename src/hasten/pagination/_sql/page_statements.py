"""The statements of one select in one order, each built once.

Numbers and positions are parameters, so the statement and its text are the same for all pages, and
SQLAlchemy, the driver and the database find it in their caches.
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
from hasten.pagination._sql.infinities import may_be_infinite

S = TypeVar("S")

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
        self._built: Callable[..., Any] = lru_cache(MAX_STATEMENTS)(self._build)

    @cached_property
    def places(self) -> list[int]:
        """The indexes of the values of the keys in a row of these statements."""
        return keyset.layout(self.analyzed, self.keys)

    def built(self, build: Callable[..., S], *options: Hashable) -> S:
        """Return ``build(analyzed, keys, *options)``, one of the functions below."""
        statement: S = self._built(build, *options)
        return statement

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
        return self.built(_after, dialect, nulls, backwards)

    def _build(self, build: Callable[..., S], *options: Hashable) -> S:
        return build(self.analyzed, self.keys, *options)


def offset_parameters(*, limit: int, offset: int = 0, cap: int | None = None) -> dict[str, object]:
    """Return the parameters of a page at an offset."""
    # A count that stopped at the cap does not show whether there are rows after it.
    known = offset if cap is None else min(offset, cap)
    return {_LIMIT.key: limit, _OFFSET.key: offset, _KNOWN.key: known}


def keyset_parameters(position: Sequence[object] | None, *, limit: int) -> Mapping[str, object]:
    """Return the parameters of the rows after a position."""
    at = {f"{_AT}{place}": value for place, value in enumerate(position or ())}
    return {**at, _LIMIT.key: limit}


def at_offset(
    analyzed: AnalyzedSelect,
    keys: SortColumns,
    dialect: str,
    defer: bool,
    backwards: bool = False,
    keyed: bool = False,
) -> Selection:
    """Return a select of up to limit rows at an offset; backwards from the end, in reverse."""
    if backwards:
        keys = tuple(key.reversed(dialect) for key in keys)
    return offset_select.page(
        analyzed, keys, limit=_LIMIT, offset=_OFFSET, dialect=dialect, defer=defer, keyed=keyed
    )


def at_offset_with_count(
    analyzed: AnalyzedSelect, keys: SortColumns, dialect: str, cap: int | None
) -> Selection:
    """Return a select of the rows of a page, each with the total as its last element.

    On PostgreSQL, a select of columns returns at least one row; the element before the total is
    NULL if the page is empty. Otherwise an empty page has no total.
    """
    is_lateral = dialect == "postgresql" and not analyzed.holds_entities
    page = at_offset(analyzed, keys, dialect, defer=False, keyed=is_lateral)
    counted = counting.count(analyzed, cap=cap, dialect=dialect)
    if dialect != "postgresql":
        return counting.beside(page, counted)
    if analyzed.holds_entities:
        return counting.beside_skipping(page, counted, offset=_KNOWN)
    return counting.lateral(analyzed, page, counted, keys, offset=_KNOWN, dialect=dialect)


def count_rows(
    analyzed: AnalyzedSelect,
    _: SortColumns,
    dialect: str,
    cap: int | None,
) -> Select[int]:
    """Return a select of the number of rows."""
    return counting.count(analyzed, cap=cap, dialect=dialect)


def estimate(analyzed: AnalyzedSelect, _: SortColumns) -> Executable:
    """Return a statement whose value `counting.read_estimate` reads."""
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
