"""The rate limit store on Redis, Valkey and other servers with the same protocol."""

from hasten.ratelimit._stores.redis.store import DEFAULT_PREFIX, RedisStore

__all__ = ["DEFAULT_PREFIX", "RedisStore"]
