"""The stores in which limits keep their counts: memory, a SQLite file, Redis, or your own."""

from __future__ import annotations

import threading
import weakref
from dataclasses import replace
from typing import Final, NamedTuple

from hasten._clock import SYSTEM_CLOCK, Clock, check_clock
from hasten._store import Store, to_store
from hasten._store_url import SqliteFile
from hasten.errors import InvalidOption
from hasten.ratelimit._counter_store import CounterStore
from hasten.ratelimit._stores.memory import MemoryStore
from hasten.ratelimit._stores.remote import RemoteStore

__all__ = ["Counters", "MemoryStore", "StorePart", "resolve_counter_store"]

_METHODS: Final = ("hit", "settle", "peek", "reset", "block")

PART: Final = "limits"


class ResolvedCounterStore(NamedTuple):
    """The counter store for an option `store`, with its clock and its owner.

    - counter_store: the counter store.
    - clock: its clock, None for the system's.
    - store: the `Store` that it belongs to, None for a custom counter store.
    - owned: that `Store` if it was made here from a URL, so that `aclose` has to close it. The
      application closes any other store.
    """

    counter_store: CounterStore
    clock: Clock | None
    store: Store | None = None
    owned: Store | None = None

    @property
    def label(self) -> str:
        """The URL of the store, or the class name of a custom one, for a repr."""
        return type(self.counter_store).__name__ if self.store is None else self.store.url

    async def aclose(self) -> None:
        """Close the store if it was made here from a URL."""
        if self.owned is not None:
            await self.owned.aclose()


def resolve_counter_store(store: str | Store | CounterStore | None) -> ResolvedCounterStore:
    """Return the counter store that an option `store` names: a URL, a `Store` or a counter store.

    None means the memory of this process. Raises `InvalidOption`.
    """
    if store is None or isinstance(store, str | Store):
        given = to_store("memory://" if store is None else store)
        part = given.get_or_make_part(PART, get_rate_limit_part)
        owned = None if given is store else given
        return ResolvedCounterStore(part.counter_store, part.clock, given, owned)
    kind: object = store
    has_all = all(callable(getattr(store, name, None)) for name in _METHODS)
    if has_all and not isinstance(kind, type):
        clock: object = getattr(store, "clock", None)
        return ResolvedCounterStore(store, None if clock is None else check_clock(clock))
    expected = "a URL such as 'redis://localhost:6379', a hasten.Store or a CounterStore"
    raise InvalidOption("store", store, expected)


class StoreRateLimitPart:
    """The part of a `hasten.Store` for rate limits: a counter store at the URL of the store."""

    def __init__(self, store: Store) -> None:
        self.clock: Final = None if store.clock is SYSTEM_CLOCK else store.clock
        self._store: Final = weakref.ref(store)
        self.counter_store: Final = self._make_counter_store(store)

    async def aclose(self) -> None:
        """Close the connections."""
        await self.counter_store.aclose()

    def close_without_event_loop(self) -> None:
        """Close the connections that can be closed without an event loop."""
        if isinstance(self.counter_store, RemoteStore):
            self.counter_store.close_without_event_loop()

    def _make_counter_store(self, store: Store) -> MemoryStore | RemoteStore:
        location = store.location
        if isinstance(location, SqliteFile):
            if location.path is None:
                return MemoryStore(clock=self.clock)
            # Imported late, so that limits in memory need neither the driver nor time to load it.
            from hasten.ratelimit._stores.sqlite import SqliteStore  # noqa: PLC0415

            return SqliteStore(
                location.path,
                timeout=store.timeout,
                clock=self.clock,
                on_open=self._register_with_store,
            )
        from hasten.ratelimit._stores.redis import DEFAULT_PREFIX, RedisStore  # noqa: PLC0415

        prefix = DEFAULT_PREFIX if store.prefix is None else f"{store.prefix}:limit"
        address = replace(location, timeout=store.timeout)
        return RedisStore(
            address, prefix=prefix, clock=self.clock, on_open=self._register_with_store
        )

    def _register_with_store(self) -> None:
        """Register with the store, so that it closes these connections, too.

        A store that was closed has forgotten its parts, and connections can be opened after that.
        """
        store = self._store()
        if store is not None:
            store.get_or_make_part(PART, get_rate_limit_part)


_parts: Final[weakref.WeakKeyDictionary[Store, StoreRateLimitPart]] = weakref.WeakKeyDictionary()
_lock: Final = threading.Lock()


def get_rate_limit_part(store: Store) -> StoreRateLimitPart:
    """Return the rate limit part of a store. Makes it at the first call.

    All limits on the store share it, even after it was closed and opened again.
    """
    with _lock:
        part = _parts.get(store)
        if part is None:
            part = _parts[store] = StoreRateLimitPart(store)
        return part
