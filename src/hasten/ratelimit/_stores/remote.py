"""What stores that are elsewhere have in common: they are asked together, and waited for so long.

All that is asked in one tick of the event loop is one exchange with the store. Within it, and from
one exchange to the next, things are done in the order they were asked for.
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
from hasten.ratelimit._stores.operations import Block, Hit, Peek, Request, Reset, Settle

Answer = list[list[Outcome]] | StoreError
"""Outcomes of a hit, by groups; of a peek, as one group; of anything else none."""


class User(Protocol):
    async def finish(self) -> None: ...


class AskingStore(ABC):
    """A `TimedStore`. store_timeout is how long an answer is waited for.

    With None it is as long as the connection waits, and each error says truly whether what was
    asked may have been done.
    """

    at_once: ClassVar[int | None] = None
    """So many requests are one exchange at most; None for all of a tick."""

    def __init__(
        self, name: str, *, store_timeout: Duration | None = None, clock: Clock | None = None
    ) -> None:
        self.name: Final = name
        self.clock: Final = None if clock is None else check_clock(clock)
        self.users: Final[weakref.WeakSet[User]] = weakref.WeakSet()
        """Who has something to finish before the connections are closed."""
        self._wait_for(store_timeout)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def within(self, seconds: Duration | None) -> Self:
        """The same counts over the same connections, with another time-out."""
        other = copy.copy(self)
        other._wait_for(seconds)
        return other

    def _wait_for(self, seconds: Duration | None) -> None:
        self.on_late: Callable[[], None] | None = None
        self._timeout_us = (
            None if seconds is None else to_us("store_timeout", seconds, at_least_us=1)
        )
        self._late: set[asyncio.Future[list[Answer]]] = set()
        self._coalescers: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, Coalescer[Request, Answer]
        ] = weakref.WeakKeyDictionary()

    @abstractmethod
    async def _exchange(self, requests: Sequence[Request]) -> list[Answer]:
        """Carry out requests in their order. Each that fails has its error for an answer."""

    async def aclose(self) -> None:
        """Let all who use it finish, then close the connections. It opens again when it is used."""
        for user in list(self.users):
            await user.finish()
        await self._close()

    @abstractmethod
    async def _close(self) -> None: ...

    @abstractmethod
    def close_now(self) -> None:
        """Close what can be closed without an event loop."""

    async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        if not groups:
            return []
        asked = self._put(Hit(groups))
        try:
            return value_of(await asked)
        except asyncio.CancelledError:
            # If the answer was here already, nobody else gives back what it reserved.
            if not asked.cancelled() and asked.done() and asked.exception() is None:
                self._give_back(asked.result())
            raise

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        # Put in now, not once somebody waits: what is asked later comes behind it.
        return _all_done([self._put(Settle(settlement)) for settlement in settlements])

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        if not checks:
            return []
        [outcomes] = await self._ask(Peek(checks))
        return outcomes

    async def reset(self, bucket: str, key: bytes) -> None:
        await self._ask(Reset(bucket, key))

    async def block(self, bucket: str, key: bytes, for_us: int) -> None:
        await self._ask(Block(bucket, key, for_us))

    async def _ask(self, request: Request) -> list[list[Outcome]]:
        return value_of(await self._put(request))

    def _put(self, request: Request) -> asyncio.Future[Answer]:
        loop = asyncio.get_running_loop()
        coalescer = self._coalescers.get(loop)
        if coalescer is None:
            coalescer = self._coalescers[loop] = Coalescer(
                self._send, unheard=self._give_back, at_most=self.at_once
            )
        return coalescer.put(request)

    async def _send(self, requests: Sequence[Request]) -> list[Answer]:
        if self._timeout_us is None:
            return await self._exchange(requests)
        exchange = asyncio.ensure_future(self._exchange(requests))
        if await done_within(exchange, self._timeout_us / 1_000_000):
            return exchange.result()
        # Not cancelled, which would break the connection for the sake of a moment.
        self._late.add(exchange)
        exchange.add_done_callback(self._came_late)
        return [late(self.name, self._timeout_us)] * len(requests)

    def _came_late(self, exchange: asyncio.Future[list[Answer]]) -> None:
        """Nobody has heard of what it brings: give back what it reserved."""
        self._late.discard(exchange)
        if exchange.cancelled() or exchange.exception() is not None:
            return
        answers = [answer for answer in exchange.result() if not isinstance(answer, StoreError)]
        if not answers:
            return
        if self.on_late is not None:
            self.on_late()
        for answer in answers:
            self._give_back(answer)

    def _give_back(self, answer: Answer) -> None:
        """End the reservations of an answer that nobody has heard."""
        if isinstance(answer, StoreError):
            return
        for outcome in chain(*answer):
            if outcome.token is not None:
                self._put(Settle(Settlement(outcome.token)))


def late(store: str, timeout_us: int) -> StoreTimeout:
    return StoreTimeout(store, f"it did not answer within {timeout_us / 1000:g} ms")


def value_of(answer: Answer) -> list[list[Outcome]]:
    if isinstance(answer, StoreError):
        raise answer
    return answer


async def _all_done(answers: Sequence[asyncio.Future[Answer]]) -> None:
    for answer in await asyncio.gather(*answers):
        value_of(answer)
