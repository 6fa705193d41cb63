"""Limits on how much a client may request, fair and exact when many request at once."""

from hasten._decision import Decision
from hasten._request_info import RequestInfo
from hasten.ratelimit.counter_store import (
    Check,
    CheckGroup,
    CounterStore,
    OnStoreError,
    Outcome,
    Settlement,
    Token,
)
from hasten.ratelimit.current import CurrentLimit, SyncCurrentLimit, current_limit
from hasten.ratelimit.definitions import (
    ConcurrencyOptions,
    Limit,
    LimitKey,
    MaybeAwaitable,
    Per,
    RateLike,
    RateOption,
    RouteOptions,
)
from hasten.ratelimit.exemptions import exempt
from hasten.ratelimit.limiter import Limiter, SyncLimiter
from hasten.ratelimit.limits import Limits, SyncLimits
from hasten.ratelimit.middleware import RateLimitMiddleware
from hasten.ratelimit.rates import Rate, Rates
from hasten.ratelimit.routes import limit
from hasten.ratelimit.rules import Algorithm, Rule, RuleKind
from hasten.ratelimit.shedding import LoadSheddingMiddleware, Shed
from hasten.ratelimit.stats import LimitStats, LoadSheddingStats, RateLimitStats
from hasten.ratelimit.stores import MemoryStore

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
    "LoadSheddingMiddleware",
    "LoadSheddingStats",
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
    "RouteOptions",
    "Rule",
    "RuleKind",
    "Settlement",
    "Shed",
    "SyncCurrentLimit",
    "SyncLimiter",
    "SyncLimits",
    "Token",
    "current_limit",
    "exempt",
    "limit",
]
