"""Checks of a database file before it is opened, and functions that return facts about a file."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from pathlib import Path
from typing import Final

from hasten.errors import StoreCorrupt, StoreFull, StoreReadOnly, StoreUnavailable

OWN_TABLES: Final = "hasten_"
"""The prefix of the names of all tables that hasten creates."""


def check_file_is_usable(name: str, path: Path) -> None:
    """Check that hasten may use the file of a store, and create it if it does not exist.

    Raises `StoreError` if the file is not writable, is behind an unsafe symbolic link, or belongs
    to another program. name is the URL of the store, for messages.
    """
    _check_access(name, path)
    _reject_unsafe_links(name, path)
    if not path.exists():
        _create_file(name, path)
    # SQLite's errors are ignored here. They occur again, and are reported, when the file is opened
    # for writing.
    with contextlib.suppress(sqlite3.Error):
        address = read_only_uri(path)
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=0)) as connection:
            check_not_of_other_program(name, connection)


def _check_access(name: str, path: Path) -> None:
    """Raise `StoreError` if the folder is missing, or the file or the folder is not writable.

    SQLite would only report "unable to open database file".
    """
    folder = path.parent
    if not folder.is_dir():
        raise StoreUnavailable(name, f"folder {folder} does not exist: create it")
    if path.exists() and not os.access(path, os.W_OK):
        raise StoreReadOnly(name, "not writable: make the file writable")
    if not os.access(folder, os.W_OK):
        reason = (
            f"SQLite creates two more files next to it: make the folder {folder} writable"
            if path.exists()
            else f"cannot create the file: make the folder {folder} writable"
        )
        raise StoreReadOnly(name, reason)


def _reject_unsafe_links(name: str, path: Path) -> None:
    """Raise `StoreUnavailable` for symbolic links that another user may have placed.

    Such a link could redirect writes to another file of this user. A link to an existing store is
    allowed.
    """
    if path.is_symlink() and not file_size(path):
        raise StoreUnavailable(
            name,
            "this is a symbolic link that leads to no store: remove the link, or use another path",
        )
    for suffix in ("-wal", "-shm", "-journal"):
        companion = Path(os.path.realpath(path) + suffix)
        if companion.is_symlink():
            raise StoreUnavailable(
                name,
                f"{companion} is a symbolic link, but SQLite keeps a file there: remove the link",
            )


def _create_file(name: str, path: Path) -> None:
    """Create an empty file that only this user can read and write."""
    # SQLite creates its two additional files with the same mode.
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        pass  # another process has just created it
    except OSError as exc:
        kind = StoreFull if exc.errno in {errno.ENOSPC, errno.EDQUOT} else StoreUnavailable
        raise kind(name, f"cannot create the file: {exc.strerror}") from exc


def check_not_of_other_program(name: str, connection: sqlite3.Connection) -> None:
    """Raise `StoreCorrupt` if the database has tables, but none of hasten's."""
    rows = connection.execute("SELECT name FROM sqlite_schema")
    names = [found for (found,) in rows if not found.startswith("sqlite_")]
    if names and not any(found.startswith(OWN_TABLES) for found in names):
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise StoreCorrupt(
            name,
            f"this is a database of another program (tables: {shown}): use another file. "
            "Nothing was changed",
        )


def read_only_uri(path: Path) -> str:
    """Return the URI that opens a database for reading without changing or creating any file."""
    # Without "immutable", SQLite would create the write-ahead log if it is missing.
    immutable = "" if Path(f"{path}-wal").exists() else "&immutable=1"
    return f"{path.absolute().as_uri()}?mode=ro{immutable}"


def file_size(path: Path) -> int:
    """Return the size of a file, 0 if it does not exist."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode, which identify a file after a rename; None if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
