"""What a handler can see of the limits of its request, and say of them."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from hasten._decision import Decision
from hasten._loops import is_running, run_on
from hasten.errors import InvalidOption, LimitNotFound, MissingMiddleware, UsageError
from hasten.ratelimit._exchange import Exchange, Taken, current
from hasten.ratelimit._rates import to_limit

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
    def decision(self) -> Decision:
        """What the limit says of this request, as it is now."""
        return self._taken.decision(self._exchange.request)

    def __repr__(self) -> str:
        decision = self.decision
        return f"<CurrentLimit {decision.name!r} {decision.remaining} of {decision.limit} left>"

    def fail(self) -> None:
        """Count this request, whatever its status will be."""
        self._decide(keep=True)

    def refund(self) -> None:
        """Do not count this request, whatever its status will be."""
        self._decide(keep=False)

    async def charge(self, cost: int) -> None:
        """Take more, as much as it turned out to cost, even if it is more than is left."""
        if self._taken.limit.is_concurrency:
            raise InvalidOption("limit", self._taken.limit.name, "one with a rate", code="conflict")
        to_limit("cost", cost)
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
        places = [(check.bucket, check.key) for check in self._taken.checks]
        await self._exchange.middleware.guard.reset(places)

    def _decide(self, *, keep: bool) -> None:
        limit = self._taken.limit
        if not limit.is_settled or limit.is_concurrency:
            expected = (
                "one with skip_successful, skip_failed or count_statuses: others count at once"
            )
            raise InvalidOption("limit", limit.name, expected, code="conflict")
        if self._taken.is_settled:
            raise InvalidOption(
                "limit", limit.name, "to be told before the answer begins", code="too_late"
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

    Raises `UsageError` if only the event loop, which this would block, could wait for it.
    """
    if not is_running():
        return run_on(loop, work)
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise UsageError(
        "a limit whose store has to be waited for was used without await on the event loop: make "
        "it an async def handler, or one that runs in a thread"
    )


def current_limit(name: str) -> CurrentLimit:
    """The limit of this name that the request is under.

    Raises `LimitNotFound` if it is under none of this name, `MissingMiddleware` where there is no
    request.
    """
    exchange = current.get()
    if exchange is None:
        raise MissingMiddleware(f"current_limit({name!r})", "RateLimitMiddleware")
    names: list[str] = []
    while exchange is not None:
        for taken in exchange.taken:
            if taken.limit.name == name:
                return CurrentLimit(exchange, taken)
            names.append(taken.limit.name)
        exchange = exchange.outer
    raise LimitNotFound(name, names)
