"""Places that keep counts: this process, Redis, a SQLite file."""

from __future__ import annotations

from hasten._durations import Seconds
from hasten._urls import without_password
from hasten.errors import InvalidOption
from hasten.ratelimit.store import Store
from hasten.ratelimit.stores.memory import MemoryStore

__all__ = ["MemoryStore", "open_store"]


def open_store(url: str, *, budget: Seconds | None = None) -> Store:
    """Make a store for a URL. Nothing is opened before it is first used. Raises `InvalidOption`.

    budget, in seconds, is how long a hit waits for a store that is elsewhere.
    """
    scheme = url.partition(":")[0]
    if scheme == "memory" and url.rstrip("/") == "memory:":
        return MemoryStore()
    if scheme.startswith(("redis", "unix")):
        # Imported late: who counts in memory needs neither the package nor the time to load it.
        from hasten.ratelimit.stores.redis import RedisStore  # noqa: PLC0415

        return RedisStore(url, budget=budget)
    if scheme == "sqlite":
        from hasten.ratelimit.stores.sqlite import SqliteStore  # noqa: PLC0415  # as above

        return SqliteStore(url, budget=budget)
    raise InvalidOption(
        "store",
        without_password(url),
        "memory://, redis://host:6379/0, sqlite:///path/to/file.db, or a store of your own",
    )
