"""Where limits keep their counts: this process, Redis, a SQLite file, or a store of one's own."""

from __future__ import annotations

import threading
import weakref
from dataclasses import replace
from typing import Final, NamedTuple

from hasten._clock import SYSTEM_CLOCK, Clock, check_clock
from hasten._store import Store, to_store
from hasten._store_url import File
from hasten.errors import InvalidOption
from hasten.ratelimit._counter_store import CounterStore
from hasten.ratelimit._stores.asking import AskingStore
from hasten.ratelimit._stores.memory import MemoryStore

__all__ = ["Counters", "MemoryStore", "StorePart", "counters_of"]

_METHODS: Final = ("hit", "settle", "peek", "reset", "block")

PART: Final = "limits"


class Counters(NamedTuple):
    """Where the counts of some limits are kept.

    clock is None for the system's. store is the private one that was made for a URL; whoever asked
    for it closes it. What the application has made, the application closes.
    """

    counters: CounterStore
    clock: Clock | None
    store: Store | None = None
    private: Store | None = None

    @property
    def shown(self) -> str:
        """What a repr has for it."""
        return type(self.counters).__name__ if self.store is None else self.store.url

    async def aclose(self) -> None:
        if self.private is not None:
            await self.private.aclose()


def counters_of(store: str | Store | CounterStore | None) -> Counters:
    """What the option `store` names. Raises `InvalidOption`."""
    if store is None or isinstance(store, str | Store):
        given = to_store("memory://" if store is None else store)
        part = given.part(PART, part_of)
        private = None if given is store else given
        return Counters(part.counters, part.clock, given, private)
    kind: object = store
    has_all = all(callable(getattr(store, name, None)) for name in _METHODS)
    if has_all and not isinstance(kind, type):
        clock: object = getattr(store, "clock", None)
        return Counters(store, None if clock is None else check_clock(clock))
    expected = "a URL such as 'redis://localhost:6379', a hasten.Store or a CounterStore"
    raise InvalidOption("store", store, expected)


class StorePart:
    """What limits keep in a `Store`."""

    def __init__(self, store: Store) -> None:
        self.clock: Final = None if store.clock is SYSTEM_CLOCK else store.clock
        self._store: Final = weakref.ref(store)
        self.counters: Final = self._make(store)

    async def aclose(self) -> None:
        await self.counters.aclose()

    def close_now(self) -> None:
        if isinstance(self.counters, AskingStore):
            self.counters.close_now()

    def _make(self, store: Store) -> MemoryStore | AskingStore:
        location = store.location
        if isinstance(location, File):
            if location.path is None:
                return MemoryStore(clock=self.clock)
            # Imported late: who counts in memory needs neither the package nor the time to load it.
            from hasten.ratelimit._stores.sqlite import SqliteStore  # noqa: PLC0415

            return SqliteStore(
                location.path, timeout=store.timeout, clock=self.clock, on_open=self._opened
            )
        from hasten.ratelimit._stores.redis import DEFAULT_PREFIX, RedisStore  # noqa: PLC0415

        prefix = DEFAULT_PREFIX if store.prefix is None else f"{store.prefix}:limit"
        address = replace(location, timeout=store.timeout)
        return RedisStore(address, prefix=prefix, clock=self.clock, on_open=self._opened)

    def _opened(self) -> None:
        """Let the store close what was opened after it had been closed."""
        store = self._store()
        if store is not None:
            store.part(PART, part_of)


_parts: Final[weakref.WeakKeyDictionary[Store, StorePart]] = weakref.WeakKeyDictionary()
_lock: Final = threading.Lock()


def part_of(store: Store) -> StorePart:
    """The same one each time: all who count in a store share it, also after it was closed."""
    with _lock:
        part = _parts.get(store)
        if part is None:
            part = _parts[store] = StorePart(store)
        return part
