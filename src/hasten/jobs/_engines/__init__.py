"""The engines, which implement the job operations: one for SQLite and one for Redis."""

from __future__ import annotations

from hasten._store import Store
from hasten._store_url import SqliteFile
from hasten.jobs._engine import Engine
from hasten.jobs._engines.sqlite import SqliteEngine

__all__ = ["open_engine"]


def open_engine(store: Store) -> Engine:
    """Make the engine for a store. It opens the file or connects on its first use."""
    if isinstance(store.location, SqliteFile):
        return SqliteEngine(store.location, timeout=store.timeout)
    # Imported here: programs that use SQLite need not install `redis` or wait for its import.
    from hasten.jobs._engines.redis import RedisEngine  # noqa: PLC0415

    return RedisEngine(store.location, timeout=store.timeout, prefix=store.prefix)
