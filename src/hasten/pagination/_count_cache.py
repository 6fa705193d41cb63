"""The cache of total row counts behind ``count=Cached(…)``."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from hasten._clock import SYSTEM_CLOCK, make_now_ns
from hasten._durations import to_nearest_us
from hasten.pagination._counts import Cached, Count


class CountCache:
    """The totals that one `Cached` option keeps. Thread-safe.

    The key of a total is a fingerprint of the query whose rows were counted.
    """

    def __init__(self, cached: Cached) -> None:
        self._ttl_ns = to_nearest_us("Cached(ttl)", cached.ttl) * 1000
        self._max_entries = cached.max_entries
        # The system clock may be set back: then a monotonic timer is used instead.
        self._now_ns = make_now_ns(None if cached.clock is SYSTEM_CLOCK else cached.clock)
        self._entries: OrderedDict[bytes, tuple[int, Count]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: bytes) -> Count | None:
        """Return the cached total; None if there is none or it has expired."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            expires_ns, count = entry
            if self._now_ns() >= expires_ns:
                del self._entries[key]
                return None
            self._entries.move_to_end(key)
            return count

    def put(self, key: bytes, count: Count) -> None:
        """Store a total. If the cache is full, the least recently used total is removed."""
        with self._lock:
            self._entries[key] = (self._now_ns() + self._ttl_ns, count)
            self._entries.move_to_end(key)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)
