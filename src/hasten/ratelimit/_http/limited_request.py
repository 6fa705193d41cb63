"""`LimitedRequest`: a request, the results of its limits, and how its reservations are settled."""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any, Final, TypeAlias, TypeVar

from hasten._asgi import Headers, Message, Scope, Send
from hasten._loops import current_trio_token, is_running, run_on_loop_of_other_thread
from hasten._request_info import RequestInfo
from hasten.errors import MissingMiddleware, UsageError
from hasten.ratelimit._counter_store import ImmediateStore, Settlement
from hasten.ratelimit._http.enforcer import Enforcer
from hasten.ratelimit._http.limit import Limit
from hasten.ratelimit._http.plans import LimitPlan
from hasten.ratelimit._http.policy_headers import NAMES, PolicyState, WriteHeaders
from hasten.ratelimit._http.registry import registry
from hasten.ratelimit._http.request_checks import await_if_needed
from hasten.ratelimit._http.results import LimitResult

T = TypeVar("T")

active_request: Final[ContextVar[LimitedRequest | None]] = ContextVar(
    "hasten.ratelimit", default=None
)
"""The request that the current task or thread serves, None if no limit can apply to it."""


IsAllowed: TypeAlias = bool


class LimitedRequest:
    """A request in one middleware, with the results of the limits that apply to it.

    - outer: the same request in the next middleware outside of this one, None if there is none.
    - find_route_path: returns the path of a request, for limits with key="route".
    """

    denied: LimitResult | None = None
    """The result of the limit that refuses the request, None if no limit does."""
    has_started = False
    """Whether a response has begun."""
    pending: LimitPlan | None = None
    """The plan that is not enforced yet, because the middleware must await the store for it."""
    reserves = False
    """Whether a limit has reserved its cost, and counts the request by how it ends."""
    _info: RequestInfo | None = None
    _write_headers: WriteHeaders | None = None
    """Writes the headers if they describe the limits of one plan only; None if not."""
    _inner_states: Sequence[PolicyState] = ()
    """The limits of a middleware inside this one, which this one has to describe in headers."""
    _inner_shown: int | None = None
    """The index in `_inner_states` of the limit that refuses the request."""

    def __init__(
        self,
        enforcer: Enforcer,
        scope: Scope,
        send: Send,
        find_route_path: Callable[[Scope], str],
        outer: LimitedRequest | None = None,
    ) -> None:
        self.enforcer: Final = enforcer
        self.scope: Final = scope
        self.client: Final = enforcer.resolve_client(scope)
        self.server_send: Final = send
        """The send function that this middleware was called with."""
        self.outer: Final = outer
        self.results: list[LimitResult] = []
        try:
            self.loop: AbstractEventLoop | Any = get_running_loop()
        except RuntimeError:
            self.loop = current_trio_token()
        self._route_of = find_route_path

    @property
    def info(self) -> RequestInfo:
        """The request as it is passed to functions of the application, such as key and skip."""
        info = self._info
        if info is None:
            info = self._info = RequestInfo(self.scope, self.client)
        return info

    @property
    def needs_refusal(self) -> bool:
        """Whether a limit refuses the request and no response has begun."""
        return self.denied is not None and not self.has_started

    # Limits ---------------------------------------------------------------------------------------

    async def enforce(self, plan: LimitPlan) -> None:
        """Check the request against the limits of a plan, and record the results."""
        results = await self.enforcer.enforce(self.info, plan, self._route_of)
        # Before observers run: if one is cancelled, `settle_at_request_end` needs the results.
        self._add_results(plan, results)
        await self.enforcer.call_on_decision_and_on_limited(results, self.info)

    def enforce_now(self, plan: LimitPlan, store: ImmediateStore) -> None:
        """Run `enforce` synchronously, with a store that never waits (`Enforcer.immediate`).

        The plan must need no functions of the application (`LimitPlan.has_fast_path`).
        """
        groups = plan.cached_groups.get(self.client) or plan.make_check_groups(self.client)
        if plan.single is None:
            self._add_results(
                plan, self.enforcer.record_outcomes(plan.limits, groups, store.hit_now(groups))
            )
            return
        outcome = store.hit_one(groups[0][0])
        refuses = self.enforcer.decisions.count_outcome(plan.single, outcome)
        result = LimitResult(plan.single, groups[0], (outcome,), refuses)
        self.results.append(result)
        self.reserves = plan.reserves
        if self.outer is None:
            self._write_headers = plan.write_headers
        if refuses:
            self.denied = result

    def _add_results(self, plan: LimitPlan, results: list[LimitResult]) -> None:
        can_write = not self.results and len(results) == len(plan.limits) and self.outer is None
        self._write_headers = plan.write_headers if can_write else None
        self.reserves |= plan.reserves
        for result in results:
            if result.checks:
                self.results.append(result)
            if result.refuses:
                self.denied = result
                if len(result.checks) != 1 or len(results) != 1:
                    # `write_headers` of the plan cannot tell which of the rates refuses.
                    self._write_headers = None

    async def enforce_limit(self, limit: Limit) -> IsAllowed:
        """Check the request against a limit of its route. Returns False if it is refused."""
        await self.enforce(self.enforcer.get_plan((limit,)))
        return self.denied is None

    def enforce_limit_sync(self, limit: Limit) -> IsAllowed:
        """Synchronous version of `enforce_limit`, for a handler without async."""
        return self.run_coroutine_from_sync(self.enforce_limit(limit))

    async def _enforce_limits_if_body_refused(self, status: int) -> IsAllowed:
        """Apply the limits of a route whose handler was not called, as the body is malformed.

        status is the response of the framework. Returns False if a limit refuses the request.
        """
        if not registry.has_limits or active_request.get() is not self:
            return True
        taken = [result.limit for result in self.results]
        for limit in registry.get_limits_if_body_refused(self.scope, status):
            if limit not in taken and not await self.enforce_limit(limit):
                return False
        return True

    def run_coroutine_from_sync(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine for a handler without async, and return its result.

        A handler in a thread blocks until the event loop has run the coroutine. On the event loop
        itself, the coroutine must finish without waiting: otherwise `UsageError` is raised.
        """
        if not is_running():
            return run_on_loop_of_other_thread(self.loop, coroutine)
        try:
            coroutine.send(None)
        except StopIteration as end:
            result: T = end.value
            return result
        coroutine.close()
        raise UsageError(
            "a limit was used by a function without async on the event loop, but its store must be "
            "awaited: make the function async, or run it in a thread"
        )

    def find_already_counted_limits(self, namespace: str) -> list[Limit]:
        """Return the limits that this middleware and those outside of it have counted.

        Only middlewares of this namespace are included.
        """
        found = []
        if self.enforcer.namespace == namespace:
            found += [result.limit for result in self.results]
        return (
            found
            if self.outer is None
            else found + self.outer.find_already_counted_limits(namespace)
        )

    # The response ---------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Send a message of the application. Adds the rate limit headers to the response."""
        if message["type"] == "http.response.start" and not self.has_started:
            if self.denied is not None:
                return  # the refusal replaces the response of the framework
            status = message["status"]
            if status >= 400 and not await self._enforce_limits_if_body_refused(status):
                return
            self.has_started = True
            if self.reserves:
                await self.settle_by_status(status)
            write, results = self._write_headers, self.results
            if write is not None and len(results) == 1:  # the most frequent case
                lines = write(results[0].outcomes, None)
            else:
                lines = self.make_headers()
            if lines:
                headers = message.get("headers", ())
                if not isinstance(headers, list | tuple):
                    headers = list(headers)  # it may be an iterator
                for line in headers:
                    if line[0].lower() in NAMES:  # remove the headers of other rate limiters
                        headers = [line for line in headers if line[0].lower() not in NAMES]
                        break
                message = {**message, "headers": [*headers, *lines]}
        elif self.denied is not None and not self.has_started:
            return
        await self.server_send(message)
        if self.reserves and is_last_response_message(message):
            # Background tasks that run after the response are not part of the request.
            await self.settle_at_request_end()

    def make_headers(self) -> Headers:
        """Return the rate limit headers of the response, for all limits of the request.

        Returns [] if the outer middleware writes the headers for both.
        """
        results, denied = self.results, self.denied
        if self._write_headers is not None:
            outcomes = results[0].outcomes
            if len(results) > 1:
                outcomes = [outcome for result in results for outcome in result.outcomes]
            return self._write_headers(outcomes, None)
        states: list[PolicyState] = []
        shown = None
        for result in results:
            if result.limit.shows_headers:
                if result is denied:
                    shown = len(states) + result.outcomes.index(result.decisive_outcome)
                states += result.make_policy_states()
        if shown is None and self._inner_shown is not None:
            shown = len(states) + self._inner_shown
        states += self._inner_states
        if self.outer is not None and self.outer.enforcer.writer.writes_headers:
            # The outer middleware would replace headers of this one, so it describes the limits
            # of both.
            self.outer._inner_states, self.outer._inner_shown = states, shown
            self.outer._write_headers = None
            return []
        return self.enforcer.writer.make_headers(states, shown)

    # The end of the request -----------------------------------------------------------------------

    async def settle_by_status(self, status: int | None) -> None:
        """Charge or refund the reserved costs, according to the status of the response.

        status is None if there is no response. Limits of concurrent requests are settled later, by
        `settle_at_request_end`, because the body of the response is not sent yet.
        """
        if not self.reserves:
            return
        self.info.status = status
        settlements: list[Settlement] = []
        for result in self.results:
            limit = result.limit
            if not limit.reserves or result.is_settled or limit.is_concurrency:
                continue
            keep_cost = result.keep_cost
            if keep_cost is None:
                keep_cost = limit.is_counted(status, await self._is_success(limit, status))
            settlements += result.pop_settlements(keep_cost=keep_cost)
            if not keep_cost:
                result.add_refund_to_remaining()
        if settlements:
            self.enforcer.store.settle_in_background(settlements)

    async def settle_after_exception(self) -> None:
        """Settle a request after an exception of the application, as if it had responded with 500.

        Does nothing if a response has begun.
        """
        if not self.has_started:
            await self.settle_by_status(500)

    async def settle_at_request_end(self) -> None:
        """Settle the remaining reservations at the end of the request. Safe to call twice."""
        if not self.reserves:
            return
        if not self.has_started:
            await self.settle_by_status(None if self.denied is None else self.denied.limit.status)
        settlements = [
            settlement
            for result in self.results
            if result.limit.is_concurrency
            for settlement in result.pop_settlements(keep_cost=False)
        ]
        if settlements:
            self.enforcer.store.settle_in_background(settlements)

    async def _is_success(self, limit: Limit, status: int | None) -> bool:
        if status is None:
            return False
        if limit.is_success is None:
            return status < 400
        try:
            return bool(await await_if_needed(limit.is_success(self.info)))
        except Exception:  # noqa: BLE001  # raised by the application's function
            self.enforcer.errors.exception(
                f"limit {limit.name!r}: is_success() failed; the request is counted"
            )
            return limit.skip_failed


def require_active_request(feature: str) -> LimitedRequest:
    """Return the request that the current task or thread serves.

    Raises `MissingMiddleware` if there is no request. The error names feature: the function that
    needs the request.
    """
    request = active_request.get()
    if request is None:
        raise MissingMiddleware(feature, "RateLimitMiddleware")
    return request


def is_last_response_message(message: Message) -> bool:
    """Return whether an ASGI message is the last one of a response."""
    match message["type"]:
        case "http.response.body":
            return not message.get("more_body", False)
        case "http.response.pathsend":
            return True
    return False
