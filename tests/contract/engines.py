"""The engines that the contract is held against. A new one is one more entry here."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from hasten.jobs.engine import Engine
from hasten.jobs.engines.sqlite import SqliteEngine

KINDS: Final = ("sqlite-memory", "sqlite-file")

DURABLE: Final = frozenset({"sqlite-file"})
"""Those that still have their jobs when they are opened again at the same place."""


@contextlib.asynccontextmanager
async def open_for_test(kind: str, place: Path) -> AsyncIterator[Engine]:
    """An engine of this kind that shares nothing with any other test; place is an empty folder."""
    match kind:
        case "sqlite-memory":
            engine = SqliteEngine("sqlite://")
        case "sqlite-file":
            engine = SqliteEngine(f"sqlite:///{place / 'jobs.db'}")
        case _:
            raise LookupError(kind)
    try:
        yield engine
    finally:
        await engine.close()


def orphans(engine: Engine, place: Path) -> list[str]:
    """What the store holds of jobs that are gone: always nothing."""
    match engine:
        case SqliteEngine():
            return _sqlite_orphans(place / "jobs.db")
        case _:
            raise LookupError(engine)


def _sqlite_orphans(path: Path) -> list[str]:
    if not path.exists():
        return []  # in memory, or not opened yet
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE name = 'hasten_logs'")
        if tables.fetchone() is None:
            return []
        rows = connection.execute(
            "SELECT job, line FROM hasten_logs WHERE job NOT IN (SELECT seq FROM hasten_jobs)"
        )
        return [f"log line of job {job}: {line}" for job, line in rows]
