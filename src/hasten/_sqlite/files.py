"""Checks of a database file before it is opened, and facts about it."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from pathlib import Path
from typing import Final

from hasten.errors import StoreCorrupt, StoreFull, StoreReadOnly, StoreUnavailable

OWN_TABLES: Final = "hasten_"
"""The prefix of the names of hasten's tables."""


def check_file(name: str, path: Path) -> None:
    """Create the file if it does not exist, and raise `StoreError` if it must not be used."""
    _check_access(name, path)
    _refuse_links(name, path)
    if not path.exists():
        _create(name, path)
    # SQLite's own errors are ignored here: they come again when the file is opened for writing.
    with contextlib.suppress(sqlite3.Error):
        address = read_only_address(path)
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=0)) as connection:
            check_tables(name, connection)


def _check_access(name: str, path: Path) -> None:
    """Raise an error that is clearer than SQLite's."""
    folder = path.parent
    if not folder.is_dir():
        raise StoreUnavailable(name, f"folder {folder} does not exist: create it")
    if path.exists() and not os.access(path, os.W_OK):
        raise StoreReadOnly(name, "not writable: make the file writable")
    if not os.access(folder, os.W_OK):
        reason = (
            f"SQLite keeps two more files beside it: make the folder {folder} writable"
            if path.exists()
            else f"cannot create the file: make the folder {folder} writable"
        )
        raise StoreReadOnly(name, reason)


def _refuse_links(name: str, path: Path) -> None:
    """Refuse links that could redirect writes to a file that another user has chosen."""
    if path.is_symlink() and not size_of(path):
        raise StoreUnavailable(
            name, "a symbolic link that leads to no store: name the file, or remove the link"
        )
    for suffix in ("-wal", "-shm", "-journal"):
        beside = Path(os.path.realpath(path) + suffix)
        if beside.is_symlink():
            raise StoreUnavailable(
                name, f"{beside} is a symbolic link, where SQLite keeps a file: remove the link"
            )


def _create(name: str, path: Path) -> None:
    # For this user alone. SQLite creates its two files beside it with the same mode.
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        pass  # another process was faster
    except OSError as exc:
        kind = StoreFull if exc.errno in {errno.ENOSPC, errno.EDQUOT} else StoreUnavailable
        raise kind(name, f"cannot create the file: {exc.strerror}") from exc


def check_tables(name: str, connection: sqlite3.Connection) -> None:
    """Raise `StoreCorrupt` for a database that has tables, but none of hasten."""
    rows = connection.execute("SELECT name FROM sqlite_schema")
    names = [found for (found,) in rows if not found.startswith("sqlite_")]
    if names and not any(found.startswith(OWN_TABLES) for found in names):
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise StoreCorrupt(
            name, f"a database of another program ({shown}), not changed: use another file"
        )


def read_only_address(path: Path) -> str:
    """Return the URI to read a database without changing it or the files beside it."""
    # If the log is missing, SQLite would create one.
    immutable = "" if Path(f"{path}-wal").exists() else "&immutable=1"
    return f"{path.absolute().as_uri()}?mode=ro{immutable}"


def size_of(path: Path) -> int:
    """Return the size of a file, 0 if it does not exist."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def identity_of(path: Path) -> tuple[int, int] | None:
    """Return the device and the inode of a file, None if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
