"""One run of a job, and how it is made to end before its time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from hasten._logs import get_logger
from hasten.jobs._record import Lease

logger = get_logger("hasten.worker")

# A handler that goes on after it was told to end is told again, this often.
INSIST_SECONDS = 2.0

# Told so many times in vain, a handler that can be left behind is.
TELL_AT_MOST: Final = 2


class Stop(Enum):
    """Why a run is made to end."""

    TIMEOUT = auto()  # it has taken too long: the attempt failed
    CANCELLED = auto()  # somebody has cancelled the job: it fails for good
    RELEASED = auto()  # the worker stops: the job is handed back
    LOST = auto()  # another worker owns the job: whatever comes of this run is dropped


class Run:
    """A leased job while a worker runs it. Belongs to the worker's event loop."""

    __slots__ = (
        "_insisting",
        "_timer",
        "_told",
        "abandon",
        "has_begun",
        "has_ended",
        "interrupt",
        "lease",
        "loop",
        "on_stop",
        "stop_reason",
        "task",
    )

    def __init__(self, lease: Lease, loop: asyncio.AbstractEventLoop) -> None:
        self.lease = lease
        self.loop = loop
        self.task: asyncio.Task[None] | None = None
        self.stop_reason: Stop | None = None
        self.has_begun = False
        self.has_ended = False  # what came of it is known, and may not be stored yet
        # How to end it: cancels the coroutine unless the handler runs elsewhere.
        self.interrupt: Callable[[], None] | None = None
        # How to end the run though the handler does not end.
        self.abandon: Callable[[], None] | None = None
        self.on_stop: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._insisting: asyncio.TimerHandle | None = None
        self._told = 0

    def told_to_end(self) -> bool:
        return self.stop_reason is not None

    def limit(self, seconds: float) -> None:
        """Let the run end with a time-out after so many seconds."""
        self._timer = self.loop.call_later(seconds, self.stop, Stop.TIMEOUT)

    def stop(self, reason: Stop) -> None:
        """Make the run end. The first reason stays, but for the loss of the lease."""
        if self.has_ended:
            return
        if self.stop_reason is not None:
            if reason is Stop.LOST:
                self.stop_reason = reason
            return
        self.stop_reason = reason
        if self.on_stop is not None:
            self.on_stop()
        self._insist()

    def _insist(self) -> None:
        # First of all: what follows may fail, for logging is the application's.
        self._insisting = self.loop.call_later(INSIST_SECONDS, self._insist)
        job = self.lease.job
        if self.abandon is not None and self._told >= TELL_AT_MOST:
            self.abandon()
        elif self._told:
            logger.warning(
                "job %s (%s) is still running after being asked to stop (%s)",
                job.id, job.name, self.stop_reason.name.lower() if self.stop_reason else "",
            )  # fmt: skip
        self._told += 1
        if self.interrupt is not None:
            self.interrupt()
        elif self.task is not None and self.has_begun:
            self.task.cancel()
        # A task that is cancelled before its first step never takes it, and nothing would come of
        # the run. It finds that it was told to end when it begins.

    def ended(self) -> None:
        """What came of it is known: stop the clocks."""
        self.has_ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self._insisting is not None:
            self._insisting.cancel()
