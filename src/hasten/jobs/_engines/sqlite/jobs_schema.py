"""The schema of the engine's tables: migrating it, and checking that a file has it."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from hasten._sqlite import read_only_uri, run_migrations, schema_version
from hasten.errors import StoreUnavailable
from hasten.jobs._engines.sqlite.job_statements import MIGRATIONS

META: Final = "hasten_meta"


def migrate(url: str, connection: Connection) -> None:
    """Create the tables, or migrate them to the newest schema.

    Several processes may call this at once. url is for messages.
    """
    run_migrations(url, connection, MIGRATIONS, table=META)


def require_existing_store(url: str, path: Path | None) -> None:
    """Raise `StoreUnavailable` if path is not an existing hasten database. Changes nothing.

    For commands that only read. They should not create a file because of a wrong path.
    """
    if path is None:
        raise StoreUnavailable(
            url,
            "another process cannot open a store in memory: "
            "set HASTEN_URL or Queue(store=...) to a file or a server",
        )
    fault = _why_not_hasten_file(path)
    if fault is not None:
        raise StoreUnavailable(
            url,
            f"{fault}. Run hasten in the folder in which the application runs, "
            "or set HASTEN_URL or Queue(store=...)",
        )


def _why_not_hasten_file(path: Path) -> str | None:
    """Return why a file is not a hasten database, None if it is one."""
    if not path.exists():
        return "no such file"
    if path.stat().st_size == 0:
        return "the file is empty"
    try:
        with contextlib.closing(sqlite3.connect(read_only_uri(path), uri=True)) as connection:
            return None if schema_version(connection, META) else "not a database of hasten"
    except sqlite3.Error:
        return None  # opening the file later raises the same error, and reports it better
