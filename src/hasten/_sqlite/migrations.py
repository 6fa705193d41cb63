"""Versioned schemas: migrations that bring the tables of an older database up to date."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from sqlite3 import Connection

from hasten.errors import StoreTooNew


def run_migrations(
    name: str, connection: Connection, migrations: Sequence[str], *, table: str
) -> None:
    """Run the migrations that a database has not run yet, in one transaction.

    table is the name of the table whose row 'schema' holds the number of migrations that were run.
    The first migration creates it. Several processes may call this at once. Raises `StoreTooNew` if
    the database has run more migrations than there are. name is the store's URL, for that message.
    """
    if schema_version(connection, table) == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = schema_version(connection, table)
        if found > len(migrations):
            raise too_new_error(name, found, len(migrations))
        for migration in migrations[found:]:
            for statement in _split_statements(migration):
                connection.execute(statement)
        connection.execute(
            f"INSERT INTO {table} VALUES ('schema', ?) "  # noqa: S608 - the name is a constant
            "ON CONFLICT DO UPDATE SET value = excluded.value",
            (len(migrations),),
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def too_new_error(name: str, found: int, known: int) -> StoreTooNew:
    """Return the error for a database that has run more migrations than this version knows."""
    return StoreTooNew(
        name,
        f"written by a newer version of hasten (schema {found}, this version supports {known}): "
        "upgrade hasten, or use another file",
    )


def schema_version(connection: Connection, table: str) -> int:
    """Return how many migrations a database has run; 0 if its version table does not exist."""
    known = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    if known is None:
        return 0
    query = f"SELECT value FROM {table} WHERE name = 'schema'"  # noqa: S608 - the name is a constant
    row = connection.execute(query).fetchone()
    return 0 if row is None else int(row[0])


def _split_statements(script: str) -> Iterator[str]:
    """Yield the statements of a script. (`executescript` would commit the transaction.)"""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
