"""Limits for any ASGI application.

A request is held against all limits that are for it by one question to the store, so that it costs
one round trip, whatever their number. Limits are taken in the order in which they are given, up to
the first that refuses: those before it stay charged, those behind it are not touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final

from hasten._asgi import ASGIApp, Receive, Scope, Send
from hasten._durations import Seconds
from hasten._logs import get_logger
from hasten._loops import require_asyncio
from hasten.errors import InvalidLimit
from hasten.ratelimit import routes
from hasten.ratelimit.addresses import Addresses
from hasten.ratelimit.breaker import PAUSE_US
from hasten.ratelimit.clients import Clients, Oddities
from hasten.ratelimit.context import Context
from hasten.ratelimit.current import finish_now
from hasten.ratelimit.decisions import Counters, Decided, Decisions
from hasten.ratelimit.exchange import Exchange, Taken, answer_of, current
from hasten.ratelimit.fallback import BUDGET, Guard
from hasten.ratelimit.fields import Fields
from hasten.ratelimit.limit import Limit, one_of
from hasten.ratelimit.paths import plain
from hasten.ratelimit.plans import Plan, Plans
from hasten.ratelimit.proxies import Proxies
from hasten.ratelimit.rates import to_limit
from hasten.ratelimit.refusals import Refusals
from hasten.ratelimit.sharing import first_of
from hasten.ratelimit.sockets import Connection
from hasten.ratelimit.store import ON_ERROR, Check, OnError, Outcome, Store
from hasten.ratelimit.stores import MemoryStore, open_store

logger = get_logger("hasten.ratelimit")

_MARK: Final = "hasten.ratelimit"


class RateLimitMiddleware:
    """``app.add_middleware(RateLimitMiddleware, limits=[Limit("100/15m", path="/api/")])``

    - limits: each is for its paths and methods; those of one request are asked for together.
    - store: where counts are kept: a URL ("redis://…", "sqlite:///…"), a store, or None for the
      memory of this process.
    - trusted_proxies: addresses and ranges whose X-Forwarded-For is believed; hops: or so many
      proxies, whatever their addresses. proxy_header: "forwarded" (RFC 7239) or another header
      that they set. Without either, the client is who is connected.
    - ipv6_prefix: how much of an IPv6 address is one client.
    - on_store_error: where the store does not answer, "local" counts in this process, "allow" lets
      pass, "deny" answers 503. budget: seconds to wait for it. instances: how many processes share
      the store, so that each allows its part meanwhile.
    - headers: "draft-10", "draft-8", "draft-7", "draft-6", "legacy" (X-RateLimit-*), several of
      them, or none: Retry-After is part of every refusal.
    - on_decision: called with a `Decided` for each limit of each request.
    - enabled: False lets everything through, untouched.
    - clock: for tests: gives the time in seconds since the epoch.
    - name: two of one name count a request once.

    Raises `InvalidLimit`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Sequence[Limit] = (),
        store: str | Store | None = None,
        trusted_proxies: Collection[str] = (),
        hops: int = 0,
        proxy_header: str = "x-forwarded-for",
        ipv6_prefix: int = 56,
        on_store_error: OnError = "local",
        budget: Seconds = BUDGET,
        instances: int = 1,
        headers: Collection[str] = ("draft-10", "legacy"),
        on_decision: Callable[[Decided], object] | None = None,
        enabled: bool = True,
        name: str = "default",
        clock: Callable[[], float] | None = None,
    ) -> None:
        _check_limits(limits)
        one_of("on_store_error", on_store_error, ON_ERROR)
        self.app = app
        self.limits: Final = tuple(limits)
        self.settles: bool = any(limit.is_settled for limit in limits)
        self.on_store_error: Final = on_store_error
        if store is None or isinstance(store, str):
            store = open_store(store or "memory://", budget=budget)
        clock_ns = time.monotonic_ns if clock is None else _in_ns(clock)
        self.guard = Guard(store, instances=instances, budget=budget, clock_ns=clock_ns)
        immediate = self.guard.immediate
        self._hit_one = immediate.hit_one if immediate is not None else None
        self.fields: Final = Fields(headers, clock or time.time)
        self._plans = Plans(limits, self.fields, on_store_error)
        self._oddities = Oddities()
        proxies = Proxies(trusted_proxies, hops=hops, header=proxy_header)
        self._clients = Clients(proxies, Addresses(ipv6_prefix), self._oddities)
        self._decisions = Decisions(limits, on_decision)
        self._refusals = Refusals()
        self._enabled = enabled
        self._name = name
        self._mark = frozenset({name})
        self._is_alone: bool | None = None
        """Whether it has made its parts itself; None before the first request."""

    @property
    def counters(self) -> Mapping[str, Counters]:
        """What each limit has done so far, by its name."""
        return self._decisions.counters

    async def reset(self) -> None:
        """Forget all counts that are in the memory of this process: for tests."""
        if isinstance(self.guard.store, MemoryStore):
            self.guard.store.clear()

    async def aclose(self) -> None:
        """Let go of the store. Safe to call twice."""
        await self.guard.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if self._is_alone is None and kind in _KINDS:
            self._join(scope)
        if self._enabled and kind == "http":
            plan = self._plans.of_request(scope)
            if (plan is not None or routes.in_use) and not self._is_inside_itself(scope):
                await self._http(plan, scope, receive, send)
                return
        elif self._enabled and kind == "websocket" and not self._is_inside_itself(scope):
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
        first = first_of(scope, self, (self._name, self.limits))
        self._is_alone = first is self
        if first is not self:
            self.guard, self._hit_one = first.guard, first._hit_one
            self._plans, self._clients, self._oddities = (
                first._plans, first._clients, first._oddities,
            )  # fmt: skip
            self._decisions, self._refusals = first._decisions, first._refusals

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
        exchange = self._exchange(scope, send)
        plan = self._plans.of_handshake(scope)
        if plan is not None:
            await self._take(exchange, plan)
            if exchange.denied is not None:
                await receive()  # the handshake itself, which comes first
                await self._refusals.refuse_handshake(exchange, send)
                return
        of_messages = self._plans.of_messages(scope)
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
        context = Context(scope, self._clients.of(scope))
        if scope[_MARK] is self._mark or scope["type"] != "http":
            return Exchange(self, context, send)
        return Exchange(self, context, send, outer=current.get())

    def _is_inside_itself(self, scope: Scope) -> bool:
        """Whether another one of this name has the request already. Marks that this one has."""
        marks = scope.get(_MARK)
        if marks is None:
            scope[_MARK] = self._mark
            return False
        if self._name in marks:
            self._oddities.say("DOUBLE_COUNT")
            return True
        scope[_MARK] = marks | self._mark
        return False

    # Taking ---------------------------------------------------------------------------------------

    async def take(self, exchange: Exchange, limit: Limit) -> bool:
        """Hold a request against one more limit: of its route. False if it is refused."""
        self.settles |= limit.is_settled
        await self._take(exchange, self._plans.of((limit,)))
        return exchange.denied is None

    def take_sync(self, exchange: Exchange, limit: Limit) -> bool:
        """The same for a handler that does not wait, in a thread or on the event loop."""
        return finish_now(self.take(exchange, limit), exchange.loop)

    async def _take_message(self, exchange: Exchange, plan: Plan) -> bool:
        message = Exchange(self, exchange.context, exchange.hand_on)
        await self._take(message, plan)
        return message.denied is None

    def _take_one(
        self, exchange: Exchange, plan: Plan, limit: Limit, hit_one: Callable[[Check], Outcome]
    ) -> None:
        """What most requests need: one limit by address, and a store that answers at once."""
        group = plan.groups(exchange.context.client)[0]
        taken = Taken(limit, group, (hit_one(group[0]),))
        exchange.taken.append(taken)
        exchange.make_fields = plan.make_fields
        if self._decisions.refuses(taken):
            exchange.denied = taken

    async def _take(self, exchange: Exchange, plan: Plan) -> None:
        if plan.is_plain:
            limits: Sequence[Limit] = plan.limits
            groups: Sequence[Sequence[Check]] = plan.groups(exchange.context.client)
        else:
            try:
                limits, groups = await self._groups(exchange.context, plan)
            except _KeyFailed as failed:
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
            if self._decisions.refuses(taken):
                exchange.denied = taken
            if limit.on_limited is not None and taken.is_denied:
                await _tell_limited(limit, exchange.context)

    async def _groups(
        self, context: Context, plan: Plan
    ) -> tuple[list[Limit], list[Sequence[Check]]]:
        limits: list[Limit] = []
        groups: list[Sequence[Check]] = []
        for limit in plan.limits:
            if limit.skip is not None and await answer_of(limit.skip(context)):
                continue
            key = await self._key(context, limit)
            if key is None:
                continue
            rules: Sequence[Any] = limit.rules
            if limit.rate_of is not None:
                rules = limit.rules_for(await answer_of(limit.rate_of(context)))
            cost = limit.cost if isinstance(limit.cost, int) else await _cost(limit, context)
            limits.append(limit)
            groups.append(limit.checks(key, cost, rules, self.on_store_error))
        return limits, groups

    async def _key(self, context: Context, limit: Limit) -> str | None:
        if limit.key == "ip":
            return context.client
        if limit.key == "global":
            return "global"
        if limit.key == "route":
            return f"{context.client} {plain(context.path)}"
        try:
            key = await answer_of(limit.key(context))
        except Exception:
            # Whom to count it for is unknown, which must not be a way around the limit.
            how = limit.on_store_error or self.on_store_error
            logger.exception("%s: its key failed; %s", limit.name, _ON_KEY_ERROR[how])
            if how == "deny":
                raise _KeyFailed(limit) from None
            return context.client if how == "local" else None
        if key is None:
            return None
        if key != context.client and key == (context.scope.get("client") or (None,))[0]:
            self._oddities.say("KEY_ADDRESS", limit.name)
        return str(key)


class _KeyFailed(Exception):
    """The key of a limit raised, and it says to refuse then."""

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


def _in_ns(clock: Callable[[], float]) -> Callable[[], int]:
    return lambda: round(clock() * 1_000_000_000)


async def _tell_limited(limit: Limit, context: Context) -> None:
    try:
        await answer_of(limit.on_limited(context))
    except Exception:
        logger.exception("%s: on_limited failed", limit.name)


async def _cost(limit: Limit, context: Context) -> int:
    assert callable(limit.cost)
    return to_limit("cost", await answer_of(limit.cost(context)))


def _check_limits(limits: object) -> None:
    if isinstance(limits, Limit) or not isinstance(limits, Sequence):
        raise InvalidLimit("LIMITS", "limits", limits, "a list of Limit(…)")
    buckets: set[str] = set()
    for limit in limits:
        if not isinstance(limit, Limit):
            raise InvalidLimit("LIMITS", "limits", limit, "a list of Limit(…)")
        if limit.bucket in buckets:
            raise InvalidLimit(
                "SHARED",
                "limits",
                limit.name,
                "a name of its own for each: name=…, or they would share one count",
            )
        buckets.add(limit.bucket)
