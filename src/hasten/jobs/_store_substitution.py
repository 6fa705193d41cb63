"""Replace the stores of all queues of this process. `hasten.testing` does that during a test."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from operator import itemgetter
from typing import Final, Protocol, TypeVar

from hasten.jobs._shared_store import SharedStore


class QueueWithStore(Protocol):
    """The part of a `Queue` that is needed to replace its store."""

    @property
    def own_store(self) -> SharedStore:
        """The store that the queue was created with."""

    def use_store(self, store: SharedStore) -> None:
        """Use this store instead. With `own_store`, use the original one again."""


Q = TypeVar("Q", bound=QueueWithStore)

SubstituteStore = Callable[[SharedStore], SharedStore]
"""Returns the store that replaces another one."""

# Each queue with its number in the order of creation.
_queues: Final[weakref.WeakKeyDictionary[QueueWithStore, int]] = weakref.WeakKeyDictionary()
_numbers: Final = itertools.count(1)
_active: Final[list[SubstituteStore]] = []  # none or one


def register_queue(queue: QueueWithStore) -> None:
    """Register a new queue, and replace its store if the stores are replaced at present."""
    _queues[queue] = next(_numbers)
    if _active:
        queue.use_store(_active[0](queue.own_store))


def registered_queues() -> list[QueueWithStore]:
    """Return all queues that exist in this process, in the order of their creation."""
    return [queue for queue, _ in sorted(_queues.items(), key=itemgetter(1))]


def substitute_stores(substitute: SubstituteStore) -> None:
    """Replace the stores of all existing queues, and of those that are created later."""
    assert not _active
    _active.append(substitute)
    for queue in registered_queues():
        queue.use_store(substitute(queue.own_store))


def restore_stores() -> None:
    """Let all queues use their own stores again."""
    _active.clear()
    for queue in registered_queues():
        queue.use_store(queue.own_store)
