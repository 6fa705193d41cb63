"""The store of queues and workers: it is closed when the last user releases it."""

from __future__ import annotations

import weakref
from typing import Final

from hasten._store import Store, to_store
from hasten.jobs._engine import Engine
from hasten.jobs._engines import open_engine


class StoreUse:
    """A store, and the queues and workers that use it.

    The application closes a `Store` that it made. A store that was made from a URL, and the default
    store, are closed when the last queue or worker releases them.
    """

    def __init__(self, given: str | Store | None) -> None:
        """Use a store, or the store of a URL; None uses the default store.

        `Store.from_env` creates the default store at the first use.
        """
        self._is_ours = not isinstance(given, Store)
        self._is_default = given is None
        self._made: dict[str, Store] = {} if given is None else {"store": to_store(given)}
        # Weak references: a queue that was deleted without `aclose` does not keep the store open.
        self._users: weakref.WeakSet[object] = weakref.WeakSet()

    @property
    def store(self) -> Store:
        """The store. The default store is created at the first use, from HASTEN_URL."""
        # `setdefault` is atomic: all threads get the same store.
        return self.made or self._made.setdefault("store", Store.from_env())

    @property
    def made(self) -> Store | None:
        """The store; None for a default store that is not in use."""
        return self._made.get("store")

    def engine(self) -> Engine:
        """Return the engine of the store: a new one after the store was closed."""
        return self.store.part("jobs", open_engine)

    def acquire(self, user: object) -> None:
        """Keep the store open for a user until `release`."""
        self._users.add(user)

    async def release(self, user: object) -> None:
        """End the use of the store; the last user closes it. Safe to call twice."""
        self._users.discard(user)
        if self._is_ours and not self._users:
            store = self.made
            if self._is_default:
                self._made.clear()  # HASTEN_URL may have changed when it is used again
            if store is not None:
                await store.aclose()


DEFAULT: Final = StoreUse(None)
"""The default store: all queues of the process without a store share it."""


def use_of(store: str | Store | None) -> StoreUse:
    """Return the use of the store in a queue's option. Raises `InvalidOption`."""
    return DEFAULT if store is None else StoreUse(store)
