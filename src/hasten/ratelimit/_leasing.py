"""Counting approximately: a process takes a number of units at once and spends them by itself.

A store that many processes share is then asked once for many hits. What was taken is charged from
the beginning, so together they never let through more than the limit of a fixed window; what one
has left when its lease ends, it gives back. In between others may be denied what lies unused here:
at most a half of what was left when it was taken.

Near the limit, and where a limit is small for so many processes, each hit is asked for. So are
limits that are counted by outcome, and those that hold together with others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final

from hasten._clock import Clock, now_ns_of
from hasten.errors import StoreError
from hasten.ratelimit._counter_store import (
    Check,
    CheckGroup,
    CounterStore,
    Outcome,
    Settlement,
    Token,
    is_denied,
)

# Below this share of its limit a key is counted exactly.
NEAR: Final = 0.2

# A limit has to be so many times the number of processes.
LEAST_EACH: Final = 10

MOST_AT_ONCE: Final = 1_000

# A lease lasts for this part of the window, and not longer than this.
PART: Final = 20
LONGEST_US: Final = 1_000_000


def may_lease(check: Check) -> bool:
    """Whether a check may be counted approximately."""
    return (
        check.processes > 0
        and check.rule.kind != "concurrency"
        and check.rule.capacity >= LEAST_EACH * check.processes
        and not (check.counted_later or check.forced)
    )


class Leases:
    """A `CounterStore` in front of one, for checks that give `Check.processes`.

    Belongs to one event loop.
    """

    def __init__(self, store: CounterStore, *, clock: Clock | None = None) -> None:
        self._store = store
        self._clock_ns = now_ns_of(clock)
        self._leases: dict[tuple[str, bytes], _Lease] = {}
        self._asking: dict[tuple[str, bytes], asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        answer: list[list[Outcome]] = []
        exact: list[CheckGroup] = []
        for group in groups:
            if len(group) != 1 or not may_lease(group[0]):
                exact.append(group)
                continue
            if exact and not await self._passes(exact, answer):
                return answer
            exact = []
            outcome = await self._spend(group[0])
            answer.append([outcome])
            if is_denied(group, answer[-1]):
                return answer
        if exact:
            await self._passes(exact, answer)
        return answer

    async def _passes(self, groups: Sequence[CheckGroup], answer: list[list[Outcome]]) -> bool:
        told = await self._store.hit(groups)
        answer += told
        return not is_denied(groups[len(told) - 1], told[-1])

    # Leases -------------------------------------------------------------------------------------

    async def _spend(self, check: Check) -> Outcome:
        place = check.bucket, check.key
        while True:
            lease = self._leases.get(place)
            now_us = self._now_us()
            if lease is not None and lease.spend(check.cost, now_us):
                return lease.told(check, now_us)
            asking = self._asking.get(place)
            if asking is None:
                return await self._ask(check, lease, now_us)
            await asyncio.shield(asking)

    async def _ask(self, check: Check, lease: _Lease | None, now_us: int) -> Outcome:
        """Take more than is needed if enough is left, and tell those who wait meanwhile."""
        wanted = check.cost
        if lease is not None:
            wanted = max(wanted, lease.next_share(check, now_us))
            self._end(check.bucket, check.key, lease)
        if wanted <= check.cost:
            return await self._ask_exactly(check)
        place = check.bucket, check.key
        asking = self._asking[place] = asyncio.get_running_loop().create_future()
        try:
            reserving = check._replace(cost=wanted, counted_later=True, processes=0, block_us=0)
            [[outcome]] = await self._store.hit([[reserving]])
            if outcome.token is None:  # others were quicker
                return await self._ask_exactly(check)
            lease = self._begin(check, wanted, outcome, now_us)
            lease.spend(check.cost, now_us)
            return lease.told(check, now_us)
        finally:
            del self._asking[place]
            asking.set_result(None)

    async def _ask_exactly(self, check: Check) -> Outcome:
        asked_us = self._now_us()
        [[outcome]] = await self._store.hit([[check._replace(processes=0)]])
        if outcome.ok:  # an empty lease remembers what is left
            place = check.bucket, check.key
            if place not in self._leases:
                self._leases[place] = self._lease(check, 0, outcome, asked_us)
        return outcome

    def _begin(self, check: Check, taken: int, outcome: Outcome, asked_us: int) -> _Lease:
        lease = self._leases[check.bucket, check.key] = self._lease(check, taken, outcome, asked_us)
        return lease

    def _lease(self, check: Check, taken: int, outcome: Outcome, asked_us: int) -> _Lease:
        lasts_us = min(check.rule.window_us // PART, LONGEST_US)
        if check.rule.kind == "fixed":  # what was taken is of this window alone
            lasts_us = min(lasts_us, outcome.reset_us)
        lease = _Lease(taken, outcome, asked_us, asked_us + lasts_us)
        lease.timer = asyncio.get_running_loop().call_later(
            lasts_us / 1_000_000, self._end, check.bucket, check.key, lease
        )
        return lease

    def _end(self, bucket: str, key: bytes, lease: _Lease) -> None:
        """Give back what is left of a lease."""
        if self._leases.get((bucket, key)) is not lease:
            return
        del self._leases[bucket, key]
        lease.cancel_timer()
        if lease.token is not None:
            settling = self._store.settle([Settlement(lease.token, keep=lease.spent)])
            task = asyncio.ensure_future(_quietly(settling))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    # The rest of a store ------------------------------------------------------------------------

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        return self._store.settle(settlements)

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        return self.with_own(checks, await self._store.peek(checks))

    def with_own(self, checks: Sequence[Check], outcomes: Sequence[Outcome]) -> list[Outcome]:
        """What a store has answered, with what lies here unspent."""
        return [
            self._with_own(check, outcome) for check, outcome in zip(checks, outcomes, strict=True)
        ]

    def _with_own(self, check: Check, outcome: Outcome) -> Outcome:
        lease = self._leases.get((check.bucket, check.key))
        if lease is None or not lease.left or outcome.retry_us > LONGEST_US:
            return outcome
        return outcome._replace(remaining=outcome.remaining + lease.left)

    async def reset(self, bucket: str, key: bytes) -> None:
        self.forget(bucket, key)
        await self._store.reset(bucket, key)

    async def block(self, bucket: str, key: bytes, for_us: int) -> None:
        self.forget(bucket, key)
        await self._store.block(bucket, key, for_us)

    def forget(self, bucket: str, key: bytes) -> None:
        """Spend no more of what a key has."""
        lease = self._leases.get((bucket, key))
        if lease is not None:
            self._end(bucket, key, lease)

    async def give_back(self) -> None:
        """End all leases."""
        for (bucket, key), lease in list(self._leases.items()):
            self._end(bucket, key, lease)
        await asyncio.gather(*self._tasks)

    async def aclose(self) -> None:
        """Give back all that is left, then close the store."""
        await self.give_back()
        await self._store.aclose()

    def _now_us(self) -> int:
        return self._clock_ns() // 1000


class _Lease:
    """Units that are charged and may be spent here, until a time."""

    __slots__ = (
        "_ends_us",
        "_limit",
        "_remaining",
        "_reset_at_us",
        "_taken",
        "left",
        "timer",
        "token",
    )

    def __init__(self, taken: int, outcome: Outcome, asked_us: int, ends_us: int) -> None:
        self.left = taken
        self.token: Token | None = outcome.token
        self.timer: asyncio.TimerHandle | None = None
        self._taken = taken
        self._limit = outcome.limit
        self._remaining = outcome.remaining
        self._reset_at_us = asked_us + outcome.reset_us
        self._ends_us = ends_us

    @property
    def spent(self) -> int:
        return self._taken - self.left

    def spend(self, cost: int, now_us: int) -> bool:
        if cost > self.left or now_us >= self._ends_us:
            return False
        self.left -= cost
        return True

    def told(self, check: Check, now_us: int) -> Outcome:
        reset_us = max(1, self._reset_at_us - now_us)
        return Outcome(True, check.rule.capacity, self._remaining + self.left, reset_us)

    def next_share(self, check: Check, now_us: int) -> int:
        """How much to take next: nothing ahead if little was left, or that was long ago."""
        if now_us >= self._reset_at_us or self._remaining < NEAR * self._limit:
            return 0
        return min(self._remaining // (2 * check.processes), MOST_AT_ONCE)

    def cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


async def _quietly(settling: Awaitable[None]) -> None:
    """What could not be given back comes back with the window."""
    try:
        await settling
    except StoreError:
        return
