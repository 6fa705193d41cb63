"""Schemas with a version: scripts that bring an older database up to date."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from sqlite3 import Connection

from hasten.errors import StoreTooNew


def run_migrations(
    name: str, connection: Connection, migrations: Sequence[str], *, table: str
) -> None:
    """Run the migrations that a database lacks, in one transaction.

    table has the version in its row 'schema'; the first migration creates it. Several processes
    may migrate at once. Raises `StoreTooNew`.
    """
    if schema_version(connection, table) == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = schema_version(connection, table)
        if found > len(migrations):
            raise StoreTooNew(
                name,
                f"written by a newer version of hasten (schema {found}, this version supports "
                f"{len(migrations)}): upgrade hasten, or use another file",
            )
        for migration in migrations[found:]:
            for statement in _statements(migration):
                connection.execute(statement)
        connection.execute(
            f"INSERT INTO {table} VALUES ('schema', ?) "  # noqa: S608 - a name of ours
            "ON CONFLICT DO UPDATE SET value = excluded.value",
            (len(migrations),),
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def schema_version(connection: Connection, table: str) -> int:
    """Return how many migrations a database has, 0 if it has no tables yet."""
    known = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    if known is None:
        return 0
    query = f"SELECT value FROM {table} WHERE name = 'schema'"  # noqa: S608 - a name of ours
    row = connection.execute(query).fetchone()
    return 0 if row is None else int(row[0])


def _statements(script: str) -> Iterator[str]:
    """Split a script into statements: `executescript` would commit the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
