"""Limits outside of HTTP: for jobs, for calls of somebody else's API, for anything with a key."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from hasten import _portal
from hasten._clock import now_ns_of
from hasten._decision import Decision
from hasten._durations import Duration, to_us
from hasten._loops import require_asyncio
from hasten._store import Store
from hasten.errors import InvalidOption, LimitExceeded
from hasten.ratelimit._counter_store import (
    ON_ERROR,
    Check,
    CounterStore,
    OnStoreError,
    Outcome,
    decision_of,
    digest,
    shown,
)
from hasten.ratelimit._rates import Rate, Rates, to_limit, to_rates
from hasten.ratelimit._resilient_store import STORE_TIMEOUT, Guard
from hasten.ratelimit._rules import Algorithm, bucket_of, check_block, rule_of
from hasten.ratelimit._stores import counters_of

MAX_KNOWN_KEYS: Final = 10_000

_new: Final = tuple.__new__  # a named tuple's own costs twice the time


class Limiter:
    """So much for each key: ``Limiter("10/s, 1000/h", name="mail", store="redis://localhost")``.

    - rate: a text, a `Rate` or several of them, which take all or nothing.
    - name: limiters of the same name, rate and store share their counts.
    - store: where counts are kept: a URL, a `hasten.Store`, a `CounterStore`, or None for the
      memory of this process. The clock of the store moves windows and waits.
    - on_store_error: where the store does not answer, "local" counts in this process, "allow" lets
      pass, "deny" denies. store_timeout: how long `hit` waits for it. processes: how many processes
      share the limit, so that each allows its part meanwhile.
    - block_for: how long a key is denied once it asked for too much.
    - approximate: let each of the processes take portions of the limit, which it spends without
      asking the store. It never lets more pass, and may deny a little early.

    `limiter.sync` has the same for code without an event loop. ``async with limiter:`` closes it.
    Raises `InvalidOption`.
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
        approximate: bool = False,
        processes: int = 1,
        store_timeout: Duration = STORE_TIMEOUT,
    ) -> None:
        if on_store_error not in ON_ERROR:
            expected = f"one of {', '.join(map(repr, ON_ERROR))}"
            raise InvalidOption("on_store_error", on_store_error, expected)
        given: object = name
        if not isinstance(given, str) or not given:
            raise InvalidOption("name", name, "a text that is not empty")
        self.name: Final = name
        self.rates: Final = to_rates("rate", rate)
        rules = [rule_of(rate, algorithm) for rate in self.rates]
        self._capacity = min(rule.capacity for rule in rules)
        block_us = to_us("block_for", block_for)
        check_block(block_us, rules)
        flag: object = approximate
        if not isinstance(flag, bool):
            raise InvalidOption("approximate", approximate, "True or False")
        to_limit("processes", processes, at_least=1)
        self._checks = [
            Check(
                bucket_of(name, rule),
                b"",
                rule,
                block_us=block_us,
                processes=processes if approximate else 0,
                on_error=on_store_error,
            )
            for rule in rules
        ]
        self._kept = counters_of(store)
        clock = self._kept.clock
        self._guard = Guard(
            self._kept.counters, processes=processes, store_timeout=store_timeout, clock=clock
        )
        self._now_ns = now_ns_of(clock)
        self._sleep = asyncio.sleep if clock is None else clock.sleep
        immediate = self._guard.immediate if len(rules) == 1 else None
        # What most limiters are: one rate, and a store that answers at once.
        self._hit_one = immediate.hit_one if immediate is not None else None
        self._groups: dict[tuple[str, int], list[Check]] = {}
        self.sync: Final = SyncLimiter(self)

    def __repr__(self) -> str:
        rates = ", ".join(map(str, self.rates))
        return f"<Limiter {self.name!r} {rates!r} in {self._kept.shown}>"

    async def hit(self, key: str, cost: int = 1) -> Decision:
        """Take the cost if there is room for it. Never raises `StoreError`."""
        group = self._group(key, cost)
        if self._hit_one is not None:
            ok, limit, remaining, reset_us, retry_us, *_ = self._hit_one(group[0])
            reset_after, retry_after = reset_us / 1_000_000, retry_us / 1_000_000
            return _new(
                Decision,
                (self.name, ok, limit, remaining, reset_after, retry_after, False, False, None),
            )
        if self._guard.immediate is None:
            name = type(self._guard.store).__name__
            require_asyncio(f"Limiter with {name}", "leave store out, or use asyncio")
        [outcomes] = await self._guard.hit([group])
        return self._decision(outcomes)

    async def check(self, key: str, cost: int = 1) -> Decision:
        """`hit`, for code that goes on only if it passes. Raises `LimitExceeded`."""
        decision = await self.hit(key, cost)
        if not decision.ok:
            raise LimitExceeded(decision)
        return decision

    async def wait(self, key: str, timeout: Duration | None = None, cost: int = 1) -> Decision:
        """Take the cost as soon as there is room for it.

        If that is later than the timeout, it takes nothing, and returns the denial at once. Raises
        `InvalidOption` for a cost above the limit, which never passes.
        """
        if cost > self._capacity:
            expected = f"at most {self._capacity}: more never fits"
            raise InvalidOption("cost", cost, expected, code="out_of_range")
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
        """What `hit` would say, taking nothing.

        It waits as long as the store's time-out, 5 seconds by default, and where the store does not
        answer says what is known in this process.
        """
        return self._decision(await self._guard.peek(self._group(key, cost)))

    async def reset(self, key: str) -> None:
        """Forget what a key has taken, and its block.

        Waits as long as the store's time-out, 5 seconds by default. Raises `StoreError`.
        """
        await self._guard.reset(self._places(key))

    async def block(self, key: str, seconds: Duration) -> None:
        """Deny a key everything for so long; 0 ends it.

        While the store is away it holds in this process. Waits as long as the store's time-out,
        5 seconds by default. Raises `StoreError`.
        """
        await self._guard.block(self._places(key), to_us("seconds", seconds))

    async def aclose(self) -> None:
        """Finish what has begun, and close the store unless it was given as an object.

        Safe to call twice.
        """
        await self._guard.finish()
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

    def _places(self, key: str) -> list[tuple[str, bytes]]:
        return [(check.bucket, check.key) for check in self._group(key, 0)]

    def _decision(self, outcomes: Sequence[Outcome]) -> Decision:
        return decision_of(self.name, shown(outcomes))

    def _group(self, key: str, cost: int) -> list[Check]:
        group = self._groups.get((key, cost))
        if group is None:
            to_limit("cost", cost)
            named: object = key
            if not isinstance(named, str):
                raise InvalidOption("key", key, "a text")
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

    def check(self, key: str, cost: int = 1) -> Decision:
        return _portal.call(self._limiter.check(key, cost))

    def peek(self, key: str, cost: int = 1) -> Decision:
        return _portal.call(self._limiter.peek(key, cost))

    def reset(self, key: str) -> None:
        _portal.call(self._limiter.reset(key))

    def block(self, key: str, seconds: Duration) -> None:
        _portal.call(self._limiter.block(key, seconds))

    def close(self) -> None:
        _portal.call(self._limiter.aclose(), waits=True)
