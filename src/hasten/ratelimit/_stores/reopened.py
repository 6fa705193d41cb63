"""A connection that is opened when it is first used, and again when it is used after its end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Reopened(Generic[T]):
    """What make returns, until it is taken. on_open is called after each time it was made."""

    def __init__(self, make: Callable[[], T], on_open: Callable[[], object] | None = None) -> None:
        self._make = make
        self._on_open = on_open
        self._lock = threading.Lock()
        self._held: T | None = None

    def get(self) -> T:
        held = self._held
        if held is not None:
            return held
        with self._lock:
            held = self._held
            is_new = held is None
            if held is None:
                held = self._held = self._make()
        if is_new and self._on_open is not None:
            self._on_open()
        return held

    def take(self) -> T | None:
        """What is to be closed; None if there is nothing."""
        with self._lock:
            held, self._held = self._held, None
            return held
