"""What `hasten.testing` replaces in the limits of this process while a test runs.

Limits count in memory then, whatever store they were given. If their store has no clock of its own,
they use that of the test.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol

from hasten._clock import Clock
from hasten.ratelimit._counter_store import ImmediateStore


class HasDefaultClock(Protocol):
    """An object that may have been created without a clock: a `Limiter`."""

    def use_default_clock(self, clock: Clock | None) -> None:
        """Use this clock if the object was created without one. None is the system's clock."""


class InMemory(HasDefaultClock, ImmediateStore, Protocol):
    """A `MemoryStore`."""

    def clear(self) -> None:
        """Delete all counts."""


class Resilient(HasDefaultClock, Protocol):
    """A `ResilientStore`."""

    def forget_everything(self) -> None:
        """Delete what this process holds of the counter store, also about its outages."""


memory_stores: Final[weakref.WeakSet[InMemory]] = weakref.WeakSet()
resilient_stores: Final[weakref.WeakSet[Resilient]] = weakref.WeakSet()
limiters: Final[weakref.WeakSet[HasDefaultClock]] = weakref.WeakSet()

# Set while a test runs: the clock of the test, and a function that returns the store in memory
# which replaces a `RemoteStore`.
clock: Clock | None = None
substitute: Callable[[Any], InMemory] | None = None


def begin(test_clock: Clock, substitute_store: Callable[[Any], InMemory]) -> None:
    """Replace the clock and the remote stores of all limits, and delete the counts in memory."""
    global clock, substitute  # there is one test at a time
    clock, substitute = test_clock, substitute_store
    _reset_all()


def end() -> None:
    """Undo `begin`, and delete the counts in memory."""
    global clock, substitute  # noqa: PLW0603
    clock = substitute = None
    _reset_all()


def _reset_all() -> None:
    for limited in (*memory_stores, *resilient_stores, *limiters):
        limited.use_default_clock(clock)
    for store in list(memory_stores):
        store.clear()
    for resilient in list(resilient_stores):
        resilient.forget_everything()
