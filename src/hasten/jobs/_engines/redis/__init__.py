"""The Redis and Valkey engine. It stores jobs as BullMQ does, so both can serve the same queues."""

from hasten.jobs._engines.redis.redis_engine import RedisEngine

__all__ = ["RedisEngine"]
