"""A connection that is opened at its first use, and again at the next use after it was closed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class LazyConnection(Generic[T]):
    """A holder of a connection, which it opens with connect() when the connection is needed.

    on_open is called each time after a connection was opened.
    """

    def __init__(
        self, connect: Callable[[], T], on_open: Callable[[], object] | None = None
    ) -> None:
        self._connect = connect
        self._on_open = on_open
        self._lock = threading.Lock()
        self._connection: T | None = None

    def get(self) -> T:
        """Return the connection, and open it if necessary."""
        connection = self._connection
        if connection is not None:
            return connection
        with self._lock:
            connection = self._connection
            is_new = connection is None
            if connection is None:
                connection = self._connection = self._connect()
        if is_new and self._on_open is not None:
            self._on_open()
        return connection

    def detach(self) -> T | None:
        """Give up the connection and return it, for the caller to close; None if it is not open."""
        with self._lock:
            connection, self._connection = self._connection, None
            return connection
