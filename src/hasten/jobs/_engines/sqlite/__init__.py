"""The embedded engine: jobs in a SQLite file, or in memory, and no server."""

from hasten.jobs._engines.sqlite.sqlite_engine import SqliteEngine

__all__ = ["SqliteEngine"]
