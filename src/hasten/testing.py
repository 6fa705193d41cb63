"""Tools for tests of applications that use hasten.

With a `ManualClock`, a test can let days pass at once:

    async def test_reminds_after_a_week() -> None:
        clock = ManualClock()
        store = Store("memory://", clock=clock)
        queue = Queue("mail", store)
        remind = queue.task(send_reminder)
        job = await remind.using(delay=timedelta(days=7)).enqueue("ada@example.org")
        async with Worker(queue):
            clock.advance(timedelta(days=7))
            await job.result(timeout=5)
        await store.aclose()

A task can be called like its function, `await send_reminder("ada@example.org")`: tests of a handler
need neither a queue nor a worker.
"""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from typing import Final

from hasten._checks import check_time
from hasten._durations import Duration, to_ms

__all__ = ["ManualClock"]

DEFAULT_START: Final = datetime(2030, 1, 1, tzinfo=UTC)


class ManualClock:
    """A clock whose time changes only by `advance`: `Store("memory://", clock=clock)`.

    `hasten.Store` takes it as its option `clock`. Queues, limits and `LoadSheddingMiddleware` use
    the clock of their store.

    In a queue it decides when delayed and retried jobs are due, when jobs expire, the age of
    finished jobs, and all stored times. In limits it moves windows, blocks and waits. Leases on
    Redis expire by the clock of the server. The time-out of a run, a worker's grace and the
    time-outs of a store are in real seconds.

    start must have a time zone. Safe to use from any thread and from several event loops.
    """

    def __init__(self, start: datetime = DEFAULT_START) -> None:
        self._now_ms = round(check_time("start", start).timestamp() * 1000)
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
        """Advance the time, and wake the tasks that sleep until then.

        They run in their event loops after this call: await their effects, such as
        `job.result(timeout=5)`.
        """
        with self._lock:
            self._now_ms += to_ms("advance", duration)
            due = {sleeper for sleeper in self._asleep if sleeper.due_ms <= self._now_ms}
            self._asleep -= due
        for sleeper in due:
            sleeper.wake()

    async def sleep_until(self, due_ms: int) -> None:
        """Return when the clock has reached due_ms; at once if it already has."""
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
        """Return when the clock was advanced by this many seconds."""
        await self.sleep_until(self._now_ms + round(seconds * 1000))


class _Sleeper:
    """A task that waits for a time, in an event loop."""

    def __init__(self, due_ms: int) -> None:
        self.due_ms = due_ms
        self._loop = asyncio.get_running_loop()
        self.awake: asyncio.Future[None] = self._loop.create_future()

    def wake(self) -> None:
        """Wake the task. Can be called from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if not self.awake.done():
            self.awake.set_result(None)
