"""One object for each event loop."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Makes an object for each event loop at the first `get`, and drops those of closed loops."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, T]
        self._made = weakref.WeakKeyDictionary()
        self._latest: tuple[asyncio.AbstractEventLoop, T] | None = None

    def get(self) -> T:
        """Return the object of the running event loop."""
        loop = asyncio.get_running_loop()
        latest = self._latest  # read once: another thread may change it
        if latest is not None and latest[0] is loop:
            return latest[1]
        own = self._made.get(loop)
        if own is None:
            # An object often refers to its loop, which a weak key alone would keep for ever.
            for other in list(self._made):
                if other.is_closed():
                    self._made.pop(other, None)
            own = self._made[loop] = self._make()
        self._latest = loop, own
        return own

    def clear(self) -> None:
        """Forget all objects."""
        self._latest = None
        self._made.clear()
