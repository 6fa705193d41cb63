"""hasten with its Redis engine."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.jobs_redis.asynchronous import OnUvloop
from benchmarks.queues.hasten import Hasten


class HastenRedis(OnUvloop, Hasten):
    remark = "keeps no completed jobs; events and locks as BullMQ's; at least once"
    packages = ("hasten", "redis", "hiredis", "uvloop")
    parts = frozenset({"enqueue", "bulk", "drain", "pickup", "memory", "depth"})
    settings: ClassVar = {
        "enqueue": ("100 tasks",),
        "drain": ("100 at once", "200 at once", "400 at once"),
    }
    worker_options: ClassVar = {"keep_completed": False}

    def url(self) -> str:
        return self.location


CONTESTANT = HastenRedis
