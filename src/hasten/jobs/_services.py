"""Run the internal tasks of a worker, in an event loop that it shares with handlers.

A handler can cancel any task of the loop, and some cancel all of them to clean up. A service that
was cancelled like that is started again. A service that fails is reported and started once more,
because the outcomes of jobs must still be stored while the worker stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from typing import Any, Final

from hasten._logs import get_logger

logger = get_logger("hasten.worker")

# An event loop that ends cancels all its tasks, too. It is closed before this time has passed.
RESTART_SECONDS: Final = 0.1

Service = Callable[[], Coroutine[Any, Any, None]]


class Services:
    """Keeps services running until `end` is called or the event loop ends."""

    def __init__(
        self,
        worker: str,
        *,
        failed: Callable[[BaseException], None],
        loop_ended: Callable[[], None],
    ) -> None:
        self._worker = worker
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._cancelled: list[Service] = []
        self._have_failed: set[Service] = set()
        self._is_over = False
        self._life = self._until_loop_ends(loop_ended)

    async def open(self) -> None:
        """Begin to watch for the end of the event loop."""
        await anext(self._life)

    async def _until_loop_ends(self, loop_ended: Callable[[], None]) -> AsyncGenerator[None, None]:
        """Call loop_ended when the event loop ends: it closes its asynchronous generators."""
        try:
            yield
        finally:
            self._is_over = True
            loop_ended()

    def start(self, service: Service) -> None:
        """Start a service, and keep it running."""
        task = self._loop.create_task(service())
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, service))

    def _ended(self, service: Service, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._is_over:
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error(
                    "worker %s: an internal task failed while the worker ended",
                    self._worker, exc_info=error,
                )  # fmt: skip
        elif task.cancelled():
            self._start_later(service)
        elif (error := task.exception()) is not None:
            if service not in self._have_failed:
                self._have_failed.add(service)
                self._start_later(service)
            self._failed(error)

    def _start_later(self, service: Service) -> None:
        if not self._cancelled:
            self._loop.call_later(RESTART_SECONDS, self._restart)
        self._cancelled.append(service)

    def _restart(self) -> None:
        services, self._cancelled = self._cancelled, []
        if self._is_over:
            return
        for service in services:
            self.start(service)
        if cancelled := [service for service in services if service not in self._have_failed]:
            logger.warning(
                "worker %s: internal tasks were cancelled (%d), probably by a handler; restarted",
                self._worker, len(cancelled),
            )  # fmt: skip

    async def end(self) -> None:
        """Cancel all services, except the one that calls this."""
        self._is_over = True
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()
        await self._life.aclose()


def retrieve(task: asyncio.Task[Any]) -> None:
    """Retrieve the error of a task, as its callback. asyncio logs errors that nobody retrieves."""
    if not task.cancelled():
        task.exception()
