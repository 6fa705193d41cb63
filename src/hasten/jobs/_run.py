"""`Run`: one run of a job in a worker, and how it is stopped early."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final

from hasten._logs import get_logger
from hasten.jobs._children import Children
from hasten.jobs._context import Context
from hasten.jobs._record import JobRecord, Lease

logger = get_logger("hasten.worker")

# The interval at which a handler that is still running is requested to stop again.
REPEAT_STOP_SECONDS = 2.0

# If a handler in a thread is still running after so many requests, its thread is abandoned.
MAX_STOP_REQUESTS: Final = 2


class StopReason(Enum):
    """The reason for which a run is stopped early."""

    TIMEOUT = auto()  # the run has taken too long: the attempt fails
    CANCELLED = auto()  # the job was cancelled: it fails for good
    RELEASED = auto()  # the worker is stopping: the job is handed back
    LOST = auto()  # another worker has the lease of the job: the outcome of this run is discarded


class Run:
    """A job that this worker has leased and is running. Belongs to the worker's event loop."""

    __slots__ = (
        "_context",
        "_make_context",
        "_next_request",
        "_stop_requests",
        "_timer",
        "abandon",
        "began_at",
        "has_begun",
        "has_ended",
        "interrupt",
        "lease",
        "loop",
        "span",
        "stop_reason",
        "task",
    )

    def __init__(
        self,
        lease: Lease,
        loop: asyncio.AbstractEventLoop,
        make_context: Callable[[JobRecord], Context],
    ) -> None:
        self._make_context = make_context
        self._context: Context | None = None
        self.lease = lease
        self.loop = loop
        self.span: Any = None  # of OpenTelemetry, if tracing is on
        self.task: asyncio.Task[None] | None = None
        self.stop_reason: StopReason | None = None
        self.has_begun = False  # whether its asyncio task has executed its first step
        self.began_at: float | None = None  # by the clock of the event loop, if it is of interest
        self.has_ended = False  # whether the outcome is known; it may not be stored yet
        # Stops a handler in a thread or process. None if cancelling the task is enough.
        self.interrupt: Callable[[], None] | None = None
        # Ends the run without waiting for the handler any longer.
        self.abandon: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._next_request: asyncio.TimerHandle | None = None
        self._stop_requests = 0

    def elapsed_seconds(self) -> float:
        """Return for how long the run has lasted, 0 if its beginning was not recorded."""
        return 0.0 if self.began_at is None else self.loop.time() - self.began_at

    @property
    def context(self) -> Context:
        """The context of the job, made at the first access: most handlers use none."""
        if self._context is None:
            self._context = self._make_context(self.lease.job)
            if self.stop_reason is not None:
                self._context.stop()
            if self.has_ended:
                self._context.close()
        return self._context

    @property
    def used_children(self) -> Children | None:
        """The `Children` that the handler has used, None if it has used none."""
        return None if self._context is None else self._context.used_children

    def should_stop(self) -> bool:
        """Return whether the run was requested to stop."""
        return self.stop_reason is not None

    @property
    def is_timeout_started(self) -> bool:
        """Whether `start_timeout` was called, and not cancelled by `cancel_timeout`."""
        return self._timer is not None

    def start_timeout(self, seconds: float) -> None:
        """Stop the run with the reason `TIMEOUT` if it has not ended after this time."""
        self._timer = self.loop.call_later(seconds, self.request_stop, StopReason.TIMEOUT)

    def cancel_timeout(self) -> None:
        """Stop the timer of `start_timeout`, if it runs. It may be started again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def request_stop(self, reason: StopReason) -> None:
        """Request that the handler stops, for this reason, and repeat that until the run has ended.

        If the run is being stopped already, the first reason is kept, except that `LOST` replaces
        it.
        """
        if self.has_ended:
            return
        if self.stop_reason is not None:
            if reason is StopReason.LOST:
                self.stop_reason = reason
            return
        self.stop_reason = reason
        if self._context is not None:
            self._context.stop()
        self._interrupt_or_cancel()

    def _interrupt_or_cancel(self) -> None:
        """Ask the run to stop, and do so again after a while if it still runs.

        The handler is interrupted, or the task is cancelled.
        """
        # First, because the rest may raise: the application's logging code may have errors.
        self._next_request = self.loop.call_later(REPEAT_STOP_SECONDS, self._interrupt_or_cancel)
        job = self.lease.job
        if self.abandon is not None and self._stop_requests >= MAX_STOP_REQUESTS:
            self.abandon()
        elif self._stop_requests:
            logger.warning(
                "job %s (%s) is still running after being asked to stop (%s)",
                job.id, job.name, self.stop_reason.name.lower() if self.stop_reason else "",
            )  # fmt: skip
        self._stop_requests += 1
        if self.interrupt is not None:
            self.interrupt()
        elif self.task is not None and self.has_begun:
            self.task.cancel()
        # A task that has not begun is not cancelled, because it would never run, and the job would
        # have no outcome. It calls `should_stop` when it begins.

    def mark_ended(self) -> None:
        """Record that the outcome is known, and cancel the timers."""
        self.has_ended = True
        if self._context is not None:
            self._context.close()  # what threads and tasks of the handler still report is dropped
        if self._timer is not None:
            self._timer.cancel()
        if self._next_request is not None:
            self._next_request.cancel()
