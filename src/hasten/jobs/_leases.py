"""Renew the leases of a worker's jobs, in a thread.

A handler may block the event loop, and a live worker must not lose its jobs for that. The same
thread looks for cancelled jobs, so that a handler that blocks the event loop can be stopped.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple

from hasten._clock import Clock
from hasten._logs import get_logger
from hasten.errors import StoreError
from hasten.jobs._engine import Engine
from hasten.jobs._outages import Outage
from hasten.jobs._run import Run, Stop

logger = get_logger("hasten.worker")

POLL_SECONDS: Final = 0.2  # how soon the cancellation of a job is noticed
RENEWALS_PER_LEASE: Final = 4


class LeaseKeeper:
    """Renews the leases of one worker's runs, and stops runs that are cancelled or lost."""

    def __init__(self, lease_ms: int) -> None:
        self._lease_ms = lease_ms
        self._queues: list[_Served] = []
        self._is_stopped = False
        self._wake = threading.Event()
        self._requests: SimpleQueue[Future[None]] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="hasten leases", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def serve(
        self, queue: str, engine: Callable[[], Engine], outage: Outage, clock: Clock
    ) -> dict[str, Run]:
        """Renew the leases of a queue. Returns its runs by job id, for the caller to change."""
        served = _Served(queue, engine, outage, clock, {})
        self._queues.append(served)
        return served.runs

    def stop(self) -> None:
        """Renew no more, and end the thread."""
        self._is_stopped = True
        self._wake.set()

    def renew(self) -> Future[None]:
        """Renew all leases now. The future is done when the store has renewed them or failed."""
        request: Future[None] = Future()
        self._requests.put(request)
        self._wake.set()
        return request

    def _serve(self) -> None:
        interval = self._lease_ms / 1000 / RENEWALS_PER_LEASE
        renew_at = time.monotonic() + interval
        while True:
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()
            if self._is_stopped:
                return
            requests = self._take_requests()
            if requests or time.monotonic() >= renew_at:
                renewed = self._for_each("renew the leases", self._renew)
                # After an outage the leases must be renewed before other workers take them back.
                renew_at = time.monotonic() + (interval if renewed else POLL_SECONDS)
                for request in requests:
                    if request.set_running_or_notify_cancel():
                        request.set_result(None)
            self._for_each("look for cancelled jobs", self._look_for_cancelled)

    def _take_requests(self) -> list[Future[None]]:
        requests: list[Future[None]] = []
        with contextlib.suppress(Empty):
            while True:
                requests.append(self._requests.get_nowait())
        return requests

    def _for_each(self, what: str, action: Callable[[_Served, dict[str, Run]], None]) -> bool:
        """Run an action for each queue that has runs. Returns whether it worked for all."""
        worked = True
        for served in self._queues:
            activity = f"{what} of queue {served.queue}"
            runs = served.runs.copy()  # atomic: the event loop changes it meanwhile
            if not runs:
                served.outage.succeeded(activity)
                continue
            try:
                action(served, runs)
            except StoreError as error:
                served.outage.failed(activity, error)
                worked = False
            except Exception:  # if this thread ended, the worker would lose all its jobs
                logger.exception("cannot %s", activity)
                worked = False
            else:
                served.outage.succeeded(activity)
        return worked

    def _renew(self, served: _Served, runs: dict[str, Run]) -> None:
        tokens = {id: run.lease.token for id, run in runs.items()}
        now_ms = served.clock.now_ms()
        lost = served.engine().renew(served.queue, tokens, lease_ms=self._lease_ms, now_ms=now_ms)
        for id in lost:
            # If it has ended, its outcome is being stored: that finds out whether it is lost.
            if not runs[id].has_ended:
                logger.warning(
                    "job %s: lease lost, another worker may run the job; the outcome of this run "
                    "is discarded",
                    id,
                )
                _stop(runs[id], Stop.LOST)

    def _look_for_cancelled(self, served: _Served, runs: dict[str, Run]) -> None:
        for id in served.engine().find_cancelled(served.queue, list(runs)):
            _stop(runs[id], Stop.CANCELLED)


class _Served(NamedTuple):
    """A queue whose leases are renewed, and its runs by job id."""

    queue: str
    engine: Callable[[], Engine]
    outage: Outage
    clock: Clock
    runs: dict[str, Run]


def _stop(run: Run, reason: Stop) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, and the run has ended with it
        run.loop.call_soon_threadsafe(run.stop, reason)
