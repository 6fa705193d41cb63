"""Renew the leases of a worker's jobs, in a thread.

A handler may block the event loop, and the worker must not lose its jobs because of that. The
thread also looks for cancelled jobs, so that a handler that blocks the event loop can be stopped.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple, TypeAlias

from hasten._clock import Clock
from hasten._logs import get_logger
from hasten.errors import StoreError
from hasten.jobs._engine import Engine
from hasten.jobs._outages import OutageLog
from hasten.jobs._run import Run, StopReason

logger = get_logger("hasten.worker")

POLL_SECONDS: Final = 0.2  # the time between two checks for cancelled jobs
RENEWALS_PER_LEASE: Final = 4

RunsById: TypeAlias = dict[str, Run]


class LeaseKeeper:
    """A thread that renews the leases of all running jobs of a worker.

    It also stops the runs of jobs that were cancelled or whose lease was lost.
    """

    def __init__(self, lease_ms: int) -> None:
        self._lease_ms = lease_ms
        self._queues: list[_QueueLeases] = []
        self._is_stopped = False
        self._wake = threading.Event()
        self._requests: SimpleQueue[Future[None]] = SimpleQueue()
        self._thread = threading.Thread(target=self._run_thread, name="hasten leases", daemon=True)

    def start(self) -> None:
        """Start the thread that renews the leases."""
        self._thread.start()

    def add_queue(
        self, queue: str, engine: Callable[[], Engine], outage: OutageLog, clock: Clock
    ) -> RunsById:
        """Begin to renew the leases of a queue's runs.

        Returns a dict of the runs by job id, initially empty. The caller adds a run to it when it
        starts, and removes the run when its outcome is stored.
        """
        served = _QueueLeases(queue, engine, outage, clock, {})
        self._queues.append(served)
        return served.runs

    def stop(self) -> None:
        """Stop renewing leases, and let the thread end."""
        self._is_stopped = True
        self._wake.set()

    def request_renewal(self) -> Future[None]:
        """Let the thread renew all leases now.

        Returns a future that is done when the store has responded. The future never has an
        exception: if the store fails, this is logged.
        """
        request: Future[None] = Future()
        self._requests.put(request)
        self._wake.set()
        return request

    def _run_thread(self) -> None:
        """Renew the leases when it is time or requested, and look for cancelled jobs, in a loop."""
        interval = self._lease_ms / 1000 / RENEWALS_PER_LEASE
        renew_at = time.monotonic() + interval
        while True:
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()
            if self._is_stopped:
                return
            requests = self._take_renewal_requests()
            if requests or time.monotonic() >= renew_at:
                renewed = self._try_for_each_queue("renew the leases", self._renew_queue_leases)
                # After a failure try again soon: when the store works again, the leases must be
                # renewed before other workers take back the jobs.
                renew_at = time.monotonic() + (interval if renewed else POLL_SECONDS)
                for request in requests:
                    if request.set_running_or_notify_cancel():
                        request.set_result(None)
            self._try_for_each_queue("look for cancelled jobs", self._stop_cancelled_runs)

    def _take_renewal_requests(self) -> list[Future[None]]:
        """Return the futures of the `request_renewal` calls that were not handled yet."""
        requests: list[Future[None]] = []
        with contextlib.suppress(Empty):
            while True:
                requests.append(self._requests.get_nowait())
        return requests

    def _try_for_each_queue(
        self, description: str, action: Callable[[_QueueLeases, RunsById], None]
    ) -> bool:
        """Call action for each queue that has runs. Returns whether all calls succeeded.

        description is the action in words, for log messages.
        """
        succeeded_all = True
        for served in self._queues:
            activity = f"{description} of queue {served.queue}"
            # Atomic, because the event loop may change the dict meanwhile.
            runs = served.runs.copy()
            if not runs:
                served.outage.record_success(activity)
                continue
            try:
                action(served, runs)
            except StoreError as error:
                served.outage.record_failure(activity, error)
                succeeded_all = False
            except Exception:  # without this thread, the worker would lose all its jobs
                logger.exception("internal error, retrying: cannot %s", activity)
                succeeded_all = False
            else:
                served.outage.record_success(activity)
        return succeeded_all

    def _renew_queue_leases(self, served: _QueueLeases, runs: RunsById) -> None:
        """Renew the leases of a queue, and stop the runs whose lease was lost."""
        tokens = {id: run.lease.token for id, run in runs.items()}
        now_ms = served.clock.now_ms()
        lost = served.engine().renew(served.queue, tokens, lease_ms=self._lease_ms, now_ms=now_ms)
        for id in lost:
            # If the run has ended, its outcome is being stored, and `settle` reports a lost lease.
            if not runs[id].has_ended:
                logger.warning(
                    "job %s: lease lost, another worker may run the job; this run is stopped, and "
                    "its outcome is discarded",
                    id,
                )
                _stop_run_threadsafe(runs[id], StopReason.LOST)

    def _stop_cancelled_runs(self, served: _QueueLeases, runs: RunsById) -> None:
        """Stop the runs of a queue whose jobs were cancelled."""
        for id in served.engine().find_cancelled(served.queue, list(runs)):
            _stop_run_threadsafe(runs[id], StopReason.CANCELLED)


class _QueueLeases(NamedTuple):
    """A queue whose leases are renewed, with its runs by job id."""

    queue: str
    engine: Callable[[], Engine]
    outage: OutageLog
    clock: Clock
    runs: RunsById


def _stop_run_threadsafe(run: Run, reason: StopReason) -> None:
    """Stop a run in its event loop. Called in the thread of the leases."""
    with contextlib.suppress(RuntimeError):  # the loop is closed, so the run has ended
        run.loop.call_soon_threadsafe(run.request_stop, reason)
