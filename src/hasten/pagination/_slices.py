"""The rows of one page, as they were read from a database or another source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hasten.pagination._counts import NOT_COUNTED, Count


@dataclass(frozen=True, slots=True)
class OffsetSlice:
    """The rows of a page by number, which were found by skipping an offset."""

    rows: list[Any]
    has_more: bool
    """Whether there are more rows after these."""
    count: Count = NOT_COUNTED


@dataclass(frozen=True, slots=True)
class KeysetSlice:
    """The rows of a page by cursor: those after a position, or before it, in the requested order.

    A position is a tuple of the sort key values of one row.
    """

    rows: list[Any]
    has_more: bool
    """Whether there are more rows: before these if the page was read backwards, else after them."""
    first: tuple[object, ...] | None
    """The position of the first row; None if there are no rows."""
    last: tuple[object, ...] | None
    """The position of the last row; None if there are no rows."""
