"""What the contestants on Redis that are written for asyncio have in common."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from benchmarks.queues.asynchronous import AsyncContestant

T = TypeVar("T")


class OnUvloop(AsyncContestant):
    """Runs on uvloop, with which all of them are faster."""

    def loop(self, work: Coroutine[Any, Any, T]) -> T:
        import uvloop

        return uvloop.run(work)
