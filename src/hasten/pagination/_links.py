"""Links to other pages, for the Link header: RFC 8288.

They are relative (RFC 3986, section 4.2), by default to the request itself: so they are correct
behind every proxy, and a forged Host header cannot change them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import quote, urlencode

from hasten.pagination._counts import Count
from hasten.pagination._params import PageParams

Rel = Literal["first", "prev", "next", "last"]

Query = tuple[tuple[str, str], ...]

MAX_LINK_BYTES: Final = 4_096
"""The longest Link header. Common proxies allow 4 or 8 KiB for all headers of a response."""

_KEPT_FIRST: Final[tuple[Rel, ...]] = ("next", "prev", "first", "last")

_POSITIONS: Final = ("page", "cursor")

# RFC 3986, section 3.3, without the characters that end or separate links.
_IN_PATH: Final = "/:@!$&()*+=-._~"


def page_links(params: PageParams, count: Count, *, has_more: bool) -> dict[Rel, Query]:
    """Return the queries of the pages around a numbered page; {} if it is the only one.

    The last page is linked if it is known exactly. Past the end, the previous page is the last one.
    """
    assert params.page is not None
    last = count.last_page(params.limit)
    pages: dict[Rel, int] = {}
    if params.page > 1:
        pages["prev"] = min(params.page - 1, last or params.page)
    if has_more:
        pages["next"] = params.page + 1
    if not pages:
        return {}
    pages = {"first": 1, **pages}
    if last is not None:
        pages["last"] = last
    kept = _without_position(params)
    return {rel: (*kept, ("page", str(page))) for rel, page in pages.items()}


def cursor_links(
    params: PageParams, *, prev_cursor: str | None, next_cursor: str | None
) -> dict[Rel, Query]:
    """Return the queries of the pages around a page by cursor; {} if it is the only one."""
    cursors: dict[Rel, str] = {"first": ""}
    if prev_cursor is not None:
        cursors["prev"] = prev_cursor
    if next_cursor is not None:
        cursors["next"] = next_cursor
    if len(cursors) == 1:
        return {}
    kept = _without_position(params)
    return {rel: (*kept, ("cursor", cursor)) for rel, cursor in cursors.items()}


def link_header(links: Mapping[Rel, Query], *, path: str = "", origin: str = "") -> str | None:
    """Return the value of the Link header, None without links.

    path is decoded and includes the root path of the application; "" is the path of the request.
    origin ("https://api.example.org") makes the links absolute. Links repeat the query of the
    request, which may be long: if they do not all fit into `MAX_LINK_BYTES`, "next" and "prev" are
    kept first. The body contains the same information.
    """
    start = origin + _quoted(path)
    written: dict[Rel, str] = {}
    room = MAX_LINK_BYTES
    for rel in sorted(links, key=_KEPT_FIRST.index):
        query = links[rel]
        if sum([len(name) + len(value) for name, value in query]) < room:  # not shorter if encoded
            link = f'<{start}?{_encoded(query)}>; rel="{rel}"'
            if len(link) + 2 <= room:
                written[rel] = link
                room -= len(link) + 2
    return ", ".join([written[rel] for rel in links if rel in written]) or None


def _without_position(params: PageParams) -> Query:
    return tuple([pair for pair in params.query if pair[0] not in _POSITIONS])


def _encoded(query: Query) -> str:
    # Everything but letters and digits is quoted: some clients split a Link header at ", ".
    return urlencode(query, quote_via=quote, safe="", errors="replace")


def _quoted(path: str) -> str:
    quoted = quote(path, safe=_IN_PATH, errors="replace")
    # Two slashes would start the name of a host. RFC 3986, section 4.2.
    return f"/.{quoted}" if quoted.startswith("//") else quoted
