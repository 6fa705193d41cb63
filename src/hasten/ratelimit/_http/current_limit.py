"""`current_limit()`: a limit of the current request, for its handler."""

from __future__ import annotations

from typing import Final

from hasten._checks import check_whole_number
from hasten._decision import Decision
from hasten.errors import LimitNotFound, UsageError
from hasten.ratelimit._http.limited_request import LimitedRequest, require_active_request
from hasten.ratelimit._http.results import LimitResult
from hasten.ratelimit._rates import MAX_LIMIT


class CurrentLimit:
    """A limit of the current request, to see its decision and to change what it counts.

    `current_limit()` returns it. `sync` has blocking versions of the async methods.
    """

    def __init__(self, request: LimitedRequest, result: LimitResult) -> None:
        self._request = request
        self._result = result
        self.sync: Final = SyncCurrentLimit(self, request)

    @property
    def decision(self) -> Decision:
        """The decision of the limit about this request, including later charges."""
        return self._result.to_decision(self._request.info)

    def __repr__(self) -> str:
        decision = self.decision
        return f"<CurrentLimit {decision.name!r} {decision.remaining} of {decision.limit} left>"

    def count_request(self) -> None:
        """Count this request, whatever the status of its response will be.

        Raises `UsageError` if the limit does not count by the response, or the response has begun.
        """
        self._override_counting(keep_cost=True)

    def refund(self) -> None:
        """Do not count this request, whatever the status of its response will be.

        Raises `UsageError` if the limit does not count by the response, or the response has begun.
        """
        self._override_counting(keep_cost=False)

    async def charge(self, cost: int) -> None:
        """Charge an additional cost for this request, even if it exceeds the limit.

        Raises `UsageError` for a limit of concurrent requests.
        """
        if self._result.limit.is_concurrency:
            name = self._result.limit.name
            raise UsageError(
                f"limit {name!r}: charge() cannot be used for a limit of concurrent requests"
            )
        check_whole_number("cost", cost, 0, MAX_LIMIT)
        checks = [
            check._replace(cost=cost, forced=True, counted_later=False)
            for check in self._result.checks
        ]
        [outcomes] = await self._request.enforcer.store.hit([checks])
        self._result.outcomes = [
            new._replace(reservation=old.reservation)
            for new, old in zip(outcomes, self._result.outcomes, strict=True)
        ]

    async def reset(self) -> None:
        """Delete the counts and the block of this client in this limit. Raises `StoreError`."""
        keys = [(check.bucket, check.key) for check in self._result.checks]
        await self._request.enforcer.store.reset(keys)

    def _override_counting(self, *, keep_cost: bool) -> None:
        limit = self._result.limit
        if not limit.reserves or limit.is_concurrency:
            raise UsageError(
                f"limit {limit.name!r}: count_request() and refund() need skip_successful, "
                "skip_failed or count_statuses; other limits count a request when it arrives"
            )
        if self._result.is_settled:
            raise UsageError(
                f"limit {limit.name!r}: count_request() and refund() must be called before "
                "the response begins"
            )
        self._result.keep_cost = keep_cost


class SyncCurrentLimit:
    """The blocking methods of `CurrentLimit`, for handlers without async."""

    def __init__(self, current: CurrentLimit, request: LimitedRequest) -> None:
        self._current = current
        self._request = request

    def charge(self, cost: int) -> None:
        """Synchronous version of `CurrentLimit.charge`."""
        self._request.run_coroutine_from_sync(self._current.charge(cost))

    def reset(self) -> None:
        """Synchronous version of `CurrentLimit.reset`."""
        self._request.run_coroutine_from_sync(self._current.reset())


def current_limit(name: str) -> CurrentLimit:
    """Return the limit with this name that applies to the current request.

    Raises `LimitNotFound` if no limit with this name applies, and `MissingMiddleware` outside of a
    request that `RateLimitMiddleware` serves.
    """
    request: LimitedRequest | None = require_active_request(f"current_limit({name!r})")
    names: list[str] = []
    while request is not None:
        for result in request.results:
            if result.limit.name == name:
                return CurrentLimit(request, result)
            names.append(result.limit.name)
        request = request.outer
    raise LimitNotFound(name, names)
