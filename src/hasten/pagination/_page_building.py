"""Build pages from slices of rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from hasten.errors import InvalidOption
from hasten.pagination._counts import NOT_COUNTED, Count
from hasten.pagination._cursor import Cursor, SigningKeys
from hasten.pagination._page import CursorPage, Page
from hasten.pagination._params import PageParams
from hasten.pagination._slices import KeysetSlice

START: Final = Cursor(())
"""A cursor without values is before the first row, or backwards after the last one."""


class CursorSigner:
    """Signs the cursors of one query."""

    def __init__(self, keys: SigningKeys, mark: bytes) -> None:
        """Sign with keys; mark is the fingerprint of the query."""
        self._keys = keys
        self._mark = mark

    def sign(self, position: tuple[object, ...] | None, *, backwards: bool) -> str:
        """Return the token of a position."""
        return self._keys.sign(Cursor(position or (), backwards), self._mark)


def build_page(q: PageParams, rows: list[Any], count: Count, *, has_more: bool) -> Page[Any]:
    """Return the page of rows at an offset."""
    assert q.page is not None
    known = count._with_page(q.offset, len(rows), has_more=has_more)
    return Page(rows, q.page, q.limit, known, has_more)


def build_cursor_page(
    q: PageParams, rows: list[Any], found: KeysetSlice, count: Count, signer: CursorSigner
) -> CursorPage[Any]:
    """Return the page of a slice, with cursors of the pages around it.

    Raises `InvalidOption` if the slice begins at the position that it should begin after.
    """
    cursor = q.cursor or START
    position = cursor.values or None
    if found.first is not None and position in (found.first, found.last):
        raise InvalidOption(
            "sort",
            [key.name for key in q.order],
            "keys whose values the driver reads and writes unchanged: this page begins with the "
            "row of its own cursor",
        )
    if count.total is not None:
        # Estimates, and totals that were counted before rows were inserted, may be too low.
        count = replace(count, total=max(count.total, len(rows)))
    has_previous = found.has_more if cursor.backwards else position is not None
    has_next = position is not None if cursor.backwards else found.has_more
    return CursorPage(
        rows,
        q.limit,
        next_cursor=signer.sign(found.last, backwards=False) if has_next else None,
        prev_cursor=signer.sign(found.first, backwards=True) if has_previous else None,
        count=count,
    )


def build_not_modified(q: PageParams, tag: str) -> Page[Any] | CursorPage[Any]:
    """Return a page without rows, whose response is 304."""
    page: Page[Any] | CursorPage[Any]
    if q.page is None:
        page = CursorPage([], q.limit, None, None)
    else:
        page = Page([], q.page, q.limit, NOT_COUNTED, has_more=False)
    page.etag = tag
    page.not_modified = True
    return page
