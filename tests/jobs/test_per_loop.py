"""State that a queue keeps for each event loop."""

from __future__ import annotations

import asyncio
import gc
import weakref

from hasten.jobs import Queue


def test_a_queue_forgets_event_loops_that_are_closed() -> None:
    """A script may call `asyncio.run` any number of times with one queue."""
    queue = Queue("mail", "memory://")
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def add() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await queue.add("send")

    for _ in range(5):
        asyncio.run(add())
    gc.collect()
    assert [loop for loop in loops[:-1] if loop() is not None] == []
    asyncio.run(queue.aclose())
