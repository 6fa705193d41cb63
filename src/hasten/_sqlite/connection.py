"""The SQLite connection of a database: opening it, configuring it and translating its errors."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from hasten._logs import get_logger
from hasten._sqlite.errors import to_store_error, to_store_rejected
from hasten._sqlite.files import check_file_is_usable, check_not_of_other_program, file_identity
from hasten.errors import StoreBusy, StoreRejected, StoreUnavailable

logger = get_logger("hasten.sqlite")

MIN_VERSION: Final = (3, 37, 0)  # the first version with STRICT tables

# The size of the write-ahead log, which SQLite overwrites from its beginning. It grows beyond this
# size only in a large transaction, or while a long read transaction prevents overwriting.
LOG_BYTES: Final = 16 * 1024 * 1024


class Connector:
    """Opens the connection of a database on first use, and again if its file was replaced.

    Only the thread of the `Database` uses it. `Database` documents the parameters.
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
        """PRAGMA data_version at the last check: it changes with commits of other processes."""
        self._prepare = prepare
        self._synchronous = synchronous
        self._is_flushing = True
        self._file: tuple[int, int] | None = None

    @property
    def is_open_on_file_at_path(self) -> bool:
        """Whether the connection is open and its file has not been moved, deleted or replaced."""
        if self.connection is None:
            return False
        return self.path is None or self._file == file_identity(self.path)

    def connect(self) -> sqlite3.Connection:
        """Return the connection. Opens it if it is closed, or if its file was moved or deleted."""
        if self.connection is not None:
            if self.path is None or self._file == file_identity(self.path):
                return self.connection
            # Otherwise writes would go to a file that no other process can find.
            what = (
                "opening the file that is there now"
                if self.path.exists()
                else "creating an empty one"
            )
            logger.warning("%s was moved, deleted or replaced: %s", self.name, what)
            self.disconnect()
        if sqlite3.sqlite_version_info < MIN_VERSION:
            raise StoreUnavailable(
                self.name,
                f"SQLite {sqlite3.sqlite_version} of this Python is too old: "
                f"hasten needs {'.'.join(map(str, MIN_VERSION))} or newer",
            )
        if self.path is not None:
            check_file_is_usable(self.name, self.path)
        connection = sqlite3.connect(
            ":memory:" if self.path is None else self.path,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,  # one thread uses it; the garbage collector may run in another
            cached_statements=512,
        )
        # Other programs may store text that is not UTF-8. It must not fail the read of other rows.
        connection.text_factory = _decode_text
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        self.connection = connection
        self._file = None if self.path is None else file_identity(self.path)
        return connection

    def disconnect(self) -> None:
        """Close the connection, if it is open."""
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def set_flush_at_commit(self, connection: sqlite3.Connection, should_flush: bool) -> None:
        """Set whether each commit is flushed to the disk from now on.

        A flush includes earlier commits. Has an effect only if `synchronous` is FULL.
        """
        if self._synchronous == "FULL" and should_flush != self._is_flushing:
            connection.execute(f"PRAGMA synchronous = {'FULL' if should_flush else 'NORMAL'}")
            self._is_flushing = should_flush

    @contextlib.contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Raise SQLite's errors in the block of `with` as `StoreError`.

        Errors about values that SQLite cannot store are also translated. After an error about the
        file, the connection is closed, and the next work opens it again.
        """
        try:
            yield
        except sqlite3.Error as exc:
            error = to_store_error(self.name, exc, self.busy_seconds)
            is_of_file = not isinstance(error, StoreBusy | StoreRejected)
            if is_of_file and self.path is not None:
                self.disconnect()
            raise error from exc
        except (UnicodeEncodeError, OverflowError) as exc:
            raise to_store_rejected(self.name, exc) from exc

    def _set_up(self, connection: sqlite3.Connection) -> None:
        """Apply hasten's settings to a new connection, and migrate the schema."""
        # Some builds of SQLite overwrite deleted data with zeros, which is several times slower.
        connection.execute("PRAGMA secure_delete = OFF")
        if self.path is not None:
            check_not_of_other_program(
                self.name, connection
            )  # again: `check_file_is_usable` skips it for a locked file
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            if not pages:  # in a file with tables, the setting has no effect
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise StoreUnavailable(
                    self.name,
                    "SQLite cannot use a write-ahead log here: move the file to a local disk",
                )
            # SQLite truncates the log to this size when it starts to overwrite it.
            connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}").fetchone()
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        self._is_flushing = True
        connection.execute("PRAGMA cache_size = -32768")  # KiB: an index of 200,000 jobs fits
        self._prepare(connection)
        _delete_statistics(connection)
        (self.data_version,) = connection.execute("PRAGMA data_version").fetchone()


def _decode_text(stored: bytes) -> str:
    """Decode a stored string. Bytes that are not UTF-8 are replaced."""
    return stored.decode("utf-8", "replace")


def _delete_statistics(connection: sqlite3.Connection) -> None:
    """Delete the statistics that ANALYZE has stored about hasten's tables.

    The tables grow and shrink within minutes. If one was analyzed while it was empty, SQLite would
    scan it instead of using an index once it is full. hasten's statements use the right indexes
    without statistics.
    """
    known = "SELECT name FROM sqlite_schema WHERE name IN ('sqlite_stat1', 'sqlite_stat4')"
    deleted = 0
    for (table,) in connection.execute(known).fetchall():
        ours = f"FROM {table} WHERE tbl GLOB 'hasten_*'"
        if connection.execute(f"SELECT 1 {ours} LIMIT 1").fetchone():
            deleted += connection.execute(f"DELETE {ours}").rowcount
    if deleted:
        # SQLite reads statistics with the schema. This makes it read both again.
        connection.execute("PRAGMA writable_schema = RESET")
