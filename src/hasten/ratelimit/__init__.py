"""Limits on how much a client may request, fair and exact when many request at once."""

from hasten._decision import Decision
from hasten._request_info import RequestInfo
from hasten.ratelimit.counter_store import Check, CounterStore, Outcome, Settlement, Token
from hasten.ratelimit.current import CurrentLimit, SyncCurrentLimit, current_limit
from hasten.ratelimit.definitions import ConcurrencyOptions, Limit, RouteOptions
from hasten.ratelimit.exemptions import exempt
from hasten.ratelimit.limiter import Limiter, SyncLimiter
from hasten.ratelimit.limits import Limits, SyncLimits
from hasten.ratelimit.middleware import RateLimitMiddleware
from hasten.ratelimit.rates import Rate
from hasten.ratelimit.routes import limit
from hasten.ratelimit.rules import Rule
from hasten.ratelimit.shedding import LoadSheddingMiddleware, Shed
from hasten.ratelimit.stats import LimitStats, LoadSheddingStats, RateLimitStats
from hasten.ratelimit.stores import MemoryStore

__all__ = [
    "Check",
    "ConcurrencyOptions",
    "CounterStore",
    "CurrentLimit",
    "Decision",
    "Limit",
    "LimitStats",
    "Limiter",
    "Limits",
    "LoadSheddingMiddleware",
    "LoadSheddingStats",
    "MemoryStore",
    "Outcome",
    "Rate",
    "RateLimitMiddleware",
    "RateLimitStats",
    "RequestInfo",
    "RouteOptions",
    "Rule",
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
