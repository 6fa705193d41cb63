"""Shortening the write-ahead log and returning free pages, while the database is idle."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Final

from hasten._sqlite.connection import LOG_BYTES, Connector
from hasten._sqlite.files import size_of

# Maintenance starts after the thread had no work, and the file no writer, for so long.
QUIET_SECONDS: Final = 0.2
RETRY_SECONDS: Final = 5.0  # after another process was in the way

# How many free pages a file keeps for new rows, and how many one transaction returns.
FREE_PAGES: Final = 2_048
PAGES_AT_ONCE: Final = 256
INCREMENTAL: Final = 2  # of PRAGMA auto_vacuum


class Maintenance:
    """Belongs to the thread of a `Database`. Times are of the monotonic clock."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._known_version = 0
        self.due_at: float | None = None
        """When the next step is due, None if nothing is to do."""

    def schedule(self, written: bool) -> None:
        """Start when the database is idle, counted from now, if there is something to do."""
        if self._connector.path is not None and (written or self.due_at is not None):
            self.due_at = time.monotonic() + QUIET_SECONDS

    @property
    def is_due(self) -> bool:
        return self.due_at is not None and time.monotonic() >= self.due_at

    def run(self) -> None:
        """Do one step, and schedule the next one."""
        wait: float | None = None
        connector = self._connector
        # Errors are ignored: the next work raises them to its caller. A file that was moved or
        # deleted must not be created again for this.
        if connector.connection is not None and connector.path and connector.is_current:
            try:
                wait = self._step(connector.connection, connector.path)
            except sqlite3.OperationalError:  # mostly: another process is in the way
                wait = RETRY_SECONDS
            except sqlite3.Error:
                wait = None
        self.due_at = None if wait is None else time.monotonic() + wait

    def _step(self, connection: sqlite3.Connection, path: Path) -> float | None:
        """Return after how many seconds the next step is due, None if all is done."""
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version != self._known_version:
            self._known_version = version
            return QUIET_SECONDS  # another process writes: only this one is idle
        spare = count_free_pages(connection) - FREE_PAGES
        if spare > 0:
            self._connector.set_flushing(connection, wanted=False)
            # Each page is a row without columns: `execute` would stop after the first.
            pages = min(spare, PAGES_AT_ONCE)
            connection.executescript(f"PRAGMA incremental_vacuum({pages})")
            return 0.0
        log = Path(f"{path}-wal")
        if size_of(log) <= LOG_BYTES and size_of(path) <= _length(connection):
            return None
        # Takes no lock that others wait for. If it completes, it also truncates the file.
        busy, length, written = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if busy or length != written:
            return RETRY_SECONDS
        if size_of(log) > LOG_BYTES:
            # Takes all locks, waits for none, and only has to truncate the log.
            (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return RETRY_SECONDS if busy else None


def count_free_pages(connection: sqlite3.Connection) -> int:
    """Return how many pages are empty and can be returned to the file system."""
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    if mode != INCREMENTAL:
        return 0
    (pages,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(pages)


def _length(connection: sqlite3.Connection) -> int:
    """Return the size of the database in bytes, with what is still in its log."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(size)
