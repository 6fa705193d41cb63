"""The schema of the tables of jobs, and its migrations."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from sqlite3 import Connection

from hasten._sqlite import read_only_address
from hasten.errors import StoreTooNew, StoreUnavailable
from hasten.jobs._engines.sqlite.job_statements import MIGRATIONS


def migrate(url: str, connection: Connection) -> None:
    """Migrate to the newest schema in one transaction. Several processes may try at once."""
    if _schema_version(connection) == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = _schema_version(connection)
        if found > len(MIGRATIONS):
            raise StoreTooNew(
                url,
                f"written by a newer version of hasten (schema {found}, this version supports "
                f"{len(MIGRATIONS)}): upgrade hasten, or use another file",
            )
        for migration in MIGRATIONS[found:]:
            for statement in _statements(migration):
                connection.execute(statement)
        connection.execute(
            "INSERT INTO hasten_meta VALUES ('schema', ?) "
            "ON CONFLICT DO UPDATE SET value = excluded.value",
            (len(MIGRATIONS),),
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def require_existing(url: str, path: Path | None) -> None:
    """Raise `StoreUnavailable` unless path is a database that has our schema. Changes nothing."""
    if path is None:
        raise StoreUnavailable(
            url,
            "another process cannot open a store in memory: "
            "set HASTEN_URL or Queue(store=...) to a file or a server",
        )
    fault = _why_not_ours(path)
    if fault is not None:
        raise StoreUnavailable(
            url,
            f"{fault}. Run the command in the folder of the application, "
            "or set HASTEN_URL or Queue(store=...)",
        )


def _why_not_ours(path: Path) -> str | None:
    if not path.exists():
        return "no such file"
    if path.stat().st_size == 0:
        return "the file is empty"
    try:
        with contextlib.closing(sqlite3.connect(read_only_address(path), uri=True)) as connection:
            return None if _schema_version(connection) else "not a database of hasten"
    except sqlite3.Error:
        return None  # opening it later fails in the same way, and reports the error


def _schema_version(connection: Connection) -> int:
    table = "SELECT 1 FROM sqlite_schema WHERE name = 'hasten_meta'"
    if connection.execute(table).fetchone() is None:
        return 0
    row = connection.execute("SELECT value FROM hasten_meta WHERE name = 'schema'").fetchone()
    return 0 if row is None else int(row[0])


def _statements(script: str) -> Iterator[str]:
    """Split a script into statements: `executescript` would commit the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
