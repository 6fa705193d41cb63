"""Links to the other pages, for the Link header: RFC 8288.

They are relative (RFC 3986, section 4.2), to the request itself if no path is given: so they are
right behind every proxy, and out of reach of a forged Host.
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
"""So long is a Link header at most: common proxies have 4 or 8 KiB for all headers of an answer."""

_KEPT_FIRST: Final[tuple[Rel, ...]] = ("next", "prev", "first", "last")

_MOVES: Final = ("page", "cursor")

# RFC 3986, section 3.3, without what ends a link or parts two of them.
_IN_PATH: Final = "/:@!$&()*+=-._~"


def page_links(params: PageParams, count: Count, *, has_more: bool) -> dict[Rel, Query]:
    """The queries of the pages around one with a number; {} if it is the only one.

    The last page is linked if it is known exactly. Past the end, the one before is the last one.
    """
    assert params.page is not None
    last = count.last_page(params.limit)
    links: dict[Rel, Query] = {}
    if params.page > 1:
        links["prev"] = _moved(params, "page", str(min(params.page - 1, last or params.page)))
    if has_more:
        links["next"] = _moved(params, "page", str(params.page + 1))
    if not links:
        return {}
    links = {"first": _moved(params, "page", "1"), **links}
    if last is not None:
        links["last"] = _moved(params, "page", str(last))
    return links


def cursor_links(
    params: PageParams, *, prev_cursor: str | None, next_cursor: str | None
) -> dict[Rel, Query]:
    """The queries of the pages around one that a cursor leads to; {} if it is the only one."""
    links: dict[Rel, Query] = {}
    if prev_cursor is not None:
        links["prev"] = _moved(params, "cursor", prev_cursor)
    if next_cursor is not None:
        links["next"] = _moved(params, "cursor", next_cursor)
    return {"first": _moved(params, "cursor", ""), **links} if links else {}


def link_header(links: Mapping[Rel, Query], *, path: str = "", origin: str = "") -> str | None:
    """The value of the Link header, None without links.

    path is decoded, with the root path of the application before it; "" for the path of the
    request itself. origin ("https://api.example.org") makes the links absolute. Links repeat the
    query of the request, which a client may make as long as it likes: of those that do not fit into
    `MAX_LINK_BYTES` together "next" and "prev" are kept first, and the body still says all of it.
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


def _moved(params: PageParams, name: str, value: str) -> Query:
    kept = [pair for pair in params.query if pair[0] not in _MOVES]
    return (*kept, (name, value))


def _encoded(query: Query) -> str:
    # Everything but letters and digits is quoted: some read a Link header by splitting it at ", ".
    return urlencode(query, quote_via=quote, safe="", errors="replace")


def _quoted(path: str) -> str:
    quoted = quote(path, safe=_IN_PATH, errors="replace")
    # Two slashes would begin the name of a host. RFC 3986, section 4.2.
    return f"/.{quoted}" if quoted.startswith("//") else quoted
