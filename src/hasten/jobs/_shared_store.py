"""`SharedStore`: a store with its users, which is closed when the last user releases it."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable
from typing import Final

from hasten._store import Store, to_store
from hasten.jobs._engine import Engine
from hasten.jobs._engines import open_engine


class SharedStore:
    """A store, and the queues and workers that use it.

    A store that was created from a URL and the default store are closed when the last queue or
    worker releases them. A `Store` object that the application created is left open: the
    application closes it.
    """

    starts_workers = True
    """Whether workers run the jobs in this store. With False, `Worker.start` does nothing."""

    after_add: Callable[[], Awaitable[None]] | None = None
    """Awaited by the code that has added jobs. `hasten.testing` runs them then."""

    def __init__(self, given: str | Store | None) -> None:
        """Use a `Store`, a new store for a URL, or for None the default store.

        `Store.from_env` creates the default store at its first use.
        """
        self._closes_store = not isinstance(given, Store)
        self._is_default = given is None
        self._made: dict[str, Store] = {} if given is None else {"store": to_store(given)}
        # Weak references: a queue that was deleted without `aclose` does not keep the store open.
        self._users: weakref.WeakSet[object] = weakref.WeakSet()

    @property
    def store(self) -> Store:
        """The store. The default store is created at the first access, from HASTEN_URL."""
        # `setdefault` is atomic: all threads get the same store.
        return self.existing_store or self._made.setdefault("store", Store.from_env())

    @property
    def existing_store(self) -> Store | None:
        """The store; None for a default store that does not exist yet."""
        return self._made.get("store")

    def engine(self) -> Engine:
        """Return the engine of the store. A new one is created after the store was closed."""
        return self.store.get_or_make_part("jobs", open_engine)

    def acquire(self, user: object) -> None:
        """Keep the store open for this user until it calls `release`."""
        self._users.add(user)

    async def release(self, user: object) -> None:
        """Remove a user of the store. The last one closes the store. Safe to call twice."""
        self._users.discard(user)
        if self._closes_store and not self._users:
            store = self.existing_store
            if self._is_default:
                self._made.clear()  # the next use reads HASTEN_URL again
            if store is not None:
                await store.aclose()


DEFAULT_SHARED_STORE: Final = SharedStore(None)
"""The default store, which all queues without a store of their own share."""


def get_or_make_shared_store(store: str | Store | None) -> SharedStore:
    """Return the `SharedStore` for the option store of a queue. Raises `InvalidOption`."""
    return DEFAULT_SHARED_STORE if store is None else SharedStore(store)
