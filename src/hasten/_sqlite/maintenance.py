"""Maintenance while the database is idle: it shrinks the write-ahead log and the database file."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Final

from hasten._sqlite.connection import LOG_BYTES, Connector
from hasten._sqlite.files import file_size

# Maintenance starts when the thread has had no work, and the file no writer, for this long.
QUIET_SECONDS: Final = 0.2
RETRY_SECONDS: Final = 5.0  # the pause after another process has prevented a step

# How many free pages a file keeps for new rows, and how many more one transaction returns to the
# file system.
FREE_PAGES: Final = 2_048
PAGES_AT_ONCE: Final = 256
INCREMENTAL: Final = 2  # the value of PRAGMA auto_vacuum


class Maintenance:
    """Shrinks the files of an idle database, one step at a time. Runs in the `Database`'s thread.

    Times are those of the monotonic clock, in seconds.
    """

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._known_version = 0
        self.due_at: float | None = None
        """When the next step is due, None if there is nothing to do."""

    def schedule_after_transaction(self, *, has_written: bool) -> None:
        """Schedule maintenance for when the database has been idle for `QUIET_SECONDS` from now.

        Called after each transaction. If it has not written, only maintenance that is already
        scheduled is postponed.
        """
        if self._connector.path is not None and (has_written or self.due_at is not None):
            self.due_at = time.monotonic() + QUIET_SECONDS

    @property
    def is_due(self) -> bool:
        """Whether the next step is due now."""
        return self.due_at is not None and time.monotonic() >= self.due_at

    def run(self) -> None:
        """Do one step of maintenance, and schedule the next one."""
        wait: float | None = None
        connector = self._connector
        # Errors are ignored: the next work fails with them and reports them. Maintenance must not
        # connect, because that would create a file that was moved or deleted.
        if (
            connector.connection is not None
            and connector.path
            and connector.is_open_on_file_at_path
        ):
            try:
                wait = self._run_step_and_get_wait_seconds(connector.connection, connector.path)
            except sqlite3.OperationalError:  # usually because another process holds a lock
                wait = RETRY_SECONDS
            except sqlite3.Error:
                wait = None
        self.due_at = None if wait is None else time.monotonic() + wait

    def _run_step_and_get_wait_seconds(
        self, connection: sqlite3.Connection, path: Path
    ) -> float | None:
        """Do one step. Returns the seconds until the next step, None if maintenance is complete."""
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version != self._known_version:
            self._known_version = version
            return QUIET_SECONDS  # another process has written, so the file is not idle
        spare = count_free_pages(connection) - FREE_PAGES
        if spare > 0:
            self._connector.set_flush_at_commit(connection, should_flush=False)
            # This PRAGMA returns a row per page, and `execute` would stop after the first row.
            pages = min(spare, PAGES_AT_ONCE)
            connection.executescript(f"PRAGMA incremental_vacuum({pages})")
            return 0.0
        log = Path(f"{path}-wal")
        if file_size(log) <= LOG_BYTES and file_size(path) <= _database_bytes(connection):
            return None
        # A passive checkpoint blocks no other process. A complete one also truncates the database
        # file.
        busy, length, written = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if busy or length != written:
            return RETRY_SECONDS
        if file_size(log) > LOG_BYTES:
            # The log is already copied into the database, so this only truncates it, at once. It
            # needs all locks, and does not wait for them.
            (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return RETRY_SECONDS if busy else None


def count_free_pages(connection: sqlite3.Connection) -> int:
    """Return how many free pages SQLite can return to the file system.

    Returns 0 if the file was created without incremental vacuum.
    """
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    if mode != INCREMENTAL:
        return 0
    (pages,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(pages)


def _database_bytes(connection: sqlite3.Connection) -> int:
    """Return the size of the database in bytes, including changes that are still in its log."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(size)
