"""Report in regular intervals, from a thread, that a worker runs.

The thread is not that of the leases: a store that hangs must not delay the renewal of leases in
another store. For the same reason each store has a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

FIRST_SECONDS: Final = 1.0
LAST_SECONDS: Final = 5.0
BEATS_PER_LEASE: Final = 4
LOST_BEATS: Final = 3


class Heartbeat:
    """Calls a function at once and then every few seconds, in a thread, until it is stopped."""

    def __init__(self, lease_ms: int, report: Callable[[], None]) -> None:
        self._seconds = report_interval_seconds(lease_ms)
        self._report = report  # must not raise
        self._is_stopped = threading.Event()
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._report_until_stopped, name="hasten heartbeat", daemon=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Call the function no more, and end the thread."""
        self._is_stopped.set()

    async def wait_for_thread_end(self, timeout_seconds: float) -> None:
        """Wait until the thread has ended, for at most timeout_seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                # If the caller is cancelled, the future must not be: it may be awaited again.
                await asyncio.shield(asyncio.wrap_future(self._ended))

    def _report_until_stopped(self) -> None:
        try:
            while not self._is_stopped.is_set():
                self._report()
                self._is_stopped.wait(self._seconds)
        finally:
            self._ended.set_result(None)


def report_interval_seconds(lease_ms: int) -> float:
    """Return the seconds between two reports of a worker with this lease."""
    return min(max(lease_ms / 1000 / BEATS_PER_LEASE, FIRST_SECONDS), LAST_SECONDS)


def report_lifetime_ms(lease_ms: int) -> int:
    """Return after how long without a report a worker counts as dead.

    This is at least lease_ms, because its jobs may be taken back only then.
    """
    return max(lease_ms, int(LOST_BEATS * 1000 * report_interval_seconds(lease_ms)))
