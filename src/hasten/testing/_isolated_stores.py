"""`IsolatedStores`: the stores in memory that replace those of all queues and limits in a test."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Awaitable, Callable, Hashable
from pathlib import Path
from typing import Any, Final

from hasten._clock import Clock
from hasten._store import Store
from hasten._store_url import SqliteFile
from hasten.errors import InvalidOption
from hasten.jobs import Queue
from hasten.jobs._engine import Engine
from hasten.jobs._shared_store import SharedStore
from hasten.jobs._store_substitution import (
    registered_queues,
    restore_stores,
    substitute_stores,
)
from hasten.ratelimit import MemoryStore
from hasten.ratelimit import _test_isolation as limits_isolation
from hasten.testing._observed_engine import EngineObserver, observe_engine


class IsolatedStore(SharedStore):
    """A store in memory that replaces the store of some queues during a test."""

    def __init__(self, clock: Clock, observer: EngineObserver, original: SharedStore) -> None:
        super().__init__(Store("memory://", clock=clock))
        self.starts_workers = False
        self._original = original  # kept, so that no other object gets its id
        self._observer = observer
        self._observed: Engine | None = None

    def engine(self) -> Engine:
        """Return the engine of the store, whose calls the test observes."""
        engine = super().engine()
        observed: Any = self._observed
        if observed is None or observed.engine is not engine:
            self._observed = observe_engine(engine, self._observer)
        assert self._observed is not None
        return self._observed

    def replace_contents(self, store: Store) -> Store:
        """Use another `Store`, and return the previous one."""
        previous = self._made["store"]
        self._made["store"] = store
        return previous


class IsolatedStores:
    """Replaces the stores of all queues and limits of this process by stores in memory.

    Queues and limits that share a place, such as a file or a server, share a store in memory, too.
    """

    def __init__(self, clock: Clock, observer: EngineObserver) -> None:
        self._clock = clock
        self._observer = observer
        self._stores: dict[Hashable, IsolatedStore] = {}
        self._counters: dict[Hashable, MemoryStore] = {}
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()  # queues from before the test
        self._workers_may_start = False
        self._after_add: Callable[[], Awaitable[None]] | None = None

    def replace_all(self) -> None:
        """Replace the stores of all queues and limits, also of those that are created later."""
        _drop_queues_of_earlier_tests()
        limits_isolation.begin(self._clock, self._get_counter_store)
        _clear_compression_caches()
        self._known = weakref.WeakSet(registered_queues())
        substitute_stores(self._get_store)

    def restore_all(self) -> None:
        """Undo `replace_all`, and delete what the stores in memory contain."""
        _made_in_tests.update(queue for queue in registered_queues() if queue not in self._known)
        restore_stores()
        limits_isolation.end()
        _clear_compression_caches()
        for store in self._stores.values():
            close_store(store.store)

    def set_hooks(
        self, *, workers_may_start: bool, after_add: Callable[[], Awaitable[None]] | None
    ) -> None:
        """Set whether workers start, and what is awaited by the code that has added jobs."""
        self._workers_may_start, self._after_add = workers_may_start, after_add
        for store in self._stores.values():
            self._apply_hooks(store)
        for queue in self.queues():
            queue.producer.after_add = after_add

    def queues(self) -> list[Queue]:
        """Return all queues whose stores are replaced, by name, then in order of creation."""
        found = [queue for queue in registered_queues() if isinstance(queue, Queue)]
        isolated = [queue for queue in found if isinstance(queue.shared_store, IsolatedStore)]
        return sorted(isolated, key=lambda queue: queue.name)

    def drop_pending_calls(self) -> None:
        """Forget the calls that wait for a store."""
        for queue in self.queues():
            queue.drop_pending_calls()

    def begin_empty(self) -> Callable[[], None]:
        """Use empty stores, and return a function that brings back the previous contents."""
        previous = {
            store: store.replace_contents(Store("memory://", clock=self._clock))
            for store in self._stores.values()
        }
        self.drop_pending_calls()

        def bring_back() -> None:
            for store in list(self._stores.values()):
                former = previous.get(store) or Store("memory://", clock=self._clock)
                close_store(store.replace_contents(former))
            self.drop_pending_calls()

        return bring_back

    def _get_store(self, original: SharedStore) -> SharedStore:
        """Return the store that replaces another one."""
        for store in self._stores.values():
            if original.existing_store is store.store:  # a queue was given the store of another one
                return store
        key = _identify(original)
        found = self._stores.get(key)
        if found is None:
            found = self._stores[key] = IsolatedStore(self._clock, self._observer, original)
            self._apply_hooks(found)
        return found

    def _apply_hooks(self, store: IsolatedStore) -> None:
        store.starts_workers = self._workers_may_start
        store.after_add = self._after_add

    def _get_counter_store(self, remote: Any) -> MemoryStore:
        """Return the counter store in memory that replaces a remote one."""
        key = type(remote), remote.name
        store = self._counters.get(key)
        if store is None:
            store = self._counters[key] = MemoryStore(clock=remote.clock or self._clock)
        return store


# Queues that were created in earlier tests.
_made_in_tests: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


def _drop_queues_of_earlier_tests() -> None:
    """Delete the queues that only garbage refers to: they could take the jobs of this test."""
    if _made_in_tests:
        gc.collect()
        _made_in_tests.clear()  # those that still exist belong to modules


def close_store(store: Store) -> None:
    """Close a store in memory, in a thread with or without an event loop."""
    store.close_without_event_loop()


def _identify(shared: SharedStore) -> Hashable:
    """Return a value that is equal for stores at the same place."""
    try:
        store = shared.existing_store or Store.from_env()
    except InvalidOption:  # HASTEN_URL is wrong; its user gets the error
        return id(shared)
    location = store.location
    if not isinstance(location, SqliteFile):
        return location.nodes, location.path, location.service, location.db, store.prefix
    if location.path is None:  # in memory: no place outside this object
        return id(shared.existing_store or shared)
    return str(Path(location.path).resolve())


def _clear_compression_caches() -> None:
    """Delete the bodies in all compression caches, if the application uses the package."""
    module = sys.modules.get("hasten.compression._cache")
    if module is not None:
        module.clear_all_caches()
