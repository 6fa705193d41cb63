"""Pages of anything that is in order: a list, a document store, another service, a search.

A `Source` returns items of an order from an offset or a position on, and may count them. A list is
such a source, too; it never suspends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Protocol, TypeAlias

from hasten.errors import InvalidOption
from hasten.fields._allowed import FieldSet
from hasten.pagination._counts import NOT_COUNTED, Capped, Count, Counting, checked_count
from hasten.pagination._order import Order, SortKey
from hasten.pagination._slices import KeysetSlice, OffsetSlice


@dataclass(frozen=True, slots=True)
class Window:
    """Which items a source is to return."""

    order: Order
    """The order. For pages by cursor, no two items have equal values in all of its keys."""
    limit: int
    """The maximum number of items: one more than a page shows."""
    offset: int = 0
    """How many items to skip."""
    after: tuple[object, ...] | None = None
    """Only items after this position, given by the values of the keys of the order."""
    fields: FieldSet | None = None
    """The fields that are shown. A source may omit others, but not the keys of the order."""


class Source(Protocol):
    """Returns and counts items, which are dicts by public name or objects by attribute."""

    async def fetch(self, window: Window, /) -> Sequence[object]:
        """Return the items of a window, in its order."""

    async def count(self, cap: int | None, /) -> int | Count | None:
        """Return how many items there are, None if unknown. It may stop counting at cap + 1."""


async def fetch_offset_slice(source: Source, window: Window, count: Counting) -> OffsetSlice:
    """Fetch and count the items of a page. The window has the offset and the limit of the page."""
    counted = await fetch_count(source, count)
    items, has_more = await _fetch(source, window)
    known = counted._with_page(window.offset, len(items), has_more=has_more)
    return OffsetSlice(items, has_more, known)


async def fetch_keyset_slice(
    source: Source,
    window: Window,
    position_of: Callable[[object], tuple[object, ...]],
    *,
    backwards: bool,
) -> KeysetSlice:
    """Fetch the items after the position of the window, or before it if backwards."""
    if backwards:
        window = replace(window, order=tuple(map(_reversed, window.order)))
    items, has_more = await _fetch(source, window)
    if backwards:
        items.reverse()
    ends = [position_of(item) for item in (items[:1] + items[-1:])]
    first, last = ends or (None, None)
    return KeysetSlice(items, has_more, first, last)


async def fetch_count(source: Source, count: Counting) -> Count:
    """Count the items of a source as count requires, if the source can count them."""
    if count == "none":
        return NOT_COUNTED
    cap = count.limit if isinstance(count, Capped) else None
    found = await source.count(cap)
    if isinstance(found, int) and not isinstance(found, bool):
        return count._counted(found) if isinstance(count, Capped) else Count(found)
    return NOT_COUNTED if found is None else checked_count(found)


async def _fetch(source: Source, window: Window) -> tuple[list[object], bool]:
    """Return the items of a page and whether there are more, by fetching one item more."""
    items = list(await source.fetch(replace(window, limit=window.limit + 1)))
    return items[: window.limit], len(items) > window.limit


def _reversed(key: SortKey) -> SortKey:
    return replace(
        key, descending=not key.descending, nulls="last" if key.nulls == "first" else "first"
    )


# Lists --------------------------------------------------------------------------------------------


class Items:
    """A list as a source that never suspends. Its items are sorted in Python."""

    def __init__(self, items: Sequence[object], value_of: Callable[[object, str], object]) -> None:
        """value_of returns a value of an item by public name."""
        _check(items)
        self._items = items
        self._value_of = value_of

    async def count(self, cap: int | None, /) -> int:
        """Return the number of items."""
        return len(self._items)

    async def fetch(self, window: Window, /) -> Sequence[object]:
        """Return the items of a window."""
        try:
            items = self._sorted(window.order)
            if window.after is not None:
                position = [None if value is None else _rank(value) for value in window.after]
                items = [each for each in items if self._is_behind(each, window.order, position)]
        except TypeError as exc:
            names = [key.name for key in window.order]
            raise InvalidOption("sort", names, f"values that can be compared: {exc}") from exc
        return items[window.offset : window.offset + window.limit]

    def _sorted(self, order: Order) -> Sequence[object]:
        items = self._items
        for key in reversed(order):
            pairs = [(self._value_of(item, key.name), item) for item in items]
            known: list[Any] = [pair for pair in pairs if pair[0] is not None]
            unknown = [item for value, item in pairs if value is None]
            # By one key after the other, from the last one on, because sorting is stable.
            known.sort(key=lambda pair: _rank(pair[0]), reverse=key.descending)
            found = [item for _, item in known]
            items = unknown + found if key.nulls == "first" else found + unknown
        return items

    def _is_behind(self, item: object, order: Order, position: Sequence[_Rank | None]) -> bool:
        for key, there in zip(order, position, strict=True):
            value = self._value_of(item, key.name)
            if value is None or there is None:
                if value is there:
                    continue
                return (value is None) == (key.nulls == "last")
            here = _rank(value)
            if here != there:
                return (here > there) != key.descending
        return False


_Rank: TypeAlias = tuple[bool, Any]


def _rank(value: Any) -> _Rank:
    """Return a sort key with a total order, which Python's own comparison does not have.

    NaN is equal to itself and above all numbers, as in PostgreSQL. Times with a zone are compared
    by their moment: Python compares times of one zone by local time, which repeats an hour.
    """
    if isinstance(value, datetime) and (offset := value.utcoffset()) is not None:
        # As a timedelta, which does not overflow in the first and the last year.
        return False, value.replace(tzinfo=None) - datetime.min - offset  # noqa: DTZ901
    # Only NaN differs from itself.
    return (True, 0) if value != value else (False, value)  # noqa: PLR0124


_SQL: Final = "sqlalchemy"


def _check(items: object) -> None:
    if isinstance(items, str | bytes) or not isinstance(items, Sequence) or _is_of_sql(items):
        raise InvalidOption("items", type(items).__name__, "a list; for a select use page()")
    if any(hasattr(item, "_sa_instance_state") or _is_of_sql(item) for item in items[:1]):
        raise InvalidOption(
            "items",
            f"{type(items).__name__} of rows",
            "a list of plain items; for rows of a database use page()",
        )


def _is_of_sql(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == _SQL
