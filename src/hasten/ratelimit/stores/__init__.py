"""Places that keep counts: this process, Redis, a SQLite file."""

from __future__ import annotations

from hasten._clock import Clock, check_clock
from hasten._durations import Duration
from hasten._urls import without_password
from hasten.errors import InvalidOption
from hasten.ratelimit.store import Store
from hasten.ratelimit.stores.memory import MemoryStore

__all__ = ["MemoryStore", "open_store", "store_and_clock"]


def open_store(url: str, *, budget: Duration | None = None, clock: Clock | None = None) -> Store:
    """Make a store for a URL. Nothing is opened before it is first used. Raises `InvalidOption`.

    budget, in seconds, is how long a hit waits for a store that is elsewhere. clock is for tests:
    `hasten.testing.ManualClock`.
    """
    scheme = url.partition(":")[0]
    if scheme == "memory" and url.rstrip("/") == "memory:":
        return MemoryStore(clock=clock)
    if scheme.startswith(("redis", "unix")):
        # Imported late: who counts in memory needs neither the package nor the time to load it.
        from hasten.ratelimit.stores.redis import RedisStore  # noqa: PLC0415

        return RedisStore(url, budget=budget, clock=clock)
    if scheme == "sqlite":
        from hasten.ratelimit.stores.sqlite import SqliteStore  # noqa: PLC0415  # as above

        return SqliteStore(url, budget=budget, clock=clock)
    raise InvalidOption(
        "store",
        without_password(url),
        "memory://, redis://host:6379/0, sqlite:///path/to/file.db, or a store of your own",
    )


def store_and_clock(
    store: str | Store | None, clock: Clock | None, budget: Duration
) -> tuple[Store, Clock | None]:
    """The store that the options `store` and `clock` name, and the clock that both go by.

    Raises `InvalidOption`.
    """
    if clock is not None:
        check_clock(clock)
    if store is None or isinstance(store, str):
        return open_store(store or "memory://", budget=budget, clock=clock), clock
    if not hasattr(store, "clock"):  # one of the application's own
        return store, clock
    own: Clock | None = store.clock
    if clock is not None and clock is not own:
        expected = "the clock that the store has: give it to the store, open_store(url, clock=…)"
        raise InvalidOption("clock", clock, expected)
    return store, own
