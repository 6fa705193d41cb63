"""Counts on Redis, Valkey and what else speaks their protocol."""

from hasten.ratelimit.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
