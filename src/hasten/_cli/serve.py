"""Run a worker in this process until a signal or the end of the parent process stops it.

The parent of a supervised process holds the other end of its standard input and never writes to it.
When the pipe ends, because the parent has closed it or has died, the process stops gracefully.
Unlike a signal, this also works if the parent is killed, has an effect only once, and is the same
on all systems.
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

# How long to wait for threads after the worker has stopped: its jobs are handed back by then.
THREADS_SECONDS: Final = 3.0


def serve(worker: Worker, queues: Sequence[Queue], *, parent_pipe: int | None = None) -> None:
    """Run a worker until it is asked to stop, by a signal or the end of parent_pipe."""
    asyncio.run(_serve(worker, queues, parent_pipe))


async def _serve(worker: Worker, queues: Sequence[Queue], parent_pipe: int | None) -> None:
    if parent_pipe is not None:
        loop = asyncio.get_running_loop()
        stop = partial(loop.call_soon_threadsafe, worker.request_stop)
        threading.Thread(target=_wait_for_end, args=(parent_pipe, stop), daemon=True).start()
    await worker.run()
    for queue in queues:
        await queue.aclose()
    _exit_soon()


def take_parent_pipe() -> int:
    """Move the parent's pipe away from standard input, so that handlers read nothing from it."""
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return pipe


def _wait_for_end(pipe: int, stop: Callable[[], object]) -> None:
    while os.read(pipe, 1):
        pass
    with contextlib.suppress(RuntimeError):  # the event loop has ended first
        stop()


def _exit_soon() -> None:
    """End the process soon, also if threads still run, which Python would wait for."""

    def end() -> None:
        logger.warning("ending the process although threads of handlers are still running")
        logging.shutdown()
        os._exit(0)

    timer = threading.Timer(THREADS_SECONDS, end)
    timer.daemon = True
    timer.start()


def describe(queue: Queue) -> str:
    """Return a line that names a queue, its tasks and its store."""
    tasks = ", ".join(sorted(queue.tasks)) or "no tasks: all its jobs will fail"
    return f"queue {queue.name} ({tasks}) in {queue.engine.url}"
