"""BullMQ in Node, its home: the verbs are in bullmq.mjs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar, Final

from benchmarks.queues.contestant import Contestant

FOLDER: Final = Path(__file__).parents[1]


class BullmqNode(Contestant):
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
        return [shutil.which("node") or "node", str(FOLDER / "bullmq.mjs")]

    @classmethod
    def version(cls, package: str) -> str | None:
        node = shutil.which("node")
        if node is None:
            return None
        if package == "node":
            return subprocess.check_output([node, "--version"], text=True).strip()
        manifest = FOLDER / "node_modules" / package / "package.json"
        if not manifest.exists():
            return None
        return str(json.loads(manifest.read_text("utf-8"))["version"])


CONTESTANT = BullmqNode
