"""Limits and their store as one object, to let a client go from outside of a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, overload

from hasten import _portal
from hasten._clock import Clock
from hasten._durations import Duration
from hasten.errors import InvalidLimit, InvalidOption
from hasten.ratelimit import routes
from hasten.ratelimit.addresses import DEFAULT_PREFIX, Addresses
from hasten.ratelimit.fallback import BUDGET, clear_store, reset_key
from hasten.ratelimit.limit import Limit, Rated, text_of
from hasten.ratelimit.paths import plain
from hasten.ratelimit.rules import Rule, bucket_of
from hasten.ratelimit.store import Store, digest
from hasten.ratelimit.stores import store_and_clock


class Limits(Sequence[Limit]):
    """The limits of an application with their store: ``Limits([Limit("5/h")], store="redis://…")``.

    `RateLimitMiddleware` takes it for `limits`, and takes store, clock and ipv6_prefix from it. Any
    process that has the same limits can let a client go:

        await limits.reset("login", "203.0.113.7")

    The options are those of `RateLimitMiddleware`. `limits.sync` has the same for code without an
    event loop. Raises `InvalidLimit`.
    """

    def __init__(
        self,
        limits: Sequence[Limit],
        *,
        store: str | Store | None = None,
        ipv6_prefix: int = DEFAULT_PREFIX,
        budget: Duration = BUDGET,
        clock: Clock | None = None,
    ) -> None:
        check_limits(limits)
        try:
            self.store, self.clock = store_and_clock(store, clock, budget)
        except InvalidOption as error:
            raise InvalidLimit.of(error.option.upper(), error) from None
        self.ipv6_prefix: Final = ipv6_prefix
        self.budget: Final = budget
        self._limits = tuple(limits)
        self._addresses = Addresses(ipv6_prefix)
        self.sync: Final = SyncLimits(self)

    @overload
    def __getitem__(self, index: int) -> Limit: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Limit]: ...

    def __getitem__(self, index: int | slice) -> Limit | Sequence[Limit]:
        return self._limits[index]

    def __len__(self) -> int:
        return len(self._limits)

    async def reset(self, name: str, key: object = None, *, rate: Rated | None = None) -> None:
        """Forget what a client has used up of the limits of this name, and its block.

        name is that of the limit: the option `name`, else its rate as answers tell it
        ("5-in-1hr"); also that of a limit of a route, `@limit`. key is what the limit counts by: an
        address for "ip", the result of a function, an address, a space and a path for "route",
        nothing for "global". rate is for a limit whose rate is a function: that of the client.

        Processes that refuse the client without asking the store ask it again within a second.
        Raises `InvalidLimit`, and `StoreError` if the store is not available.
        """
        found = [limit for limit in self._known() if limit.name == name]
        if not found:
            names = ", ".join(sorted({repr(limit.name) for limit in self._known()})) or "none"
            raise InvalidLimit("RESET", "name", name, f"the name of a limit; there is {names}")
        for limit in found:
            digested = digest(self._key(limit, key))
            for rule in _rules(limit, rate):
                await reset_key(self.store, bucket_of(limit.bucket, rule), digested)

    async def clear(self) -> None:
        """Forget all counts of the store, also those of others that use it: for tests."""
        await clear_store(self.store)

    async def aclose(self) -> None:
        """Let go of the store. Safe to call twice."""
        await self.store.aclose()

    def _known(self) -> Iterator[Limit]:
        yield from self._limits
        yield from routes.known()

    def _key(self, limit: Limit, key: object) -> str:
        if limit.key == "global":
            return "global"
        if key is None:
            raise InvalidLimit("RESET", "key", key, f"what the limit {limit.name!r} counts by")
        if callable(limit.key):
            return text_of(key)
        address, _, path = str(key).partition(" ")
        address = self._addresses.key(address)
        return f"{address} {plain(path)}" if limit.key == "route" else address


class SyncLimits:
    """`Limits` for threads without an event loop: `limits.sync.reset("login", "203.0.113.7")`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def reset(self, name: str, key: object = None, *, rate: Rated | None = None) -> None:
        """As `Limits.reset`."""
        _portal.call(self._limits.reset(name, key, rate=rate))

    def close(self) -> None:
        """As `Limits.aclose`."""
        _portal.call(self._limits.aclose(), waits=True)


def check_limits(limits: object) -> None:
    """Raise `InvalidLimit` unless these are limits that can be kept together."""
    if isinstance(limits, Limit) or not isinstance(limits, Sequence):
        raise InvalidLimit("LIMITS", "limits", limits, "a list of Limit(…)")
    buckets: set[str] = set()
    for limit in limits:
        if not isinstance(limit, Limit):
            raise InvalidLimit("LIMITS", "limits", limit, "a list of Limit(…)")
        if limit.bucket in buckets:
            raise InvalidLimit(
                "SHARED",
                "limits",
                limit.name,
                "a name of its own for each: name=…, or they would share one count",
            )
        buckets.add(limit.bucket)


def _rules(limit: Limit, rate: Rated | None) -> Iterable[Rule]:
    if limit.rate_of is None:
        return limit.rules
    if rate is None:
        expected = f"the rate of this client: that of the limit {limit.name!r} is a function"
        raise InvalidLimit("RESET", "rate", rate, expected)
    return limit.rules_of(rate)
