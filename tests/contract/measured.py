"""A connection to SQLite that counts the work of each transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


class Measured(sqlite3.Connection):
    """The number of changed rows and of freed pages of each transaction.

    Also the number of all statements, and their different texts.
    """

    rows: list[int] = []  # noqa: RUF012
    pages: list[int] = []  # noqa: RUF012
    statements = 0
    texts: set[str] = set()  # noqa: RUF012

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        Measured.statements += 1
        Measured.texts.add(sql)
        if sql.startswith("BEGIN"):
            self.begun = self.total_changes, self._free()
        elif sql == "COMMIT":
            changes, free = self.begun
            Measured.rows.append(self.total_changes - changes)
            Measured.pages.append(self._free() - free)
        return super().execute(sql, *parameters)

    def _free(self) -> int:
        (pages,) = super().execute("PRAGMA freelist_count").fetchone()
        return int(pages)


def measure() -> None:
    """Reset the counts."""
    Measured.rows.clear()
    Measured.pages.clear()
    Measured.statements = 0
    Measured.texts.clear()


@contextmanager
def measured_connections() -> Iterator[None]:
    """Count the transactions of all connections that are opened within the block."""
    connect = sqlite3.connect

    def connect_measured(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return connect(*arguments, factory=Measured, **options)

    with patch.object(sqlite3, "connect", connect_measured):
        yield
