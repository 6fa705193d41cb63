"""Counts on Redis, Valkey and what else speaks their protocol."""

from hasten.ratelimit._stores.redis.store import DEFAULT_PREFIX, RedisStore

__all__ = ["DEFAULT_PREFIX", "RedisStore"]
