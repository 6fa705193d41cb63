"""`Limit`: a rate limit of HTTP requests, and its variants for concurrency and for one route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, TypedDict, TypeVar, Unpack, get_args

from hasten._asgi import ASGIApp
from hasten._checks import check_choice, check_flag, check_function, check_whole_number
from hasten._decision import Decision
from hasten._durations import Duration, to_nearest_us
from hasten._request_info import RequestInfo
from hasten.errors import InvalidOption
from hasten.ratelimit._counter_store import ON_STORE_ERROR, Check, OnStoreError, hash_client
from hasten.ratelimit._http.limit_options import (
    check_counted_statuses,
    check_key,
    check_methods,
    check_name,
    check_paths,
    check_refusal_message,
    check_refusal_status,
    to_reproducible_text,
)
from hasten.ratelimit._http.policy_headers import RateLimitPolicy
from hasten.ratelimit._rates import MAX_LIMIT, Rate, Rates, to_rates
from hasten.ratelimit._rules import (
    Algorithm,
    Rule,
    check_block_outlasts_denials,
    make_bucket_name,
    make_concurrency_rule,
    make_rule,
)

T = TypeVar("T")
F = TypeVar("F")

MaybeAwaitable: TypeAlias = T | Awaitable[T]

RateLike: TypeAlias = str | Rate | Rates
"""``"100/15m"``, ``Rate(100, per=timedelta(minutes=15))``, or several that apply together."""

RateOption: TypeAlias = RateLike | Callable[[RequestInfo], MaybeAwaitable[RateLike]]
"""A rate, or a function of the request that returns one."""

LimitKey: TypeAlias = (
    Literal["ip", "global", "route"] | Callable[[RequestInfo], MaybeAwaitable[str | None]]
)
"""Which requests are counted together.

"ip": those of one client. "global": all. "route": those of one client on one path. A function
returns the key: requests with equal keys are counted together.
"""

Message: TypeAlias = (
    str
    | Mapping[str, object]
    | Callable[[RequestInfo], MaybeAwaitable[str | Mapping[str, object] | ASGIApp]]
)
Per: TypeAlias = Literal["request", "message"]

DEFAULT_LEASE: Final = 300.0


class RouteOptions(TypedDict, total=False):
    """The options of `Limit` that a limit of one route accepts: all but path, methods and per."""

    name: str | None
    key: LimitKey
    cost: int | Callable[[RequestInfo], MaybeAwaitable[int]]
    algorithm: Algorithm | None
    skip: Callable[[RequestInfo], MaybeAwaitable[bool]] | None
    skip_successful: bool
    skip_failed: bool
    is_success: Callable[[RequestInfo], MaybeAwaitable[bool]] | None
    count_statuses: Collection[int] | None
    message: Message | None
    status: int
    on_limited: Callable[[Decision], MaybeAwaitable[object]] | None
    shadow: bool
    headers: bool
    block_for: Duration
    on_store_error: OnStoreError | None


class ConcurrencyOptions(TypedDict, total=False):
    """The options of `Limit` that `Limit.concurrency` accepts."""

    path: str | Sequence[str] | None
    methods: Collection[str] | None
    name: str | None
    key: LimitKey
    cost: int | Callable[[RequestInfo], MaybeAwaitable[int]]
    skip: Callable[[RequestInfo], MaybeAwaitable[bool]] | None
    message: Message | None
    status: int
    on_limited: Callable[[Decision], MaybeAwaitable[object]] | None
    shadow: bool
    headers: bool
    on_store_error: OnStoreError | None


class Limit:
    """How many requests a client may send: ``Limit("100/15m", path="/api/")``. It is immutable.

    - rate: a string (``"10/s burst 20, 1000/h"``: both apply), a `Rate`, several, or a function of
      the request that returns one and may be async. Each rate has its own count.
    - path: the path that the limit applies to, with all paths below it, or several paths; None for
      all. methods: the methods that it applies to; GET includes HEAD. None for all.
    - name: the name in headers and for `current_limit`; by default the rate. Limits with the same
      name and rate in one store share their counts.
    - key: which requests are counted together: "ip" (an IPv6 client is a /56), "global", "route"
      (each client on each path), or a function of the request that returns a string. A request
      for which it returns None is not counted.
    - cost: how much of the limit one request uses: a number, or a function of the request.
    - algorithm: "fixed" (a window that begins with the first request), "sliding" (never more in any
      window), "gcra" (evenly spaced after the burst: the default for a rate with a burst).
    - skip: a function of the request. If it returns true, the request is not counted.
    - skip_successful, skip_failed: do not count requests that succeeded, or that failed. is_success
      is a function of the request that returns whether it succeeded, by default if the status is
      below 400. count_statuses: count only requests whose response has one of these statuses.
    - message: the body of the response to a refused request: a string, a dict for JSON, or a
      function of the request that returns one of them or a response of your framework; by default
      problem+json. status: the status of that response.
    - on_limited: called with the `Decision` for each request that exceeds the limit. It may be
      async. shadow: count and call on_limited, but refuse no request.
    - headers: whether response headers describe the limit. Turn it off for a limit with a key that
      others can guess.
    - block_for: how long to refuse every request of a client that exceeded the limit; 0 for no
      block.
    - on_store_error: overrides the option on_store_error of the middleware for this limit.
    - per: "message" counts the messages of WebSockets instead of requests.

    Raises `InvalidOption`.
    """

    def __init__(
        self,
        rate: RateOption,
        *,
        path: str | Sequence[str] | None = None,
        methods: Collection[str] | None = None,
        name: str | None = None,
        key: LimitKey = "ip",
        cost: int | Callable[[RequestInfo], MaybeAwaitable[int]] = 1,
        algorithm: Algorithm | None = None,
        skip: Callable[[RequestInfo], MaybeAwaitable[bool]] | None = None,
        skip_successful: bool = False,
        skip_failed: bool = False,
        is_success: Callable[[RequestInfo], MaybeAwaitable[bool]] | None = None,
        count_statuses: Collection[int] | None = None,
        message: Message | None = None,
        status: int = 429,
        on_limited: Callable[[Decision], MaybeAwaitable[object]] | None = None,
        shadow: bool = False,
        headers: bool = True,
        block_for: Duration = 0,
        on_store_error: OnStoreError | None = None,
        per: Per = "request",
    ) -> None:
        self.rate_of: Final = _check_function("rate", rate) if callable(rate) else None
        self.rates: Final = () if callable(rate) else to_rates("rate", rate)
        self.algorithm: Final = algorithm
        self.paths: Final = None if path is None else check_paths("path", path)
        self.methods: Final = check_methods(methods)
        self.key: Final[LimitKey] = check_key(key)
        self.cost: Final[int | Callable[[RequestInfo], MaybeAwaitable[int]]] = (
            _check_function("cost", cost)
            if callable(cost)
            else check_whole_number("cost", cost, 0, MAX_LIMIT)
        )
        self.skip: Final = _check_function("skip", skip)
        self.count_statuses: Final = check_counted_statuses(count_statuses)
        self.skip_successful: Final = check_flag("skip_successful", skip_successful)
        self.skip_failed: Final = check_flag("skip_failed", skip_failed)
        self.is_success: Final = _check_function("is_success", is_success)
        self.message: Final = check_refusal_message(message)
        self.status: Final = check_refusal_status(status)
        self.on_limited: Final = _check_function("on_limited", on_limited, "decision")
        self.shadow: Final = check_flag("shadow", shadow)
        self.headers: Final = check_flag("headers", headers)
        self.block_us: Final = to_nearest_us("block_for", block_for)
        self.on_store_error: Final[OnStoreError | None] = (
            None
            if on_store_error is None
            else check_choice("on_store_error", on_store_error, ON_STORE_ERROR)
        )
        self.per: Final[Per] = check_choice("per", per, get_args(Per))
        self._check_options_for_counting_by_response()
        self.rules: Final = self._make_rules()
        self._is_named: Final = name is not None
        self.name: Final = check_name(name) or self._make_default_name()
        self.bucket: Final = name or self._make_default_bucket()
        self._check_cost()
        check_block_outlasts_denials(self.block_us, self.rules)

        self.is_concurrency: Final = bool(self.rules) and self.rules[0].kind == "concurrency"
        self.reserves: Final = (
            self.skip_successful
            or self.skip_failed
            or self.count_statuses is not None
            or self.is_concurrency
        )
        """Whether the limit reserves the cost, because it counts a request by how it ends."""
        self.has_address_key: Final = (
            self.key in ("ip", "global")
            and isinstance(self.cost, int)
            and not (self.rate_of or self.skip)
        )
        """Whether the checks depend only on the client's address, so that they can be cached."""
        self.shows_headers: Final = self.headers and not self.shadow
        """Whether response headers describe the limit. They never describe a shadow limit."""
        self.has_fast_path: Final = self.has_address_key and self.on_limited is None
        """Whether no function of the application must be called to enforce the limit."""

    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(self, name):
            raise AttributeError(f"{name} cannot be changed: a Limit is immutable")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        rates = ", ".join(map(str, self.rates)) or "by request"
        where = "" if self.paths is None else f" {' '.join(self.paths)}"
        return f"<Limit {self.name!r} {rates}{where}>"

    @classmethod
    def concurrency(
        cls, limit: int, *, lease: Duration = DEFAULT_LEASE, **options: Unpack[ConcurrencyOptions]
    ) -> Limit:
        """Return a limit of concurrent requests: how many may be in progress at once, for each key.

        A request counts until its response has ended, its client has disconnected, or lease (in
        seconds) has passed. The other options are those of `Limit`.
        """
        return ConcurrencyLimit(limit, lease, **options)

    @property
    def identifying_options(self) -> tuple[object, ...]:
        """The options that determine what is counted.

        Limits of two middlewares count as the same limit if these options are equal.
        """
        return (
            self.bucket, self.rules, self.rate_of, self.algorithm, self.paths, self.methods,
            self.key, self.cost, self.skip, self.skip_successful, self.skip_failed,
            self.is_success, self.count_statuses, self.shadow, self.block_us, self.on_store_error,
            self.per,
        )  # fmt: skip

    def make_checks(
        self, key: str, cost: int, rules: Sequence[Rule], on_error: OnStoreError
    ) -> list[Check]:
        """Return the checks of one request, one for each rule.

        on_error applies if the limit does not set on_store_error.
        """
        digested = hash_client(key)
        return [
            Check(
                make_bucket_name(self.bucket, rule),
                digested,
                rule,
                cost,
                self.reserves,
                self.block_us,
                shadow=self.shadow,
                on_error=self.on_store_error or on_error,
            )
            for rule in rules
        ]

    def parse_returned_rate(self, rate: object) -> tuple[Rule, ...]:
        """Return the rules for a rate that a function has returned. Raises `InvalidOption`."""
        rules = tuple(make_rule(each, self.algorithm) for each in to_rates("rate", rate))
        check_block_outlasts_denials(self.block_us, rules)
        return rules

    def make_policy(self, rule: Rule) -> RateLimitPolicy:
        """Return the name, quota and window that response headers give for a rule of this limit."""
        if rule.kind == "concurrency":
            return RateLimitPolicy(self.name, rule.limit, None, "concurrent-requests")
        if rule.kind == "gcra":  # the burst, and the time until all of it is available again
            return RateLimitPolicy(self._make_policy_name(rule), rule.burst, rule.tolerance_us)
        return RateLimitPolicy(self._make_policy_name(rule), rule.limit, rule.window_us)

    def is_counted(self, status: int | None, is_success: bool) -> bool:
        """Return whether a request with this response stays counted.

        status is None if there was no response. is_success is the result of the function of that
        name, or of its default.
        """
        if self.is_concurrency:
            return False
        if self.count_statuses is not None:
            return status is None or status in self.count_statuses
        if self.skip_failed:
            return status is not None and is_success
        return status is None or not is_success

    # Construction --------------------------------------------------------------------------------

    def _make_rules(self) -> tuple[Rule, ...]:
        return tuple(make_rule(rate, self.algorithm) for rate in self.rates)

    def _make_default_name(self) -> str:
        return "-".join(rate.name for rate in self.rates) or "by-request"

    def _make_default_bucket(self) -> str:
        """Return a bucket name for a limit without a name of its own.

        It differs for limits that apply to different requests, so that they do not share counts.
        """
        paths, methods = ",".join(self.paths or ()), ",".join(sorted(self.methods or ()))
        scope = paths, methods, self.per, self.key
        return f"{self.name}@{'|'.join(map(to_reproducible_text, scope))}"

    def _make_policy_name(self, rule: Rule) -> str:
        """Return the name of a rule in headers.

        It is the name of the limit. A limit with several rates has a name for each.
        """
        if len(self.rules) < 2:
            return self.name
        rate = self.rates[self.rules.index(rule)].name
        return f"{self.name}-{rate}" if self._is_named else rate

    def _check_options_for_counting_by_response(self) -> None:
        """Raise `InvalidOption` if these options conflict with each other, or with ``per``."""
        used: dict[str, object] = {
            "skip_successful": self.skip_successful or None,
            "skip_failed": self.skip_failed or None,
            "count_statuses": self.count_statuses,
        }
        used = {name: value for name, value in used.items() if value is not None}
        names = list(used)
        if len(names) > 1:
            raise InvalidOption.conflict(names[1], used[names[1]], names[0])
        if self.is_success and not (self.skip_successful or self.skip_failed):
            expected = "combined with skip_successful or skip_failed"
            raise InvalidOption("is_success", self.is_success, expected, code="conflict")
        if names and self.per == "message":
            other = "per='message', because a message has no response"
            raise InvalidOption.conflict(names[0], used[names[0]], other)

    def _check_cost(self) -> None:
        if isinstance(self.cost, int) and self.rules:
            most = min(rule.capacity for rule in self.rules)
            if 0 < most < self.cost:
                expected = f"at most {most}, because a higher cost never fits"
                raise InvalidOption("cost", self.cost, expected, code="out_of_range")


class ConcurrencyLimit(Limit):
    """A limit of concurrent requests, as `Limit.concurrency` returns it."""

    def __init__(self, limit: int, lease: Duration, **options: Unpack[ConcurrencyOptions]) -> None:
        for name, value in options.items():
            if name not in ConcurrencyOptions.__annotations__ and (
                name in RouteOptions.__annotations__ or name == "per"
            ):
                raise InvalidOption.conflict(name, value, "a limit of concurrent requests")
        self._rule: Final = make_concurrency_rule(limit, lease)
        super().__init__(Rate(limit, lease), **options)

    def _make_rules(self) -> tuple[Rule, ...]:
        return (self._rule,)

    def _make_default_name(self) -> str:
        return f"{self._rule.limit}-at-once"


class RouteLimit(Limit):
    """A limit of one route, made by `@limit` or `RateLimited`. route identifies the route.

    Without a name, it shares its count with no other limit.
    """

    def __init__(self, rate: RateOption, route: str, **options: Unpack[RouteOptions]) -> None:
        given: Mapping[str, Any] = options
        for wrong in ("path", "methods", "per"):
            if wrong in given:
                other = "a limit of one route, where the route determines it"
                raise InvalidOption.conflict(wrong, given[wrong], other)
        self._route: Final = route
        super().__init__(rate, **options)

    def _make_default_bucket(self) -> str:
        return f"{self.name}@{self._route}"


def _check_function(option: str, value: F, parameter: str = "request") -> F:
    return check_function(option, value, parameter, may_be_async=True)
