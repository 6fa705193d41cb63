"""Rate limits outside of HTTP requests: for jobs, for calls of an external API and the like."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from hasten import _portal
from hasten._checks import check_choice, check_text, check_whole_number
from hasten._clock import Clock, make_now_ns
from hasten._closing import AsyncClosable
from hasten._decision import Decision
from hasten._durations import Duration, to_nearest_us
from hasten._loops import require_asyncio
from hasten._store import Store
from hasten.errors import InvalidOption, LimitExceeded
from hasten.ratelimit import _test_isolation as test_isolation
from hasten.ratelimit._counter_store import (
    ON_STORE_ERROR,
    Check,
    CounterStore,
    OnStoreError,
    Outcome,
    find_decisive_outcome,
    hash_client,
    make_decision,
)
from hasten.ratelimit._rates import MAX_LIMIT, Rate, Rates, to_rates
from hasten.ratelimit._resilient_store import STORE_TIMEOUT, BucketKey, ResilientStore
from hasten.ratelimit._rules import (
    Algorithm,
    check_block_outlasts_denials,
    make_bucket_name,
    make_rule,
)
from hasten.ratelimit._stores import resolve_counter_store

MAX_CACHED_KEYS: Final = 10_000

_new: Final = tuple.__new__  # twice as fast as the constructor of a named tuple


class Limiter(AsyncClosable):
    """A rate limit that counts each key separately: ``Limiter("10/s, 1000/h", name="mail")``.

    - rate: a string, a `Rate`, or several rates that apply together.
    - name: limiters with the same name, rate and store share their counts.
    - store: where counts are kept: a URL, a `hasten.Store`, a `CounterStore`, or None for the
      memory of this process. Windows and waits use the clock of the store.
    - algorithm: "fixed", "sliding" or "gcra", as for `Limit`.
    - on_store_error: what happens if the store does not respond: "local" counts in this process,
      "allow" accepts, "deny" denies. store_timeout: how long `hit` waits for the store. processes:
      how many processes share the limit. While the store is unavailable, each process allows the
      limit divided by this number.
    - block_for: how long to deny every hit of a key that exceeded the limit; 0 for no block.

    `limiter.sync` has the same methods for code without an event loop. ``async with limiter:``
    closes the limiter at the end. Raises `InvalidOption`.
    """

    def __init__(
        self,
        rate: str | Rate | Rates,
        *,
        name: str,
        store: str | Store | CounterStore | None = None,
        algorithm: Algorithm | None = None,
        on_store_error: OnStoreError = "local",
        block_for: Duration = 0,
        processes: int = 1,
        store_timeout: Duration = STORE_TIMEOUT,
    ) -> None:
        check_choice("on_store_error", on_store_error, ON_STORE_ERROR)
        self.name: Final = check_text("name", name)
        self.rates: Final = to_rates("rate", rate)
        rules = [make_rule(rate, algorithm) for rate in self.rates]
        self._capacity = min(rule.capacity for rule in rules)
        block_us = to_nearest_us("block_for", block_for)
        check_block_outlasts_denials(block_us, rules)
        self._checks = [
            Check(
                make_bucket_name(name, rule), b"", rule, block_us=block_us, on_error=on_store_error
            )
            for rule in rules
        ]
        self._counters = resolve_counter_store(store)
        clock = self._counters.clock
        self._store = ResilientStore(
            self._counters.counter_store,
            processes=processes,
            store_timeout=store_timeout,
            clock=clock,
        )
        self._clock = clock
        self.use_default_clock(test_isolation.clock)
        test_isolation.limiters.add(self)
        # A shortcut for most limiters: one rate, and a store that responds without waiting.
        immediate = self._store.immediate if len(rules) == 1 else None
        self._hit_one = immediate.hit_one if immediate is not None else None
        self._groups: dict[tuple[str, int], list[Check]] = {}
        self.sync: Final = SyncLimiter(self)

    def use_default_clock(self, clock: Clock | None) -> None:
        """Use this clock if the store has none of its own. None is the system's clock."""
        clock = self._clock or clock
        self._now_ns = make_now_ns(clock)
        self._sleep = asyncio.sleep if clock is None else clock.sleep

    def __repr__(self) -> str:
        rates = ", ".join(map(str, self.rates))
        return f"<Limiter {self.name!r} {rates!r} in {self._counters.label}>"

    async def hit(self, key: str, cost: int = 1) -> Decision:
        """Count a hit of this cost if it fits into the limit, and return the decision.

        Never raises `StoreError`: without the store, on_store_error decides.
        """
        group = self._get_checks(key, cost)
        if self._hit_one is not None:
            ok, limit, remaining, reset_us, retry_us, *_ = self._hit_one(group[0])
            reset_after, retry_after = reset_us / 1_000_000, retry_us / 1_000_000
            return _new(
                Decision,
                (self.name, ok, limit, remaining, reset_after, retry_after, False, False, None),
            )
        if self._store.immediate is None:
            name = type(self._store.store).__name__
            require_asyncio(f"Limiter with {name}", "leave store= out, or use asyncio")
        [outcomes] = await self._store.hit([group])
        return self._make_decision(outcomes)

    async def check(self, key: str, cost: int = 1) -> Decision:
        """Call `hit`, and raise `LimitExceeded` if the limit denies it."""
        decision = await self.hit(key, cost)
        if not decision.ok:
            raise LimitExceeded(decision)
        return decision

    async def wait(self, key: str, timeout: Duration | None = None, cost: int = 1) -> Decision:
        """Wait until the cost fits into the limit, then count it.

        timeout is in seconds, None for no bound. If the wait would exceed it, return the denial
        without waiting any longer, and count nothing. Raises `InvalidOption` for a cost above the
        limit, which never fits.
        """
        if cost > self._capacity:
            expected = f"at most {self._capacity}, because a higher cost never fits"
            raise InvalidOption("cost", cost, expected, code="out_of_range")
        require_asyncio("Limiter.wait", "call hit, and sleep for decision.retry_after seconds")
        timeout_s = None if timeout is None else to_nearest_us("timeout", timeout) / 1_000_000
        since_ns = self._now_ns()
        while True:
            decision = await self.hit(key, cost)
            if decision.ok:
                return decision
            waited_s = (self._now_ns() - since_ns) / 1_000_000_000
            if timeout_s is not None and waited_s + decision.retry_after > timeout_s:
                return decision
            await self._sleep(decision.retry_after)

    async def peek(self, key: str, cost: int = 1) -> Decision:
        """Return the decision that `hit` would return now, without counting anything.

        Waits for the store as long as the store's own time-out, 5 seconds by default. If the store
        does not respond, the decision is based on the counts of this process alone.
        """
        return self._make_decision(await self._store.peek(self._get_checks(key, cost)))

    async def reset(self, key: str) -> None:
        """Delete the counts and the block of a key.

        Waits for the store as long as the store's own time-out, 5 seconds by default. Raises
        `StoreError`.
        """
        await self._store.reset(self._make_bucket_keys(key))

    async def block(self, key: str, seconds: Duration) -> None:
        """Deny every hit of a key for this long; 0 ends a block.

        With on_store_error="local", this process also denies the key while the store is
        unavailable. Waits for the store as long as the store's own time-out, 5 seconds by default.
        Raises `StoreError`.
        """
        await self._store.block(self._make_bucket_keys(key), to_nearest_us("seconds", seconds))

    async def aclose(self) -> None:
        """Wait for unfinished calls of the store, and close the store if it was given as a URL.

        Safe to call twice.
        """
        await self._store.wait_for_unfinished_calls()
        await self._counters.aclose()

    def _make_bucket_keys(self, key: str) -> list[BucketKey]:
        return [(check.bucket, check.key) for check in self._get_checks(key, 0)]

    def _make_decision(self, outcomes: Sequence[Outcome]) -> Decision:
        return make_decision(self.name, find_decisive_outcome(outcomes))

    def _get_checks(self, key: str, cost: int) -> list[Check]:
        group = self._groups.get((key, cost))
        if group is None:
            check_whole_number("cost", cost, 0, MAX_LIMIT)
            given: object = key
            if not isinstance(given, str):
                raise InvalidOption("key", key, "a string")
            if len(self._groups) >= MAX_CACHED_KEYS:
                self._groups.clear()
            digested = hash_client(key)
            group = [check._replace(key=digested, cost=cost) for check in self._checks]
            self._groups[key, cost] = group
        return group


class SyncLimiter:
    """`Limiter` for code without an event loop: `limiter.sync.hit("ada")` blocks the thread."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def hit(self, key: str, cost: int = 1) -> Decision:
        """Synchronous version of `Limiter.hit`."""
        return _portal.run_for_sync_method(self._limiter.hit(key, cost))

    def wait(self, key: str, timeout: Duration | None = None, cost: int = 1) -> Decision:
        """Synchronous version of `Limiter.wait`."""
        return _portal.run_for_sync_method(
            self._limiter.wait(key, timeout, cost), may_deadlock=True
        )

    def check(self, key: str, cost: int = 1) -> Decision:
        """Synchronous version of `Limiter.check`."""
        return _portal.run_for_sync_method(self._limiter.check(key, cost))

    def peek(self, key: str, cost: int = 1) -> Decision:
        """Synchronous version of `Limiter.peek`."""
        return _portal.run_for_sync_method(self._limiter.peek(key, cost))

    def reset(self, key: str) -> None:
        """Synchronous version of `Limiter.reset`."""
        _portal.run_for_sync_method(self._limiter.reset(key))

    def block(self, key: str, seconds: Duration) -> None:
        """Synchronous version of `Limiter.block`."""
        _portal.run_for_sync_method(self._limiter.block(key, seconds))

    def close(self) -> None:
        """Synchronous version of `Limiter.aclose`."""
        _portal.run_for_sync_method(self._limiter.aclose(), may_deadlock=True)
