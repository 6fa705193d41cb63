"""The store of jobs and limits: a URL, a clock, a time-out, and connections to close.

Each capability has its own connections and tables in a store, its *part*: jobs have an engine,
limits a counter store. A store creates a part on first use, and closes all parts together.
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
from hasten._store_url import DEFAULT_TIMEOUT, FORMS, File, parse_store_url, without_password
from hasten.errors import InvalidOption

DEFAULT_URL: Final = "sqlite:///hasten.db"
ENVIRONMENT: Final = "HASTEN_URL"


class Part(Protocol):
    """The connections and tables of one capability in a store."""

    async def aclose(self) -> None:
        """Close the connections. The part is not used again."""

    def close_now(self) -> None:
        """Close at the end of the process, without an event loop."""


P = TypeVar("P", bound=Part)


class Store(AsyncClosable):
    """A place for jobs and limits: ``Store("redis://localhost:6379")``.

    url is ``memory://`` (this process only), ``sqlite:///file.db`` (relative to the working
    directory; four slashes for an absolute path), or ``redis://host:6379/0`` and similar URLs for
    Redis or Valkey (TLS, Sentinel, Cluster: docs/howto/redis.md).

    - clock: the clock of all queues and limits in the store. Tests pass
      `hasten.testing.ManualClock`.
    - timeout: how long a call may take, 5 seconds by default. A longer one raises `StoreError`.
      Also an option of the URL: ``?timeout=2``.
    - prefix: the prefix of all keys on Redis. The default is BullMQ's ``bull`` for jobs and
      ``hasten:limit`` for limits; ``prefix="shop"`` makes them ``shop`` and ``shop:limit``. Also an
      option of the URL.

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
        _check_not_both("timeout", timeout, parsed.timeout)
        _check_not_both("prefix", prefix, parsed.prefix)
        self.location: Final = parsed.location
        self.timeout: Final = (
            parsed.timeout or DEFAULT_TIMEOUT if timeout is None else _to_timeout(timeout)
        )
        prefix = parsed.prefix if prefix is None else prefix
        self.prefix: Final = None if prefix is None else check_text("prefix", prefix)
        if self.prefix is not None and isinstance(self.location, File):
            expected = "None for SQLite and memory, where each store has its own tables"
            raise InvalidOption("prefix", self.prefix, expected)
        self._lock = threading.Lock()
        self._parts: dict[str, Part] = {}
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
        """Return the store of the environment variable HASTEN_URL, or of the default URL."""
        url = os.environ.get(ENVIRONMENT) or default
        return cls(url, clock=clock, timeout=timeout, prefix=prefix)

    def part(self, name: str, make: Callable[[Store], P]) -> P:
        """Return the part of a capability by its name, and create it if it is missing."""
        with self._lock:
            part = self._parts.get(name)
            if part is None:
                part = self._parts[name] = make(self)
                _in_use.add(self)
            return cast("P", part)

    async def aclose(self) -> None:
        """Close all connections and files. Safe to call twice."""
        with self._lock:
            parts, self._parts = self._parts, {}
            _in_use.discard(self)
        async with contextlib.AsyncExitStack() as stack:
            for part in parts.values():
                stack.push_async_callback(part.aclose)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def _close_now(self) -> None:
        parts, self._parts = self._parts, {}
        for part in parts.values():
            with contextlib.suppress(Exception):
                part.close_now()

    def _after_fork_in_child(self) -> None:
        self._lock = threading.Lock()  # another thread may hold the old one


def to_store(store: str | Store) -> Store:
    """Return the store for a URL, or the store itself. Raises `InvalidOption`."""
    return store if isinstance(store, Store) else Store(store)


def _check_not_both(option: str, given: object, in_url: object) -> None:
    if given is not None and in_url is not None:
        raise InvalidOption.conflict(option, given, f"the {option} in the URL")


def _to_timeout(timeout: Duration) -> float:
    seconds = to_seconds("timeout", timeout)
    if not seconds:
        raise InvalidOption("timeout", timeout, "more than 0 seconds", code="out_of_range")
    return seconds


_stores: Final[weakref.WeakSet[Store]] = weakref.WeakSet()

# Not weak: an open store is closed at the end of the process, even without references.
_in_use: Final[set[Store]] = set()


def _close_all() -> None:
    for store in list(_in_use):
        store._close_now()


def _after_fork_in_child() -> None:
    for store in list(_stores):
        store._after_fork_in_child()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
