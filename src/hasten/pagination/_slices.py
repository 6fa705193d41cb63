"""The rows of one page, as a database or another source returns them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hasten.pagination._counts import NOT_COUNTED, Count


@dataclass(frozen=True, slots=True)
class OffsetSlice:
    """The rows at an offset."""

    rows: list[Any]
    has_more: bool
    count: Count = NOT_COUNTED


@dataclass(frozen=True, slots=True)
class KeysetSlice:
    """The rows after a position, or before it, in the requested order."""

    rows: list[Any]
    has_more: bool
    """Whether there are more rows in the direction of reading."""
    first: tuple[object, ...] | None
    """The position of the first row, None if there is no row."""
    last: tuple[object, ...] | None
