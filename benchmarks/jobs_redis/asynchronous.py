"""What the contestants on Redis that use asyncio have in common."""

from __future__ import annotations

import asyncio
import contextlib
import os
import traceback
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from benchmarks.queues.asynchronous import AsyncContestant

T = TypeVar("T")


class OnUvloop(AsyncContestant):
    """Runs on uvloop, with which all of them are faster."""

    def loop(self, work: Coroutine[Any, Any, T]) -> T:
        import uvloop

        result: T = uvloop.run(work)
        return result


@contextlib.asynccontextmanager
async def running(worker: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Run a worker until the end of the block."""
    task = asyncio.create_task(worker)
    task.add_done_callback(exit_on_failure)
    try:
        yield
    finally:
        task.remove_done_callback(exit_on_failure)
        while not task.done():  # some libraries ignore a cancellation now and then
            task.cancel()
            await asyncio.wait([task], timeout=1)


def exit_on_failure(task: asyncio.Task[object]) -> None:
    """End the process of a worker that failed: nobody would run the jobs that it waits for."""
    if not task.cancelled() and (error := task.exception()) is not None:
        traceback.print_exception(error)
    os._exit(1)
