"""`ManualClock`: a clock whose time changes only when a test advances it."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from typing import Final

from hasten._checks import check_aware_datetime
from hasten._durations import Duration, to_nearest_ms

DEFAULT_START: Final = datetime(2030, 1, 1, tzinfo=UTC)


class ManualClock:
    """A clock whose time changes only when `advance` is called.

    Pass it to the store, `Store("memory://", clock=clock)`: all queues and limits of the store use
    it. `LoadSheddingMiddleware` has an option `clock`, too.

    - In queues, the clock determines when delayed and retried jobs are due, when jobs expire, how
      old finished jobs are, and all stored times.
    - In limits, it determines when windows and blocks end and how long a `Limiter` waits.
    - Not affected: leases on Redis, which expire by the clock of the server. The time-outs of jobs
      and stores, and the grace period of a worker, are in real time.

    start is the first time of the clock; it must have a time zone. The clock can be used from all
    threads and from several event loops.
    """

    def __init__(self, start: datetime = DEFAULT_START) -> None:
        self._now_ms = round(check_aware_datetime("start", start).timestamp() * 1000)
        self._lock = threading.Lock()
        self._asleep: set[_Sleeper] = set()

    def __repr__(self) -> str:
        return f"<ManualClock {self.now().isoformat()}>"

    def now_ms(self) -> int:
        """Return the time in whole milliseconds since the epoch."""
        return self._now_ms

    def now(self) -> datetime:
        """Return the time as a datetime in UTC, for options such as `at`."""
        return datetime.fromtimestamp(self._now_ms / 1000, UTC)

    def advance(self, duration: Duration) -> None:
        """Advance the time, and wake all tasks that sleep until the new time or earlier.

        The tasks run in their event loops after this call has returned, so a test has to await
        what they do, for example with `job.result(timeout=5)`.
        """
        duration_ms = to_nearest_ms("advance", duration)
        with self._lock:
            due = self._move_to(self._now_ms + duration_ms)
        for sleeper in due:
            sleeper.wake()

    def _move_to(self, now_ms: int) -> set[_Sleeper]:
        """Set the time, and return those who sleep until then or earlier. Holds the lock."""
        self._now_ms = now_ms
        due = {sleeper for sleeper in self._asleep if sleeper.due_ms <= now_ms}
        self._asleep -= due
        return due

    async def sleep_until(self, due_ms: int) -> None:
        """Wait until the clock has been advanced to due_ms or later; return at once if it has."""
        sleeper = _Sleeper(due_ms)
        with self._lock:
            if due_ms <= self._now_ms:
                return
            self._asleep.add(sleeper)
        try:
            await sleeper.awake
        finally:
            with self._lock:
                self._asleep.discard(sleeper)

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been advanced by this many seconds."""
        await self.sleep_until(self._now_ms + round(seconds * 1000))


class _Sleeper:
    """An asyncio task that sleeps until a time of the clock."""

    def __init__(self, due_ms: int) -> None:
        self.due_ms = due_ms
        self._loop = asyncio.get_running_loop()
        self.awake: asyncio.Future[None] = self._loop.create_future()

    def wake(self) -> None:
        """Wake the sleeping task. Can be called from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake_in_own_loop)

    def _wake_in_own_loop(self) -> None:
        """Wake the sleeping task. Must be called in the event loop of the task."""
        if not self.awake.done():
            self.awake.set_result(None)
