"""Limits on how much a client may ask for, fair and exact when many ask at once."""

from hasten.ratelimit.context import Context
from hasten.ratelimit.current import CurrentLimit, SyncCurrentLimit, current_limit
from hasten.ratelimit.decisions import Counters, Decided
from hasten.ratelimit.limit import Limit
from hasten.ratelimit.limiter import Decision, Limiter, SyncLimiter
from hasten.ratelimit.limits import Limits, SyncLimits
from hasten.ratelimit.middleware import RateLimitMiddleware
from hasten.ratelimit.rates import Rate
from hasten.ratelimit.routes import limit
from hasten.ratelimit.shedding import LoadShedder, Shed
from hasten.ratelimit.stores import MemoryStore, open_store

__all__ = [
    "Context",
    "Counters",
    "CurrentLimit",
    "Decided",
    "Decision",
    "Limit",
    "Limiter",
    "Limits",
    "LoadShedder",
    "MemoryStore",
    "Rate",
    "RateLimitMiddleware",
    "Shed",
    "SyncCurrentLimit",
    "SyncLimiter",
    "SyncLimits",
    "current_limit",
    "limit",
    "open_store",
]
