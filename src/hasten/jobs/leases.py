"""Renewal of leases, on a thread of its own.

An event loop that a handler blocks cannot renew anything; a worker that is alive must not lose its
jobs for that. The same thread asks for cancellations, so that a handler that blocks can be ended.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Final

from hasten._clock import Clock
from hasten.errors import StoreError
from hasten.jobs.engine import Engine
from hasten.jobs.run import Run, Stop

logger = logging.getLogger("hasten.worker")

LOOK_SECONDS: Final = 0.2  # how soon a cancellation from elsewhere is noticed
RENEWALS_PER_LEASE: Final = 4


class LeaseKeeper:
    """Keeps the leases of one worker's runs, by queue, and tells a run that has to end."""

    def __init__(self, clock: Clock, lease_ms: int) -> None:
        self._clock = clock
        self._lease_ms = lease_ms
        self._queues: list[tuple[str, Engine, dict[str, Run]]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="hasten leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def serve(self, queue: str, engine: Engine) -> dict[str, Run]:
        """Begin with a queue. Returns where its runs are entered, by job id, and taken out."""
        held: dict[str, Run] = {}
        self._queues.append((queue, engine, held))
        return held

    def stop(self) -> None:
        self._stop.set()

    def _serve(self) -> None:
        since_renewal = 0.0
        while not self._stop.wait(LOOK_SECONDS):
            since_renewal += LOOK_SECONDS
            if since_renewal >= self._lease_ms / 1000 / RENEWALS_PER_LEASE:
                since_renewal = 0.0
                self._for_each(self._renew)
            self._for_each(self._look_for_cancelled)

    def renew_now(self) -> None:
        """Renew all leases. Blocks; call it in a thread."""
        self._for_each(self._renew)

    def _for_each(self, act: Callable[[str, Engine, dict[str, Run]], None]) -> None:
        for queue, engine, held in self._queues:
            runs = held.copy()  # one step for the interpreter: the event loop goes on meanwhile
            if not runs:
                continue
            try:
                act(queue, engine, runs)
            except StoreError as error:
                logger.warning("cannot look after the leases of queue %s: %s", queue, error)
            except Exception:  # without this thread the worker would lose all it does
                logger.exception("cannot look after the leases of queue %s", queue)

    def _renew(self, queue: str, engine: Engine, runs: dict[str, Run]) -> None:
        tokens = {id: run.lease.token for id, run in runs.items()}
        now_ms = self._clock.now_ms()
        lost = engine.renew(queue, tokens, lease_ms=self._lease_ms, now_ms=now_ms)
        for id in lost:
            # One that has ended is being settled just now: settling will tell.
            if not runs[id].has_ended:
                logger.warning(
                    "the lease of job %s was lost: another worker may run it; "
                    "what comes of this run is dropped",
                    id,
                )
                _tell(runs[id], Stop.LOST)

    def _look_for_cancelled(self, queue: str, engine: Engine, runs: dict[str, Run]) -> None:
        for id in engine.cancelled(queue, list(runs)):
            _tell(runs[id], Stop.CANCELLED)


def _tell(run: Run, reason: Stop) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, and the run with it
        run.loop.call_soon_threadsafe(run.stop, reason)
