"""Limits and their store as one object, to reset a client from outside of a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Final, Self, overload

from hasten import _portal
from hasten._clock import Clock
from hasten._durations import Duration, to_us
from hasten._store import Store
from hasten.errors import InvalidOption
from hasten.ratelimit._counter_store import CounterStore, digest
from hasten.ratelimit._http import route_limits as routes
from hasten.ratelimit._http.addresses import DEFAULT_PREFIX, Addresses
from hasten.ratelimit._http.limit import Limit, RateLike, text_of
from hasten.ratelimit._http.paths import plain
from hasten.ratelimit._resilient_store import STORE_TIMEOUT, clear_store, reset_keys
from hasten.ratelimit._rules import Rule, bucket_of
from hasten.ratelimit._stores import counters_of


class Limits(Sequence[Limit]):
    """The limits of an application with their store: ``Limits([Limit("5/h")], store="redis://…")``.

    `RateLimitMiddleware` takes it for `limits`, and takes store, store_timeout and ipv6_prefix from
    it. Any process that has the same limits can reset a client:

        await limits.reset("login", "203.0.113.7")

    The options are those of `RateLimitMiddleware`. `limits.sync` has the same for code without an
    event loop. ``async with limits:`` closes it. Raises `InvalidOption`.
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
        to_us("store_timeout", store_timeout, at_least_us=1)
        self._kept: Final = counters_of(store)
        self.ipv6_prefix: Final = ipv6_prefix
        self.store_timeout: Final = store_timeout
        self._limits = tuple(limits)
        self._addresses = Addresses(ipv6_prefix)
        self.sync: Final = SyncLimits(self)

    @property
    def counters(self) -> CounterStore:
        """Where the counts are."""
        return self._kept.counters

    @property
    def clock(self) -> Clock | None:
        """The clock of the store, None for the system's."""
        return self._kept.clock

    def __repr__(self) -> str:
        names = ", ".join(repr(limit.name) for limit in self._limits)
        return f"<Limits {names} in {self._kept.shown}>"

    @overload
    def __getitem__(self, index: int) -> Limit: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Limit]: ...

    def __getitem__(self, index: int | slice) -> Limit | Sequence[Limit]:
        return self._limits[index]

    def __len__(self) -> int:
        return len(self._limits)

    async def reset(self, name: str, key: object = None, *, rate: RateLike | None = None) -> None:
        """Forget what a client has used up of the limits of this name, and its block.

        name is that of the limit: the option `name`, else its rate as answers tell it
        ("5-in-1hr"); also that of a limit of a route, `@limit`. key is what the limit counts by: an
        address for "ip", the result of a function, an address, a space and a path for "route",
        nothing for "global". rate is for a limit whose rate is a function: that of the client.

        Processes that refuse the client without asking the store ask it again within a second. This
        waits as long as the store's time-out, 5 seconds by default.

        Raises `InvalidOption`; `StoreError` if the store is not available.
        """
        found = [limit for limit in self._known() if limit.name == name]
        if not found:
            names = ", ".join(sorted({repr(limit.name) for limit in self._known()})) or "none"
            raise InvalidOption(
                "name", name, f"the name of a limit; there is {names}", code="unknown_name"
            )
        places = [
            (bucket_of(limit.bucket, rule), digest(self._key(limit, key)))
            for limit in found
            for rule in _rules(limit, rate)
        ]
        await reset_keys(self.counters, places)

    async def clear(self) -> None:
        """Forget all counts of the store, also those of others that use it: for tests."""
        await clear_store(self.counters)

    async def aclose(self) -> None:
        """Close the store, unless it was given as an object. Safe to call twice."""
        await self._kept.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _known(self) -> Iterator[Limit]:
        yield from self._limits
        yield from routes.known()

    def _key(self, limit: Limit, key: object) -> str:
        if limit.key == "global":
            return "global"
        if key is None:
            raise InvalidOption(
                "key", key, f"what the limit {limit.name!r} counts by", code="missing"
            )
        if callable(limit.key):
            try:
                return text_of(key)
            except TypeError as error:
                raise InvalidOption("key", key, f"a text or a number: {error}") from None
        address, _, path = str(key).partition(" ")
        address = self._addresses.key(address)
        return f"{address} {plain(path)}" if limit.key == "route" else address


class SyncLimits:
    """`Limits` for threads without an event loop: `limits.sync.reset("login", "203.0.113.7")`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def reset(self, name: str, key: object = None, *, rate: RateLike | None = None) -> None:
        """As `Limits.reset`."""
        _portal.call(self._limits.reset(name, key, rate=rate))

    def clear(self) -> None:
        """As `Limits.clear`."""
        _portal.call(self._limits.clear())

    def close(self) -> None:
        """As `Limits.aclose`."""
        _portal.call(self._limits.aclose(), waits=True)


def check_limits(limits: object) -> None:
    """Raise `InvalidOption` unless these are limits that can be kept together."""
    if isinstance(limits, Limit) or not isinstance(limits, Sequence):
        raise InvalidOption("limits", limits, "a list of Limit(…)")
    buckets: set[str] = set()
    for limit in limits:
        if not isinstance(limit, Limit):
            raise InvalidOption("limits", limit, "a list of Limit(…)")
        if limit.bucket in buckets:
            raise InvalidOption(
                "limits",
                limit.name,
                "a name of its own for each: name=…, or they would share one count",
                code="duplicate",
            )
        buckets.add(limit.bucket)


def _rules(limit: Limit, rate: RateLike | None) -> Iterable[Rule]:
    if limit.rate_of is None:
        return limit.rules
    if rate is None:
        expected = f"the rate of this client: that of the limit {limit.name!r} is a function"
        raise InvalidOption("rate", rate, expected, code="missing")
    return limit.rules_of(rate)
