"""How much one transaction does: a constant number of rows, or of pages that become free.

A transaction keeps all other writers waiting. What is to be done for many jobs is done for a
portion of them, and what is left goes into the next transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from sqlite3 import Connection
from typing import Final

# Jobs that are moved, with some statements for each.
MOVED_AT_ONCE: Final = 256

# Jobs that are looked at, and that are deleted. Rows may be large, and what a deletion costs goes
# by the pages (of 4 KiB, mostly) that become free.
LOOKED_AT_ONCE: Final = 2_048
DELETED_AT_ONCE: Final = 2_048
FREED_AT_ONCE: Final = 2_048
MOST_IN_STATEMENT: Final = 64


class Portion:
    """What one transaction deletes, counted from here on."""

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
        return self.rows >= DELETED_AT_ONCE or self.freed >= FREED_AT_ONCE

    def delete(self, delete: Callable[[int], int], *, first: int = 1) -> bool:
        """Delete rows until the portion is full, or none are left. Returns whether it is full.

        delete takes how many rows to delete at most, and returns how many it has. The first time
        that is first: few, where nothing is known of their size.
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
