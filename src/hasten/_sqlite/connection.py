"""The connection of a database: opening it, its settings and its errors."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from hasten._logs import get_logger
from hasten._sqlite.errors import rejected_value, store_error
from hasten._sqlite.files import check_file, check_tables, identity_of
from hasten.errors import StoreBusy, StoreRejected, StoreUnavailable

logger = get_logger("hasten.sqlite")

MIN_VERSION: Final = (3, 37, 0)  # STRICT tables; RETURNING and UPDATE … FROM are older

# The write-ahead log keeps this length and is overwritten. It only grows beyond it in one large
# transaction, or while a reader prevents overwriting.
LOG_BYTES: Final = 16 * 1024 * 1024


class Connector:
    """Opens the connection on first use, and again if its file was replaced.

    Belongs to the thread of a `Database`, which documents the parameters.
    """

    def __init__(
        self,
        path: Path | None,
        name: str,
        prepare: Callable[[sqlite3.Connection], None],
        synchronous: str,
        busy_seconds: float,
    ) -> None:
        self.path = path
        self.name = name
        self.busy_seconds = busy_seconds
        self.connection: sqlite3.Connection | None = None
        self.data_version = 0
        """The version that the watches know: it changes with each commit of another process."""
        self._prepare = prepare
        self._synchronous = synchronous
        self._is_flushing = True
        self._file: tuple[int, int] | None = None

    @property
    def is_current(self) -> bool:
        """Whether the connection is open, and its file still has the path."""
        if self.connection is None:
            return False
        return self.path is None or self._file == identity_of(self.path)

    def connect(self) -> sqlite3.Connection:
        """Return the open connection."""
        if self.connection is not None:
            if self.path is None or self._file == identity_of(self.path):
                return self.connection
            # Further writes would go to a file that no other process can open.
            logger.warning("%s was moved or deleted: opening it again", self.name)
            self.disconnect()
        if sqlite3.sqlite_version_info < MIN_VERSION:
            raise StoreUnavailable(
                self.name,
                f"SQLite {sqlite3.sqlite_version} of this Python is too old: "
                f"hasten needs {'.'.join(map(str, MIN_VERSION))} or newer",
            )
        if self.path is not None:
            check_file(self.name, self.path)
        connection = sqlite3.connect(
            ":memory:" if self.path is None else self.path,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,  # one thread uses it; the garbage collector may run in another
            cached_statements=512,
        )
        # A text of another program that is not UTF-8 must not fail a whole batch.
        connection.text_factory = _text
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        self.connection = connection
        self._file = None if self.path is None else identity_of(self.path)
        return connection

    def disconnect(self) -> None:
        """Close the connection, if it is open."""
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def set_flushing(self, connection: sqlite3.Connection, wanted: bool) -> None:
        """Flush the next commit or not. A flush includes the earlier commits."""
        if self._synchronous == "FULL" and wanted != self._is_flushing:
            connection.execute(f"PRAGMA synchronous = {'FULL' if wanted else 'NORMAL'}")
            self._is_flushing = wanted

    @contextlib.contextmanager
    def errors_translated(self) -> Iterator[None]:
        """Translate errors of SQLite, and of values that it cannot store, to hasten's."""
        try:
            yield
        except sqlite3.Error as exc:
            error = store_error(self.name, exc, self.busy_seconds)
            is_of_file = not isinstance(error, StoreBusy | StoreRejected)
            if is_of_file and self.path is not None:
                self.disconnect()  # the next work opens it again
            raise error from exc
        except (UnicodeEncodeError, OverflowError) as exc:
            raise rejected_value(self.name, exc) from exc

    def _set_up(self, connection: sqlite3.Connection) -> None:
        # Some builds of SQLite overwrite deleted data with zeros, which is several times slower.
        connection.execute("PRAGMA secure_delete = OFF")
        if self.path is not None:
            check_tables(self.name, connection)  # again, for what was locked in check_file
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            if not pages:  # a file with tables keeps its setting
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise StoreUnavailable(
                    self.name, "no write-ahead log possible: is it on a network file system?"
                )
            # The connection that restarts the log truncates it to this length.
            connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}").fetchone()
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        self._is_flushing = True
        connection.execute("PRAGMA cache_size = -32768")  # KiB: an index of 200,000 jobs fits
        self._prepare(connection)
        _delete_statistics(connection)
        (self.data_version,) = connection.execute("PRAGMA data_version").fetchone()


def _text(stored: bytes) -> str:
    return stored.decode("utf-8", "replace")


def _delete_statistics(connection: sqlite3.Connection) -> None:
    """Delete the statistics that ANALYZE stored about hasten's tables.

    These tables grow and shrink within minutes: a table that was analyzed while it was empty would
    be scanned for every row when it is full. The statements are written for a planner without
    statistics.
    """
    known = "SELECT name FROM sqlite_schema WHERE name IN ('sqlite_stat1', 'sqlite_stat4')"
    deleted = 0
    for (table,) in connection.execute(known).fetchall():
        ours = f"FROM {table} WHERE tbl GLOB 'hasten_*'"
        if connection.execute(f"SELECT 1 {ours} LIMIT 1").fetchone():
            deleted += connection.execute(f"DELETE {ours}").rowcount
    if deleted:
        connection.execute("PRAGMA writable_schema = RESET")  # reloads the schema
