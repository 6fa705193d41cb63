"""Limits for one transaction: how many rows it may change, and how many pages it may free.

A transaction blocks all other writers. Operations on many jobs are therefore split into portions,
each in a transaction of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from sqlite3 import Connection
from typing import Final, TypeAlias

# How many jobs one transaction moves to another state, with several statements for each job.
MOVED_AT_ONCE: Final = 256

# How many jobs one transaction reads, or deletes. The cost of a deletion is proportional to the
# pages (usually of 4 KiB) that it frees, so their number is limited, too: jobs may be large.
LOOKED_AT_ONCE: Final = 2_048
DELETED_AT_ONCE: Final = 2_048
FREED_AT_ONCE: Final = 2_048
MOST_IN_STATEMENT: Final = 64  # how many jobs one DELETE deletes, at most

MoreLeft: TypeAlias = bool
"""Whether rows are left for the next transaction to delete."""


class DeletionBudget:
    """Limits how many rows one transaction deletes and how many database pages it frees.

    rows is the number of rows deleted so far.
    """

    __slots__ = ("_connection", "_free", "rows")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._free = _count_free_pages(connection)
        self.rows = 0

    @property
    def freed_pages(self) -> int:
        """How many pages of the database have become free since this budget was made."""
        return _count_free_pages(self._connection) - self._free

    @property
    def is_exhausted(self) -> bool:
        """Whether the transaction should delete no more rows, because a limit is reached."""
        return self.rows >= DELETED_AT_ONCE or self.freed_pages >= FREED_AT_ONCE

    def delete_until_exhausted(
        self, delete: Callable[[int], int], *, first_count: int = 1
    ) -> MoreLeft:
        """Call delete until a limit is reached or no rows are left.

        Returns whether rows may be left. delete takes the largest number of rows to delete, and
        returns how many it has deleted. That number starts with first_count, which should be small
        if the rows may be large, and doubles with each call.
        """
        count = first_count
        while not self.is_exhausted:
            deleted = delete(count)
            self.rows += deleted
            if deleted < count:
                return False
            count = min(2 * count, MOST_IN_STATEMENT)
        return True


def _count_free_pages(connection: Connection) -> int:
    """Return how many pages of the database are free."""
    (pages,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(pages)
