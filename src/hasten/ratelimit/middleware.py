"""Limits for any ASGI application.

A request is held against all limits that are for it by one question to the store, so that it costs
one round trip, whatever their number. Limits are taken in the order in which they are given, up to
the first that refuses: those before it stay charged, those behind it are not touched.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast, get_args

from hasten._answers import Answer
from hasten._asgi import ASGIApp, Headers, Message, Receive, Scope, Send
from hasten._durations import Seconds
from hasten.errors import InvalidLimit
from hasten.ratelimit import routes
from hasten.ratelimit.addresses import Addresses, is_private
from hasten.ratelimit.answers import CAPACITY, QUOTA, refusal
from hasten.ratelimit.breaker import PAUSE_US
from hasten.ratelimit.context import Context
from hasten.ratelimit.exchange import Exchange, Taken, answer_of, current
from hasten.ratelimit.fallback import BUDGET, Guard
from hasten.ratelimit.fields import NAMES, Fields, retry_after
from hasten.ratelimit.limit import Limit
from hasten.ratelimit.paths import Paths
from hasten.ratelimit.proxies import Proxies
from hasten.ratelimit.rates import to_limit
from hasten.ratelimit.sockets import POLICY_VIOLATION, Connection
from hasten.ratelimit.store import Check, OnError, Outcome, Store
from hasten.ratelimit.stores import MemoryStore, open_store

logger = logging.getLogger("hasten.ratelimit")

UNKNOWN: Final = "unknown"
"""The address of clients that have none: behind a Unix socket, in a test."""

MAX_KNOWN: Final = 10_000

MAX_KNOWN_CHARS: Final = 500
"""Longer paths are looked at each time, so that nobody can fill the memory with them."""

LOOKED_AT: Final = 1_000
"""So many requests are looked at for signs of a proxy that nobody has told us of."""

NEAR: Final = 0.8
"""From this share of a limit on, a client is near it."""

_MARK: Final = "hasten.ratelimit"


@dataclass(frozen=True, slots=True)
class Decided:
    """What a limit made of one request or message, for `on_decision`."""

    limit: str
    ok: bool
    remaining: int
    retry_after: float
    """Seconds; 0 if it may pass."""
    shadow: bool
    unavailable: bool
    """There was no store to ask."""


@dataclass(slots=True)
class Counters:
    """What one limit has done so far."""

    allowed: int = 0
    limited: int = 0
    near_limit: int = 0
    """Of those allowed: with less than a fifth left."""
    shadow: int = 0
    """Of those allowed: which would have been refused."""
    unavailable: int = 0
    """Decided without the store."""


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
        if on_store_error not in get_args(OnError):
            expected = f"one of {', '.join(map(repr, get_args(OnError)))}"
            raise InvalidLimit("ON_STORE_ERROR", "on_store_error", on_store_error, expected)
        self.app = app
        self.limits: Final = tuple(limits)
        self.settles: bool = any(limit.is_settled for limit in limits)
        self.on_store_error: Final = on_store_error
        self.counters: Final[dict[str, Counters]] = {each.name: Counters() for each in limits}
        if store is None or isinstance(store, str):
            store = open_store(store or "memory://", budget=budget)
        clock_ns = time.monotonic_ns if clock is None else _in_ns(clock)
        self.guard: Final = Guard(store, instances=instances, budget=budget, clock_ns=clock_ns)
        immediate = self.guard.immediate
        self._hit_one = immediate.hit_one if immediate is not None else None
        self._proxies = Proxies(trusted_proxies, hops=hops, header=proxy_header)
        self._addresses = Addresses(ipv6_prefix)
        self.fields = Fields(headers, clock or time.time)
        self._on_decision = on_decision
        self._enabled = enabled
        self._name = name
        self._mark = frozenset({name})
        self._paths = Paths([limit.paths for limit in limits])
        self._known: dict[tuple[str, str, str], _Plan | None] = {}
        self._plans: dict[tuple[Limit, ...], _Plan] = {}
        self._of_routes: dict[Limit, _Plan] = {}
        self._warned: set[str] = set()
        self._trusts = self._proxies.are_there
        self._looks_for_proxies = 0 if self._trusts else LOOKED_AT

    async def reset(self) -> None:
        """Forget all counts that are in the memory of this process: for tests."""
        if isinstance(self.guard.store, MemoryStore):
            self.guard.store.clear()

    async def aclose(self) -> None:
        """Let go of the store. Safe to call twice."""
        await self.guard.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if not self._enabled or kind not in _KINDS:
            await self.app(scope, receive, send)
            return
        plan = self._plan_of(scope, kind)
        if (plan is None and not routes.in_use) or self._is_inside_itself(scope):
            await self.app(scope, receive, send)
        elif kind == "http":
            await self._http(plan, scope, receive, send)
        else:
            await self._websocket(plan, scope, receive, send)

    # Requests ------------------------------------------------------------------------------------

    async def _http(self, plan: _Plan | None, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(self, Context(scope, self._client(scope)), send)
        if routes.in_use:
            exchange.loop = asyncio.get_running_loop()
        if plan is not None:
            if plan.only is None or self._hit_one is None:
                await self._take(exchange, plan)
            else:
                self._take_one(exchange, plan, plan.only, self._hit_one)
            if exchange.denied is not None:
                await self._refuse(exchange, send)
                return
        token = current.set(exchange)
        try:
            await self.app(scope, receive, exchange.send)
        except Exception:
            # What a framework makes of a handler that was refused is of no interest.
            if not exchange.is_to_be_refused:
                raise
        finally:
            current.reset(token)
            if self.settles:
                await exchange.finish()
        if exchange.is_to_be_refused:
            await self._refuse(exchange, send)

    async def take(self, exchange: Exchange, limit: Limit) -> bool:
        """Hold a request against one more limit: of its route. False if it is refused."""
        plan = self._of_routes.get(limit)
        if plan is None:
            plan = self._of_routes[limit] = _Plan((limit,), self)
        self.settles |= limit.is_settled
        await self._take(exchange, plan)
        return exchange.denied is None

    def take_sync(self, exchange: Exchange, limit: Limit) -> bool:
        """The same for a handler that does not wait, in a thread or on the event loop."""
        taking = self.take(exchange, limit)
        if not _is_on_loop():
            assert exchange.loop is not None
            return asyncio.run_coroutine_threadsafe(taking, exchange.loop).result()
        try:
            taking.send(None)
        except StopIteration as end:
            return bool(end.value)
        taking.close()
        raise InvalidLimit(
            "BLOCKING",
            "limit",
            limit.name,
            "an async def handler, or one that runs in a thread: the store has to be waited for",
        )

    def _take_one(
        self, exchange: Exchange, plan: _Plan, limit: Limit, hit_one: Callable[[Check], Outcome]
    ) -> None:
        """What most requests need: one limit by address, and a store that answers at once."""
        group = plan.groups(exchange.context.client)[0]
        taken = Taken(limit, group, (hit_one(group[0]),))
        exchange.taken.append(taken)
        exchange.make_fields = plan.make_fields
        if self._decide(taken):
            exchange.denied = taken

    async def _take(self, exchange: Exchange, plan: _Plan) -> None:
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
        # After a refusal there are fewer answers than limits.
        for limit, group, outcomes in zip(limits, groups, answer, strict=False):
            taken = Taken(limit, group, outcomes)
            exchange.taken.append(taken)
            if self._decide(taken):
                exchange.denied = taken
            if limit.on_limited is not None and taken.is_denied:
                await self._tell_limited(limit, exchange.context)

    @staticmethod
    async def _tell_limited(limit: Limit, context: Context) -> None:
        try:
            await answer_of(limit.on_limited(context))
        except Exception:
            logger.exception("%s: on_limited failed", limit.name)

    def _decide(self, taken: Taken) -> bool:
        """Whether a limit refuses; counts that it has decided."""
        limit, told = taken.limit, taken.told
        counters = self.counters.get(limit.name)
        if counters is None:
            counters = self.counters.setdefault(limit.name, Counters())
        is_denied = not told.ok
        if is_denied and not limit.shadow:
            counters.limited += 1
        else:
            counters.allowed += 1
            if is_denied:
                counters.shadow += 1
            elif told.remaining < told.limit * (1 - NEAR):
                counters.near_limit += 1
        if told.unavailable:
            counters.unavailable += 1
        if self._on_decision is not None:
            self._tell_decided(limit, told)
        return is_denied and not limit.shadow

    def _tell_decided(self, limit: Limit, told: Outcome) -> None:
        assert self._on_decision is not None
        retry_after = told.retry_us / 1_000_000
        decided = Decided(
            limit.name, told.ok, told.remaining, retry_after, limit.shadow, told.unavailable
        )
        try:
            self._on_decision(decided)
        except Exception:
            logger.exception("%s: on_decision failed", limit.name)

    async def _groups(
        self, context: Context, plan: _Plan
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
            return f"{context.client} {context.path}"
        try:
            key: str | None = await answer_of(limit.key(context))
        except Exception:
            # Whom to count it for is unknown, which must not be a way around the limit.
            how = limit.on_store_error or self.on_store_error
            logger.exception("%s: its key failed; %s", limit.name, _ON_KEY_ERROR[how])
            if how == "deny":
                raise _KeyFailed(limit) from None
            return context.client if how == "local" else None
        return key

    # Answers -------------------------------------------------------------------------------------

    def fields_of(self, exchange: Exchange) -> Headers:
        """The header fields that tell what is left."""
        taken = exchange.taken
        if len(taken) == 1 and len(taken[0].outcomes) == 1:  # most requests
            return self.fields.of(taken[0].states()) if taken[0].limit.is_told else []
        states = [state for each in taken if each.limit.is_told for state in each.states()]
        denied = exchange.denied
        violated = None
        if denied is not None and denied.limit.headers and denied.checks:
            violated = denied.states()[denied.outcomes.index(denied.told)]
        return self.fields.of(states, violated)

    async def _refuse(self, exchange: Exchange, send: Send) -> None:
        """Answer in the place of the application."""
        denied = exchange.denied
        assert denied is not None
        answer = await self._refusal(exchange, denied)
        after = retry_after(denied.told.retry_us)

        async def send_refusal(message: Message) -> None:
            if message["type"] == "http.response.start":
                await exchange.settle(message["status"])
                await exchange.finish()
                exchange.has_started = True
                own = [(b"retry-after", b"%d" % after), *self.fields_of(exchange)]
                names = NAMES | {b"retry-after"}
                kept = [line for line in message["headers"] if line[0].lower() not in names]
                message = {**message, "headers": kept + own}
            await send(message)

        scope = exchange.scope
        if scope["type"] == "websocket":  # an answer is one of HTTP, wherever it goes
            scope = {**scope, "type": "http", "method": "GET"}
        await answer(scope, _nothing, send_refusal)

    async def _refusal(self, exchange: Exchange, denied: Taken) -> Answer | ASGIApp:
        limit, is_away = denied.limit, denied.told.unavailable
        message: Any = limit.message
        if callable(message):
            message = await self._message(limit, exchange.context)
            if callable(message):
                return cast("ASGIApp", message)
        return refusal(
            message,
            status=503 if is_away else limit.status,
            limits=denied.violated,
            kind=CAPACITY if is_away else QUOTA,
            accept=exchange.context.header("accept"),
        )

    @staticmethod
    async def _message(limit: Limit, context: Context) -> object:
        try:
            return await answer_of(limit.message(context))
        except Exception:
            logger.exception("%s: its message failed", limit.name)
            return None

    # WebSockets ----------------------------------------------------------------------------------

    async def _websocket(
        self, plan: _Plan | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        exchange = Exchange(self, Context(scope, self._client(scope)), send)
        if routes.in_use:
            exchange.loop = asyncio.get_running_loop()
        if plan is not None and plan.of_requests is not None:
            await self._take(exchange, plan.of_requests)
            if exchange.denied is not None:
                await receive()  # the handshake itself, which comes first
                await self._refuse_handshake(exchange, send)
                return
        messages = plan.of_messages if plan is not None else None
        takes = None if messages is None else partial(self._take_message, exchange, messages)
        connection = Connection(exchange, takes, receive)
        token = current.set(exchange)
        try:
            await self.app(scope, connection.receive, connection.send)
        except Exception:
            if not exchange.is_to_be_refused:
                raise
        finally:
            current.reset(token)
            await exchange.finish()
        if exchange.is_to_be_refused:
            await self._refuse_handshake(exchange, send)

    async def _take_message(self, exchange: Exchange, plan: _Plan) -> bool:
        message = Exchange(self, exchange.context, exchange.hand_on)
        await self._take(message, plan)
        return message.denied is None

    async def _refuse_handshake(self, exchange: Exchange, send: Send) -> None:
        if "websocket.http.response" not in (exchange.scope.get("extensions") or ()):
            await exchange.settle(403)
            await exchange.finish()
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return

        async def send_for_handshake(message: Message) -> None:
            await send({**message, "type": f"websocket.{message['type']}"})

        await self._refuse(exchange, send_for_handshake)

    # Which limits, and whose request --------------------------------------------------------------

    def _plan_of(self, scope: Scope, kind: str) -> _Plan | None:
        method = scope["method"] if kind == "http" else "WEBSOCKET"
        asked = (scope["path"], method, scope.get("root_path", ""))
        try:
            plan = self._known[asked]
        except KeyError:
            plan = self._find(*asked)
            if len(asked[0]) <= MAX_KNOWN_CHARS:
                if len(self._known) >= MAX_KNOWN:
                    self._known.clear()
                self._known[asked] = plan
        if plan is not None and method == "OPTIONS" and _is_preflight(scope):
            return None
        return plan

    def _find(self, path: str, method: str, root_path: str) -> _Plan | None:
        is_websocket = method == "WEBSOCKET"
        found = [
            limit
            for limit in (self.limits[number] for number in self._paths.match(path, root_path))
            if (is_websocket or limit.per == "request")
            and (limit.methods is None or ("GET" if is_websocket else method) in limit.methods)
        ]
        if not found:
            return None
        limits = tuple(found)
        plan = self._plans.get(limits)
        if plan is None:
            plan = self._plans[limits] = _Plan(limits, self)
        return plan

    def _is_inside_itself(self, scope: Scope) -> bool:
        """Whether another one of this name has the request already. Marks that this one has."""
        marks = scope.get(_MARK)
        if marks is None:
            scope[_MARK] = self._mark
            return False
        if self._name in marks:
            self._warn(
                "DOUBLE_COUNT",
                "the middleware is installed twice around one application: this one counts "
                "nothing. Install it once, or give each a name of its own",
            )
            return True
        scope[_MARK] = marks | self._mark
        return False

    def _client(self, scope: Scope) -> str:
        """The address of the client, as its limits know it."""
        if not self._trusts and scope.get("client") and not self._looks_for_proxies:
            return self._addresses.key(scope["client"][0])
        address, oddity = self._proxies.client(scope)
        if oddity is not None:
            self._warn(oddity, _ODDITIES[oddity])
        if self._looks_for_proxies:
            self._look_for_proxies(scope, address)
        if address is None:
            self._warn(
                "NO_CLIENT",
                "the server tells no client address: all clients without one are counted as one; "
                "behind a Unix socket, let the proxy name them: hops=1",
            )
            return UNKNOWN
        return self._addresses.key(address)

    def _look_for_proxies(self, scope: Scope, address: str | None) -> None:
        """Say it once if there is a proxy that nobody has told us of: all clients look like it."""
        self._looks_for_proxies -= 1
        if self._proxies.is_forwarded(scope) and is_private(address):
            self._looks_for_proxies = 0
            self._warn(
                "FORWARDED_HEADER",
                f"requests come through a proxy at {address}, and all its clients are counted as "
                "one: name it by trusted_proxies=, or let the server tell the client's address",
            )

    def _warn(self, code: str, text: str) -> None:
        if code not in self._warned:
            self._warned.add(code)
            logger.warning("%s [%s]", text, code)


class _Plan:
    """The limits of the requests of one kind."""

    def __init__(self, limits: tuple[Limit, ...], middleware: RateLimitMiddleware) -> None:
        self.limits = limits
        self.is_plain = all(limit.is_plain for limit in limits)
        self.only: Limit | None = None
        """The only limit, if there is but one, with one rate and nothing to call."""
        self.make_fields: Callable[[int, int], Headers] | None = None
        first = limits[0]
        if len(limits) == 1 and first.is_plainest:
            self.only = first
            self.make_fields = middleware.fields.maker(first.policies(first.rules[0]))
        self._middleware = middleware
        self._groups: dict[str, list[list[Check]]] = {}
        self.of_requests = self._part("request")
        self.of_messages = self._part("message")

    def groups(self, client: str) -> list[list[Check]]:
        """What is asked of the store for one client, where its address tells all."""
        groups = self._groups.get(client)
        if groups is None:
            if len(self._groups) >= MAX_KNOWN:
                self._groups.clear()
            groups = self._groups[client] = [
                limit.checks(
                    client if limit.key == "ip" else "global",
                    limit.cost if isinstance(limit.cost, int) else 1,
                    limit.rules,
                    self._middleware.on_store_error,
                )
                for limit in self.limits
            ]
        return groups

    def _part(self, per: str) -> _Plan | None:
        limits = tuple(limit for limit in self.limits if limit.per == per)
        if len(limits) == len(self.limits):
            return self
        return _Plan(limits, self._middleware) if limits else None


class _KeyFailed(Exception):
    """The key of a limit raised, and it says to refuse then."""

    def __init__(self, limit: Limit) -> None:
        super().__init__(limit.name)
        self.limit = limit


_KINDS: Final = frozenset({"http", "websocket"})

_UNAVAILABLE: Final = Outcome(False, 0, 0, PAUSE_US, PAUSE_US, unavailable=True)

_ON_KEY_ERROR: Final[Mapping[str, str]] = {
    "local": "the client's address stands for it",
    "allow": "the request is not counted",
    "deny": "the request is refused",
}

_ODDITIES: Final[Mapping[str, str]] = {
    "FORWARDED_BROKEN": "what a trusted proxy says of its client cannot be read",
    "OTHER_HEADER": "a trusted proxy does not name its client in the header that is read, but "
    "there is another one: its clients are counted as one; name the header by proxy_header=",
}


def _in_ns(clock: Callable[[], float]) -> Callable[[], int]:
    return lambda: round(clock() * 1_000_000_000)


async def _nothing() -> Message:
    """A refusal reads nothing of its request."""
    return {"type": "http.disconnect"}


def _is_on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _cost(limit: Limit, context: Context) -> int:
    assert callable(limit.cost)
    return to_limit("cost", await answer_of(limit.cost(context)))


def _is_preflight(scope: Scope) -> bool:
    """A browser asks whether it may: it does so by itself, and its user cannot help it."""
    names = {name.lower() for name, _ in scope["headers"]}
    return b"origin" in names and b"access-control-request-method" in names


def _check_limits(limits: object) -> None:
    if isinstance(limits, Limit) or not isinstance(limits, Sequence):
        raise InvalidLimit("LIMITS", "limits", limits, "a list of Limit(…)")
    buckets: set[str] = set()
    names: set[str] = set()
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
        names.add(limit.name)
