"""Limits of one transaction: how many rows it may touch, and how many pages it may free.

A transaction blocks all other writers. Work on many jobs is therefore split into portions, each in
a transaction of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from sqlite3 import Connection
from typing import Final

# Jobs to move in one transaction, with several statements for each.
MOVED_AT_ONCE: Final = 256

# Jobs to look at, or to delete, in one transaction. Rows may be large, and the cost of a deletion
# is proportional to the pages (mostly of 4 KiB) that it frees.
LOOKED_AT_ONCE: Final = 2_048
DELETED_AT_ONCE: Final = 2_048
FREED_AT_ONCE: Final = 2_048
MOST_IN_STATEMENT: Final = 64


class Portion:
    """Counts the rows that a transaction deletes and the pages that it frees."""

    __slots__ = ("_connection", "_free", "rows")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._free = _free_pages(connection)
        self.rows = 0

    @property
    def freed(self) -> int:
        """How many pages have become free."""
        return _free_pages(self._connection) - self._free

    @property
    def is_full(self) -> bool:
        """Whether the transaction should delete no more."""
        return self.rows >= DELETED_AT_ONCE or self.freed >= FREED_AT_ONCE

    def delete(self, delete: Callable[[int], int], *, first: int = 1) -> bool:
        """Delete rows until the portion is full or no rows are left. Returns whether it is full.

        delete takes the largest number of rows to delete and returns how many it has deleted.
        first is that number for the first call: small if the size of the rows is unknown.
        """
        count = first
        while not self.is_full:
            deleted = delete(count)
            self.rows += deleted
            if deleted < count:
                return False
            count = min(2 * count, MOST_IN_STATEMENT)
        return True


def _free_pages(connection: Connection) -> int:
    (pages,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(pages)
