"""`BackgroundServices`: runs a worker's internal tasks in the event loop of the handlers.

A handler can cancel any task of the loop, and some cancel all of them to clean up. So a service
that is cancelled is started again. A service that fails is reported to the worker, which stops. It
is started once more, because outcomes of jobs must still be stored while the worker stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from typing import Any, Final

from hasten._logs import get_logger

logger = get_logger("hasten.worker")

# A service that was cancelled is restarted after this time. If it was cancelled because the event
# loop is ending, the loop will be closed before that.
RESTART_SECONDS: Final = 0.1

Service = Callable[[], Coroutine[Any, Any, None]]


class BackgroundServices:
    """Keeps services (coroutine functions) running until `end` is called or the event loop ends.

    failed is called with the exception of a service. loop_ended is called when the event loop ends.
    """

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
        self._to_restart: list[Service] = []
        self._failed_once: set[Service] = set()
        self._is_over = False
        self._loop_watcher = self._call_when_loop_closes(loop_ended)

    async def open(self) -> None:
        """Start to watch for the end of the event loop. Called once, before `start`."""
        await anext(self._loop_watcher)

    async def _call_when_loop_closes(
        self, loop_ended: Callable[[], None]
    ) -> AsyncGenerator[None, None]:
        """Call loop_ended when the event loop ends.

        A loop closes its asynchronous generators then, such as this one.
        """
        try:
            yield
        finally:
            self._is_over = True
            loop_ended()

    def start(self, service: Service) -> None:
        """Start a service in a task, and keep it running."""
        task = self._loop.create_task(service())
        self._tasks.add(task)
        task.add_done_callback(partial(self._on_service_ended, service))

    def _on_service_ended(self, service: Service, task: asyncio.Task[None]) -> None:
        """Restart a service whose task was cancelled or has failed for the first time."""
        self._tasks.discard(task)
        if self._is_over:
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error(
                    "worker %s: an internal task failed while the worker was stopping",
                    self._worker, exc_info=error,
                )  # fmt: skip
        elif task.cancelled():
            self._schedule_restart(service)
        elif (error := task.exception()) is not None:
            if service not in self._failed_once:
                self._failed_once.add(service)
                self._schedule_restart(service)
            self._failed(error)

    def _schedule_restart(self, service: Service) -> None:
        """Start a service again after `RESTART_SECONDS`."""
        if not self._to_restart:
            self._loop.call_later(RESTART_SECONDS, self._restart_ended_services)
        self._to_restart.append(service)

    def _restart_ended_services(self) -> None:
        """Start the services again that were cancelled or have failed."""
        services, self._to_restart = self._to_restart, []
        if self._is_over:
            return
        for service in services:
            self.start(service)
        if cancelled := [service for service in services if service not in self._failed_once]:
            logger.warning(
                "worker %s: restarted %d internal tasks that were cancelled, probably by a handler",
                self._worker, len(cancelled),
            )  # fmt: skip

    async def cancel_all(self) -> None:
        """Cancel all services, except the one that makes this call."""
        self._is_over = True
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()
        await self._loop_watcher.aclose()


def mark_error_retrieved(task: asyncio.Task[Any]) -> None:
    """Retrieve the exception of a task. For `add_done_callback`.

    asyncio logs exceptions that nobody retrieves.
    """
    if not task.cancelled():
        task.exception()
