"""Jobs on Redis or Valkey, in BullMQ's layout: Node and Python serve the same queues."""

from hasten.jobs._engines.redis.redis_engine import RedisEngine

__all__ = ["RedisEngine"]
