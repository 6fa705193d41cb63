"""One request under limits: what they decided, the headers that describe it, and its settlement."""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from hasten._asgi import Headers, Message, Scope, Send
from hasten._loops import current_trio_token, is_running, run_on_loop
from hasten._request_info import RequestInfo
from hasten.errors import MissingMiddleware, UsageError
from hasten.ratelimit._counter_store import ImmediateStore, Settlement
from hasten.ratelimit._http.enforcer import Enforcer
from hasten.ratelimit._http.limit import Limit
from hasten.ratelimit._http.plans import Plan
from hasten.ratelimit._http.policy_headers import NAMES, PolicyState, WriteHeaders
from hasten.ratelimit._http.registry import registry
from hasten.ratelimit._http.request_checks import result_of
from hasten.ratelimit._http.results import LimitResult

T = TypeVar("T")

active_request: Final[ContextVar[LimitedRequest | None]] = ContextVar(
    "hasten.ratelimit", default=None
)
"""The request that this task or thread serves."""


class LimitedRequest:
    """A request that limits apply to.

    outer is the same request in another middleware around this one, if there is one. route_of
    returns the route of a request.
    """

    denied: LimitResult | None = None
    """The result that refuses the request, if one does."""
    has_started = False
    """Whether a response has begun."""
    pending: Plan | None = None
    """The plan that the middleware still has to enforce, because that has to wait."""
    reserves = False
    """Whether the outcome of the request matters."""
    _info: RequestInfo | None = None
    _write_headers: WriteHeaders | None = None
    """Writes the headers, if the results of one plan are all that they describe."""
    _inner_states: Sequence[PolicyState] = ()
    """What a middleware inside this one has to describe in headers."""
    _inner_shown: int | None = None

    def __init__(
        self,
        enforcer: Enforcer,
        scope: Scope,
        send: Send,
        route_of: Callable[[Scope], str],
        outer: LimitedRequest | None = None,
    ) -> None:
        self.enforcer: Final = enforcer
        self.scope: Final = scope
        self.client: Final = enforcer.client_of(scope)
        self.send_on: Final = send
        """The send function of the server."""
        self.outer: Final = outer
        self.results: list[LimitResult] = []
        try:
            self.loop: AbstractEventLoop | Any = get_running_loop()
        except RuntimeError:
            self.loop = current_trio_token()
        self._route_of = route_of

    @property
    def info(self) -> RequestInfo:
        """The request for functions of the application."""
        info = self._info
        if info is None:
            info = self._info = RequestInfo(self.scope, self.client)
        return info

    @property
    def needs_refusal(self) -> bool:
        """Whether a limit refuses the request and no response has begun."""
        return self.denied is not None and not self.has_started

    # Limits ---------------------------------------------------------------------------------------

    async def enforce(self, plan: Plan) -> None:
        """Hold the request against the limits of a plan."""
        results = await self.enforcer.enforce(self.info, plan, self._route_of)
        self._add(plan, results)  # first: `finish` has to know what an observer interrupts
        await self.enforcer.report(results, self.info)

    def enforce_now(self, plan: Plan, store: ImmediateStore) -> None:
        """Run `enforce` synchronously, for a plan with a fast path and `Enforcer.immediate`."""
        groups = plan.groups_of.get(self.client) or plan.groups(self.client)
        if plan.single is None:
            self._add(plan, self.enforcer.results(plan.limits, groups, store.hit_now(groups)))
            return
        outcome = store.hit_one(groups[0][0])
        refuses = self.enforcer.decisions.count(plan.single, outcome)
        result = LimitResult(plan.single, groups[0], (outcome,), refuses)
        self.results.append(result)
        self.reserves = plan.reserves
        if self.outer is None:
            self._write_headers = plan.write_headers
        if refuses:
            self.denied = result

    def _add(self, plan: Plan, results: list[LimitResult]) -> None:
        can_write = not self.results and len(results) == len(plan.limits) and self.outer is None
        self._write_headers = plan.write_headers if can_write else None
        self.reserves |= plan.reserves
        for result in results:
            if result.checks:
                self.results.append(result)
            if result.refuses:
                self.denied = result
                if len(result.checks) != 1 or len(results) != 1:
                    self._write_headers = None  # it does not know which rate refuses

    async def enforce_limit(self, limit: Limit) -> bool:
        """Hold the request against one more limit, that of its route. False if it is refused."""
        await self.enforce(self.enforcer.plan_of((limit,)))
        return self.denied is None

    def enforce_limit_sync(self, limit: Limit) -> bool:
        """Blocking version of `enforce_limit`, for a handler without async."""
        return self.finish_now(self.enforce_limit(limit))

    async def _enforce_unread_body(self, status: int) -> bool:
        """Count a request whose malformed body the framework has refused before the handler."""
        if not registry.has_limits or active_request.get() is not self:
            return True
        taken = [result.limit for result in self.results]
        for limit in registry.limits_of_unread_body(self.scope, status):
            if limit not in taken and not await self.enforce_limit(limit):
                return False
        return True

    def finish_now(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of a coroutine to code that cannot await it.

        The code runs in a thread, or on the event loop. Raises `UsageError` if the coroutine
        would have to wait for the event loop that this call blocks.
        """
        if not is_running():
            return run_on_loop(self.loop, work)
        try:
            work.send(None)
        except StopIteration as end:
            result: T = end.value
            return result
        work.close()
        raise UsageError(
            "a limit was used without await on the event loop, and its store has to be awaited: "
            "make the handler async, or let it run in a thread"
        )

    def counted_limits(self, namespace: str) -> list[Limit]:
        """Return the limits that middlewares of a namespace have counted here and around it."""
        found = []
        if self.enforcer.namespace == namespace:
            found += [result.limit for result in self.results]
        return found if self.outer is None else found + self.outer.counted_limits(namespace)

    # The response ---------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Send a message of the application, and add the headers of limits to the response."""
        if message["type"] == "http.response.start" and not self.has_started:
            if self.denied is not None:
                return  # the refusal replaces the response of the framework
            status = message["status"]
            if status >= 400 and not await self._enforce_unread_body(status):
                return
            self.has_started = True
            if self.reserves:
                await self.settle(status)
            write, results = self._write_headers, self.results
            if write is not None and len(results) == 1:  # the most frequent case
                lines = write(results[0].outcomes, None)
            else:
                lines = self.headers()
            if lines:
                headers = message.get("headers", ())
                if not isinstance(headers, list | tuple):
                    headers = list(headers)  # it may be an iterator
                for line in headers:
                    if line[0].lower() in NAMES:  # they replace those of others
                        headers = [line for line in headers if line[0].lower() not in NAMES]
                        break
                message = {**message, "headers": [*headers, *lines]}
        elif self.denied is not None and not self.has_started:
            return
        await self.send_on(message)
        if self.reserves and is_last(message):
            # What the application does after its response is not part of the request.
            await self.finish()

    def headers(self) -> Headers:
        """Return the headers that describe all limits of the request."""
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
                    shown = len(states) + result.outcomes.index(result.effective)
                states += result.states()
        if shown is None and self._inner_shown is not None:
            shown = len(states) + self._inner_shown
        states += self._inner_states
        if self.outer is not None and self.outer.enforcer.writer.writes_headers:
            # It replaces the headers that this middleware would write, so it describes both.
            self.outer._inner_states, self.outer._inner_shown = states, shown
            self.outer._write_headers = None
            return []
        return self.enforcer.writer.write(states, shown)

    # The outcome ----------------------------------------------------------------------------------

    async def settle(self, status: int | None) -> None:
        """Settle the reservations of the request, whose outcome is now known.

        Limits of concurrent requests are settled by `finish`, because the body is still to be sent.
        """
        if not self.reserves:
            return
        self.info.status = status
        settlements: list[Settlement] = []
        for result in self.results:
            limit = result.limit
            if not limit.reserves or result.is_settled or limit.is_concurrency:
                continue
            keep = result.keep
            if keep is None:
                keep = limit.counts(status, await self._is_success(limit, status))
            settlements += result.settlements(keep=keep)
            if not keep:
                result.add_refund()
        if settlements:
            self.enforcer.store.settle_soon(settlements)

    async def fail(self) -> None:
        """Settle a request whose application has raised: without a response, it becomes a 500."""
        if not self.has_started:
            await self.settle(500)

    async def finish(self) -> None:
        """Settle what is left when nothing more will be sent. Safe to call twice."""
        if not self.reserves:
            return
        if not self.has_started:
            await self.settle(None if self.denied is None else self.denied.limit.status)
        settlements = [
            settlement
            for result in self.results
            if result.limit.is_concurrency
            for settlement in result.settlements(keep=False)
        ]
        if settlements:
            self.enforcer.store.settle_soon(settlements)

    async def _is_success(self, limit: Limit, status: int | None) -> bool:
        if status is None:
            return False
        if limit.is_success is None:
            return status < 400
        try:
            return bool(await result_of(limit.is_success(self.info)))
        except Exception:  # noqa: BLE001  # of the application's own function
            self.enforcer.errors.exception(
                f"{limit.name}: is_success() failed; the request is counted"
            )
            return limit.skip_failed


def require_active_request(what: str) -> LimitedRequest:
    """Return the request that this task or thread serves. Raises `MissingMiddleware`."""
    request = active_request.get()
    if request is None:
        raise MissingMiddleware(what, "RateLimitMiddleware")
    return request


def is_last(message: Message) -> bool:
    """Return whether a message is the last one of a response."""
    match message["type"]:
        case "http.response.body":
            return not message.get("more_body", False)
        case "http.response.pathsend":
            return True
    return False
