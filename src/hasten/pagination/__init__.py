"""Pages of what a database, or anything in order, holds."""

from hasten._answers import Answer
from hasten.pagination.counts import Cached, Capped, Count
from hasten.pagination.order import Key
from hasten.pagination.page import CursorPage, Envelope, Page
from hasten.pagination.paginate import PER_PROCESS, Paginate
from hasten.pagination.params import PageParams
from hasten.pagination.sources import Source, Window

__all__ = [
    "PER_PROCESS",
    "Answer",
    "Cached",
    "Capped",
    "Count",
    "CursorPage",
    "Envelope",
    "Key",
    "Page",
    "PageParams",
    "Paginate",
    "Source",
    "Window",
]
