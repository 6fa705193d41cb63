"""The rate limit store in a SQLite file."""

from hasten.ratelimit._stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
