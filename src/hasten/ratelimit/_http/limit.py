"""One limit on what clients ask for: how much, of what, counted for whom."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import lru_cache
from inspect import signature
from typing import Any, Final, Literal, TypeAlias, TypedDict, TypeVar, Unpack, get_args

from hasten._asgi import ASGIApp
from hasten._decision import Decision
from hasten._durations import Duration, to_us
from hasten._request_info import RequestInfo
from hasten.errors import InvalidOption
from hasten.ratelimit._counter_store import ON_ERROR, Check, OnStoreError, digest
from hasten.ratelimit._http.policy_headers import Policy
from hasten.ratelimit._rates import Rate, Rates, to_limit, to_rates
from hasten.ratelimit._rules import (
    Algorithm,
    Rule,
    bucket_of,
    check_block,
    concurrency_rule,
    rule_of,
)

T = TypeVar("T")

MaybeAwaitable: TypeAlias = T | Awaitable[T]

RateLike: TypeAlias = str | Rate | Rates
"""``"100/15m"``, ``Rate(100, per=timedelta(minutes=15))``, or several that hold together."""

RateOption: TypeAlias = RateLike | Callable[[RequestInfo], MaybeAwaitable[RateLike]]
"""The same, or a function of the request that gives one."""

LimitKey: TypeAlias = (
    Literal["ip", "global", "route"] | Callable[[RequestInfo], MaybeAwaitable[str | None]]
)
"""Whom a limit counts: each client, everybody together, each client on each path, or by a key."""
Message: TypeAlias = (
    str
    | Mapping[str, object]
    | Callable[[RequestInfo], MaybeAwaitable[str | Mapping[str, object] | ASGIApp]]
)
Per: TypeAlias = Literal["request", "message"]

KEYS: Final = ("ip", "global", "route")

DEFAULT_LEASE: Final = 300.0

MAX_KNOWN_KEYS: Final = 10_000

# What can never be in a path, or is meant as a pattern: such a limit would be for nothing.
_NO_PATH: Final = re.compile(r"[*?#{}<>\x00-\x20]|%[0-9A-Fa-f]{2}")

_METHODS: Final = frozenset("GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT QUERY".split())


class RouteOptions(TypedDict, total=False):
    """The options of `Limit` for a limit of one route: what it is for, the route says."""

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
    approximate: bool


class ConcurrencyOptions(TypedDict, total=False):
    """The options of `Limit` for a limit of what is under way at once."""

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
    """How much a client may request: ``Limit("100/15m", path="/api/")``.

    - rate: a text (``"10/s burst 20, 1000/h"``: all hold together), a `Rate`, several, or a
      function of the request (it may wait) that gives one: another rate is another count.
    - path: what it is for: a path with all below it, several of them, or None for everything.
      methods likewise; GET includes HEAD.
    - name: what it is called in answers and for `current_limit`; by default its rate. Limits with
      the same name and rate in one store share their counts.
    - key: whose requests are counted together: "ip" (an IPv6 client is a /56), "global", "route"
      (each client on each path), or a function of the request that gives a text; None is not
      counted.
    - cost: of one request: a number, or a function of the request.
    - algorithm: "fixed" (a window from the first request on), "sliding" (never more in any window),
      "gcra" (evenly spaced beyond the burst: the default for a rate with a burst).
    - skip: a function of the request; if it returns true, the request is not counted.
    - skip_successful, skip_failed: do not count requests by how they end; `is_success` decides what
      that is, by default a status below 400. count_statuses: only these statuses count.
    - message: the body of the refusal: a text, a dict for JSON, or a function of the request that
      gives one of them, or a whole response of your framework; without one it is problem+json.
      status is its status.
    - on_limited: called with the `Decision` of each refusal; it may wait. shadow: count, call
      `on_limited`, and refuse nobody.
    - headers: whether answers tell what is left: not for a limit by a key that others can guess.
    - block_for: how long to refuse every request of a client that exceeded the limit.
    - on_store_error: for this limit, instead of the middleware's.
    - approximate: let each of the middleware's `processes` take portions of the limit, which it
      spends without asking the store. It never lets more pass, and may refuse a little early.
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
        approximate: bool = False,
        per: Per = "request",
    ) -> None:
        self.rate_of: Final = _function("rate", rate) if callable(rate) else None
        self.rates: Final = () if callable(rate) else _rates(rate)
        self.algorithm: Final = algorithm
        self.paths: Final = None if path is None else paths_of("path", path)
        self.methods: Final = _methods(methods)
        self.key: Final = _key(key)
        self.cost: Final[int | Callable[[RequestInfo], MaybeAwaitable[int]]] = (
            _function("cost", cost) if callable(cost) else _limit("cost", cost)
        )
        self.skip: Final = _function("skip", skip)
        self.count_statuses: Final = _statuses(count_statuses)
        self.skip_successful: Final = _flag("skip_successful", skip_successful)
        self.skip_failed: Final = _flag("skip_failed", skip_failed)
        self.is_success: Final = _function("is_success", is_success)
        self.message: Final = _message(message)
        self.status: Final = _status(status)
        self.on_limited: Final = _function("on_limited", on_limited, "decision")
        self.shadow: Final = _flag("shadow", shadow)
        self.headers: Final = _flag("headers", headers)
        self.block_us: Final = _us("block_for", block_for)
        self.on_store_error: Final = _on_error(on_store_error)
        self.approximate: Final = _flag("approximate", approximate)
        self.per: Final = one_of("per", per, get_args(Per))
        self._check_outcome()
        self.rules: tuple[Rule, ...] = self.rules_of(self.rates) if self.rates else ()
        self._is_named = name is not None
        self.name: Final = _name(name) or self._default_name()
        self.bucket = name or self._default_bucket()
        self.strictest: tuple[Rule, ...] = ()
        """Of the rates that a function has returned: what holds where it fails."""
        self._rules_of = lru_cache(256)(self._make_rules)
        self.policies: Final = lru_cache(256)(self._policy)
        """What answers say of a rule."""
        self._check_cost()
        self._check_block(self.rules)

    def __repr__(self) -> str:
        rates = ", ".join(map(str, self.rates)) or "by request"
        where = "" if self.paths is None else f" {' '.join(self.paths)}"
        return f"<Limit {self.name!r} {rates}{where}>"

    @classmethod
    def concurrency(
        cls, limit: int, *, lease: Duration = DEFAULT_LEASE, **options: Unpack[ConcurrencyOptions]
    ) -> Limit:
        """So many requests under way at once, for each key.

        A place is free again when the response has ended, the client is gone, or lease seconds are
        over: what takes longer is not counted any more. The other options are those of `Limit`.
        """
        given: dict[str, Any] = {**options}
        for wrong in sorted(given.keys() - ConcurrencyOptions.__annotations__.keys()):
            if wrong in (*RouteOptions.__annotations__, "per"):
                expected = "a limit with a rate for that"
                raise InvalidOption(wrong, given[wrong], expected, code="conflict")
        rule = concurrency_rule(limit, lease)
        name = given.pop("name", None)
        found = cls(Rate(limit, lease), name=name or f"{limit}-at-once", **given)
        found.rules = (rule,)
        if name is None:
            found.bucket = found._default_bucket()
        return found

    @property
    def is_settled(self) -> bool:
        """Whether how a request ends matters: then it is reserved first."""
        by_outcome = self.skip_successful or self.skip_failed or self.count_statuses is not None
        return by_outcome or self.is_concurrency

    @property
    def is_concurrency(self) -> bool:
        return bool(self.rules) and self.rules[0].kind == "concurrency"

    @property
    def definition(self) -> tuple[object, ...]:
        """Equal for limits that count the same requests in the same way."""
        return (
            self.bucket, self.rules, self.rate_of, self.algorithm, self.paths, self.methods,
            self.key, self.cost, self.skip, self.skip_successful, self.skip_failed,
            self.is_success, self.count_statuses, self.shadow, self.block_us, self.on_store_error,
            self.approximate, self.per,
        )  # fmt: skip

    @property
    def is_plain(self) -> bool:
        """Whether a client's address tells all that is to be known before the store is asked."""
        is_simple = self.key in ("ip", "global") and isinstance(self.cost, int)
        return is_simple and not (self.rate_of or self.skip)

    @property
    def is_told(self) -> bool:
        """Whether answers tell what is left."""
        return self.headers and not self.shadow

    @property
    def is_plainest(self) -> bool:
        """Whether there is one rate besides, which is told of, and nothing to call."""
        is_quiet = self.is_told and self.on_limited is None
        return self.is_plain and is_quiet and len(self.rules) == 1

    def checks(
        self, key: str, cost: int, rules: Sequence[Rule], on_error: OnStoreError, processes: int
    ) -> list[Check]:
        """What a store is asked of one request. processes is how many share the limit."""
        digested = digest(key)
        return [
            Check(
                bucket_of(self.bucket, rule),
                digested,
                rule,
                cost,
                self.is_settled,
                self.block_us,
                shadow=self.shadow,
                processes=processes if self.approximate else 0,
                on_error=self.on_store_error or on_error,
            )
            for rule in rules
        ]

    def rules_for(self, rate: object) -> tuple[Rule, ...]:
        """The rules of a rate that a function gave. Raises `InvalidOption`."""
        return self._rules_of(tuple(rate) if isinstance(rate, list) else rate)

    def rules_of(self, rate: object) -> tuple[Rule, ...]:
        """The rules of a rate. Raises `InvalidOption`."""
        return tuple(_rule(each, self.algorithm) for each in _rates(rate))

    def keeps(self, status: int | None, is_success: bool) -> bool:
        """Whether a request that ended so stays counted. status is None if there is no answer."""
        if self.is_concurrency:
            return False
        if self.count_statuses is not None:
            return status is None or status in self.count_statuses
        if self.skip_failed:
            return status is not None and is_success
        return status is None or not is_success

    # Making --------------------------------------------------------------------------------------

    def _make_rules(self, rate: object) -> tuple[Rule, ...]:
        rules = self.rules_of(rate)
        self._check_block(rules)
        if not self.strictest or _per_us(rules) < _per_us(self.strictest):
            self.strictest = rules
        return rules

    def _policy(self, rule: Rule) -> Policy:
        if rule.kind == "concurrency":
            return Policy(self.name, rule.limit, None, "concurrent-requests")
        if rule.kind == "gcra":  # what may come at once, and how long all of it takes to come back
            return Policy(self._name_of(rule), rule.burst, rule.tolerance_us)
        return Policy(self._name_of(rule), rule.limit, rule.window_us)

    def _name_of(self, rule: Rule) -> str:
        """Of several rates each has a name of its own."""
        if len(self.rules) < 2:
            return self.name
        rate = self.rates[self.rules.index(rule)].name
        return f"{self.name}-{rate}" if self._is_named else rate

    def _default_name(self) -> str:
        return "-".join(rate.name for rate in self.rates) or "by-request"

    def _default_bucket(self) -> str:
        """Different for limits that are for different things."""
        of = ",".join(self.paths or ()), ",".join(sorted(self.methods or ())), self.per, self.key
        return f"{self.name}@{'|'.join(map(_text, of))}"

    def _check_outcome(self) -> None:
        ways = [
            name
            for name, is_used in (
                ("skip_successful", self.skip_successful),
                ("skip_failed", self.skip_failed),
                ("count_statuses", self.count_statuses is not None),
            )
            if is_used
        ]
        if len(ways) > 1:
            raise InvalidOption(
                ways[1], getattr(self, ways[1]), f"one of {', '.join(ways)} alone", code="conflict"
            )
        if self.is_success and not (self.skip_successful or self.skip_failed):
            raise InvalidOption(
                "is_success",
                self.is_success,
                "skip_successful or skip_failed with it",
                code="conflict",
            )
        if ways and self.per == "message":
            raise InvalidOption(
                ways[0], True, "per='request': a message has no outcome", code="conflict"
            )
        if self.approximate and ways:
            raise InvalidOption(
                "approximate", self.approximate, f"no {ways[0]}: that is exact", code="conflict"
            )

    def _check_block(self, rules: Sequence[Rule]) -> None:
        check_block(self.block_us, rules)

    def _check_cost(self) -> None:
        if isinstance(self.cost, int) and self.rules:
            most = min(rule.capacity for rule in self.rules)
            if 0 < most < self.cost:
                raise InvalidOption(
                    "cost",
                    self.cost,
                    f"at most {most}: a request would never pass",
                    code="out_of_range",
                )


def text_of(key: object) -> str:
    """The text of a key. Raises `TypeError` for an object that has none of its own."""
    if isinstance(key, str):
        return key
    kind = type(key)
    if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
        # It would be another one for each request.
        raise TypeError(f"a key is a text or a number, not {key!r}")
    return str(key)


# Options ------------------------------------------------------------------------------------------


def _text(value: object) -> str:
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return str(value)


def _rates(rate: object) -> Rates:
    return to_rates("rate", rate)


def _rule(rate: Rate, algorithm: Algorithm | None) -> Rule:
    return rule_of(rate, algorithm)


def _per_us(rules: Sequence[Rule]) -> float:
    """How much rates that hold together let pass in the long run."""
    return min(rule.limit / rule.window_us for rule in rules)


def _limit(option: str, value: object) -> int:
    return to_limit(option, value)


def _us(option: str, value: object) -> int:
    return to_us(option, value)


def paths_of(option: str, value: object) -> tuple[str, ...]:
    """One path or several, each with all below it. Raises `InvalidOption`."""
    given: Sequence[object] = value if isinstance(value, Sequence) else ()
    paths = (value,) if isinstance(value, str) else tuple(map(str, given))
    if not paths or not all(each.startswith("/") for each in paths):
        raise InvalidOption(option, value, "a path that begins with '/', or several")
    for each in paths:
        if _NO_PATH.search(each):
            expected = "a path with all below it, decoded, without patterns, '?' and '#'"
            raise InvalidOption(option, each, expected)
    return paths


def _methods(methods: object) -> frozenset[str] | None:
    if methods is None:
        return None
    if isinstance(methods, str) or not isinstance(methods, Collection) or not methods:
        raise InvalidOption("methods", methods, 'several names: ["POST"]')
    named = frozenset(str(each).upper() for each in methods)
    if unknown := named - _METHODS:
        expected = f"methods of HTTP: {', '.join(sorted(_METHODS))}"
        raise InvalidOption("methods", min(unknown), expected)
    return named | {"HEAD"} if "GET" in named else named


def _key(key: object) -> Any:
    if callable(key):
        return _function("key", key)
    if key in KEYS:
        return key
    expected = "'ip', 'global', 'route' or a function of the request"
    raise InvalidOption("key", key, expected)


def _function(option: str, value: object, takes: str = "request") -> Any:
    if value is None or (callable(value) and _takes_one(value)):
        return value
    raise InvalidOption(option, value, f"a function of the {takes}: f({takes})")


def _takes_one(function: Callable[..., object]) -> bool:
    try:
        signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:  # of something built in, which does not tell
        return True
    return True


def _statuses(given: object) -> frozenset[int] | None:
    if given is None:
        return None
    statuses = given if isinstance(given, set | frozenset | list | tuple) else ()
    if statuses and all(isinstance(each, int) and 100 <= each <= 599 for each in statuses):
        return frozenset(statuses)
    raise InvalidOption("count_statuses", given, "statuses that count: {401, 403}")


def _message(message: object) -> Any:
    if callable(message):
        return _function("message", message)
    if message is None or isinstance(message, str):
        return message
    expected = "a text, a dict for JSON, or a function of the request"
    if isinstance(message, Mapping):
        try:
            json.dumps(message := dict(message))
        except (TypeError, ValueError):
            expected = "a dict for JSON: texts, numbers, True, False, None, lists and dicts"
        else:
            return message
    raise InvalidOption("message", message, expected)


def _status(status: object) -> int:
    if isinstance(status, int) and 400 <= status <= 599:
        return status
    raise InvalidOption("status", status, "a status from 400 to 599")


def _flag(option: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise InvalidOption(option, value, "True or False")


def _on_error(value: object) -> Any:
    return None if value is None else one_of("on_store_error", value, ON_ERROR)


def one_of(option: str, value: object, known: Sequence[str]) -> Any:
    if value in known:
        return value
    raise InvalidOption(option, value, f"one of {', '.join(map(repr, known))}")


def _name(name: object) -> str | None:
    if name is None:
        return None
    # It stands in headers as a string of RFC 9651, section 3.3.3.
    if isinstance(name, str) and name and name.isascii() and name.isprintable():
        return name
    raise InvalidOption("name", name, "printable ASCII that is not empty")
