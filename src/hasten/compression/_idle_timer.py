"""A timer that runs an action when nothing has happened for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class IdleTimer:
    """Runs an action if `restart` is not called again for some seconds.

    If seconds is None, the action never runs. It runs in a task of its own. If it raises an
    exception, the exception is stored in `failure`, so that the owner of the timer can raise it.
    """

    __slots__ = ("_action", "_loop", "_seconds", "_since", "_task", "_timer", "failure")

    def __init__(self, seconds: float | None, action: Callable[[], Awaitable[None]]) -> None:
        self._seconds = seconds
        self._action = action
        if seconds is not None:
            self._loop = asyncio.get_running_loop()
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.failure: Exception | None = None

    def restart(self) -> None:
        """Start the idle time from zero. Call it after each activity."""
        if self._seconds is not None:
            self._since = self._loop.time()
            # A running timer is not replaced: it reads _since when it fires, and may wait again.
            # Cancelling and starting a timer for each chunk would cost more than the chunk.
            if self._timer is None:
                self._timer = self._loop.call_later(self._seconds, self._on_timer)

    def stop(self) -> None:
        """Stop the timer. An action that is running already continues."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def stop_and_cancel_action(self) -> None:
        """Stop the timer, cancel the action if it is running, and wait for its end."""
        self.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _on_timer(self) -> None:
        assert self._seconds is not None
        due = self._since + self._seconds
        if self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._on_timer)
            return
        self._timer = None
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._run_action())

    async def _run_action(self) -> None:
        try:
            await self._action()
        except Exception as error:  # noqa: BLE001 - reported by the next sender
            self.failure = error
