"""Pages of ordered data that is not in a SQL database: a list, a document store, a search engine.

A `Source` returns items in a given order, starting at an offset or after a position, and may count
them. Lists are read through the same interface, without suspending.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Protocol, TypeAlias

from hasten.errors import InvalidOption
from hasten.fields._allowed import FieldSet
from hasten.pagination._counts import NOT_COUNTED, Capped, Count, Counting, to_checked_count
from hasten.pagination._order import Order, SortKey
from hasten.pagination._slices import KeysetSlice, OffsetSlice


@dataclass(frozen=True, slots=True)
class Window:
    """The range of items that a `Source` is requested to return."""

    order: Order
    """The sort keys. For pages by cursor, no two items have equal values in all of them."""
    limit: int
    """The maximum number of items: one more than the page shows, to find out if there are more."""
    offset: int = 0
    """The number of items to skip."""
    after: tuple[object, ...] | None = None
    """If set, return only items that are sorted after this position: a value for each sort key."""
    fields: FieldSet | None = None
    """The fields that the response shows. Items may lack other fields, except for sort keys."""


HasMore: TypeAlias = bool


class Source(Protocol):
    """The interface of data that can be paged without a SQL database. You implement it.

    Items are dicts with public field names as keys, or objects with the fields as attributes.
    """

    async def fetch(self, window: Window, /) -> Sequence[object]:
        """Return the items of a window, in the order of the window."""

    async def count(self, cap: int | None, /) -> int | Count | None:
        """Return the number of all items; None if it is unknown.

        With a cap, counting may stop at cap + 1.
        """


async def fetch_offset_slice(source: Source, window: Window, counting: Counting) -> OffsetSlice:
    """Fetch the items of a page by number, and count all items.

    The window has the offset and the limit of the page.
    """
    counted = await fetch_count(source, counting)
    items, has_more = await _fetch_and_check_for_more(source, window)
    known = counted._correct_total_by_page(window.offset, len(items), has_more=has_more)
    return OffsetSlice(items, has_more, known)


async def fetch_keyset_slice(
    source: Source,
    window: Window,
    position_of: Callable[[object], tuple[object, ...]],
    *,
    backwards: bool,
) -> KeysetSlice:
    """Fetch the items after ``window.after``, or before it if backwards.

    They are returned in the order of the window in both cases. position_of returns
    the sort key values of an item.
    """
    if backwards:
        window = replace(window, order=tuple(map(_reverse_sort_key, window.order)))
    items, has_more = await _fetch_and_check_for_more(source, window)
    if backwards:
        items.reverse()
    ends = [position_of(item) for item in (items[:1] + items[-1:])]
    first, last = ends or (None, None)
    return KeysetSlice(items, has_more, first, last)


async def fetch_count(source: Source, counting: Counting) -> Count:
    """Count the items of a source. counting is the option ``count=`` of the paginator.

    The result is `NOT_COUNTED` for "none", and if the source cannot count.
    """
    if counting == "none":
        return NOT_COUNTED
    cap = counting.limit if isinstance(counting, Capped) else None
    found = await source.count(cap)
    if isinstance(found, int) and not isinstance(found, bool):
        return counting._to_capped_count(found) if isinstance(counting, Capped) else Count(found)
    return NOT_COUNTED if found is None else to_checked_count(found)


async def _fetch_and_check_for_more(source: Source, window: Window) -> tuple[list[object], HasMore]:
    """Return the items of a page, and whether there are more items after them.

    To find out, one item more than the page shows is fetched.
    """
    items = list(await source.fetch(replace(window, limit=window.limit + 1)))
    return items[: window.limit], len(items) > window.limit


def _reverse_sort_key(key: SortKey) -> SortKey:
    return replace(
        key, descending=not key.descending, nulls="last" if key.nulls == "first" else "first"
    )


# Lists --------------------------------------------------------------------------------------------


class ListSource:
    """A `Source` that reads from a list. It sorts the items in Python and never suspends."""

    def __init__(self, items: Sequence[object], value_of: Callable[[object, str], object]) -> None:
        """Create a source of these items.

        value_of returns the value of a field, given an item and the public name of the field.
        """
        _require_item_sequence(items)
        self._items = items
        self._value_of = value_of

    async def count(self, cap: int | None, /) -> int:
        """Return the number of items."""
        return len(self._items)

    async def fetch(self, window: Window, /) -> Sequence[object]:
        """Return the items of a window. Raises `InvalidOption` if values cannot be compared."""
        try:
            items = self._sort_items(window.order)
            if window.after is not None:
                position = [
                    None if value is None else _comparison_key(value) for value in window.after
                ]
                items = [
                    each for each in items if self._is_after_position(each, window.order, position)
                ]
        except TypeError as exc:
            names = [key.name for key in window.order]
            raise InvalidOption(
                "sort", names, f"fields whose values can be compared with each other ({exc})"
            ) from exc
        return items[window.offset : window.offset + window.limit]

    def _sort_items(self, order: Order) -> Sequence[object]:
        items = self._items
        for key in reversed(order):
            pairs = [(self._value_of(item, key.name), item) for item in items]
            known: list[Any] = [pair for pair in pairs if pair[0] is not None]
            unknown = [item for value, item in pairs if value is None]
            # Sorting is stable, so sorting by the last key first yields the whole order.
            known.sort(key=lambda pair: _comparison_key(pair[0]), reverse=key.descending)
            found = [item for _, item in known]
            items = unknown + found if key.nulls == "first" else found + unknown
        return items

    def _is_after_position(
        self, item: object, order: Order, position: Sequence[_ComparisonKey | None]
    ) -> bool:
        """Return whether an item is sorted after a position."""
        for key, there in zip(order, position, strict=True):
            value = self._value_of(item, key.name)
            if value is None or there is None:
                if value is there:
                    continue
                return (value is None) == (key.nulls == "last")
            here = _comparison_key(value)
            if here != there:
                return (here > there) != key.descending
        return False


_ComparisonKey: TypeAlias = tuple[bool, Any]


def _comparison_key(value: Any) -> _ComparisonKey:
    """Return a key that sorts a value consistently where Python's own comparison does not.

    NaN is equal to itself and greater than all numbers, as in PostgreSQL. Times with a zone are
    compared in UTC: Python compares two times of one zone by local time, which repeats an hour when
    daylight saving time ends.
    """
    if isinstance(value, datetime) and (offset := value.utcoffset()) is not None:
        # astimezone(UTC) would overflow in the years 1 and 9999, but a timedelta does not.
        return False, value.replace(tzinfo=None) - datetime.min - offset  # noqa: DTZ901
    # Only NaN differs from itself.
    return (True, 0) if value != value else (False, value)  # noqa: PLR0124


_SQL: Final = "sqlalchemy"


def _require_item_sequence(items: object) -> None:
    """Raise `InvalidOption` unless items is a sequence that does not come from SQLAlchemy."""
    if (
        isinstance(items, str | bytes)
        or not isinstance(items, Sequence)
        or _is_sqlalchemy_object(items)
    ):
        raise InvalidOption("items", type(items).__name__, "a list; for a select, use page()")
    if any(
        hasattr(item, "_sa_instance_state") or _is_sqlalchemy_object(item) for item in items[:1]
    ):
        raise InvalidOption(
            "items",
            f"{type(items).__name__} of database rows",
            "a list of other objects; for rows of a database, use page() with a select",
        )


def _is_sqlalchemy_object(value: object) -> bool:
    """Return whether the class of a value is defined by SQLAlchemy."""
    return type(value).__module__.partition(".")[0] == _SQL
