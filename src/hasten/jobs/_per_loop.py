"""`PerLoop`: keeps one object for each event loop."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Creates an object for each event loop at the first `get` there.

    It drops the objects of closed event loops. Thread-safe.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, T]
        self._made = weakref.WeakKeyDictionary()
        self._latest: tuple[asyncio.AbstractEventLoop, T] | None = None

    def get(self) -> T:
        """Return the object of the running event loop, which is created at the first call."""
        loop = asyncio.get_running_loop()
        latest = self._latest  # read once, because another thread may change it
        if latest is not None and latest[0] is loop:
            return latest[1]
        own = self._made.get(loop)
        if own is None:
            # Remove the objects of closed loops. An object often refers to its loop, so weak keys
            # alone would keep both for ever.
            for other in list(self._made):
                if other.is_closed():
                    self._made.pop(other, None)
            own = self._made[loop] = self._make()
        self._latest = loop, own
        return own

    def drop_all(self) -> None:
        """Forget the objects of all event loops, without closing them."""
        self._latest = None
        self._made.clear()
