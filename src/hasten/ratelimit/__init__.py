"""Rate limits for HTTP requests, jobs and calls of external APIs."""

from hasten._decision import Decision
from hasten._request_info import RequestInfo
from hasten.ratelimit._counter_store import (
    Check,
    CheckGroup,
    CounterStore,
    OnStoreError,
    Outcome,
    Reservation,
    Settlement,
)
from hasten.ratelimit._http.current_limit import CurrentLimit, SyncCurrentLimit, current_limit
from hasten.ratelimit._http.limit import (
    ConcurrencyOptions,
    Limit,
    LimitKey,
    MaybeAwaitable,
    Per,
    RateLike,
    RateOption,
    RouteOptions,
)
from hasten.ratelimit._http.limits import Limits, SyncLimits
from hasten.ratelimit._http.middleware import RateLimitMiddleware
from hasten.ratelimit._http.registry import exempt
from hasten.ratelimit._http.route_limits import limit
from hasten.ratelimit._http.stats import LimitStats, RateLimitStats
from hasten.ratelimit._limiter import Limiter, SyncLimiter
from hasten.ratelimit._rates import Rate, Rates
from hasten.ratelimit._rules import Algorithm, Rule, RuleKind
from hasten.ratelimit._stores import MemoryStore

__all__ = [
    "Algorithm",
    "Check",
    "CheckGroup",
    "ConcurrencyOptions",
    "CounterStore",
    "CurrentLimit",
    "Decision",
    "Limit",
    "LimitKey",
    "LimitStats",
    "Limiter",
    "Limits",
    "MaybeAwaitable",
    "MemoryStore",
    "OnStoreError",
    "Outcome",
    "Per",
    "Rate",
    "RateLike",
    "RateLimitMiddleware",
    "RateLimitStats",
    "RateOption",
    "Rates",
    "RequestInfo",
    "Reservation",
    "RouteOptions",
    "Rule",
    "RuleKind",
    "Settlement",
    "SyncCurrentLimit",
    "SyncLimiter",
    "SyncLimits",
    "current_limit",
    "exempt",
    "limit",
]
