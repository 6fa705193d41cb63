"""The engines: one for each kind of store."""

from __future__ import annotations

from hasten._store import Store
from hasten._store_url import File
from hasten.jobs._engine import Engine
from hasten.jobs._engines.sqlite import SqliteEngine

__all__ = ["open_engine"]


def open_engine(store: Store) -> Engine:
    """Make the engine of a store. It opens nothing before its first use."""
    if isinstance(store.location, File):
        return SqliteEngine(store.location, timeout=store.timeout)
    # Imported late: programs that use SQLite need neither the package nor the time to load it.
    from hasten.jobs._engines.redis import RedisEngine  # noqa: PLC0415

    return RedisEngine(store.location, timeout=store.timeout, prefix=store.prefix)
