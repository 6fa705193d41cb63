"""Run the async work of a command on a queue. The store of the queue must exist."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from hasten.jobs import Queue

T = TypeVar("T")


def run_in_existing_store(queue: Queue, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Call an async function that uses a queue, close the queue, and return the result.

    Raises `StoreUnavailable` if the store does not exist, instead of creating it.
    """

    async def run() -> T:
        try:
            queue.engine.require_existing_store()
            return await work()
        finally:
            await queue.aclose()

    return asyncio.run(run())
