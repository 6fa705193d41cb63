"""Build the checks of a request. Calls the functions of its limits: key, cost, skip and rate.

If a function raises or returns an invalid value, the request does not fail. What happens instead
depends on the function, and the traceback is logged at most once a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from inspect import isawaitable
from typing import Final, TypeVar

from hasten._asgi import Scope
from hasten._checks import check_whole_number
from hasten._repeated_errors import ThrottledErrorLog
from hasten._request_info import RequestInfo
from hasten.ratelimit._counter_store import CheckGroup, OnStoreError
from hasten.ratelimit._http.limit import Limit, MaybeAwaitable
from hasten.ratelimit._http.limit_options import key_to_text
from hasten.ratelimit._http.operator_warnings import OperatorWarnings
from hasten.ratelimit._http.plans import LimitPlan
from hasten.ratelimit._rates import MAX_LIMIT
from hasten.ratelimit._rules import Rule

T = TypeVar("T")

_KEY_FAILED: Final[Mapping[OnStoreError, str]] = {
    "local": "the request is counted by the client's address",
    "allow": "the request is not counted",
    "deny": "the request is refused",
}

_RATE_FAILED: Final[Mapping[OnStoreError, str]] = {
    "local": "the lowest rate that it returned before applies, if there is one",
    "allow": "the request is not counted",
    "deny": "the request is refused",
}


class LimitFunctionFailed(Exception):
    """A function of a limit failed, and on_store_error="deny" refuses the request."""

    def __init__(self, limit: Limit) -> None:
        super().__init__(limit.name)
        self.limit = limit


class CheckBuilder:
    """Builds the checks of requests: by which key, at which rate and at which cost limits count.

    on_error is the on_store_error of the middleware, for limits that do not set their own.
    """

    def __init__(
        self, on_error: OnStoreError, errors: ThrottledErrorLog, warnings: OperatorWarnings
    ) -> None:
        self._on_error: OnStoreError = on_error
        self._errors = errors
        self._warnings = warnings
        self._rates: dict[Limit, ReturnedRateCache] = {}

    async def build_check_groups(
        self, request: RequestInfo, plan: LimitPlan, find_route_path: Callable[[Scope], str]
    ) -> tuple[list[Limit], list[CheckGroup]]:
        """Return the limits of the plan that count a request, and a group of checks for each.

        Limits are left out if their skip, key or rate function excludes the request.
        find_route_path returns the path of a request, for limits with key="route". Raises
        `LimitFunctionFailed`.
        """
        limits: list[Limit] = []
        groups: list[CheckGroup] = []
        for limit in plan.limits:
            if limit.skip is not None and await self._is_skipped(request, limit):
                continue
            key = await self._find_key_if_counted(request, limit, find_route_path)
            if key is None:
                continue
            rules: Sequence[Rule] = limit.rules
            if limit.rate_of is not None:
                rules = await self._find_rules(request, limit)
                if not rules:
                    continue
            cost = (
                limit.cost if isinstance(limit.cost, int) else await self._find_cost(request, limit)
            )
            limits.append(limit)
            groups.append(limit.make_checks(key, cost, rules, self._on_error))
        return limits, groups

    async def _find_key_if_counted(
        self, request: RequestInfo, limit: Limit, find_route_path: Callable[[Scope], str]
    ) -> str | None:
        """Return the key that the limit counts a request by; None if the request is not counted."""
        if limit.key == "ip":
            return request.client
        if limit.key == "global":
            return "global"
        if limit.key == "route":
            return f"{request.client} {find_route_path(request.scope)}"
        try:
            key = await await_if_needed(limit.key(request))
            if key is None:
                return None
            text = key_to_text(key)
        except Exception:  # noqa: BLE001  # raised by the application's function
            # The key is unknown. Not counting the request would be a way to bypass the limit.
            policy = self._log_failure_and_get_policy(limit, "key", _KEY_FAILED)
            return request.client if policy == "local" else None
        if text != request.client and text == (request.scope.get("client") or (None,))[0]:
            self._warnings.warn_once("KEY_ADDRESS", limit.name)
        return text

    async def _is_skipped(self, request: RequestInfo, limit: Limit) -> bool:
        assert limit.skip is not None
        try:
            return bool(await await_if_needed(limit.skip(request)))
        except Exception:  # noqa: BLE001  # raised by the application's function
            self._errors.exception(f"limit {limit.name!r}: skip() failed; the request is counted")
            return False

    async def _find_rules(self, request: RequestInfo, limit: Limit) -> Sequence[Rule]:
        """Return the rules for the rate that the limit's function returns for a request.

        Returns () if the function failed and the request is not counted.
        """
        assert limit.rate_of is not None
        rates = self._rates.get(limit)
        if rates is None:
            rates = self._rates[limit] = ReturnedRateCache(limit)
        try:
            return rates.parse(await await_if_needed(limit.rate_of(request)))
        except Exception:  # noqa: BLE001  # raised by the application's function
            policy = self._log_failure_and_get_policy(limit, "rate", _RATE_FAILED)
            return rates.lowest if policy == "local" else ()

    async def _find_cost(self, request: RequestInfo, limit: Limit) -> int:
        assert callable(limit.cost)
        try:
            return check_whole_number(
                "cost", await await_if_needed(limit.cost(request)), 0, MAX_LIMIT
            )
        except Exception:  # noqa: BLE001  # raised by the application's function
            self._errors.exception(f"limit {limit.name!r}: cost() failed; the request costs 1")
            return 1

    def _log_failure_and_get_policy(
        self, limit: Limit, option: str, log_texts: Mapping[OnStoreError, str]
    ) -> OnStoreError:
        """Log that the function of an option failed, and return the on_store_error of the limit.

        log_texts has for each on_store_error what the log says about the consequence. Raises
        `LimitFunctionFailed` if on_store_error is "deny".
        """
        policy: OnStoreError = limit.on_store_error or self._on_error
        self._errors.exception(f"limit {limit.name!r}: {option}() failed; {log_texts[policy]}")
        if policy == "deny":
            raise LimitFunctionFailed(limit)
        return policy


class ReturnedRateCache:
    """A cache of rules. Its keys are the rates that the `rate` function of one limit returned."""

    def __init__(self, limit: Limit) -> None:
        self.lowest: tuple[Rule, ...] = ()
        """The rules of the lowest rate so far, which apply if the function fails."""
        self._limit = limit
        self._parse = lru_cache(256)(self._parse_uncached)

    def parse(self, rate: object) -> tuple[Rule, ...]:
        """Return the rules for a rate that the function returned. Raises `InvalidOption`."""
        return self._parse(tuple(rate) if isinstance(rate, list) else rate)

    def _parse_uncached(self, rate: object) -> tuple[Rule, ...]:
        rules = self._limit.parse_returned_rate(rate)
        if not self.lowest or _find_lowest_rate_per_us(rules) < _find_lowest_rate_per_us(
            self.lowest
        ):
            self.lowest = rules
        return rules


def _find_lowest_rate_per_us(rules: Sequence[Rule]) -> float:
    """Return the cost per microsecond that the strictest of these rates allows in the long run."""
    return min(rule.limit / rule.window_us for rule in rules)


async def await_if_needed(value: MaybeAwaitable[T]) -> T:
    """Return a value, or its result if it is awaitable."""
    return await value if isawaitable(value) else value
