from __future__ import annotations

from tests.jobs.conftest import clock, memory, queue, store, url

__all__ = ["clock", "memory", "queue", "store", "url"]
