"""BullMQ in Node. Its operations are in bullmq.mjs."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.contestants import NodePackages
from benchmarks.queues.contestant import Contestant


class BullmqNode(NodePackages, Contestant):
    title = "BullMQ, Node"
    remark = (
        "keeps no completed jobs (removeOnComplete), else defaults: events, locks, at least once"
    )
    packages = ("node", "bullmq", "ioredis")
    parts = frozenset({"enqueue", "bulk", "drain", "pickup", "memory", "depth"})
    settings: ClassVar = {
        "enqueue": ("100 tasks", "100 tasks, auto-pipelining"),
        "drain": ("50 at once", "100 at once", "200 at once", "100 at once, auto-pipelining"),
    }

    @classmethod
    def command(cls) -> list[str]:
        return cls.node(str(cls.folder() / "bullmq.mjs"))


CONTESTANT = BullmqNode
