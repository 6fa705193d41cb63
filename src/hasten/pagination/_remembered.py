"""Totals that were counted a moment ago."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from hasten._durations import to_seconds
from hasten.pagination._counts import Cached, Count


class Remembered:
    """The totals of one `Cached`, by what was counted. Of use from any thread."""

    def __init__(self, cached: Cached, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds = to_seconds("Cached(ttl)", cached.ttl)
        self._max_entries = cached.max_entries
        self._now = now
        self._entries: OrderedDict[bytes, tuple[float, Count]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: bytes) -> Count | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            until, count = entry
            if self._now() >= until:
                del self._entries[key]
                return None
            self._entries.move_to_end(key)
            return count

    def put(self, key: bytes, count: Count) -> None:
        with self._lock:
            self._entries[key] = (self._now() + self._seconds, count)
            self._entries.move_to_end(key)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)
