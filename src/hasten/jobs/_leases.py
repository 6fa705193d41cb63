"""Renewal of leases, on a thread of its own.

An event loop that a handler blocks cannot renew anything; a worker that is alive must not lose its
jobs for that. The same thread asks for cancellations, so that a handler that blocks can be ended.
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

LOOK_SECONDS: Final = 0.2  # how soon a cancellation from elsewhere is noticed
RENEWALS_PER_LEASE: Final = 4


class LeaseKeeper:
    """Keeps the leases of one worker's runs, by queue, and tells a run that has to end."""

    def __init__(self, clock: Clock, lease_ms: int) -> None:
        self._clock = clock
        self._lease_ms = lease_ms
        self._queues: list[_Served] = []
        self._is_stopped = False
        self._wake = threading.Event()
        self._requests: SimpleQueue[Future[None]] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="hasten leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def serve(self, queue: str, engine: Callable[[], Engine], outage: Outage) -> dict[str, Run]:
        """Begin with a queue. Returns where its runs are entered, by job id, and taken out."""
        served = _Served(queue, engine, outage, {})
        self._queues.append(served)
        return served.runs

    def stop(self) -> None:
        self._is_stopped = True
        self._wake.set()

    def renew(self) -> Future[None]:
        """Renew all leases now. The future is done when they are, or the store has failed."""
        request: Future[None] = Future()
        self._requests.put(request)
        self._wake.set()
        return request

    def _serve(self) -> None:
        interval = self._lease_ms / 1000 / RENEWALS_PER_LEASE
        renew_at = time.monotonic() + interval
        while True:
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            if self._is_stopped:
                return
            requests = self._take_requests()
            if requests or time.monotonic() >= renew_at:
                renewed = self._for_each("renew the leases", self._renew)
                # After an outage leases have to be renewed before others take them for dead.
                renew_at = time.monotonic() + (interval if renewed else LOOK_SECONDS)
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

    def _for_each(self, what: str, act: Callable[[_Served, dict[str, Run]], None]) -> bool:
        """Act for each queue that has runs. Returns whether that worked for all."""
        worked = True
        for served in self._queues:
            activity = f"{what} of queue {served.queue}"
            runs = served.runs.copy()  # one step for the interpreter: the event loop goes on
            if not runs:
                served.outage.succeeded(activity)
                continue
            try:
                act(served, runs)
            except StoreError as error:
                served.outage.failed(activity, error)
                worked = False
            except Exception:  # without this thread the worker would lose all it does
                logger.exception("cannot %s", activity)
                worked = False
            else:
                served.outage.succeeded(activity)
        return worked

    def _renew(self, served: _Served, runs: dict[str, Run]) -> None:
        tokens = {id: run.lease.token for id, run in runs.items()}
        now_ms = self._clock.now_ms()
        lost = served.engine().renew(served.queue, tokens, lease_ms=self._lease_ms, now_ms=now_ms)
        for id in lost:
            # One that has ended is being settled just now: settling will tell.
            if not runs[id].has_ended:
                logger.warning(
                    "the lease of job %s was lost: another worker may run it; "
                    "what comes of this run is dropped",
                    id,
                )
                _tell(runs[id], Stop.LOST)

    def _look_for_cancelled(self, served: _Served, runs: dict[str, Run]) -> None:
        for id in served.engine().find_cancelled(served.queue, list(runs)):
            _tell(runs[id], Stop.CANCELLED)


class _Served(NamedTuple):
    """A queue whose leases are kept, and its runs by job id."""

    queue: str
    engine: Callable[[], Engine]
    outage: Outage
    runs: dict[str, Run]


def _tell(run: Run, reason: Stop) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, and the run with it
        run.loop.call_soon_threadsafe(run.stop, reason)
