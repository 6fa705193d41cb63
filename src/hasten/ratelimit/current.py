"""What a handler can see of the limits of its request, and say of them."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from hasten._loops import is_running, run_on
from hasten.errors import InvalidLimit, InvalidOption
from hasten.ratelimit.exchange import Exchange, Taken, current
from hasten.ratelimit.rates import to_limit

T = TypeVar("T")


class CurrentLimit:
    """What a handler can see and say of one limit of its request.

    `sync` has what has to be waited for, for handlers that do not wait.
    """

    def __init__(self, exchange: Exchange, taken: Taken) -> None:
        self._exchange = exchange
        self._taken = taken
        self.sync: Final = SyncCurrentLimit(self, exchange.loop)

    @property
    def limit(self) -> int:
        return self._taken.told.limit

    @property
    def remaining(self) -> int:
        return self._taken.told.remaining

    @property
    def used(self) -> int:
        return max(0, self.limit - self.remaining)

    @property
    def reset_after(self) -> float:
        """Seconds until more is left than now."""
        return self._taken.told.reset_us / 1_000_000

    def fail(self) -> None:
        """Count this request, whatever its status will be."""
        self._decide(keep=True)

    def refund(self) -> None:
        """Do not count this request, whatever its status will be."""
        self._decide(keep=False)

    async def charge(self, cost: int) -> None:
        """Take more, as much as it turned out to cost, even if it is more than is left."""
        if self._taken.limit.is_concurrency:
            raise InvalidLimit("COST", "limit", self._taken.limit.name, "one with a rate")
        try:
            to_limit("cost", cost)
        except InvalidOption as error:
            raise InvalidLimit.of("COST", error) from None
        checks = [
            check._replace(cost=cost, forced=True, counted_later=False)
            for check in self._taken.checks
        ]
        [outcomes] = await self._exchange.middleware.guard.hit([checks])
        self._taken.outcomes = [
            new._replace(token=old.token)
            for new, old in zip(outcomes, self._taken.outcomes, strict=True)
        ]

    async def reset(self) -> None:
        """Forget all that this client has used up. Raises `StoreError`."""
        for check in self._taken.checks:
            await self._exchange.middleware.guard.reset(check.bucket, check.key)

    def _decide(self, *, keep: bool) -> None:
        limit = self._taken.limit
        if not limit.is_settled or limit.is_concurrency:
            expected = "one with skip_successful, skip_failed or counts: others are counted at once"
            raise InvalidLimit("OUTCOME", "limit", limit.name, expected)
        if self._taken.is_settled:
            raise InvalidLimit(
                "SETTLED", "limit", limit.name, "to be told before the answer begins"
            )
        self._taken.keep = keep


class SyncCurrentLimit:
    """The same as `CurrentLimit`, for handlers that do not wait: in a thread, or in memory."""

    def __init__(self, current: CurrentLimit, loop: AbstractEventLoop | Any) -> None:
        self._current = current
        self._loop = loop

    def charge(self, cost: int) -> None:
        """As `CurrentLimit.charge`."""
        finish_now(self._current.charge(cost), self._loop)

    def reset(self) -> None:
        """As `CurrentLimit.reset`."""
        finish_now(self._current.reset(), self._loop)


def finish_now(work: Coroutine[Any, Any, T], loop: AbstractEventLoop | Any) -> T:
    """The result for a caller that cannot await, in a thread or on the event loop itself.

    Raises `InvalidLimit` if there is something to wait for, and nobody but the event loop to do so.
    """
    if not is_running():
        return run_on(loop, work)
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise InvalidLimit(
        "BLOCKING",
        "store",
        "elsewhere",
        "an async def handler, or one that runs in a thread: the store has to be waited for",
    )


def current_limit(name: str) -> CurrentLimit:
    """The limit of this name that the request is under. Raises `LookupError` if there is none."""
    exchange = current.get()
    if exchange is None:
        raise LookupError(
            f"no limit {name!r} here: there is no request, or no RateLimitMiddleware around it"
        )
    names: list[str] = []
    while exchange is not None:
        for taken in exchange.taken:
            if taken.limit.name == name:
                return CurrentLimit(exchange, taken)
            names.append(repr(taken.limit.name))
        exchange = exchange.outer
    there_is = ", ".join(names) or "none"
    raise LookupError(f"no limit {name!r} is for this request; there is {there_is}")
