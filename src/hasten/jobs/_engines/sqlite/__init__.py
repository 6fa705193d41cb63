"""The SQLite engine: it stores jobs in a file or in memory, without a server."""

from hasten.jobs._engines.sqlite.sqlite_engine import SqliteEngine

__all__ = ["SqliteEngine"]
