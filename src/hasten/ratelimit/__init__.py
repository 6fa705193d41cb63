"""Limits on how much a client may ask for, fair and exact when many ask at once."""

from hasten.ratelimit.limiter import Decision, Limiter
from hasten.ratelimit.rates import Rate
from hasten.ratelimit.stores.memory import MemoryStore

__all__ = ["Decision", "Limiter", "MemoryStore", "Rate"]
