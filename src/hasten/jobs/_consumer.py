"""A worker's consumer of one queue: claims jobs, runs them and stores how they ended.

Theory of operation. A consumer has these tasks in the event loop of its worker:

- Each *fetcher* stores the outcomes of runs and claims the next jobs, in one step of the store
  (`settle`). Runs that end during a step are stored by the next one, so the batches grow with the
  load. There are as many fetchers as the engine wants calls in flight: two on Redis, so that the
  server works while the worker does. (With SQLite, two of them and the thread of the store would
  only take turns holding the interpreter's lock.)
- The *listener* waits until the store has something to claim, whenever a claim brought fewer jobs
  than it asked for.

A consumer claims no job for which the worker has no capacity: such a job stays in the store, for
other workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from hasten._logs import get_logger
from hasten.errors import StoreError, StoreInterrupted, StoreRejected
from hasten.jobs import _failure_log as failure_log
from hasten.jobs import _poison_jobs as poison_jobs
from hasten.jobs._capacity import Capacity, QueueShare
from hasten.jobs._current import running_job
from hasten.jobs._engine import Engine
from hasten.jobs._leases import RENEWALS_PER_LEASE, LeaseKeeper
from hasten.jobs._options import Keep
from hasten.jobs._outages import Outage
from hasten.jobs._outbox import Outbox, OutboxPortion
from hasten.jobs._poison_jobs import PoisonJobs
from hasten.jobs._processes import Processes
from hasten.jobs._queue import Queue
from hasten.jobs._record import Batch, Claim, Completed, Lease, Outcome, Postponed, Released
from hasten.jobs._releases import ReleaseGate
from hasten.jobs._run import Run, Stop
from hasten.jobs._runner import Runner
from hasten.jobs._services import Service, retrieve
from hasten.jobs._threads import Threads
from hasten.jobs._worker_info import WorkerInfo

logger = get_logger("hasten.worker")

# A consumer claims this often without a message from the store: if one is lost, it is not idle
# for ever.
MAX_IDLE_SECONDS: Final = 5.0

# Pauses between attempts to reach a store that fails: each twice as long as the one before.
FIRST_PAUSE_SECONDS: Final = 0.1
LAST_PAUSE_SECONDS: Final = 2.0


class RunObserver(Protocol):
    """Is called when runs start and end, in the event loop of the worker. Must not raise."""

    def started(self, run: Run) -> None:
        """A handler is about to run, in the task of its job."""

    def ended(self, run: Run, outcome: Outcome | None) -> None:
        """A run has ended; it may not have started. outcome is None if its lease was lost."""


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What the consumers of one worker share."""

    name: str
    id: str  # unique, unlike the name
    tokens: Iterator[str]  # one for each claim
    lease_ms: int
    crash_limit: int
    metrics_minutes: int | None  # of BullMQ's metrics; None: off
    keep_completed: Keep
    keep_failed: Keep
    capacity: Capacity
    poison_jobs: PoisonJobs
    leases: LeaseKeeper
    threads: Threads
    processes: Processes
    gate: ReleaseGate
    observers: Sequence[RunObserver]  # may grow
    handles_signals: Callable[[], bool]  # whether Ctrl+C stops the worker, by `Worker.run`


class QueueConsumer:
    """Claims the jobs of one queue, runs them and stores how they ended."""

    def __init__(self, queue: Queue, worker: WorkerParts, outage: Outage) -> None:
        self.name = queue.name
        self.clock = queue.clock
        self.tasks = queue.tasks
        self.last_fetch_ms: int | None = None  # when a claim last succeeded
        self._worker = worker
        self._capacity = worker.capacity
        self._poison_jobs = worker.poison_jobs
        self._outage = outage
        self._activity = f"settle jobs of queue {queue.name}"
        self._find_engine = queue.store_use.engine
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(
            queue.name,
            max_batch=self.engine.max_batch,
            keep_failed=worker.keep_failed,
            on_add=self._wake_from_any_thread,
        )
        self._runner = Runner(
            queue,
            threads=worker.threads,
            processes=worker.processes,
            keep_completed=worker.keep_completed,
            keep_failed=worker.keep_failed,
            gate=worker.gate,
            report=self._outbox.add_update,
        )
        self._make_context = self._runner.make_context
        self.runs = worker.leases.serve(queue.name, self._find_engine, outage, self.clock)
        self._max_in_flight = self.engine.max_in_flight
        self._max_claim = min(-(-self._capacity.size // self._max_in_flight), self.engine.max_batch)
        self._share = QueueShare(self.wake)
        self._capacity.mark_ready(self._share)
        self._is_stopping = False
        self._in_flight = 0  # calls of fetchers
        self._next_due_ms: int | None = None
        self._awake = asyncio.Event()  # something to store, or capacity and something to claim
        self._is_empty = asyncio.Event()  # nothing to claim, by the last claim
        self._returned = asyncio.Event()  # a fetcher has come back from the store
        self._updating = asyncio.Lock()  # held while updates are stored
        self._storing_single = asyncio.Lock()
        self._pause_seconds = FIRST_PAUSE_SECONDS

    @property
    def engine(self) -> Engine:
        """The engine of the queue's store: another one if the store was closed and used again."""
        return self._find_engine()

    def services(self) -> list[Service]:
        """Return the listener and the fetchers, to be run until the worker ends."""
        # A partial for each fetcher: equal callables would count as one service.
        return [self._listen, *(partial(self._fetch) for _ in range(self._max_in_flight))]

    def wake(self) -> None:
        """Let the fetchers look for something to store or to claim."""
        self._awake.set()

    def _wake_from_any_thread(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.wake)

    # Fetching -----------------------------------------------------------------------------------

    async def _fetch(self) -> None:
        """Store outcomes and claim the next jobs, in a loop."""
        while True:
            portion = self._outbox.take()
            claim = None if portion.is_single else self._next_claim()
            if claim is None and portion.is_empty:
                self._awake.clear()
                await self._awake.wait()
            else:
                await self._exchange(portion, claim)

    def _next_claim(self) -> Claim | None:
        """Reserve capacity for the next jobs, if the queue may have some."""
        if (
            self._is_stopping
            or not self._share.may_have_work
            or self._outbox.is_behind
            or self._poison_jobs.block_claims
        ):
            self._capacity.skip_turn(self._share)
            return None
        count = self._capacity.reserve(self._share, self._max_claim)
        if not count:
            return None
        worker = self._worker
        return Claim(count, next(worker.tokens), worker.name, worker.lease_ms)

    async def _exchange(self, portion: OutboxPortion, claim: Claim | None) -> None:
        """Store a portion and start the jobs that the claim brings."""
        self._in_flight += 1
        try:
            # Two fetchers that store one item each must keep the order of the items.
            async with self._storing_single if portion.is_single else contextlib.nullcontext():
                batch = await self._settle(portion, claim)
        except BaseException as error:  # noqa: BLE001  # raised again by `_handle_error`
            self._finish_claim(claim, used=0)
            self._poison_jobs.start_next()
            await self._handle_error(error, portion)
        else:
            self._pause_seconds = FIRST_PAUSE_SECONDS
            self._outage.succeeded(self._activity)
            if claim is not None:
                self.last_fetch_ms = self.clock.now_ms()
            self._finish_claim(claim, used=len(batch.leases))
            self._forget_all(portion.outcomes)
            for lease in batch.leases:
                self._start(lease)
            self._outbox.stored(portion.outcomes, batch.lost)  # logs: after the jobs have started
            self._poison_jobs.start_next()
            if claim is not None and len(batch.leases) < claim.count:
                self._mark_empty(batch.next_due_ms)
        finally:
            self._in_flight -= 1
            self._returned.set()

    async def _settle(self, portion: OutboxPortion, claim: Claim | None) -> Batch:
        """Store a portion and claim jobs, in one step of the store."""
        now_ms = self.clock.now_ms()
        if portion.updates or self._updating.locked():
            async with self._updating:  # in order, and before the outcomes of their jobs
                if portion.updates:
                    await self.engine.update(self.name, portion.updates, now_ms=now_ms)
                    portion.updates.clear()  # not to be stored again if the next step fails
        if not portion.outcomes and claim is None:
            return Batch([])
        return await self.engine.settle(
            self.name,
            portion.outcomes,
            claim,
            now_ms=now_ms,
            metrics_minutes=self._worker.metrics_minutes,
        )

    def _finish_claim(self, claim: Claim | None, *, used: int) -> None:
        """Free the capacity that was reserved for a claim and that its jobs do not use."""
        if claim is not None:
            self._capacity.finish_claim(self._share, claim.count, used)

    def _forget_all(self, outcomes: list[Outcome]) -> None:
        """Forget the runs whose outcomes are stored."""
        if outcomes:
            for outcome in outcomes:
                self._forget(outcome.id, outcome.token)
            self._poison_jobs.settled(outcome.id for outcome in outcomes)

    def _forget(self, id: str, token: str) -> None:
        """Forget a run, but not a later one of the same job."""
        run = self.runs.get(id)
        if run is not None and run.lease.token == token:
            del self.runs[id]

    async def _handle_error(self, error: BaseException, portion: OutboxPortion) -> None:
        """Keep what was not stored, and pause. Raises the error unless it is a `StoreError`."""
        if isinstance(error, StoreRejected) and not portion.is_empty:
            for outcome in self._outbox.reject(portion, error):
                self._forget(outcome.id, outcome.token)
            self.wake()
            return
        # Where the call was cancelled, the store may or may not have applied it.
        is_refused = isinstance(error, StoreError) and not isinstance(error, StoreInterrupted)
        self._outbox.put_back(portion, maybe_stored=not is_refused)
        self.wake()
        if not isinstance(error, StoreError):
            raise error
        self._outage.failed(self._activity, error)
        await self._pause()

    async def _pause(self) -> None:
        """Wait before the next attempt to reach a store that has failed."""
        await asyncio.sleep(self._pause_seconds)
        self._pause_seconds = min(self._pause_seconds * 2, LAST_PAUSE_SECONDS)

    # Running ------------------------------------------------------------------------------------

    def _start(self, lease: Lease) -> None:
        """Start a claimed job, or hand it back if it must not run now."""
        job = lease.job
        run = Run(lease, self._loop, self._make_context)
        if (older := self.runs.get(job.id)) is not None:
            older.stop(Stop.LOST)  # its lease expired, and this worker has claimed the job again
        self.runs[job.id] = run
        if self._is_stopping:  # the claim was under way when the worker was asked to stop
            self._end(run, Released(job.id, lease.token))
        elif not self._poison_jobs.is_suspect(job):
            self._begin(run)
        elif not self._poison_jobs.take(run, partial(self._begin, run)):
            self._end(run, Postponed(job.id, lease.token, poison_jobs.PAUSE_MS))

    def _begin(self, run: Run) -> None:
        run.task = self._loop.create_task(self._run(run))

    async def _run(self, run: Run) -> None:
        run.begin()
        running_job.set(run)  # in the context of this task only
        for observer in self._worker.observers:
            observer.started(run)
        if logger.isEnabledFor(logging.DEBUG):
            failure_log.started(run.lease.job)
        try:
            outcome = await self._runner.run(run)
        except BaseException as error:
            # A handler may have thrown into this coroutine (GeneratorExit closes what it awaits).
            # That is an attempt like any other error: otherwise the job would run again for ever.
            outcome = self._runner.failed(error, run)
            if isinstance(error, KeyboardInterrupt) and not self._worker.handles_signals():
                self._end(run, outcome)
                assert run.task is not None
                run.task.add_done_callback(retrieve)  # the runner of the event loop gets it, too
                raise  # it may be the user's Ctrl+C
        self._end(run, outcome)

    def _end(self, run: Run, outcome: Outcome | None) -> None:
        """Free the place of a run, and store its outcome unless it was handed back before."""
        self._capacity.release(self._share)
        self._poison_jobs.ended(run)
        if not run.has_ended:
            self._post(run, outcome)

    def _post(self, run: Run, outcome: Outcome | None) -> None:
        """Pass the outcome of a run to the next call of the store."""
        run.mark_ended()
        job = run.lease.job
        for observer in self._worker.observers:
            observer.ended(run, outcome)
        if logger.isEnabledFor(logging.DEBUG):
            failure_log.ended(job, outcome, run.seconds())
        if outcome is None:
            self._forget(job.id, run.lease.token)
        else:
            size = len(job.data)
            if type(outcome) is Completed:
                size += len(outcome.result)
            self._outbox.add_outcome(outcome, size)
        self.wake()

    def running(self) -> list[asyncio.Task[None]]:
        """Return the tasks of the jobs that run."""
        runs = self.runs.values()
        return [run.task for run in runs if run.task is not None and not run.has_ended]

    # Listening ----------------------------------------------------------------------------------

    def _mark_empty(self, next_due_ms: int | None) -> None:
        self._capacity.mark_empty(self._share)
        self._next_due_ms = next_due_ms
        self._is_empty.set()

    def _mark_ready(self) -> None:
        self._capacity.mark_ready(self._share)
        self._is_empty.clear()
        self.wake()

    async def _listen(self) -> None:
        """Mark the queue as ready whenever it has, or may have, something to claim."""
        with contextlib.suppress(StoreError):  # a fetcher logs it
            await self.engine.register_worker(self.name, self._worker.id, name=self._worker.name)
        activity = f"wait for jobs of queue {self.name}"
        while True:
            await self._is_empty.wait()
            try:
                await self._until_work()
            except StoreError as error:
                self._outage.failed(activity, error)
                await self._pause()
            else:
                self._outage.succeeded(activity)
            self._mark_ready()

    async def _until_work(self) -> None:
        due_ms = self._next_due_ms
        waits = [self.engine.wait(self.name, next_due_ms=due_ms, worker=self._worker.id)]
        if due_ms is not None:
            waits.append(self.clock.sleep_until(due_ms))
        tasks = [self._loop.create_task(wait) for wait in waits]
        try:
            done, _ = await asyncio.wait(
                tasks, timeout=MAX_IDLE_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.add_done_callback(retrieve)  # only the first error is raised
                task.cancel()

    # Recovering ---------------------------------------------------------------------------------

    def end_unstarted_runs(self) -> None:
        """End the runs whose task was cancelled before it started.

        Such a task runs none of its code, so it cannot end its run itself.
        """
        for run in list(self.runs.values()):
            if run.task is not None and run.task.done() and not run.has_ended:
                self._end(run, self._runner.failed(asyncio.CancelledError(), run))

    async def reclaim(self, asked_at: float, now_ms: int) -> None:
        """Take back the jobs of dead workers.

        Not before the store has worked for as long as a lease lasts: in an outage no worker can
        renew its leases, and live workers must have had the chance to. asked_at is since when the
        worker has waited for the store, by the clock of the event loop; now_ms is the time before
        the worker renewed its own leases.
        """
        activity = f"take back the jobs of dead workers of queue {self.name}"
        lease_seconds = self._worker.lease_ms / 1000
        try:
            await self.engine.probe(self.name)
            if self._loop.time() - asked_at > lease_seconds / RENEWALS_PER_LEASE:
                self._outage.was_slow()
            ids = []
            if self._outage.seconds_without_failure() >= lease_seconds:
                ids = await self.engine.reclaim(
                    self.name, crash_limit=self._worker.crash_limit, now_ms=now_ms
                )
        except StoreError as error:
            self._outage.failed(activity, error)
            return
        self._outage.succeeded(activity)
        if ids:
            logger.warning(
                "queue %s: took back %d jobs of dead workers: %s",
                self.name, len(ids), ", ".join(ids[:10]),
            )  # fmt: skip

    # Stopping -----------------------------------------------------------------------------------

    def stop_claiming(self) -> None:
        """Claim no more jobs."""
        self._is_stopping = True
        self._outbox.hold_released()

    def stop_runs(self) -> None:
        """Ask all jobs that run to stop. They are handed back."""
        for run in self.runs.values():
            if run.task is None and not run.has_ended:  # a suspect that has not started
                self._end(run, Released(run.lease.job.id, run.lease.token))
            else:
                run.stop(Stop.RELEASED)

    def hand_back_running(self) -> None:
        """Hand back the jobs whose handlers have not stopped."""
        for run in list(self.runs.values()):
            if not run.has_ended:
                logger.error(
                    "job %s: handler still running after being asked to stop; job handed back",
                    run.lease.job.id,
                )
                self._post(run, Released(run.lease.job.id, run.lease.token))

    async def flush(self) -> None:
        """Store all outcomes. Jobs that a claim still brings are handed back with the others."""
        while self._share.claims:
            self._returned.clear()
            await self._returned.wait()
        self._outbox.hand_back(self.runs)
        while self._outbox or self._in_flight:
            self._returned.clear()
            self.wake()
            await self._returned.wait()

    def report(self, info: WorkerInfo, lifetime_ms: int) -> None:
        """Store what the worker does. Blocks; called from a thread. Errors are logged."""
        activity = f"report the worker of queue {self.name}"
        try:
            self.engine.report_worker(
                self.name, info, lifetime_ms=lifetime_ms, now_ms=self.clock.now_ms()
            )
        except StoreError as error:
            self._outage.failed(activity, error)
        except Exception:  # the thread must not end
            logger.exception("cannot %s", activity)
        else:
            self._outage.succeeded(activity)

    async def unregister(self) -> None:
        """Release what the store holds for the worker."""
        await self.engine.unregister_worker(self.name, self._worker.id)
