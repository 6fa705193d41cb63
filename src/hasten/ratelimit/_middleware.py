"""Limits for any ASGI application.

A request is held against all limits that are for it by one question to the store, so that it costs
one round trip, whatever their number. Limits are taken in the order in which they are given, up to
the first that refuses: those before it stay charged, those behind it are not touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Final, Self

from hasten._asgi import ASGIApp, Receive, Scope, Send
from hasten._clock import Clock, now_ns_of
from hasten._decision import Decision
from hasten._durations import Duration
from hasten._litestar import first_of
from hasten._logs import get_logger
from hasten._loops import require_asyncio
from hasten._repeated_errors import RepeatedErrors
from hasten._request_info import RequestInfo
from hasten._store import Store
from hasten.errors import InvalidOption
from hasten.ratelimit import _routes as routes
from hasten.ratelimit._addresses import DEFAULT_PREFIX, Addresses
from hasten.ratelimit._breaker import PAUSE_US
from hasten.ratelimit._clients import Clients, Oddities
from hasten.ratelimit._counter_store import ON_ERROR, Check, CounterStore, OnStoreError, Outcome
from hasten.ratelimit._current import finish_now
from hasten.ratelimit._decisions import Decisions
from hasten.ratelimit._definitions import Limit, RateLike, one_of, paths_of, text_of
from hasten.ratelimit._exchange import Exchange, SocketExchange, Taken, answer_of, current
from hasten.ratelimit._exemptions import Exemptions
from hasten.ratelimit._fallback import STORE_TIMEOUT, Guard
from hasten.ratelimit._fields import STYLES_BY_DEFAULT, Fields
from hasten.ratelimit._limits import Limits
from hasten.ratelimit._plans import Plan, Plans
from hasten.ratelimit._proxies import Proxies
from hasten.ratelimit._rates import to_limit
from hasten.ratelimit._refusals import Refusals
from hasten.ratelimit._root_paths import RootPaths, is_mounted
from hasten.ratelimit._rules import Rule
from hasten.ratelimit._sockets import Connection
from hasten.ratelimit._stats import RateLimitStats

_MARK: Final = "hasten.ratelimit"


class RateLimitMiddleware:
    """``app.add_middleware(RateLimitMiddleware, limits=[Limit("100/15m", path="/api/")])``

    - limits: each is for its paths and methods; those of one request are asked for together. A
      list, or `Limits`, which has store, store_timeout and ipv6_prefix as well.
    - store: where counts are kept: a URL ("redis://…", "sqlite:///…"), a `hasten.Store`, a
      `CounterStore`, or None for the memory of this process. The clock of the store moves windows
      and headers.
    - exclude_paths: paths, each with all below it, that none of these limits counts.
    - trusted_proxies: addresses and ranges whose X-Forwarded-For is believed; hops: or so many
      proxies, whatever their addresses. proxy_header: "forwarded" (RFC 7239) or another header
      that they set. Without either, the client is who is connected.
    - ipv6_prefix: how much of an IPv6 address is one client.
    - on_store_error: where the store does not answer, "local" counts in this process, "allow" lets
      pass, "deny" answers 503. store_timeout: how long a request waits for it, 50 ms by default.
      processes: how many processes share the store, so that each allows its part meanwhile.
    - headers: "standard" (RateLimit and RateLimit-Policy of IETF draft 10), "draft-7", "legacy"
      (X-RateLimit-*), several of them, or none: Retry-After is part of every refusal.
    - on_decision: called with the `Decision` of each limit of each request; it cannot wait.
    - stats: where decisions are counted, a `RateLimitStats` of yours.
    - enabled: False lets everything through, untouched.
    - namespace: of two middlewares of one namespace around a request, equal limits count it once.

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
        headers: Collection[str] = STYLES_BY_DEFAULT,
        on_decision: Callable[[Decision], object] | None = None,
        stats: RateLimitStats | None = None,
        enabled: bool = True,
        namespace: str = "default",
    ) -> None:
        if isinstance(limits, Limits):
            _check_given(store=store, ipv6_prefix=ipv6_prefix, store_timeout=store_timeout)
            self._owned: Limits | None = None
        else:
            limits = self._owned = Limits(
                limits,
                store=store,
                ipv6_prefix=DEFAULT_PREFIX if ipv6_prefix is None else ipv6_prefix,
                store_timeout=STORE_TIMEOUT if store_timeout is None else store_timeout,
            )
        one_of("on_store_error", on_store_error, ON_ERROR)
        _check_options(on_decision, stats, enabled, namespace)
        excluded = None if exclude_paths == () else paths_of("exclude_paths", exclude_paths)
        self.app = app
        self.limits: Final = tuple(limits)
        self.settles: bool = any(limit.is_settled for limit in limits)
        self.on_store_error: Final = on_store_error
        self._processes = processes
        self.guard = Guard(
            limits.counters,
            processes=processes,
            store_timeout=limits.store_timeout,
            clock=limits.clock,
        )
        self._all = limits
        immediate = self.guard.immediate
        self._hit_one = immediate.hit_one if immediate is not None else None
        self.fields: Final = Fields(headers, _seconds_of(limits.clock))
        self._oddities = Oddities()
        self._plans = Plans(
            limits,
            self.fields,
            on_store_error,
            processes,
            RootPaths(app),
            self._oddities,
            Exemptions(excluded, app),
        )
        self._plan_of = self._plans.of_request
        proxies = Proxies(trusted_proxies, hops=hops, header=proxy_header)
        self._clients = Clients(proxies, Addresses(limits.ipv6_prefix), self._oddities)
        self.errors = RepeatedErrors(get_logger("hasten.ratelimit"))
        self.stats = RateLimitStats() if stats is None else stats
        """What each limit has decided so far, by its name."""
        self._decisions = Decisions(limits, on_decision, self.errors, self.stats)
        self._refusals = Refusals()
        self._enabled = enabled
        self.namespace: Final = namespace
        self._mark = frozenset({namespace})
        self._is_alone: bool | None = None
        """Whether it has made its parts itself; None before the first request."""

    def __repr__(self) -> str:
        return f"<RateLimitMiddleware {self._all!r}>"

    async def reset(
        self, name: str | None = None, key: object = None, *, rate: RateLike | None = None
    ) -> None:
        """Reset one client, as `Limits.reset`.

        Without a name, forget all counts of the store, also those of others that use it: for tests.
        """
        if name is None:
            await self._all.clear()
        else:
            await self._all.reset(name, key, rate=rate)

    async def aclose(self) -> None:
        """Finish what has begun, and close the store if it was given as a URL. Safe to call twice.

        What was given as an object, a `Store` or `Limits`, is closed by who made it.
        """
        await self.guard.finish()
        if self._owned is not None:
            await self._owned.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if self._is_alone is None and kind in _KINDS:
            self._join(scope)
        if self._enabled and kind == "http":
            plan = self._plan_of(scope)
            if plan is not None or routes.in_use:
                if not self._is_inside_another(scope):
                    await self._http(plan, scope, receive, send)
                    return
                plan = self._uncounted(plan)
                if plan is not None:
                    await self._http(plan, scope, receive, send)
                    return
        elif self._enabled and kind == "websocket":
            await self._websocket(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _join(self, scope: Scope) -> None:
        """Count together with those that were made by the same definition, if there are any."""
        if self._enabled and self.guard.immediate is None:
            require_asyncio(
                f"RateLimitMiddleware with {type(self.guard.store).__name__}",
                "use store='memory://', or serve with asyncio",
            )
        first = first_of(scope, self, (self.namespace, self.limits))
        self._is_alone = first is self
        if first is not self:
            self.guard, self._hit_one = first.guard, first._hit_one
            self._clients, self._oddities = first._clients, first._oddities
            self._decisions, self._refusals = first._decisions, first._refusals
            self.errors, self.stats = first.errors, first.stats
        if is_mounted(scope):
            self._plan_of = self._plans.of_mounted_request
        elif first is not self:
            self._plans, self._plan_of = first._plans, first._plans.of_request

    async def _http(self, plan: Plan | None, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self._exchange(scope, send)
        if plan is not None:
            if plan.only is None or self._hit_one is None:
                await self._take(exchange, plan)
            else:
                self._take_one(exchange, plan, plan.only, self._hit_one)
            if exchange.denied is not None:
                await self._refusals.refuse(exchange, send)
                return
        token = current.set(exchange)
        try:
            await self.app(scope, receive, exchange.send)
        except Exception:
            # What a framework makes of a handler that was refused is of no interest.
            if not exchange.is_to_be_refused:
                await exchange.fail()
                raise
        finally:
            current.reset(token)
            if self.settles:
                await exchange.finish()
        if exchange.is_to_be_refused:
            await self._refusals.refuse(exchange, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        plan, of_messages = self._plans.of_handshake(scope), self._plans.of_messages(scope)
        if self._is_inside_another(scope):
            plan, of_messages = self._uncounted(plan), self._uncounted(of_messages)
        exchange = SocketExchange(self, self._request_info(scope), send, current.get(), of_messages)
        if plan is not None:
            await self._take(exchange, plan)
            if exchange.denied is not None:
                await receive()  # the handshake itself, which comes first
                await self._refusals.refuse_handshake(exchange, send)
                return
        takes = None if of_messages is None else partial(self._take_message, exchange, of_messages)
        connection = Connection(exchange, takes, receive)
        token = current.set(exchange)
        try:
            await self.app(scope, connection.receive, connection.send)
        except Exception:
            if not exchange.is_to_be_refused:
                await exchange.fail()
                raise
        finally:
            current.reset(token)
            await exchange.finish()
        if exchange.is_to_be_refused:
            await self._refusals.refuse_handshake(exchange, send)

    def _exchange(self, scope: Scope, send: Send) -> Exchange:
        request = self._request_info(scope)
        if scope[_MARK] is self._mark:
            return Exchange(self, request, send)
        return Exchange(self, request, send, outer=current.get())

    def _request_info(self, scope: Scope) -> RequestInfo:
        return RequestInfo(scope, self._clients.of(scope))

    def _is_inside_another(self, scope: Scope) -> bool:
        """Whether another one of this namespace has the request. Marks that this one has."""
        marks = scope.get(_MARK)
        if marks is None:
            scope[_MARK] = self._mark
            return False
        scope[_MARK] = marks | self._mark
        return self.namespace in marks

    def _uncounted(self, plan: Plan | None) -> Plan | None:
        """The limits of a plan that no middleware of this namespace around this one has counted."""
        around = current.get()
        if plan is None or around is None:
            return plan
        counted = [each.definition for each in around.counted_by(self.namespace)]
        left = tuple(limit for limit in plan.limits if limit.definition not in counted)
        if len(left) == len(plan.limits):
            return plan
        twice = ", ".join(limit.name for limit in plan.limits if limit not in left)
        self._oddities.say("DOUBLE_COUNT", twice)
        return self._plans.of(left) if left else None

    # Taking ---------------------------------------------------------------------------------------

    async def take(self, exchange: Exchange, limit: Limit) -> bool:
        """Hold a request against one more limit: of its route. False if it is refused."""
        self.settles |= limit.is_settled
        await self._take(exchange, self._plans.of((limit,)))
        return exchange.denied is None

    def take_sync(self, exchange: Exchange, limit: Limit) -> bool:
        """The same for a handler that does not wait, in a thread or on the event loop."""
        return finish_now(self.take(exchange, limit), exchange.loop)

    async def take_missed(self, exchange: Exchange, status: int) -> bool:
        """Take what the limits of a route were not asked for, as it could not read a body."""
        if routes.in_use and current.get() is exchange:
            taken = [each.limit for each in exchange.taken]
            for limit in routes.missed(exchange.scope, status, taken):
                if not await self.take(exchange, limit):
                    return False
        return True

    async def _take_message(self, exchange: Exchange, plan: Plan) -> bool:
        message = Exchange(self, exchange.request, exchange.hand_on)
        await self._take(message, plan)
        return message.denied is None

    def _take_one(
        self, exchange: Exchange, plan: Plan, limit: Limit, hit_one: Callable[[Check], Outcome]
    ) -> None:
        """What most requests need: one limit by address, and a store that answers at once."""
        group = plan.groups(exchange.request.client)[0]
        taken = Taken(limit, group, (hit_one(group[0]),))
        exchange.taken.append(taken)
        exchange.make_fields = plan.make_fields
        if self._decisions.refuses(taken, exchange):
            exchange.denied = taken

    async def _take(self, exchange: Exchange, plan: Plan) -> None:
        if plan.is_plain:
            limits: Sequence[Limit] = plan.limits
            groups: Sequence[Sequence[Check]] = plan.groups(exchange.request.client)
        else:
            try:
                limits, groups = await self._groups(exchange.request, plan)
            except _FunctionFailed as failed:
                exchange.denied = Taken(failed.limit, (), (_UNAVAILABLE,))
                return
            if not groups:
                return
        answer = self.guard.hit_now(groups)
        if answer is None:
            answer = await self.guard.hit(groups)
        is_whole = not exchange.taken and len(answer) == len(plan.limits)
        exchange.make_fields = plan.make_fields if is_whole else None
        # After a refusal there are fewer answers than limits.
        for limit, group, outcomes in zip(limits, groups, answer, strict=False):
            taken = Taken(limit, group, outcomes)
            exchange.taken.append(taken)
            if self._decisions.refuses(taken, exchange):
                exchange.denied = taken
            if limit.on_limited is not None and taken.is_denied:
                await self._report_limited(limit, taken.decision(exchange.request))

    async def _report_limited(self, limit: Limit, decision: Decision) -> None:
        assert limit.on_limited is not None
        try:
            await answer_of(limit.on_limited(decision))
        except Exception:  # noqa: BLE001  # of the application's own function
            self.errors.exception(f"{limit.name}: on_limited failed")

    async def _groups(
        self, request: RequestInfo, plan: Plan
    ) -> tuple[list[Limit], list[Sequence[Check]]]:
        limits: list[Limit] = []
        groups: list[Sequence[Check]] = []
        for limit in plan.limits:
            if limit.skip is not None and await self._is_skipped(request, limit):
                continue
            key = await self._key(request, limit)
            if key is None:
                continue
            rules: Sequence[Rule] = limit.rules
            if limit.rate_of is not None:
                rules = await self._rules(request, limit)
                if not rules:
                    continue
            cost = limit.cost if isinstance(limit.cost, int) else await self._cost(request, limit)
            limits.append(limit)
            groups.append(limit.checks(key, cost, rules, self.on_store_error, self._processes))
        return limits, groups

    async def _key(self, request: RequestInfo, limit: Limit) -> str | None:
        if limit.key == "ip":
            return request.client
        if limit.key == "global":
            return "global"
        if limit.key == "route":
            return f"{request.client} {self._plans.route_of(request.scope)}"
        try:
            key = await answer_of(limit.key(request))
            if key is None:
                return None
            text = text_of(key)
        except Exception:  # noqa: BLE001  # of the application's own function
            # Whom to count it for is unknown, which must not be a way around the limit.
            how = self._on_failure(limit, "key", _ON_KEY_ERROR)
            return request.client if how == "local" else None
        if text != request.client and text == (request.scope.get("client") or (None,))[0]:
            self._oddities.say("KEY_ADDRESS", limit.name)
        return text

    async def _is_skipped(self, request: RequestInfo, limit: Limit) -> bool:
        assert limit.skip is not None
        try:
            return bool(await answer_of(limit.skip(request)))
        except Exception:  # noqa: BLE001  # of the application's own function
            self.errors.exception(f"{limit.name}: its skip failed; the request is counted")
            return False

    async def _rules(self, request: RequestInfo, limit: Limit) -> Sequence[Rule]:
        """Those of a rate that a function returns; none if the request is not counted."""
        assert limit.rate_of is not None
        try:
            return limit.rules_for(await answer_of(limit.rate_of(request)))
        except Exception:  # noqa: BLE001  # of the application's own function
            how = self._on_failure(limit, "rate", _ON_RATE_ERROR)
            return limit.strictest if how == "local" else ()

    async def _cost(self, request: RequestInfo, limit: Limit) -> int:
        assert callable(limit.cost)
        try:
            return to_limit("cost", await answer_of(limit.cost(request)))
        except Exception:  # noqa: BLE001  # of the application's own function
            self.errors.exception(f"{limit.name}: its cost failed; the request costs 1")
            return 1

    def _on_failure(self, limit: Limit, function: str, says: Mapping[str, str]) -> OnStoreError:
        """What becomes of a request whose key or rate is unknown: as without a store."""
        how = limit.on_store_error or self.on_store_error
        self.errors.exception(f"{limit.name}: its {function} failed; {says[how]}")
        if how == "deny":
            raise _FunctionFailed(limit)
        return how


class _FunctionFailed(Exception):
    """A function of a limit raised, and the limit says to refuse then."""

    def __init__(self, limit: Limit) -> None:
        super().__init__(limit.name)
        self.limit = limit


_UNAVAILABLE: Final = Outcome(False, 0, 0, PAUSE_US, PAUSE_US, unavailable=True)

_KINDS: Final = frozenset({"http", "websocket"})

_ON_KEY_ERROR: Final[Mapping[str, str]] = {
    "local": "the client's address stands for it",
    "allow": "the request is not counted",
    "deny": "the request is refused",
}

_ON_RATE_ERROR: Final[Mapping[str, str]] = {
    "local": "the lowest rate that it has returned holds, if there is one",
    "allow": "the request is not counted",
    "deny": "the request is refused",
}


def _check_given(**options: object) -> None:
    for name, value in options.items():
        if value is not None:
            expected = f"no {name} beside Limits(…), which has it"
            raise InvalidOption(name, value, expected, code="conflict")


def _check_options(on_decision: object, stats: object, enabled: object, namespace: object) -> None:
    if on_decision is not None and not callable(on_decision):
        raise InvalidOption("on_decision", on_decision, "a function of the decision: f(decision)")
    called = getattr(on_decision, "__call__", None)  # noqa: B004
    if iscoroutinefunction(on_decision) or iscoroutinefunction(called):
        raise InvalidOption("on_decision", on_decision, "a function without async")
    if stats is not None and not isinstance(stats, RateLimitStats):
        raise InvalidOption("stats", stats, "RateLimitStats()")
    if not isinstance(enabled, bool):
        raise InvalidOption("enabled", enabled, "True or False")
    if not isinstance(namespace, str) or not namespace:
        raise InvalidOption("namespace", namespace, "a text that is not empty")


def _seconds_of(clock: Clock | None) -> Callable[[], float]:
    """Tells the time in seconds since the epoch."""
    if clock is None:
        return time.time
    now_ns = now_ns_of(clock)
    return lambda: now_ns() / 1_000_000_000
