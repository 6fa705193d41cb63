"""Refuse what would be too much for this process, so that the rest is answered in time.

A process that takes everything answers nobody once it is overloaded: all requests wait for each
other, and clients ask again. It is better to refuse some at once. How many are too many is found
out by how long requests take (`gradient`); nothing has to be configured, and no store is asked.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Final

from hasten._asgi import ASGIApp, Message, Receive, Scope, Send
from hasten._clock import Clock, check_clock, now_ns_of
from hasten._durations import Duration, to_us
from hasten._loops import call_next_turn
from hasten._request_info import RequestInfo
from hasten.errors import InvalidOption
from hasten.ratelimit._answers import CAPACITY, refusal, wants_text
from hasten.ratelimit._gradient import Bounds, Level, Window, adapt
from hasten.ratelimit._rates import to_limit
from hasten.ratelimit._repeated import RepeatedErrors
from hasten.ratelimit._sharing import first_of
from hasten.ratelimit._stats import LoadSheddingStats

MIN_CONCURRENCY: Final = 20
MAX_CONCURRENCY: Final = 200

MAX_LAG: Final = 0.2
"""Duration: who has to wait so long for a turn of the event loop waits for each of its steps."""

RESERVED: Final = 0.2
"""The share of the limit that only what is critical may use."""

RETRY_AFTER: Final = 1.0

# One window is at least so long and so many requests, so that one slow request says little.
WINDOW_US: Final = 100_000
MIN_SAMPLES: Final = 10

# How often the event loop is asked how late it is, while requests come.
LAG_EVERY_US: Final = 20_000


@dataclass(frozen=True, slots=True)
class Shed:
    """A request that was refused since there was no room for it, for `on_shed`."""

    request: RequestInfo
    in_flight: int
    """Requests that the application was working on."""
    limit: int
    """How many requests at once were let through."""
    retry_after: int
    """Seconds after which the client was told to come back."""


class LoadSheddingMiddleware:
    """``app.add_middleware(LoadSheddingMiddleware)``: 503 for what this process has no room for.

    It finds out how many requests at once are good for the process, by how long they take.

    - min_concurrency, max_concurrency: between what that number moves. It begins with the former,
      which is 20 unless max_concurrency is less. Where both are equal, it does not move.
    - critical: a function of the request: whether it is let through as long as there is any room.
      It cannot wait: who is refused is refused at once. reserved: the share of the limit that is
      kept for those.
    - max_lag: how much the event loop may be late before the limit falls.
    - retry_after: when clients may ask again, at least; each is told another time, up to twice as
      long, so that they do not come back all at once.
    - message: the body of a refusal: a text, or a dict for JSON; without one it is problem+json.
    - on_shed: called with a `Shed` for each refusal; like critical it cannot wait.
    - stats: where requests are counted, a `LoadSheddingStats` of yours.
    - clock: for tests: `hasten.testing.ManualClock`.

    What counts is what is under way in the application itself: from when a request comes until its
    answer begins, without the time in which the body of the request is waited for. So slow clients
    take no room. WebSockets are let through. Raises `InvalidOption`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        min_concurrency: int | None = None,
        max_concurrency: int = MAX_CONCURRENCY,
        critical: Callable[[RequestInfo], bool] | None = None,
        reserved: float = RESERVED,
        max_lag: Duration = MAX_LAG,
        retry_after: Duration = RETRY_AFTER,
        message: str | Mapping[str, object] | None = None,
        on_shed: Callable[[Shed], object] | None = None,
        stats: LoadSheddingStats | None = None,
        clock: Clock | None = None,
    ) -> None:
        most = to_limit("max_concurrency", max_concurrency, at_least=1)
        least = to_limit(
            "min_concurrency",
            min(MIN_CONCURRENCY, most) if min_concurrency is None else min_concurrency,
            at_least=1,
        )
        max_lag_us = to_us("max_lag", max_lag, at_least_us=1)
        retry_us = to_us("retry_after", retry_after)
        clock = clock if clock is None else check_clock(clock)
        if least > most:
            expected = f"no more than max_concurrency, which is {most}"
            raise InvalidOption("min_concurrency", least, expected, code="out_of_range")
        _check(reserved, message, stats)
        _check_function("critical", critical)
        _check_function("on_shed", on_shed)
        self.app = app
        self.stats: Final = LoadSheddingStats() if stats is None else stats
        self.in_flight = 0
        self._bounds = Bounds(least, most, max_lag_us)
        self._set_level(Level(least))
        self._critical = critical
        self._reserved = reserved if critical is not None else 0.0
        self._retry_after = max(1, math.ceil(retry_us / 1_000_000))
        self._message = message
        self._on_shed = on_shed
        self._errors = RepeatedErrors()
        self._clock = time.monotonic if clock is None else _seconds_of(clock)
        self._lag = Lag(self._clock)
        self._window = _Samples(self._clock())
        self._definition = self._bounds, critical, reserved
        self._first: LoadSheddingMiddleware | None = None
        """The one that measures for all of its kind; None before the first request."""

    def __repr__(self) -> str:
        bounds = f"{self._bounds.least} to {self._bounds.most} at once"
        return f"<LoadSheddingMiddleware {bounds}, now {self.stats.limit}>"

    def _set_level(self, level: Level) -> None:
        self._level = level
        self.stats.limit = int(level.limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        first = self._first
        if first is None:
            first = self._first = first_of(scope, self, self._definition)
        if first._has_room_for(scope):
            await self._run(_Work(first, receive, send), scope)
        else:
            await self._refuse(scope, receive, send)

    def _has_room_for(self, scope: Scope) -> bool:
        limit, stats = self._level.limit, self.stats
        has_room = self.in_flight < max(1, int(limit * (1 - self._reserved)))
        if not has_room and self.in_flight < int(limit) and self._is_critical(scope):
            stats.critical += 1
            has_room = True
        if has_room:
            stats.allowed += 1
        else:
            stats.shed += 1
        return has_room

    def _is_critical(self, scope: Scope) -> bool:
        if self._critical is None:
            return False
        try:
            return bool(self._critical(_request_info(scope)))
        except Exception:  # noqa: BLE001  # of the application's own function
            self._errors.exception("critical failed; the request is not critical")
            return False

    async def _run(self, work: _Work, scope: Scope) -> None:
        try:
            await self.app(scope, work.receive, work.send)
        finally:
            work.leave()

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = _request_info(scope)
        least = self._retry_after
        retry_after = random.randint(least, 2 * least)  # noqa: S311 - it spreads, nothing more
        self._report(request, retry_after)
        is_text = wants_text(request.header("accept"))
        answer = refusal(self._message, status=503, limits=[], kind=CAPACITY, is_text=is_text)
        headers = answer.headers | {"retry-after": str(retry_after)}
        await answer._replace(headers=headers)(scope, receive, send)

    def _report(self, request: RequestInfo, retry_after: int) -> None:
        if self._on_shed is None:
            return
        first = self._first or self
        try:
            self._on_shed(Shed(request, first.in_flight, int(first._level.limit), retry_after))
        except Exception:  # noqa: BLE001  # of the application's own function
            self._errors.exception("on_shed failed")

    # What is measured -----------------------------------------------------------------------------

    def _enter(self) -> None:
        self.in_flight += 1
        self.stats.in_flight = self.in_flight
        self._window.in_flight = max(self._window.in_flight, self.in_flight)
        self._lag.look()

    def _learn(self, took: float) -> None:
        """How long one request has taken that was answered well."""
        window = self._window
        window.count += 1
        window.took += took
        now = self._clock()
        if window.count < MIN_SAMPLES or (now - window.since) * 1_000_000 < WINDOW_US:
            return
        seen = Window(window.took / window.count * 1_000_000, window.in_flight, self._lag.worst())
        self._set_level(adapt(self._level, seen, self._bounds))
        self._window = _Samples(now, in_flight=self.in_flight)


@dataclass(slots=True)
class _Samples:
    """One window, while it lasts; times are in seconds."""

    since: float
    count: int = 0
    took: float = 0.0
    in_flight: int = 0


class _Work:
    """What the application does for one request."""

    __slots__ = (
        "_has_body", "_is_inside", "_is_under_way", "_receive", "_send", "_shedder", "_since",
    )  # fmt: skip

    def __init__(self, shedder: LoadSheddingMiddleware, receive: Receive, send: Send) -> None:
        self._shedder = shedder
        self._receive = receive
        self._send = send
        self._since = shedder._clock()
        self._is_under_way = True
        self._is_inside = True
        self._has_body = False
        """After it there is nothing to wait for but the client's leaving, beside the work."""
        shedder._enter()

    async def receive(self) -> Message:
        """Waiting for a body is the client's time: it takes no room, and is not measured."""
        if self._has_body or not self._is_inside:
            return await self._receive()
        before = self._shedder._clock()
        self._step_out()
        try:
            message = await self._receive()
        finally:
            if self._is_under_way:
                self._is_inside = True
                self._shedder._enter()
            self._since += self._shedder._clock() - before
        self._has_body = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if self._is_under_way and message["type"] == "http.response.start":
            self.leave()
            # Refusals are fast, and errors may be: what is usual is how long answers take.
            if message["status"] < 400:
                self._shedder._learn(self._shedder._clock() - self._since)
        await self._send(message)

    def leave(self) -> None:
        self._is_under_way = False
        self._step_out()

    def _step_out(self) -> None:
        if self._is_inside:
            self._is_inside = False
            shedder = self._shedder
            shedder.in_flight -= 1
            shedder.stats.in_flight = shedder.in_flight


class Lag:
    """How late the event loop is: how long something waits that could be done at once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._asked_at: float | None = None
        self._answered_at = float("-inf")
        self._worst = 0.0

    def look(self) -> None:
        """Find out, unless that was a moment ago, or is going on."""
        now = self._clock()
        if self._asked_at is None and (now - self._answered_at) * 1_000_000 >= LAG_EVERY_US:
            self._asked_at = now
            call_next_turn(self._answer)

    def worst(self) -> int:
        """The worst since this was asked for last, in µs."""
        worst, self._worst = self._worst, 0.0
        return round(worst * 1_000_000)

    def _answer(self) -> None:
        assert self._asked_at is not None
        self._answered_at = self._clock()
        self._worst = max(self._worst, self._answered_at - self._asked_at)
        self._asked_at = None


def _request_info(scope: Scope) -> RequestInfo:
    client = scope.get("client")
    return RequestInfo(scope, client[0] if client else "unknown")


def _check(reserved: object, message: object, stats: object) -> None:
    if stats is not None and not isinstance(stats, LoadSheddingStats):
        raise InvalidOption("stats", stats, "LoadSheddingStats()")
    if not _is_share(reserved):
        raise InvalidOption("reserved", reserved, "a share from 0 to less than 1")
    if not (message is None or isinstance(message, str) or _is_json(message)):
        raise InvalidOption("message", message, "a text, or a dict for JSON")


def _seconds_of(clock: Clock) -> Callable[[], float]:
    now_ns = now_ns_of(clock)
    return lambda: now_ns() / 1_000_000_000


def _check_function(option: str, function: object) -> None:
    if function is not None and not callable(function):
        raise InvalidOption(option, function, "a function")
    # What it returns would never be awaited; and it is true, whatever would come of it.
    called = getattr(function, "__call__", None)  # noqa: B004
    if iscoroutinefunction(function) or iscoroutinefunction(called):
        raise InvalidOption(option, function, "a function without async")


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def _is_json(message: object) -> bool:
    try:
        return isinstance(message, Mapping) and bool(json.dumps(message))
    except (TypeError, ValueError):
        return False
