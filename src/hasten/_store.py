"""Where jobs and limits are stored: one object for a URL, a clock, a time-out and a life.

Each capability keeps its own connections and tables in a store, its *part*: jobs have an engine,
limits a counter store. A store makes a part when it is first used, and closes all of them together.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self, TypeAlias, TypeVar, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from hasten._checks import check_text
from hasten._clock import SYSTEM_CLOCK, Clock, check_clock
from hasten._closing import AsyncClosable
from hasten._durations import Duration, to_seconds
from hasten._redis_address import SCHEMES, Address, parse_url
from hasten._urls import without_password
from hasten.errors import InvalidOption

DEFAULT_URL: Final = "sqlite:///hasten.db"
ENVIRONMENT: Final = "HASTEN_URL"

DEFAULT_TIMEOUT: Final = 5.0
"""How long a call may take, in seconds, unless a URL or an option says otherwise."""

_SYNCHRONOUS: Final = ("OFF", "NORMAL", "FULL", "EXTRA")

_EXPECTED: Final = (
    "memory://, sqlite:///file.db (four slashes for an absolute path) or redis://host:6379/0"
)


class Part(Protocol):
    """What one capability keeps in a store."""

    async def aclose(self) -> None:
        """Close its connections. The part is not used again."""

    def close_now(self) -> None:
        """Close what can be closed without an event loop, at the end of the process."""


P = TypeVar("P", bound=Part)


@dataclass(frozen=True, slots=True)
class File:
    """A SQLite database: a file, or a private one in memory."""

    path: Path | None
    """None for one in memory."""
    synchronous: str = "FULL"
    """PRAGMA synchronous of what has to survive a power cut."""


Location: TypeAlias = File | Address


class Store(AsyncClosable):
    """A place for jobs and limits: ``Store("redis://localhost:6379")``.

    url is ``memory://`` (this process alone), ``sqlite:///file.db`` (relative to the working
    directory; four slashes for an absolute path), or ``redis://host:6379/0`` and its like for Redis
    or Valkey (TLS, Sentinel, Cluster: docs/howto/redis.md).

    - clock: what the time is for everything in the store. Tests pass `hasten.testing.ManualClock`.
    - timeout: how long a call may take, in seconds: 5. Raises `StoreError` when it is over. Also an
      option of the URL: ``?timeout=2``.
    - prefix: what the names of keys on Redis begin with. By default jobs have BullMQ's ``bull`` and
      limits ``hasten:limit``; with ``prefix="shop"`` they have ``shop`` and ``shop:limit``. Also an
      option of the URL.

    Nothing is opened before the first use. Use one store for all queues and limits of an
    application: what they do at the same moment then shares transactions and connections. A store
    may be used from several event loops and threads, and after a fork. ``aclose`` closes it; a
    store that is used again opens again.

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
            raise InvalidOption("url", url, _EXPECTED)
        self.clock: Final = SYSTEM_CLOCK if clock is None else check_clock(clock)
        self.url: Final = without_password(url)
        location, in_url, prefix_in_url = _parse(url)
        self.location: Final = location
        _check_not_both("timeout", timeout, in_url)
        _check_not_both("prefix", prefix, prefix_in_url)
        self.timeout: Final = _to_timeout(in_url or DEFAULT_TIMEOUT if timeout is None else timeout)
        self.prefix: Final = prefix_in_url if prefix is None else check_text("prefix", prefix)
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
        """The store that the environment variable HASTEN_URL names, else the default one."""
        url = os.environ.get(ENVIRONMENT) or default
        return cls(url, clock=clock, timeout=timeout, prefix=prefix)

    def part(self, name: str, make: Callable[[Store], P]) -> P:
        """What a capability keeps here, by the name of the capability; made where it is missing."""
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
        self._lock = threading.Lock()  # another thread may have held it at the fork


def to_store(store: str | Store) -> Store:
    """The store that an option names. Raises `InvalidOption`."""
    return store if isinstance(store, Store) else Store(store)


def _parse(url: str) -> tuple[Location, float | None, str | None]:
    """Where a store is, its time-out and its prefix, if the URL has them."""
    scheme = url.partition(":")[0]
    if scheme in SCHEMES:
        address = parse_url(url, known={"prefix"}, timeout=0)
        return address, address.timeout or None, address.options.get("prefix")
    shown = without_password(url)
    parts = urlsplit(url)
    if scheme not in {"memory", "sqlite"} or parts.netloc or parts.fragment:
        raise InvalidOption("url", shown, _EXPECTED)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    timeout = options.pop("timeout", None)
    synchronous = options.pop("synchronous", "full").upper()
    if options:
        expected = "a URL with no options other than timeout and synchronous"
        raise InvalidOption("url", shown, expected)
    if synchronous not in _SYNCHRONOUS:
        expected = "a URL with synchronous=full, normal, extra or off"
        raise InvalidOption("url", shown, expected)
    path = unquote(parts.path).removeprefix("/")
    if scheme == "memory" and path:
        raise InvalidOption("url", shown, _EXPECTED)
    location = File(Path(path).absolute() if path else None, synchronous)
    return location, None if timeout is None else _seconds_in(shown, timeout), None


def _seconds_in(shown: str, text: str) -> float:
    try:
        return _to_timeout(float(text))
    except ValueError:
        expected = "a URL with timeout=…, a number of seconds above 0"
        raise InvalidOption("url", shown, expected) from None


def _check_not_both(option: str, given: object, in_url: object) -> None:
    if given is not None and in_url is not None:
        raise InvalidOption.conflict(option, given, f"the {option} in the URL")


def _to_timeout(timeout: Duration) -> float:
    seconds = to_seconds("timeout", timeout)
    if not seconds:
        raise InvalidOption("timeout", timeout, "more than 0 seconds", code="out_of_range")
    return seconds


_stores: Final[weakref.WeakSet[Store]] = weakref.WeakSet()

# Not weak: a store that nobody has closed is closed at the end, though nobody refers to it.
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
