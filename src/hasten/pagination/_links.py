"""Links to other pages, for the Link header (RFC 8288).

The links are relative to the URL of the request (RFC 3986, section 4.2), unless an origin is given.
So they are correct behind every proxy, and a forged Host header cannot change them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import quote, urlencode

from hasten.pagination._counts import Count
from hasten.pagination._params import PageParams

Rel = Literal["first", "prev", "next", "last"]
"""The relation type of a link: which page it leads to."""

Query = tuple[tuple[str, str], ...]
"""The query of a link: decoded names and values."""

MAX_LINK_BYTES: Final = 4_096
"""The maximum size of a Link header. Common proxies allow 4 or 8 KiB for all response headers."""

_BY_IMPORTANCE: Final[tuple[Rel, ...]] = ("next", "prev", "first", "last")
"""The links, the last of which are omitted first if the header gets too long."""

_POSITIONS: Final = ("page", "cursor")

# The characters of a path that need no quoting (RFC 3986, section 3.3), except those that would end
# or separate links.
_IN_PATH: Final = "/:@!$&()*+=-._~"


def make_page_links(params: PageParams, count: Count, *, has_more: bool) -> dict[Rel, Query]:
    """Return the queries of the links from a page by number; {} if it is the only page.

    "last" is included if the total is exact. From a page past the end, "prev" is the last page.
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
    kept = _query_without_position(params)
    return {rel: (*kept, ("page", str(page))) for rel, page in pages.items()}


def make_cursor_links(
    params: PageParams, *, prev_cursor: str | None, next_cursor: str | None
) -> dict[Rel, Query]:
    """Return the queries of the links from a page by cursor; {} if it is the only page."""
    cursors: dict[Rel, str] = {"first": ""}
    if prev_cursor is not None:
        cursors["prev"] = prev_cursor
    if next_cursor is not None:
        cursors["next"] = next_cursor
    if len(cursors) == 1:
        return {}
    kept = _query_without_position(params)
    return {rel: (*kept, ("cursor", cursor)) for rel, cursor in cursors.items()}


def format_link_header(
    links: Mapping[Rel, Query], *, path: str = "", origin: str = ""
) -> str | None:
    """Return the value of the Link header; None if there are no links.

    path is the decoded path of the request, with the root path of the application; without it, the
    links consist of a query only. origin, such as "https://api.example.org", makes the links
    absolute. Links repeat the query of the request, which may be long. If not all of them fit into
    `MAX_LINK_BYTES`, "next" and "prev" are kept rather than "first" and "last".
    """
    start = origin + _quote_path(path)
    written: dict[Rel, str] = {}
    room = MAX_LINK_BYTES
    for rel in sorted(links, key=_BY_IMPORTANCE.index):
        query = links[rel]
        # Encoding never makes a query shorter, so one that is too long need not be encoded.
        if sum([len(name) + len(value) for name, value in query]) < room:
            link = f'<{start}?{_encode_query(query)}>; rel="{rel}"'
            if len(link) + 2 <= room:
                written[rel] = link
                room -= len(link) + 2
    return ", ".join([written[rel] for rel in links if rel in written]) or None


def _query_without_position(params: PageParams) -> Query:
    """Return the query of the request without ``page`` and ``cursor``."""
    return tuple([pair for pair in params.query if pair[0] not in _POSITIONS])


def _encode_query(query: Query) -> str:
    # Commas are quoted, too, because some clients split a Link header at ", ".
    return urlencode(query, quote_via=quote, safe="", errors="replace")


def _quote_path(path: str) -> str:
    quoted = quote(path, safe=_IN_PATH, errors="replace")
    # A reference that begins with two slashes contains a host name (RFC 3986, section 4.2).
    return f"/.{quoted}" if quoted.startswith("//") else quoted
