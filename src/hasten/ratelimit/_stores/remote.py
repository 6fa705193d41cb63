"""What all remote stores have in common: batches of operations, and a time-out.

All operations of one tick of the event loop are one exchange with the store. Within an exchange,
and from one exchange to the next, operations are applied in the order in which they were requested.
"""

from __future__ import annotations

import asyncio
import copy
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from typing import ClassVar, Final, Protocol, Self

from hasten._clock import Clock, check_clock
from hasten._coalescing import Coalescer
from hasten._durations import Duration, to_us
from hasten._timeouts import done_within
from hasten.errors import StoreError, StoreTimeout
from hasten.ratelimit._counter_store import Check, CheckGroup, Outcome, Settlement
from hasten.ratelimit._stores.operations import Block, Hit, Operation, Peek, Reset, Settle

Result = list[list[Outcome]] | StoreError
"""The outcomes of a hit by group, those of a peek as one group, [] for other operations."""


class User(Protocol):
    """Something that uses a store, and has work to finish before the store is closed."""

    async def finish(self) -> None:
        """Finish the work that has begun."""


class RemoteStore(ABC):
    """A `TimedStore`. store_timeout is how long it waits for a response.

    With None it waits as long as the connection does, and each error states whether the operation
    may have been applied.
    """

    max_batch: ClassVar[int | None] = None
    """The most operations in one exchange; None for all of a tick."""

    def __init__(
        self, name: str, *, store_timeout: Duration | None = None, clock: Clock | None = None
    ) -> None:
        self.name: Final = name
        self.clock: Final = None if clock is None else check_clock(clock)
        self.users: Final[weakref.WeakSet[User]] = weakref.WeakSet()
        """The users that finish before the connections are closed."""
        self._set_timeout(store_timeout)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def within(self, seconds: Duration | None) -> Self:
        """Return a store with the same counts and connections, and another time-out."""
        other = copy.copy(self)
        other._set_timeout(seconds)
        return other

    def _set_timeout(self, seconds: Duration | None) -> None:
        self.on_late: Callable[[], None] | None = None
        self._timeout_us = (
            None if seconds is None else to_us("store_timeout", seconds, at_least_us=1)
        )
        self._late: set[asyncio.Future[list[Result]]] = set()
        self._coalescers: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, Coalescer[Operation, Result]
        ] = weakref.WeakKeyDictionary()

    @abstractmethod
    async def _exchange(self, operations: Sequence[Operation]) -> list[Result]:
        """Apply operations in their order. The result of one that fails is its error."""

    async def aclose(self) -> None:
        """Let all users finish, then close the connections. They open again at the next use."""
        for user in list(self.users):
            await user.finish()
        await self._close()

    @abstractmethod
    async def _close(self) -> None: ...

    @abstractmethod
    def close_now(self) -> None:
        """Close what can be closed without an event loop."""

    async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        """Implement `CounterStore.hit`."""
        if not groups:
            return []
        future = self._put(Hit(groups))
        try:
            return value_of(await future)
        except asyncio.CancelledError:
            # If the result had arrived already, nobody else refunds its reservations.
            if not future.cancelled() and future.done() and future.exception() is None:
                self._refund(future.result())
            raise

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        """Implement `CounterStore.settle`."""
        # Added to the batch now, not when the caller awaits: later operations come after it.
        return _all_done([self._put(Settle(settlement)) for settlement in settlements])

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        """Implement `CounterStore.peek`."""
        if not checks:
            return []
        [outcomes] = await self._apply(Peek(checks))
        return outcomes

    async def reset(self, bucket: str, key: bytes) -> None:
        """Implement `CounterStore.reset`."""
        await self._apply(Reset(bucket, key))

    async def block(self, bucket: str, key: bytes, for_us: int) -> None:
        """Implement `CounterStore.block`."""
        await self._apply(Block(bucket, key, for_us))

    async def _apply(self, operation: Operation) -> list[list[Outcome]]:
        return value_of(await self._put(operation))

    def _put(self, operation: Operation) -> asyncio.Future[Result]:
        loop = asyncio.get_running_loop()
        coalescer = self._coalescers.get(loop)
        if coalescer is None:
            coalescer = self._coalescers[loop] = Coalescer(
                self._send, on_unclaimed=self._refund, max_weight=self.max_batch
            )
        return coalescer.put(operation)

    async def _send(self, operations: Sequence[Operation]) -> list[Result]:
        if self._timeout_us is None:
            return await self._exchange(operations)
        exchange = asyncio.ensure_future(self._exchange(operations))
        if await done_within(exchange, self._timeout_us / 1_000_000):
            return exchange.result()
        # Not cancelled: that would break the connection because of a short delay.
        self._late.add(exchange)
        exchange.add_done_callback(self._arrived_late)
        return [timed_out(self.name, self._timeout_us)] * len(operations)

    def _arrived_late(self, exchange: asyncio.Future[list[Result]]) -> None:
        """Refund the reservations of results that arrived after the time-out."""
        self._late.discard(exchange)
        if exchange.cancelled() or exchange.exception() is not None:
            return
        results = [result for result in exchange.result() if not isinstance(result, StoreError)]
        if not results:
            return
        if self.on_late is not None:
            self.on_late()
        for result in results:
            self._refund(result)

    def _refund(self, result: Result) -> None:
        """End the reservations of a result that nobody receives."""
        if isinstance(result, StoreError):
            return
        for outcome in chain(*result):
            if outcome.token is not None:
                self._put(Settle(Settlement(outcome.token)))


def timed_out(store: str, timeout_us: int) -> StoreTimeout:
    """Return the error for a store that did not respond in time."""
    return StoreTimeout(store, f"no response within {timeout_us / 1000:g} ms")


def value_of(result: Result) -> list[list[Outcome]]:
    """Return the outcomes of a result. Raises `StoreError` if it is an error."""
    if isinstance(result, StoreError):
        raise result
    return result


async def _all_done(futures: Sequence[asyncio.Future[Result]]) -> None:
    for result in await asyncio.gather(*futures):
        value_of(result)
