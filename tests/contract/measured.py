"""A connection to SQLite that counts what its transactions do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


class Measured(sqlite3.Connection):
    """Notes of each transaction how many rows it has changed, and how many pages it has freed."""

    rows: list[int] = []  # noqa: RUF012
    pages: list[int] = []  # noqa: RUF012

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
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
    """Begin to count."""
    Measured.rows.clear()
    Measured.pages.clear()


@contextmanager
def measured_connections() -> Iterator[None]:
    """Let all connections that are opened meanwhile count."""
    connect = sqlite3.connect

    def connect_measured(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return connect(*arguments, factory=Measured, **options)

    with patch.object(sqlite3, "connect", connect_measured):
        yield
