"""hasten with its SQLite engine."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from benchmarks.queues.hasten import Hasten


class HastenSqlite(Hasten):
    remark = (
        "defaults: every commit but claims is flushed; finished jobs keep their results and events"
    )
    packages = ("hasten", "msgspec", "opentelemetry-sdk")
    parts = frozenset(
        {"enqueue", "bulk", "lone", "drain", "pickup", "pickup_here", "depth", "metrics", "tracing"}
    )
    settings: ClassVar = {
        "enqueue": ("100 tasks",),
        "drain": ("50 at once", "100 at once", "200 at once", "500 at once"),
    }

    def url(self) -> str:
        return f"sqlite:///{Path(self.location) / 'hasten.db'}"


CONTESTANT = HastenSqlite
