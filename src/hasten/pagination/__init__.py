"""Pages of what a database, or anything in order, holds."""

from hasten.pagination.counts import Capped, Count
from hasten.pagination.order import Key
from hasten.pagination.page import CursorPage, Envelope, Page
from hasten.pagination.paginate import PER_PROCESS, Paginate
from hasten.pagination.params import PageParams

__all__ = [
    "PER_PROCESS",
    "Capped",
    "Count",
    "CursorPage",
    "Envelope",
    "Key",
    "Page",
    "PageParams",
    "Paginate",
]
