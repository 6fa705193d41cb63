"""The statements of one select in one order, each made once.

Numbers and positions are parameters: to the compiler of SQLAlchemy, to the driver and to the
database the statement is the same from page to page, and so is its text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, Final

from sqlalchemy import BigInteger, BindParameter, Executable, Select, bindparam

from hasten.pagination._sql import counting, keyset, paging
from hasten.pagination._sql.edges import is_at_edge
from hasten.pagination._sql.reading import Reading, Selection, SortColumns

MAX_STATEMENTS: Final = 64
"""So many are kept: there is one for each set of keys that are NULL at a position."""


def _number(name: str) -> BindParameter[int]:
    return bindparam(name, type_=BigInteger, required=True)


_LIMIT: Final = _number("hasten_limit")
_OFFSET: Final = _number("hasten_offset")
_KNOWN: Final = _number("hasten_known")
_AT: Final = "hasten_at_"


class Statements:
    """What can be asked of a select in an order."""

    def __init__(self, reading: Reading, keys: SortColumns) -> None:
        self.reading: Final = reading
        self.keys: Final = keys
        self._made: Callable[..., Any] = lru_cache(MAX_STATEMENTS)(
            lambda make, *options: make(reading, keys, *options)
        )

    @cached_property
    def places(self) -> list[int]:
        """Where in a row of these statements the values of the keys stand."""
        return keyset.layout(self.reading, self.keys)

    def page(self, dialect: str, *, defer: bool = False, backwards: bool = False) -> Selection:
        """Up to limit rows from an offset on; backwards from the end, last one first."""
        found: Selection = self._made(_page, dialect, defer, backwards)
        return found

    def page_and_count(self, dialect: str, cap: int | None) -> Selection:
        """The rows of a page, each with the total as its last element.

        If `is_lateral`, there is one row at least, and before the total stands whether it is of the
        page. Otherwise a page without rows tells no total.
        """
        found: Selection = self._made(_page_and_count, dialect, cap)
        return found

    def is_lateral(self, dialect: str) -> bool:
        return dialect == "postgresql" and not self.reading.holds_entities

    def count(self, dialect: str, cap: int | None) -> Select[int]:
        found: Select[int] = self._made(_count, dialect, cap)
        return found

    def estimate(self) -> Executable:
        found: Executable = self._made(_estimate)
        return found

    def after(
        self, dialect: str, position: Sequence[object] | None, *, backwards: bool
    ) -> list[Selection]:
        """The statements to be read in turn for the rows after a position."""
        nulls = None
        if position is not None:
            keyset.check_position(position, self.keys)
            if dialect == "postgresql" and is_at_edge(position, self.keys):
                # Said in the text of the statement, which is then made for this position alone.
                return keyset.after(
                    self.reading, self.keys, position,
                    limit=_LIMIT, dialect=dialect, backwards=backwards,
                )  # fmt: skip
            nulls = tuple([value is None for value in position])
        found: list[Selection] = self._made(_after, dialect, nulls, backwards)
        return found


def numbers(*, limit: int, offset: int = 0, cap: int | None = None) -> dict[str, object]:
    """The parameters of a page."""
    # A count that ended at the cap tells nothing about what is beyond it.
    known = offset if cap is None else min(offset, cap)
    return {_LIMIT.key: limit, _OFFSET.key: offset, _KNOWN.key: known}


def bounds(position: Sequence[object] | None, *, limit: int) -> Mapping[str, object]:
    """The parameters of what comes after a position."""
    at = {f"{_AT}{place}": value for place, value in enumerate(position or ())}
    return {**at, _LIMIT.key: limit}


def _page(
    reading: Reading,
    keys: SortColumns,
    dialect: str,
    defer: bool,
    backwards: bool,
    keyed: bool = False,
) -> Selection:
    if backwards:
        keys = tuple(key.reversed(dialect) for key in keys)
    return paging.page(
        reading, keys, limit=_LIMIT, offset=_OFFSET, dialect=dialect, defer=defer, keyed=keyed
    )


def _page_and_count(
    reading: Reading, keys: SortColumns, dialect: str, cap: int | None
) -> Selection:
    is_lateral = dialect == "postgresql" and not reading.holds_entities
    page = _page(reading, keys, dialect, defer=False, backwards=False, keyed=is_lateral)
    counted = counting.count(reading, cap=cap, dialect=dialect)
    if dialect != "postgresql":
        return counting.beside(page, counted)
    if reading.holds_entities:
        return counting.beside_skipping(page, counted, offset=_KNOWN)
    return counting.lateral(reading, page, counted, keys, offset=_KNOWN, dialect=dialect)


def _count(reading: Reading, keys: SortColumns, dialect: str, cap: int | None) -> Select[int]:  # noqa: ARG001
    return counting.count(reading, cap=cap, dialect=dialect)


def _estimate(reading: Reading, keys: SortColumns) -> Executable:  # noqa: ARG001
    return counting.estimate(reading)


def _after(
    reading: Reading, keys: SortColumns, dialect: str, nulls: Sequence[bool] | None, backwards: bool
) -> list[Selection]:
    position = None
    if nulls is not None:
        position = [
            None if is_null else bindparam(f"{_AT}{place}", type_=key.column.type, required=True)
            for place, (key, is_null) in enumerate(zip(keys, nulls, strict=True))
        ]
    return keyset.after(reading, keys, position, limit=_LIMIT, dialect=dialect, backwards=backwards)
