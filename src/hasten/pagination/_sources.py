"""Pages of anything that is in order: a list, a document store, another service, a search.

What a source can do is small: give so many items of an order, from a place on, and perhaps count
them. What pages are made of that is the same for all of them, and for lists, whose answers need
not be awaited: it is a generator that yields what it asks, and is sent the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from hasten.errors import InvalidOption
from hasten.fields._allowed import FieldSet
from hasten.pagination._counts import NOT_COUNTED, Capped, Count, Counting
from hasten.pagination._order import Order, SortKey

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Window:
    """Which items are asked of a source."""

    order: Order
    """To sort by. Where pages move by position, its last keys tell all items apart."""
    limit: int
    """So many at most: one more than a page shows, which tells whether there are further ones."""
    offset: int = 0
    """So many are left out before."""
    after: tuple[object, ...] | None = None
    """Only items that stand behind this position: the values of the keys of the order."""
    fields: FieldSet | None = None
    """What is shown of each: a source may leave all else out, but not the keys of the order."""


@dataclass(frozen=True, slots=True)
class HowMany:
    """Asks a source to count. A cap allows it to stop at the item after it."""

    cap: int | None


class Source(Protocol):
    """What pages can be made of. Items are dicts by public name, or objects by attribute."""

    async def fetch(self, window: Window, /) -> Sequence[object]:
        """The items of a window, in its order."""

    async def count(self, cap: int | None, /) -> int | Count | None:
        """How many items there are; None if nobody knows. With a cap, no more than one above it."""


Reading: TypeAlias = Generator[Window | HowMany, Any, T]


@dataclass(frozen=True, slots=True)
class Part:
    """What was read for one page."""

    items: list[object]
    has_more: bool
    """Whether there are items beyond, in the direction of reading."""
    count: Count = NOT_COUNTED


def numbered(window: Window, count: Counting) -> Reading[Part]:
    """A page at an offset. The window is as large as the page."""
    counted = yield from total(count)
    part = yield from _part(window)
    known = counted._with_page(window.offset, len(part.items), has_more=part.has_more)
    return replace(part, count=known)


def stretch(window: Window, count: Counting, *, backwards: bool) -> Reading[Part]:
    """A page behind a position, or before it if backwards: its items are in the order asked for."""
    counted = yield from total(count)
    if backwards:
        window = replace(window, order=tuple(map(_reversed, window.order)))
    part = yield from _part(window)
    if backwards:
        part.items.reverse()
    return replace(part, count=counted)


def total(count: Counting) -> Reading[Count]:
    """How many there are, as far as that is wanted and known."""
    if count == "none":
        return NOT_COUNTED
    cap = count.limit if isinstance(count, Capped) else None
    found = yield HowMany(cap)
    if isinstance(found, int) and not isinstance(found, bool):
        return count._counted(found) if isinstance(count, Capped) else Count(found)
    return NOT_COUNTED if found is None else to_count(found)


def to_count(found: object) -> Count:
    """What a function or a source has counted. Raises `InvalidOption`."""
    if isinstance(found, Count):
        return found
    if isinstance(found, int) and not isinstance(found, bool) and found >= 0:
        return Count(found)
    raise InvalidOption("count", found, "a function that gives a number of rows, or a Count")


def _part(window: Window) -> Reading[Part]:
    items = list((yield replace(window, limit=window.limit + 1)))
    has_more = len(items) > window.limit
    return Part(items[: window.limit], has_more)


def _reversed(key: SortKey) -> SortKey:
    return replace(
        key, descending=not key.descending, nulls="last" if key.nulls == "first" else "first"
    )


# Lists --------------------------------------------------------------------------------------------


class Items:
    """A list as a source that need not be awaited. Sorted in Python, so by its idea of order."""

    def __init__(self, items: Sequence[object], value_of: Callable[[object, str], object]) -> None:
        """value_of gives the value of an item by public name."""
        _check(items)
        self._items = items
        self._value_of = value_of

    def answer(self, asked: Window | HowMany) -> object:
        if isinstance(asked, HowMany):
            return len(self._items)
        return self._fetch(asked)

    def _fetch(self, window: Window) -> Sequence[object]:
        try:
            items = self._sorted(window.order)
            if window.after is not None:
                place = [None if value is None else _rank(value) for value in window.after]
                items = [each for each in items if self._is_behind(each, window.order, place)]
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
            # Sorted in turn from the last key on: sorting is stable, in both directions.
            known.sort(key=lambda pair: _rank(pair[0]), reverse=key.descending)
            found = [item for _, item in known]
            items = unknown + found if key.nulls == "first" else found + unknown
        return items

    def _is_behind(self, item: object, order: Order, place: Sequence[_Rank | None]) -> bool:
        for key, there in zip(order, place, strict=True):
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
    """What a value is compared by, where Python's own idea of it is no total order.

    NaN is equal to itself and above all numbers, as in PostgreSQL. Of times in a zone the moment
    counts: Python compares those of one zone by the clock on its wall, which shows an hour twice.
    """
    if isinstance(value, datetime) and (offset := value.utcoffset()) is not None:
        # As a span, which has room where the first and the last year end.
        return False, value.replace(tzinfo=None) - datetime.min - offset  # noqa: DTZ901
    # Only NaN differs from itself.
    return (True, 0) if value != value else (False, value)  # noqa: PLR0124


_SQL: Final = "sqlalchemy"


def _check(items: object) -> None:
    if isinstance(items, str | bytes) or not isinstance(items, Sequence) or _is_of_sql(items):
        raise InvalidOption("items", type(items).__name__, "a list; for a select, page()")
    if any(hasattr(item, "_sa_instance_state") or _is_of_sql(item) for item in items[:1]):
        raise InvalidOption(
            "items", f"{type(items).__name__} of rows", "page() with the select that they came from"
        )


def _is_of_sql(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == _SQL
