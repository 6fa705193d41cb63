"""The base class of remote stores, which sends operations in batches and has a time-out.

Operations that are requested in the same tick of the event loop are sent together. The store
applies all operations in the order in which they were requested.
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
from hasten._durations import Duration, to_nearest_us
from hasten._timeouts import done_within
from hasten.errors import StoreError, StoreTimeout
from hasten.ratelimit import _test_isolation as test_isolation
from hasten.ratelimit._counter_store import Check, CheckGroup, Outcome, Settlement
from hasten.ratelimit._stores.operations import Block, Hit, Operation, Peek, Reset, Settle

Result = list[list[Outcome]] | StoreError
"""The result of one operation, or its error.

The result of a hit is a list of outcomes for each group. The result of a peek is one such list.
Other operations have no outcomes: [].
"""


class StoreUser(Protocol):
    """An object that uses a store, and may have unfinished calls when the store is closed."""

    async def wait_for_unfinished_calls(self) -> None:
        """Wait for the unfinished calls."""


class RemoteStore(ABC):
    """A store outside of this process. It implements `TimedStore`.

    store_timeout is how many seconds it waits for a response. With None it waits until the
    connection times out. Only the errors of the connection state whether the operation may have
    been applied.
    """

    max_batch: ClassVar[int | None] = None
    """The most operations in one batch; None for all operations of a tick."""

    def __init__(
        self, name: str, *, store_timeout: Duration | None = None, clock: Clock | None = None
    ) -> None:
        self.name: Final = name
        self.clock: Final = None if clock is None else check_clock(clock)
        self.users: Final[weakref.WeakSet[StoreUser]] = weakref.WeakSet()
        """The objects that `aclose` waits for before it closes the connections."""
        self._set_timeout(store_timeout)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def with_timeout(self, seconds: Duration | None) -> Self:
        """Return a store with the same counts and connections, and another time-out in seconds."""
        other = copy.copy(self)
        other._set_timeout(seconds)
        return other

    def _set_timeout(self, seconds: Duration | None) -> None:
        self.on_late: Callable[[], None] | None = None
        self._timeout_us = (
            None if seconds is None else to_nearest_us("store_timeout", seconds, at_least_us=1)
        )
        self._late: set[asyncio.Future[list[Result]]] = set()
        self._coalescers: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, Coalescer[Operation, Result]
        ] = weakref.WeakKeyDictionary()

    @abstractmethod
    async def _apply_batch(self, operations: Sequence[Operation]) -> list[Result]:
        """Apply operations in their order, and return their results. A failure is a result, too."""

    async def aclose(self) -> None:
        """Wait for the users of the store, then close its connections.

        The next call opens them again.
        """
        for user in list(self.users):
            await user.wait_for_unfinished_calls()
        await self._close()

    @abstractmethod
    async def _close(self) -> None: ...

    @abstractmethod
    def close_without_event_loop(self) -> None:
        """Close the connections that can be closed without an event loop."""

    async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        """Take the costs of groups, up to the first that is denied: see `CounterStore.hit`."""
        if not groups:
            return []
        future = self._enqueue(Hit(groups))
        try:
            return get_outcomes_or_raise(await future)
        except asyncio.CancelledError:
            # If the result has arrived already, its reservations must be refunded here: the caller
            # never receives it.
            if not future.cancelled() and future.done() and future.exception() is None:
                self._refund_unreceived_result(future.result())
            raise

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        """End reservations: see `CounterStore.settle`."""
        # Added to the batch now, not when the caller awaits, so that later operations see it.
        return _await_all([self._enqueue(Settle(settlement)) for settlement in settlements])

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        """Return the outcome that each check would have now, without counting anything."""
        if not checks:
            return []
        [outcomes] = await self._apply_one(Peek(checks))
        return outcomes

    async def reset(self, bucket: str, key: bytes) -> None:
        """Delete the counts and the block of a key in a bucket."""
        await self._apply_one(Reset(bucket, key))

    async def block(self, bucket: str, key: bytes, for_us: int) -> None:
        """Deny every check of a key for this many microseconds; 0 ends a block."""
        await self._apply_one(Block(bucket, key, for_us))

    async def _apply_one(self, operation: Operation) -> list[list[Outcome]]:
        return get_outcomes_or_raise(await self._enqueue(operation))

    def _enqueue(self, operation: Operation) -> asyncio.Future[Result]:
        loop = asyncio.get_running_loop()
        coalescer = self._coalescers.get(loop)
        if coalescer is None:
            coalescer = self._coalescers[loop] = Coalescer(
                self._apply_with_timeout,
                on_unclaimed=self._refund_unreceived_result,
                max_weight=self.max_batch,
            )
        return coalescer.put(operation)

    async def clear(self) -> None:
        """Delete all counts of limits."""
        if test_isolation.substitute is None:
            await self._clear()
        else:
            test_isolation.substitute(self).clear()

    @abstractmethod
    async def _clear(self) -> None: ...

    async def _apply_with_timeout(self, operations: Sequence[Operation]) -> list[Result]:
        if test_isolation.substitute is not None:
            memory = test_isolation.substitute(self)
            return [_apply_in_memory(memory, operation) for operation in operations]
        if self._timeout_us is None:
            return await self._apply_batch(operations)
        exchange = asyncio.ensure_future(self._apply_batch(operations))
        if await done_within(exchange, self._timeout_us / 1_000_000):
            return exchange.result()
        # The batch is not cancelled: that would break the connection because of a short delay.
        self._late.add(exchange)
        exchange.add_done_callback(self._refund_late_results)
        return [make_timeout_error(self.name, self._timeout_us)] * len(operations)

    def _refund_late_results(self, late_results: asyncio.Future[list[Result]]) -> None:
        """Refund the reservations in results that arrived after the time-out, and call on_late."""
        self._late.discard(late_results)
        if late_results.cancelled() or late_results.exception() is not None:
            return
        results = [result for result in late_results.result() if not isinstance(result, StoreError)]
        if not results:
            return
        if self.on_late is not None:
            self.on_late()
        for result in results:
            self._refund_unreceived_result(result)

    def _refund_unreceived_result(self, result: Result) -> None:
        """Refund the reservations of a result that its caller does not receive."""
        if isinstance(result, StoreError):
            return
        for outcome in chain(*result):
            if outcome.reservation is not None:
                self._enqueue(Settle(Settlement(outcome.reservation)))


def make_timeout_error(store: str, timeout_us: int) -> StoreTimeout:
    """Return the error for a store that did not respond within timeout_us microseconds."""
    return StoreTimeout(store, f"no response within {timeout_us / 1000:g} ms")


def get_outcomes_or_raise(result: Result) -> list[list[Outcome]]:
    """Return the outcomes of a result, or raise it if it is a `StoreError`."""
    if isinstance(result, StoreError):
        raise result
    return result


def _apply_in_memory(memory: test_isolation.InMemory, operation: Operation) -> Result:
    match operation:
        case Hit(groups):
            return memory.hit_now(groups)
        case Peek(checks):
            return [memory.peek_now(checks)]
        case Settle(settlement):
            memory.settle_now([settlement])
        case Reset(bucket, key):
            memory.reset_now(bucket, key)
        case Block(bucket, key, for_us):
            memory.block_now(bucket, key, for_us)
    return []


async def _await_all(futures: Sequence[asyncio.Future[Result]]) -> None:
    for result in await asyncio.gather(*futures):
        get_outcomes_or_raise(result)
