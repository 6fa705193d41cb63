"""Translation of the errors of SQLite to `StoreError`."""

from __future__ import annotations

import re
import sqlite3

from hasten.errors import (
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreRejected,
    StoreUnavailable,
)


def to_store_error(name: str, error: sqlite3.Error, busy_seconds: float) -> StoreError:
    """Return the `StoreError` for an error of SQLite.

    Errors that are not about the file are errors about the data: `StoreRejected`. name is the URL
    of the store, for the message. busy_seconds is how long the caller has waited for a lock.
    """
    # An error that the sqlite3 module raises without calling SQLite has no code.
    code: int | None = getattr(error, "sqlite_errorcode", None)
    match code and code & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            return StoreBusy(
                name, f"locked by another process for {busy_seconds:g} s; nothing was written"
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StoreReadOnly(
                name, f"not writable ({error}): make the file and its folder writable"
            )
        case sqlite3.SQLITE_FULL:
            return StoreFull(name, f"no space left ({error}): free space on its disk")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreCorrupt(
                name,
                f"damaged, or not a SQLite database ({error}): "
                "restore it from a backup, or use another file",
            )
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_NOMEM:
            return StoreUnavailable(name, f"cannot open, read or write the file ({error})")
    if re.match("no such (table|column)", str(error)):
        return StoreCorrupt(name, f"tables of hasten are missing ({error}): use another file")
    return StoreRejected(name, str(error))


def to_store_rejected(name: str, error: UnicodeEncodeError | OverflowError) -> StoreRejected:
    """Return the `StoreRejected` for a string or a number that SQLite cannot store.

    name is the URL of the store, for the message.
    """
    if isinstance(error, OverflowError):
        cause = "a number has more than 64 bits"
    else:
        cause = f"a string has a lone surrogate at index {error.start}, which UTF-8 cannot encode"
    return StoreRejected(name, f"a value cannot be stored: {cause}")
