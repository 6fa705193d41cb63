"""A Python worker in a process of its own, to be killed.

    python -m tests.interop.doomed_worker <queue>

The store is HASTEN_URL.
"""

from __future__ import annotations

import asyncio
import sys

from hasten.jobs import Queue, Worker


async def main(name: str) -> None:
    queue = Queue(name)

    @queue.task
    async def echo() -> None:
        """Unlike the other workers' task of that name, it does not end."""
        await asyncio.Event().wait()

    await Worker(queue, lease=1).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
