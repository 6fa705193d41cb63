"""`Limits`: the limits of an application with their store, to reset a client from any process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, overload

from hasten import _portal
from hasten._clock import Clock
from hasten._closing import AsyncClosable
from hasten._durations import Duration, to_nearest_us
from hasten._store import Store
from hasten.errors import InvalidOption
from hasten.ratelimit._counter_store import CounterStore, hash_client
from hasten.ratelimit._http.addresses import DEFAULT_PREFIX, AddressKeys
from hasten.ratelimit._http.limit import Limit, RateLike
from hasten.ratelimit._http.limit_options import key_to_text
from hasten.ratelimit._http.paths import normalize_path
from hasten.ratelimit._http.registry import registry
from hasten.ratelimit._resilient_store import STORE_TIMEOUT, delete_all_counts, reset_keys
from hasten.ratelimit._rules import Rule, make_bucket_name
from hasten.ratelimit._stores import resolve_counter_store


class Limits(Sequence[Limit], AsyncClosable):
    """The limits of an application with their store: ``Limits([Limit("5/h")], store="redis://…")``.

    Pass it to `RateLimitMiddleware` as `limits`. The middleware uses its store, store_timeout and
    ipv6_prefix. Any process with the same limits can reset a client:

        await limits.reset("login", "203.0.113.7")

    The options are those of `RateLimitMiddleware`. `limits.sync` has the same methods for code
    without an event loop. ``async with limits:`` closes the store at the end. Raises
    `InvalidOption`.
    """

    def __init__(
        self,
        limits: Sequence[Limit],
        *,
        store: str | Store | CounterStore | None = None,
        ipv6_prefix: int = DEFAULT_PREFIX,
        store_timeout: Duration = STORE_TIMEOUT,
    ) -> None:
        check_limits(limits)
        to_nearest_us("store_timeout", store_timeout, at_least_us=1)
        self._counters: Final = resolve_counter_store(store)
        self.ipv6_prefix: Final = ipv6_prefix
        self.store_timeout: Final = store_timeout
        self._limits = tuple(limits)
        self._addresses = AddressKeys(ipv6_prefix)
        self.sync: Final = SyncLimits(self)

    @property
    def counter_store(self) -> CounterStore:
        """The store that keeps the counts."""
        return self._counters.counter_store

    @property
    def clock(self) -> Clock | None:
        """The clock of the store, None for the system's clock."""
        return self._counters.clock

    def __repr__(self) -> str:
        names = ", ".join(repr(limit.name) for limit in self._limits)
        return f"<Limits {names} in {self._counters.label}>"

    @overload
    def __getitem__(self, index: int) -> Limit: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Limit]: ...

    def __getitem__(self, index: int | slice) -> Limit | Sequence[Limit]:
        return self._limits[index]

    def __len__(self) -> int:
        return len(self._limits)

    async def reset(self, name: str, key: object = None, *, rate: RateLike | None = None) -> None:
        """Delete the counts and the block of a client, for all limits with this name.

        - name: the option `name` of a limit, by default its rate as headers name it ("5-in-1hr").
          Limits of routes (`@limit`) are included.
        - key: the client, according to the option `key` of the limit: an address for "ip"; an
          address, a space and a path for "route"; None for "global"; the string that a function
          returns.
        - rate: the client's rate, for a limit whose rate is a function.

        Other processes notice the reset within a second. Waits for the store as long as the store's
        own time-out, 5 seconds by default.

        Raises `InvalidOption`; `StoreError` if the store is unavailable.
        """
        found = [limit for limit in self._all_limits() if limit.name == name]
        if not found:
            names = ", ".join(sorted({repr(limit.name) for limit in self._all_limits()})) or "none"
            expected = f"the name of a limit (known: {names})"
            raise InvalidOption("name", name, expected, code="unknown_name")
        keys = [
            (make_bucket_name(limit.bucket, rule), hash_client(self._key_to_text(limit, key)))
            for limit in found
            for rule in _find_rules(limit, rate)
        ]
        await reset_keys(self.counter_store, keys)

    async def reset_all(self) -> None:
        """Delete all counts in the store, also those of other applications. This is for tests."""
        await delete_all_counts(self.counter_store)

    async def aclose(self) -> None:
        """Close the store if it was given as a URL. Safe to call twice."""
        await self._counters.aclose()

    def _all_limits(self) -> Iterator[Limit]:
        yield from self._limits
        yield from registry.get_named_limits()

    def _key_to_text(self, limit: Limit, key: object) -> str:
        if limit.key == "global":
            return "global"
        if key is None:
            expected = f"the key of the client in the limit {limit.name!r}"
            raise InvalidOption("key", key, expected, code="missing")
        if callable(limit.key):
            try:
                return key_to_text(key)
            except TypeError:
                raise InvalidOption("key", key, "a string or a number") from None
        address, _, path = str(key).partition(" ")
        address = self._addresses.get_key(address)
        return f"{address} {normalize_path(path)}" if limit.key == "route" else address


class SyncLimits:
    """`Limits` for code without an event loop: `limits.sync.reset("login", "203.0.113.7")`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def reset(self, name: str, key: object = None, *, rate: RateLike | None = None) -> None:
        """Synchronous version of `Limits.reset`."""
        _portal.run_for_sync_method(self._limits.reset(name, key, rate=rate))

    def reset_all(self) -> None:
        """Synchronous version of `Limits.reset_all`."""
        _portal.run_for_sync_method(self._limits.reset_all())

    def close(self) -> None:
        """Synchronous version of `Limits.aclose`."""
        _portal.run_for_sync_method(self._limits.aclose(), may_deadlock=True)


def check_limits(limits: object) -> None:
    """Raise `InvalidOption` unless this is a list of limits of which no two share a count."""
    if isinstance(limits, Limit) or not isinstance(limits, Sequence):
        raise InvalidOption("limits", limits, "a list of Limit(…)")
    buckets: set[str] = set()
    for limit in limits:
        if not isinstance(limit, Limit):
            raise InvalidOption("limits", limit, "a list that contains only Limit(…)")
        if limit.bucket in buckets:
            expected = "unique, because limits with equal names share one count: set name="
            raise InvalidOption("limits", limit.name, expected, code="duplicate")
        buckets.add(limit.bucket)


def _find_rules(limit: Limit, rate: RateLike | None) -> Iterable[Rule]:
    if limit.rate_of is None:
        return limit.rules
    if rate is None:
        expected = f"the rate of this client, as the limit {limit.name!r} has a function for it"
        raise InvalidOption("rate", rate, expected, code="missing")
    return limit.parse_returned_rate(rate)
