"""Limits outside of HTTP: for jobs, for calls of somebody else's API, for anything with a key."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from hasten import _portal
from hasten._clock import Clock, now_ns_of
from hasten._durations import Duration, to_us
from hasten._loops import require_asyncio
from hasten.errors import InvalidOption
from hasten.ratelimit.fallback import BUDGET, Guard
from hasten.ratelimit.rates import Rate, Rates, to_limit, to_rates
from hasten.ratelimit.rules import Algorithm, bucket_of, check_block, rule_of
from hasten.ratelimit.store import ON_ERROR, Check, OnError, Outcome, Store, digest, shown
from hasten.ratelimit.stores import store_and_clock

MAX_KNOWN_KEYS: Final = 10_000


class Decision(NamedTuple):
    """Whether it may be done, as a truth value, and what is left. Times are in seconds.

    reset_after is when more is left than now, retry_after when the same may be tried again with
    success, if nobody else comes first; 0 if it may be done.
    """

    ok: bool
    limit: int
    remaining: int
    reset_after: float
    retry_after: float

    def __bool__(self) -> bool:
        return self.ok


class Limiter:
    """So much for each key: `Limiter("10/s, 1000/h", store="redis://localhost")`.

    rate is a text, a `Rate` or several of them, which take all or nothing. store is a URL, or a
    store; without one, counts are in the memory of this process. Limiters of the same name, rate
    and store share their counts. on_store_error: where the store does not answer, "local" counts
    in this process, "allow" lets pass, "deny" denies. block_for: how long a key is denied once it
    asked for too much. approximate: by how many processes the limit is shared, if it may be counted
    approximately (`leasing`). clock is for tests: `hasten.testing.ManualClock`. `limiter.sync` has
    the same for code without an event loop.
    """

    def __init__(
        self,
        rate: str | Rate | Rates,
        *,
        store: str | Store | None = None,
        name: str = "limiter",
        algorithm: Algorithm | None = None,
        on_store_error: OnError = "local",
        block_for: Duration = 0,
        approximate: int = 0,
        instances: int = 1,
        budget: Duration = BUDGET,
        clock: Clock | None = None,
    ) -> None:
        if on_store_error not in ON_ERROR:
            expected = f"one of {', '.join(map(repr, ON_ERROR))}"
            raise InvalidOption("on_store_error", on_store_error, expected)
        if not name:
            raise InvalidOption("name", name, "a text that is not empty")
        rules = [rule_of(rate, algorithm) for rate in to_rates("rate", rate)]
        self._capacity = min(rule.capacity for rule in rules)
        block_us = to_us("block_for", block_for)
        check_block(block_us, rules)
        workers = to_limit("approximate", approximate)
        self._checks = [
            Check(
                bucket_of(name, rule),
                b"",
                rule,
                block_us=block_us,
                workers=workers,
                on_error=on_store_error,
            )
            for rule in rules
        ]
        store, clock = store_and_clock(store, clock, budget)
        self._guard = Guard(store, instances=instances, budget=budget, clock=clock)
        self._now_ns = now_ns_of(clock)
        self._sleep = asyncio.sleep if clock is None else clock.sleep
        immediate = self._guard.immediate if len(rules) == 1 else None
        # What most limiters are: one rate, and a store that answers at once.
        self._hit_one = immediate.hit_one if immediate is not None else None
        self._groups: dict[tuple[str, int], list[Check]] = {}
        self.sync = SyncLimiter(self)

    async def hit(self, key: str, cost: int = 1) -> Decision:
        """Take the cost if it may be taken. Never raises `StoreError`."""
        group = self._group(key, cost)
        if self._hit_one is not None:
            return _decision(self._hit_one(group[0]))
        if self._guard.immediate is None:
            name = type(self._guard.store).__name__
            require_asyncio(f"Limiter with {name}", "leave store out, or use asyncio")
        [outcomes] = await self._guard.hit([group])
        return _decision(shown(outcomes))

    async def wait(self, key: str, timeout: Duration | None = None, cost: int = 1) -> Decision:
        """Take the cost as soon as it may be taken.

        If that is not before the timeout, in seconds, ends, it takes nothing, and says so at once.
        """
        if cost > self._capacity:
            raise InvalidOption("cost", cost, f"at most {self._capacity}: more never fits")
        require_asyncio("Limiter.wait", "use hit, and wait for retry_after seconds yourself")
        timeout_s = None if timeout is None else to_us("timeout", timeout) / 1_000_000
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
        """What `hit` would say, taking nothing."""
        return _decision(shown(await self._guard.peek(self._group(key, cost))))

    async def reset(self, key: str) -> None:
        """Forget what a key has taken, and its block. Raises `StoreError`."""
        for check in self._group(key, 0):
            await self._guard.reset(check.bucket, check.key)

    async def block(self, key: str, seconds: Duration) -> None:
        """Deny a key everything for so long; 0 ends it. Raises `StoreError`."""
        for_us = to_us("seconds", seconds)
        for check in self._group(key, 0):
            await self._guard.block(check.bucket, check.key, for_us)

    async def aclose(self) -> None:
        """Let go of the store. Safe to call twice."""
        await self._guard.aclose()

    def _group(self, key: str, cost: int) -> list[Check]:
        group = self._groups.get((key, cost))
        if group is None:
            to_limit("cost", cost)
            if len(self._groups) >= MAX_KNOWN_KEYS:
                self._groups.clear()
            digested = digest(key)
            group = [check._replace(key=digested, cost=cost) for check in self._checks]
            self._groups[key, cost] = group
        return group


class SyncLimiter:
    """A `Limiter` for threads without an event loop: `limiter.sync.hit("ada")`."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def hit(self, key: str, cost: int = 1) -> Decision:
        return _portal.call(self._limiter.hit(key, cost))

    def wait(self, key: str, timeout: Duration | None = None, cost: int = 1) -> Decision:
        return _portal.call(self._limiter.wait(key, timeout, cost), waits=True)

    def peek(self, key: str, cost: int = 1) -> Decision:
        return _portal.call(self._limiter.peek(key, cost))

    def reset(self, key: str) -> None:
        _portal.call(self._limiter.reset(key))

    def block(self, key: str, seconds: Duration) -> None:
        _portal.call(self._limiter.block(key, seconds))

    def close(self) -> None:
        _portal.call(self._limiter.aclose(), waits=True)


def _decision(outcome: Outcome) -> Decision:
    ok, limit, remaining, reset_us, retry_us, *_ = outcome
    return Decision(ok, limit, remaining, reset_us / 1_000_000, retry_us / 1_000_000)
