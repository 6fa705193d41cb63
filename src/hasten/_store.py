"""The store of jobs and limits: its URL, clock, time-out and connections.

Each capability has its own connections and tables in a store, here called its *part*: the part of
jobs is an engine, that of limits a counter store. A store creates a part on first use, and closes
all parts together.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from typing import Final, Protocol, Self, TypeVar, cast

from hasten._checks import check_text
from hasten._clock import SYSTEM_CLOCK, Clock, check_clock
from hasten._closing import AsyncClosable
from hasten._durations import Duration, to_seconds
from hasten._store_url import DEFAULT_TIMEOUT, FORMS, SqliteFile, parse_store_url, without_password
from hasten.errors import InvalidOption

DEFAULT_URL: Final = "sqlite:///hasten.db"
ENVIRONMENT: Final = "HASTEN_URL"


class StorePart(Protocol):
    """The connections and tables of one capability in a store."""

    async def aclose(self) -> None:
        """Close the connections. The part is not used afterwards."""

    def close_without_event_loop(self) -> None:
        """Close the connections without an event loop, when the process ends."""


P = TypeVar("P", bound=StorePart)


class Store(AsyncClosable):
    """A place for jobs and limits: ``Store("redis://localhost:6379")``.

    url is ``memory://`` (this process only), ``sqlite:///file.db`` (relative to the working
    directory; four slashes for an absolute path), or ``redis://host:6379/0`` and similar URLs for
    Redis or Valkey (TLS, Sentinel, Cluster: docs/howto/redis.md).

    - clock: the clock of all queues and limits in the store. Tests pass a
      `hasten.testing.ManualClock`; the default is the system clock.
    - timeout: how long an operation in the store may take, 5 seconds by default. A longer
      operation raises `StoreError`. Can be set in the URL instead: ``?timeout=2``.
    - prefix: the prefix of all keys on Redis. By default, keys of jobs begin with ``bull``, as
      BullMQ's, and keys of limits with ``hasten:limit``. With ``prefix="shop"`` they begin with
      ``shop`` and ``shop:limit``. Can be set in the URL instead: ``?prefix=shop``.

    The store connects on first use. Use one store for all queues and limits of an application:
    simultaneous calls then share transactions and connections. A store can be used from several
    event loops and threads, and after a fork. ``aclose`` closes it; the next use opens it again.

    Raises `InvalidOption`.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        timeout: Duration | None = None,
        prefix: str | None = None,
    ) -> None:
        given: object = url
        if not isinstance(given, str):
            raise InvalidOption("url", url, FORMS)
        self.clock: Final = SYSTEM_CLOCK if clock is None else check_clock(clock)
        self.url: Final = without_password(url)
        parsed = parse_store_url(url)
        _check_not_set_twice("timeout", timeout, parsed.timeout)
        _check_not_set_twice("prefix", prefix, parsed.prefix)
        self.location: Final = parsed.location
        self.timeout: Final = (
            parsed.timeout or DEFAULT_TIMEOUT if timeout is None else _to_timeout(timeout)
        )
        prefix = parsed.prefix if prefix is None else prefix
        self.prefix: Final = None if prefix is None else check_text("prefix", prefix)
        if self.prefix is not None and isinstance(self.location, SqliteFile):
            expected = "None for SQLite and memory: it is only for keys on Redis"
            raise InvalidOption("prefix", self.prefix, expected)
        self._lock = threading.Lock()
        self._parts: dict[str, StorePart] = {}
        _stores.add(self)

    @classmethod
    def from_env(
        cls,
        default: str = DEFAULT_URL,
        *,
        clock: Clock | None = None,
        timeout: Duration | None = None,
        prefix: str | None = None,
    ) -> Self:
        """Return a store for the URL in the environment variable HASTEN_URL.

        If the variable is not set or empty, the store is for the URL default.
        """
        url = os.environ.get(ENVIRONMENT) or default
        return cls(url, clock=clock, timeout=timeout, prefix=prefix)

    def get_or_make_part(self, name: str, make: Callable[[Store], P]) -> P:
        """Return the object with this name that belongs to the store. make creates it on first use.

        Each capability, such as jobs, keeps one: its connection to this store.
        """
        with self._lock:
            part = self._parts.get(name)
            if part is None:
                part = self._parts[name] = make(self)
                _open_stores.add(self)
            return cast("P", part)

    async def aclose(self) -> None:
        """Close all connections and files. Safe to call twice."""
        with self._lock:
            parts, self._parts = self._parts, {}
            _open_stores.discard(self)
        async with contextlib.AsyncExitStack() as stack:
            for part in parts.values():
                stack.push_async_callback(part.aclose)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def close_without_event_loop(self) -> None:
        """Close all connections and files without an event loop. Errors are ignored."""
        parts, self._parts = self._parts, {}
        _open_stores.discard(self)
        for part in parts.values():
            with contextlib.suppress(Exception):
                part.close_without_event_loop()

    def _reset_lock_after_fork(self) -> None:
        self._lock = threading.Lock()  # at the fork, another thread may have held the old one


def to_store(store: str | Store) -> Store:
    """Return a new store for a URL; a store is returned as it is. Raises `InvalidOption`."""
    return store if isinstance(store, Store) else Store(store)


def _check_not_set_twice(option: str, given: object, in_url: object) -> None:
    if given is not None and in_url is not None:
        raise InvalidOption.conflict(option, given, f"the {option} in the URL")


def _to_timeout(timeout: Duration) -> float:
    seconds = to_seconds("timeout", timeout)
    if not seconds:
        raise InvalidOption("timeout", timeout, "more than 0 seconds", code="out_of_range")
    return seconds


# All stores that still exist.
_stores: Final[weakref.WeakSet[Store]] = weakref.WeakSet()

# The stores with open connections. Not a WeakSet, so that such a store exists until the process
# ends, and is closed then.
_open_stores: Final[set[Store]] = set()


def _close_all_stores() -> None:
    for store in list(_open_stores):
        store.close_without_event_loop()


def _reset_locks_after_fork() -> None:
    for store in list(_stores):
        store._reset_lock_after_fork()


atexit.register(_close_all_stores)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_locks_after_fork)
