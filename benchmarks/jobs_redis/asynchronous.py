"""The base class of the contestants on Redis that use asyncio."""

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
    """A contestant that runs on uvloop, because all asyncio contestants are faster with it."""

    def loop(self, work: Coroutine[Any, Any, T]) -> T:
        import uvloop

        result: T = uvloop.run(work)
        return result


@contextlib.asynccontextmanager
async def running(worker: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """A context in which a worker runs."""
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
    """End the process when its worker has failed: else it would wait for jobs that nobody runs."""
    if not task.cancelled() and (error := task.exception()) is not None:
        traceback.print_exception(error)
    os._exit(1)
