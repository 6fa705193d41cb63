"""Pagination of database queries, lists and other ordered sources.

`Paginator` parses the query parameters of a request, reads the page and builds the response. It
works with every web framework; `hasten.fastapi.Paginate` integrates it with FastAPI.
"""

from hasten._queries import QueryLike
from hasten._responses import EncodedResponse, HeadersLike, RequestLike
from hasten.fields._names import Unknown
from hasten.pagination._counts import (
    Cached,
    Capped,
    Count,
    CountFunction,
    Counting,
    CountName,
    Relation,
)
from hasten.pagination._cursor import Cursor
from hasten.pagination._order import Nulls, Order, SortKey
from hasten.pagination._page import CursorPage, Envelope, Page
from hasten.pagination._paginator import Paginator, PaginatorOptions, Secret, SyncPaginator
from hasten.pagination._params import Mode, PageParams
from hasten.pagination._sources import Source, Window

__all__ = [
    "Cached",
    "Capped",
    "Count",
    "CountFunction",
    "CountName",
    "Counting",
    "Cursor",
    "CursorPage",
    "EncodedResponse",
    "Envelope",
    "HeadersLike",
    "Mode",
    "Nulls",
    "Order",
    "Page",
    "PageParams",
    "Paginator",
    "PaginatorOptions",
    "QueryLike",
    "Relation",
    "RequestLike",
    "Secret",
    "SortKey",
    "Source",
    "SyncPaginator",
    "Unknown",
    "Window",
]
