"""Help for the tests of applications that use hasten.

With a `ManualClock`, a test does not wait for delayed jobs:

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

To test a handler alone, call its task like a function: `await send_reminder("ada@example.org")`.
That needs neither a queue nor a worker.
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

    In a queue it decides when delayed and retried jobs are due, when jobs expire, how old finished
    jobs are, and which times are stored. In limits it decides when windows, blocks and waits end.
    Leases on Redis expire by the clock of the server. The time-outs of runs, the grace period of a
    worker and the time-outs of a store are in real seconds.

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
        """Return the time as a datetime in UTC, for instance for the option `at`."""
        return datetime.fromtimestamp(self._now_ms / 1000, UTC)

    def advance(self, duration: Duration) -> None:
        """Advance the time, and wake the tasks whose time has come.

        They run after this call, when their event loop runs: await their effect, for instance with
        `job.result(timeout=5)`.
        """
        with self._lock:
            self._now_ms += to_ms("advance", duration)
            due = {sleeper for sleeper in self._asleep if sleeper.due_ms <= self._now_ms}
            self._asleep -= due
        for sleeper in due:
            sleeper.wake()

    async def sleep_until(self, due_ms: int) -> None:
        """Return once the clock was advanced to due_ms; at once if it has been."""
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
        """Return once the clock was advanced by so many seconds."""
        await self.sleep_until(self._now_ms + round(seconds * 1000))


class _Sleeper:
    """A task that sleeps until a time."""

    def __init__(self, due_ms: int) -> None:
        self.due_ms = due_ms
        self._loop = asyncio.get_running_loop()
        self.awake: asyncio.Future[None] = self._loop.create_future()

    def wake(self) -> None:
        """Wake the task, from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if not self.awake.done():
            self.awake.set_result(None)
