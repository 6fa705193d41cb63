"""`LoadSheddingMiddleware`: refuse requests that exceed the capacity of the process.

If an overloaded process accepts all requests, they wait for each other until clients time out and
retry. It is better to refuse some requests immediately, so that the others stay fast. The
middleware estimates how many concurrent requests the process can serve from how long requests take
(see `_gradient.py`). It needs no configuration and no store.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from hasten._asgi import ASGIApp, Receive, Scope, Send
from hasten._checks import (
    check_function,
    check_instance,
    check_whole_number,
    is_int_or_float_not_bool,
)
from hasten._clock import SYSTEM_CLOCK, Clock, check_clock, make_now_ns
from hasten._durations import Duration, to_nearest_us
from hasten._litestar import find_first_with_equal_options
from hasten._logs import get_logger
from hasten._problems import make_refusal_response, prefers_text
from hasten._repeated_errors import ThrottledErrorLog
from hasten._request_info import RequestInfo
from hasten.errors import InvalidOption
from hasten.loadshedding._gradient import LimitBounds
from hasten.loadshedding._load import LoadTracker, TrackedRequest
from hasten.loadshedding._stats import LoadSheddingStats

T = TypeVar("T")

logger = get_logger("hasten.loadshedding")

MIN_CONCURRENCY: Final = 20
MAX_CONCURRENCY: Final = 200

MAX_LAG: Final = 0.2
"""The default of max_lag, in seconds: how late the event loop may run a callback."""

RESERVED: Final = 0.2

RETRY_AFTER: Final = 1.0


IsAccepted: TypeAlias = bool


@dataclass(frozen=True, slots=True)
class ShedRequest:
    """A request that was refused because the process had no capacity. `on_shed` receives it."""

    request: RequestInfo
    in_flight: int
    """How many requests the application was working on."""
    limit: int
    """How many concurrent requests were allowed at that time."""
    retry_after: int
    """The header Retry-After of the response, in seconds."""


class LoadSheddingMiddleware:
    """``app.add_middleware(LoadSheddingMiddleware)``: answer 503 when the process has no capacity.

    The middleware limits concurrent requests. It adapts the limit to how long requests take.

    - min_concurrency, max_concurrency: the bounds of the limit. It starts at min_concurrency, which
      is 20 unless max_concurrency is lower. If both are equal, the limit is fixed.
    - critical: a function of the request that returns whether it may use the reserved share of the
      limit. It cannot be async. reserved: this share, as a number from 0 to less than 1.
    - max_lag: the limit falls if the event loop runs callbacks later than this: seconds, a
      `timedelta`, or a text such as "50ms".
    - retry_after: the minimum of the header Retry-After, in seconds. Each response has a random
      value, up to twice as long, so that clients do not return at the same moment.
    - message: the body of the 503 response: a string, or a dict for JSON; by default problem+json.
    - on_shed: called with a `ShedRequest` for each refused request. It cannot be async.
    - stats: a `LoadSheddingStats` of yours, in which the middleware counts requests.
    - clock: measures how long requests take: a monotonic timer, unless you pass the clock of a
      `hasten.Store`. The lag of the event loop is always measured in real time.

    A request counts while the application works on it: from its arrival to the start of the
    response, except while the application waits for its body. So slow clients take no capacity.
    WebSockets are not limited. Raises `InvalidOption`.
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
        on_shed: Callable[[ShedRequest], object] | None = None,
        stats: LoadSheddingStats | None = None,
        clock: Clock | None = None,
    ) -> None:
        bounds = _make_bounds(min_concurrency, max_concurrency, max_lag)
        self.app = app
        given = check_instance("stats", stats, LoadSheddingStats)
        self.stats: Final = LoadSheddingStats() if given is None else given
        self._critical = check_function("critical", critical, "request")
        share = _check_fraction("reserved", reserved)
        self._reserved = share if critical is not None else 0.0
        self._retry_after = max(1, math.ceil(to_nearest_us("retry_after", retry_after) / 1_000_000))
        self._message = _check_message_option(message)
        self._on_shed = check_function("on_shed", on_shed, "shed")
        self._errors = ThrottledErrorLog(logger)
        self._load = LoadTracker(bounds, self.stats, _make_now_seconds(clock))
        self._definition = bounds, critical, reserved
        self._has_started = False

    def __repr__(self) -> str:
        bounds = self._definition[0]
        limits = f"{bounds.minimum} to {bounds.maximum} at once"
        return f"<LoadSheddingMiddleware {limits}, now {self.stats.limit}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if not self._has_started:
            self._has_started = True
            self._load = find_first_with_equal_options(scope, self, self._definition)._load
        if self._decide_and_count(scope):
            await self._run_application(TrackedRequest(self._load, receive, send), scope)
        else:
            await self._refuse(scope, receive, send)

    def _decide_and_count(self, scope: Scope) -> IsAccepted:
        """Decide whether to accept a request, and count the decision. Returns the decision."""
        load, stats = self._load, self._load.stats
        accepts = load.has_capacity(self._reserved)
        if not accepts and load.has_capacity() and self._is_critical(scope):
            stats.critical += 1
            accepts = True
        if accepts:
            stats.allowed += 1
        else:
            stats.shed += 1
        return accepts

    def _is_critical(self, scope: Scope) -> bool:
        if self._critical is None:
            return False
        try:
            return bool(self._critical(_make_request_info(scope)))
        except Exception:  # noqa: BLE001  # raised by the application's function
            self._errors.exception("critical() failed; the request is treated as not critical")
            return False

    async def _run_application(self, request: TrackedRequest, scope: Scope) -> None:
        try:
            await self.app(scope, request.receive, request.send)
        finally:
            request.end_tracking()

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = _make_request_info(scope)
        minimum = self._retry_after
        # The random number spreads retries. It need not be secure.
        retry_after = random.randint(minimum, 2 * minimum)  # noqa: S311
        self._call_on_shed(request, retry_after)
        is_text = prefers_text(request.header("accept"))
        response = make_refusal_response(
            self._message,
            status=503,
            exceeded_limits=[],
            server_lacks_capacity=True,
            is_text=is_text,
        )
        headers = response.headers | {"retry-after": str(retry_after)}
        await response._replace(headers=headers)(scope, receive, send)

    def _call_on_shed(self, request: RequestInfo, retry_after: int) -> None:
        if self._on_shed is None:
            return
        load = self._load
        try:
            self._on_shed(ShedRequest(request, load.in_flight, int(load.level.limit), retry_after))
        except Exception:  # noqa: BLE001  # raised by the application's function
            self._errors.exception("on_shed() failed; the request is refused as usual")


def _make_request_info(scope: Scope) -> RequestInfo:
    client = scope.get("client")
    return RequestInfo(scope, client[0] if client else "unknown")


def _make_now_seconds(clock: Clock | None) -> Callable[[], float]:
    """Return a function that returns the time of a clock, in seconds.

    For None and the system clock it is a monotonic timer.
    """
    if clock is None or clock is SYSTEM_CLOCK:
        return time.monotonic
    now_ns = make_now_ns(check_clock(clock))
    return lambda: now_ns() / 1_000_000_000


# Options ------------------------------------------------------------------------------------------


def _make_bounds(
    min_concurrency: object, max_concurrency: object, max_lag: Duration
) -> LimitBounds:
    maximum = check_whole_number("max_concurrency", max_concurrency, 1)
    minimum = min(MIN_CONCURRENCY, maximum)
    if min_concurrency is not None:
        minimum = check_whole_number("min_concurrency", min_concurrency, 1)
    if minimum > maximum:
        expected = f"at most max_concurrency, which is {maximum}"
        raise InvalidOption("min_concurrency", minimum, expected, code="out_of_range")
    return LimitBounds(minimum, maximum, to_nearest_us("max_lag", max_lag, at_least_us=1))


def _check_fraction(option: str, value: object) -> float:
    if is_int_or_float_not_bool(value) and 0 <= value < 1:
        return value
    raise InvalidOption(option, value, "a number from 0 to less than 1")


def _check_message_option(message: T) -> T:
    if message is None or isinstance(message, str):
        return message
    try:
        if isinstance(message, Mapping) and json.dumps(message):
            return message
    except (TypeError, ValueError):
        pass  # not JSON
    raise InvalidOption("message", message, "a string, or a dict for JSON")
