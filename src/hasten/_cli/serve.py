"""One process that works until it is told to stop: by a signal, or by the end of its parent.

The parent of a supervised process holds the other end of its standard input and never writes there.
When the pipe ends, because the parent closes it or has died of whatever, the process stops
gracefully. Unlike a signal this cannot be forgotten, reaches a process once however often it is
sent, and is the same on all systems.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from hasten._logs import get_logger
from hasten.jobs import Queue, Worker

logger = get_logger("hasten.cli")

# Jobs have been handed back by then; a thread that does not end is no reason to stay.
LEAVE_ANYWAY_SECONDS: Final = 3.0


def serve(worker: Worker, queues: Sequence[Queue], *, leash: int | None = None) -> None:
    """Work until told to stop. leash is a file whose end tells so, too."""
    asyncio.run(_serve(worker, queues, leash))


async def _serve(worker: Worker, queues: Sequence[Queue], leash: int | None) -> None:
    if leash is not None:
        loop = asyncio.get_running_loop()
        stop = partial(loop.call_soon_threadsafe, worker.request_stop)
        threading.Thread(target=_wait_for_end, args=(leash, stop), daemon=True).start()
    await worker.run()
    for queue in queues:
        await queue.aclose()
    _leave_anyway()


def take_leash() -> int:
    """Take the parent's pipe off standard input, so that handlers find nothing there."""
    leash = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return leash


def _wait_for_end(leash: int, stop: Callable[[], object]) -> None:
    while os.read(leash, 1):
        pass
    with contextlib.suppress(RuntimeError):  # the event loop has ended first
        stop()


def _leave_anyway() -> None:
    """End the process soon, even if Python would wait for threads: they cannot be killed."""

    def leave() -> None:
        logger.warning("the process ends although threads of handlers still run in it")
        logging.shutdown()
        os._exit(0)

    timer = threading.Timer(LEAVE_ANYWAY_SECONDS, leave)
    timer.daemon = True
    timer.start()


def describe(queue: Queue) -> str:
    """A queue in one line: what of it is served, and from where."""
    tasks = ", ".join(sorted(queue.tasks)) or "no tasks: each of its jobs will fail"
    return f"queue {queue.name} ({tasks}) in {queue.engine.url}"
