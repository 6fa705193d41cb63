"""Pages of a database, or of anything in order.

`Paginator` reads the parameters of a request, reads a page, and makes its response. It knows no
framework; `hasten.fastapi.Paginate` is the same for FastAPI.
"""

from hasten._answers import EncodedResponse, HeadersLike, RequestLike
from hasten._queries import QueryLike
from hasten.fields.names import Unknown
from hasten.pagination.counts import (
    Cached,
    Capped,
    Count,
    CountFunction,
    Counting,
    CountName,
    Relation,
)
from hasten.pagination.cursor import Cursor
from hasten.pagination.order import Nulls, Order, SortKey
from hasten.pagination.page import CursorPage, Envelope, Page
from hasten.pagination.paginator import Paginator, PaginatorOptions, Secret, SyncPaginator
from hasten.pagination.params import Mode, PageParams
from hasten.pagination.sources import Source, Window

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
