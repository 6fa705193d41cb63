"""`RateLimitMiddleware`, for any ASGI application."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Final, TypeAlias

from hasten._asgi import ASGIApp, Receive, Scope, Send
from hasten._checks import check_choice, check_flag, check_function, check_instance, check_text
from hasten._clock import Clock, make_now_ns
from hasten._closing import AsyncClosable
from hasten._decision import Decision
from hasten._durations import Duration
from hasten._litestar import find_first_with_equal_options
from hasten._logs import get_logger
from hasten._repeated_errors import ThrottledErrorLog
from hasten._store import Store
from hasten.errors import InvalidOption
from hasten.ratelimit._counter_store import ON_STORE_ERROR, CounterStore, OnStoreError
from hasten.ratelimit._http.addresses import DEFAULT_PREFIX, AddressKeys
from hasten.ratelimit._http.clients import ClientResolver
from hasten.ratelimit._http.decision_log import DecisionLog
from hasten.ratelimit._http.enforcer import Enforcer
from hasten.ratelimit._http.limit import Limit, RateLike
from hasten.ratelimit._http.limit_options import check_paths
from hasten.ratelimit._http.limited_request import LimitedRequest, active_request
from hasten.ratelimit._http.limits import Limits
from hasten.ratelimit._http.operator_warnings import OperatorWarnings
from hasten.ratelimit._http.planner import LimitPlanner
from hasten.ratelimit._http.plans import LimitPlan
from hasten.ratelimit._http.policy_headers import DEFAULT_STYLES, HeaderWriter
from hasten.ratelimit._http.proxies import Proxies
from hasten.ratelimit._http.refusals import RefusalSender
from hasten.ratelimit._http.registry import registry
from hasten.ratelimit._http.root_paths import is_mounted
from hasten.ratelimit._http.stats import RateLimitStats
from hasten.ratelimit._http.websockets import LimitedWebSocket
from hasten.ratelimit._resilient_store import STORE_TIMEOUT, ResilientStore

_MARK: Final = "hasten.ratelimit"
"""The key in an ASGI scope for the namespaces of the middlewares that serve the request."""


WasPresent: TypeAlias = bool


class RateLimitMiddleware(AsyncClosable):
    """Limits requests: ``app.add_middleware(RateLimitMiddleware, limits=[Limit("100/15m")])``.

    - limits: a list of `Limit`, each of which applies to its paths and methods; or a `Limits`
      object, which also has the options store, store_timeout and ipv6_prefix.
    - store: where counts are kept: a URL ("redis://…", "sqlite:///…"), a `hasten.Store`, a
      `CounterStore`, or None for the memory of this process. Windows and headers use the clock of
      the store.
    - exclude_paths: paths, with all paths below them, to which none of these limits applies.
    - trusted_proxies: addresses and ranges of proxies whose X-Forwarded-For is trusted. hops: the
      number of proxies, as an alternative to trusted_proxies. proxy_header: "forwarded" (RFC 7239)
      or another header that the proxies set. By default no proxy is trusted, and the client is the
      peer of the connection.
    - ipv6_prefix: how many bits of an IPv6 address identify a client.
    - on_store_error: what happens if the store does not respond: "local" counts in this process,
      "allow" accepts, "deny" answers 503. store_timeout: how long a request waits for the store,
      50 ms by default. processes: how many processes share the store. While the store is
      unavailable, each process allows the limits divided by this number.
    - headers: "standard" (RateLimit and RateLimit-Policy of IETF draft 10), "draft-7", "legacy"
      (X-RateLimit-*), several of them, or none. Every refusal has Retry-After.
    - on_decision: called with the `Decision` of each limit of each request. It cannot be async.
    - stats: a `RateLimitStats` of yours, in which the middleware counts its decisions.
    - enabled: False lets all requests pass unchanged.
    - namespace: if two middlewares with the same namespace serve one request, limits that both have
      are counted only once.

    Raises `InvalidOption`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Sequence[Limit] = (),
        store: str | Store | CounterStore | None = None,
        exclude_paths: str | Sequence[str] = (),
        trusted_proxies: Collection[str] = (),
        hops: int = 0,
        proxy_header: str = "x-forwarded-for",
        ipv6_prefix: int | None = None,
        on_store_error: OnStoreError = "local",
        store_timeout: Duration | None = None,
        processes: int = 1,
        headers: Collection[str] = DEFAULT_STYLES,
        on_decision: Callable[[Decision], object] | None = None,
        stats: RateLimitStats | None = None,
        enabled: bool = True,
        namespace: str = "default",
    ) -> None:
        self._owned_limits: Limits | None = None
        if isinstance(limits, Limits):
            _reject_options_given_with_limits(
                store=store, ipv6_prefix=ipv6_prefix, store_timeout=store_timeout
            )
        else:
            limits = self._owned_limits = Limits(
                limits,
                store=store,
                ipv6_prefix=DEFAULT_PREFIX if ipv6_prefix is None else ipv6_prefix,
                store_timeout=STORE_TIMEOUT if store_timeout is None else store_timeout,
            )
        check_choice("on_store_error", on_store_error, ON_STORE_ERROR)
        check_function("on_decision", on_decision, "decision")
        check_instance("stats", stats, RateLimitStats)
        excluded = None if exclude_paths == () else check_paths("exclude_paths", exclude_paths)
        self.app = app
        self.limits: Final = limits
        self._enabled = check_flag("enabled", enabled)
        self._definition = check_text("namespace", namespace), tuple(limits)
        self._mark = frozenset({namespace})
        errors, warnings = ThrottledErrorLog(get_logger("hasten.ratelimit")), OperatorWarnings()
        stats = RateLimitStats() if stats is None else stats
        proxies = Proxies(trusted_proxies, hops=hops, header=proxy_header)
        self.enforcer = Enforcer(
            ResilientStore(
                limits.counter_store,
                processes=processes,
                store_timeout=limits.store_timeout,
                clock=limits.clock,
            ),
            clients=ClientResolver(proxies, AddressKeys(limits.ipv6_prefix), warnings),
            writer=HeaderWriter(headers, _make_time_function(limits.clock)),
            decisions=DecisionLog(limits, stats, on_decision, errors),
            errors=errors,
            warnings=warnings,
            on_store_error=on_store_error,
            namespace=namespace,
        )
        self._excluded = excluded
        self._planner = LimitPlanner(limits, self.enforcer, app, excluded)
        self._plans = self._planner.plans
        self._refusals = RefusalSender()
        self._has_started = False

    def __repr__(self) -> str:
        return f"<RateLimitMiddleware {self.limits!r}>"

    @property
    def stats(self) -> RateLimitStats:
        """The counters of the decisions of each limit, by the name of the limit."""
        return self.enforcer.decisions.stats

    async def reset(
        self, name: str | None = None, key: object = None, *, rate: RateLike | None = None
    ) -> None:
        """Delete the counts and the block of a client, like `Limits.reset`.

        Without a name, delete all counts in the store, also those of other applications that share
        it: for tests.
        """
        if name is None:
            await self.limits.reset_all()
        else:
            await self.limits.reset(name, key, rate=rate)

    async def aclose(self) -> None:
        """Wait for unfinished calls of the store, and close the store if it was given as a URL.

        Safe to call twice. A `Store` or `Limits` object stays open: its owner closes it.
        """
        await self.enforcer.store.wait_for_unfinished_calls()
        if self._owned_limits is not None:
            await self._owned_limits.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "websocket" and self._enabled:
            await self._serve_websocket(scope, receive, send)
            return
        request = self._begin_request(scope, send) if kind == "http" and self._enabled else None
        if request is None:
            await self.app(scope, receive, send)
            return
        try:
            if request.pending is not None:
                await request.enforce(request.pending)
            if request.denied is None:
                token = active_request.set(request)
                try:
                    await self.app(scope, receive, request.send)
                except Exception:
                    # If the handler was refused, the refusal replaces this error.
                    if not request.needs_refusal:
                        await request.settle_after_exception()
                        raise
                finally:
                    active_request.reset(token)
            if request.denied is not None and not request.has_started:
                await self._refusals.refuse(request, send)
        finally:
            if request.reserves:
                await request.settle_at_request_end()

    def _begin_request(self, scope: Scope, send: Send) -> LimitedRequest | None:
        """Return the request with the results of its limits; None if no limit can apply to it.

        If the store must be awaited, there are no results yet, and the request has a `pending`
        plan.
        """
        try:
            plan = self._plans[scope["path"], scope["method"], scope.get("root_path", "")]
        except KeyError:
            plan = self._find_plan(scope)
        if plan is None and not registry.has_limits:
            return None
        outer = None
        if _MARK in scope:
            outer, is_counted = active_request.get(), self._add_namespace_to_scope(scope)
            plan = self._without_already_counted_limits(plan) if is_counted else plan
            if is_counted and plan is None:
                return None
        else:
            scope[_MARK] = self._mark
        request = LimitedRequest(self.enforcer, scope, send, self._planner.find_route_path, outer)
        if plan is not None:
            store = self.enforcer.immediate
            if plan.has_fast_path and store is not None:
                request.enforce_now(plan, store)
            else:
                request.pending = plan
        return request

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._has_started:
            self._share_enforcer_under_litestar(scope)
        planner = self._planner
        plan, message_plan = planner.find_handshake_plan(scope), planner.find_message_plan(scope)
        if self._add_namespace_to_scope(scope):
            plan, message_plan = (
                self._without_already_counted_limits(plan),
                self._without_already_counted_limits(message_plan),
            )
        socket = LimitedWebSocket(
            self.enforcer, scope, receive, send, planner.find_route_path,
            message_plan=message_plan, outer_websocket=active_request.get(),
        )  # fmt: skip
        try:
            if plan is not None:
                await socket.enforce(plan)
            if socket.denied is None:
                await self._call_app_for_websocket(socket)
            else:
                await receive()  # the message websocket.connect, which must be received first
            if socket.needs_refusal:
                await self._refusals.refuse_handshake(socket, send)
        finally:
            await socket.settle_at_request_end()

    async def _call_app_for_websocket(self, socket: LimitedWebSocket) -> None:
        token = active_request.set(socket)
        try:
            await self.app(socket.scope, socket.receive, socket.send)
        except Exception:
            if not socket.needs_refusal:
                await socket.settle_after_exception()
                raise
        finally:
            active_request.reset(token)

    def _find_plan(self, scope: Scope) -> LimitPlan | None:
        if not self._has_started:
            self._share_enforcer_under_litestar(scope)
        return self._planner.find_http_plan(scope)

    def _share_enforcer_under_litestar(self, scope: Scope) -> None:
        """At the first request, take over the enforcer of the first middleware of the application.

        Litestar makes one middleware for each route, and they must count together. Under other
        frameworks there is nothing to share.
        """
        self.enforcer.require_supported_event_loop()
        self._has_started = True
        first = find_first_with_equal_options(scope, self, self._definition)
        if first is not self:
            self.enforcer = first.enforcer
            if is_mounted(scope):  # the middleware wraps a mounted application with other paths
                self._planner = LimitPlanner(self.limits, self.enforcer, self.app, self._excluded)
            else:
                self._planner = first._planner
            self._plans = self._planner.plans

    def _add_namespace_to_scope(self, scope: Scope) -> WasPresent:
        """Record in the scope that this middleware serves the request.

        Returns whether another middleware with the same namespace serves it, too.
        """
        namespaces = scope.get(_MARK, frozenset())
        scope[_MARK] = namespaces | self._mark
        return self.enforcer.namespace in namespaces

    def _without_already_counted_limits(self, plan: LimitPlan | None) -> LimitPlan | None:
        """Return the plan without limits that an outer middleware has counted already.

        Only middlewares with the same namespace matter. Returns None if no limit is left.
        """
        outer = active_request.get()
        if plan is None or outer is None:
            return plan
        counted = [
            limit.identifying_options
            for limit in outer.find_already_counted_limits(self.enforcer.namespace)
        ]
        left = tuple(limit for limit in plan.limits if limit.identifying_options not in counted)
        if len(left) == len(plan.limits):
            return plan
        names = ", ".join(limit.name for limit in plan.limits if limit not in left)
        self.enforcer.warnings.warn_once("DOUBLE_COUNT", names)
        return self.enforcer.get_plan(left) if left else None


def _reject_options_given_with_limits(**options: object) -> None:
    """Raise `InvalidOption` for an option that belongs to the `Limits` object which was passed."""
    for name, value in options.items():
        if value is not None:
            raise InvalidOption.conflict(name, value, f"Limits(…): pass {name} to Limits")


def _make_time_function(clock: Clock | None) -> Callable[[], float]:
    """Return a function that returns the clock's time, in seconds since the epoch."""
    if clock is None:
        return time.time
    now_ns = make_now_ns(clock)
    return lambda: now_ns() / 1_000_000_000
