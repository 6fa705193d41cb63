"""Build `Page` and `CursorPage` objects from the rows that were read."""

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
"""The cursor of the first page: a position without values is before the first row."""


class CursorSigner:
    """Creates the signed cursor tokens of one query."""

    def __init__(self, keys: SigningKeys, query_fingerprint: bytes) -> None:
        """Create a signer whose tokens are valid only for the query with this fingerprint."""
        self._keys = keys
        self._query_fingerprint = query_fingerprint

    def sign(self, position: tuple[object, ...] | None, *, backwards: bool) -> str:
        """Return the token for the page after a position, or before it if backwards.

        None stands for the start of all rows; backwards, for their end.
        """
        return self._keys.sign(Cursor(position or (), backwards), self._query_fingerprint)


def build_page(q: PageParams, rows: list[Any], count: Count, *, has_more: bool) -> Page[Any]:
    """Build a page by number. The count is corrected by the rows that the page shows."""
    assert q.page is not None
    known = count._correct_total_by_page(q.offset, len(rows), has_more=has_more)
    return Page(rows, q.page, q.limit, known, has_more)


def build_cursor_page(
    q: PageParams, rows: list[Any], keyset_slice: KeysetSlice, count: Count, signer: CursorSigner
) -> CursorPage[Any]:
    """Build a page by cursor, with the tokens of the next and the previous page.

    rows are the rows to show, built from those of keyset_slice. Raises `InvalidOption` if the slice
    contains the row of its own cursor, because clients would never get past that row.
    """
    cursor = q.cursor or START
    position = cursor.values or None
    if keyset_slice.first is not None and position in (keyset_slice.first, keyset_slice.last):
        raise InvalidOption(
            "sort",
            [key.name for key in q.order],
            "sort keys whose values the database driver does not change: this page contains the "
            "row that it should begin after, so the comparison with the value in the cursor failed",
        )
    if count.total is not None:
        # An estimate, or a total that was counted before rows were inserted, may be too low.
        count = replace(count, total=max(count.total, len(rows)))
    has_previous = keyset_slice.has_more if cursor.backwards else position is not None
    has_next = position is not None if cursor.backwards else keyset_slice.has_more
    return CursorPage(
        rows,
        q.limit,
        next_cursor=signer.sign(keyset_slice.last, backwards=False) if has_next else None,
        prev_cursor=signer.sign(keyset_slice.first, backwards=True) if has_previous else None,
        count=count,
    )


def build_not_modified_page(q: PageParams, etag: str) -> Page[Any] | CursorPage[Any]:
    """Return a page without rows that is sent as a 304 (Not Modified) response."""
    page: Page[Any] | CursorPage[Any]
    if q.page is None:
        page = CursorPage([], q.limit, None, None)
    else:
        page = Page([], q.page, q.limit, NOT_COUNTED, has_more=False)
    page.etag = etag
    page.not_modified = True
    return page
