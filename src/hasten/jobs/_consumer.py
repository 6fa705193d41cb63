"""The part of a worker that claims the jobs of one queue, runs them and stores how they ended.

Theory of operation. A consumer has these tasks in the event loop of its worker:

- Each *fetcher* calls `settle` in a loop: one transaction of the store, which stores the outcomes
  of runs and claims the next jobs. Outcomes that arrive during a call are stored by the next one,
  so the batches grow with the load. The number of fetchers is the engine's
  `max_concurrent_settles`: two on Redis, so that the server and the worker are busy at the same
  time. With SQLite there is one, because two fetchers and the thread of the database would only
  wait for each other to release the interpreter's lock.
- The *listener* is active after a claim that returned fewer jobs than requested. It waits until the
  store has a job to claim, and then wakes the fetchers.

A consumer claims only as many jobs as the worker has capacity for. The other jobs stay in the
store, where other workers can claim them.
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
from hasten._repeated_errors import ThrottledErrorLog
from hasten.errors import StoreError, StoreInterrupted, StoreRejected, StoreUnavailable
from hasten.jobs import _failure_log as failure_log
from hasten.jobs import _poison_jobs as poison_jobs
from hasten.jobs._capacity import QueueShare, WorkerCapacity
from hasten.jobs._current import running_job
from hasten.jobs._engine import Engine
from hasten.jobs._leases import RENEWALS_PER_LEASE, LeaseKeeper
from hasten.jobs._options import Keep
from hasten.jobs._outages import OutageLog
from hasten.jobs._outbox import Outbox, OutboxPortion
from hasten.jobs._poison_jobs import PoisonJobIsolator
from hasten.jobs._processes import Processes
from hasten.jobs._queue import Queue
from hasten.jobs._record import (
    ClaimedJobs,
    ClaimRequest,
    Completed,
    Lease,
    Outcome,
    Postponed,
    Released,
)
from hasten.jobs._release_gate import AppReleaseGate
from hasten.jobs._run import Run, StopReason
from hasten.jobs._runner import Runner
from hasten.jobs._services import Service, mark_error_retrieved
from hasten.jobs._threads import Threads
from hasten.jobs._tracing import get_spans_if_tracing
from hasten.jobs._worker_info import WorkerInfo
from hasten.jobs._worker_state import ServedQueue

logger = get_logger("hasten.worker")

# The longest wait for a message that the queue has a job to claim. After that the consumer tries a
# claim, so that a lost message does not leave it idle for ever.
MAX_IDLE_SECONDS: Final = 5.0

# Pauses between calls of a store that fails: each is twice as long as the previous one.
FIRST_PAUSE_SECONDS: Final = 0.1
LAST_PAUSE_SECONDS: Final = 2.0


class RunObserver(Protocol):
    """Is called when runs start and end, in the event loop of the worker. Must not raise."""

    def started(self, run: Run) -> None:
        """A handler is about to run, in the task of its job."""

    def ended(self, run: Run, outcome: Outcome | None) -> None:
        """A run has ended. outcome is None if its lease was lost.

        If the run ended before its handler was called, `started` was not called.
        """


@dataclass(frozen=True, slots=True)
class ConsumerDependencies:
    """The settings and objects of a worker that the consumers of all its queues use."""

    name: str
    id: str  # unique among all workers, unlike the name
    tokens: Iterator[str]  # a new fencing token for each claim
    lease_ms: int
    crash_limit: int
    metrics_minutes: int | None  # of BullMQ's metrics; None: off
    keep_completed: Keep
    keep_failed: Keep
    capacity: WorkerCapacity
    poison_jobs: PoisonJobIsolator
    leases: LeaseKeeper
    threads: Threads
    processes: Processes
    gate: AppReleaseGate
    observers: Sequence[RunObserver]  # observers may be added while the worker runs
    handles_signals: Callable[[], bool]  # whether `Worker.run` handles Ctrl+C


class QueueConsumer:
    """Claims the jobs of one queue for a worker, runs them and stores their outcomes."""

    def __init__(self, queue: Queue, worker: ConsumerDependencies, outage: OutageLog) -> None:
        self.name = queue.name
        self.clock = queue.clock
        self.tasks = queue.tasks
        self.reclaimed = 0  # jobs of dead workers that this worker has taken back
        self.lost_leases = 0
        self.dropped_slots = 0  # slots of schedules that got no run
        self._report_errors = ThrottledErrorLog(logger)
        self._was_paused = False  # at the time of the last report
        self.last_fetch_ms: int | None = None  # when a claim last succeeded
        self._worker = worker
        self._capacity = worker.capacity
        self._poison_jobs = worker.poison_jobs
        self._outage = outage
        self._activity = f"settle jobs of queue {queue.name}"
        self._find_engine = queue.shared_store.engine
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(
            queue.name,
            max_jobs_per_settle=self.engine.max_jobs_per_settle,
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
        self._observers: Sequence[RunObserver] = ()  # set with each claim
        self._logs_runs = False  # whether the level DEBUG is on; checked with each claim
        self.runs = worker.leases.add_queue(queue.name, self._find_engine, outage, self.clock)
        self._max_in_flight = self.engine.max_concurrent_settles
        self._max_claim = min(
            -(-self._capacity.size // self._max_in_flight), self.engine.max_jobs_per_settle
        )
        self._share = QueueShare(self.wake)
        self._capacity.mark_may_have_work(self._share)
        self._is_stopping = False
        self._in_flight = 0  # calls of the store by fetchers that have not returned
        self._next_due_ms: int | None = None
        self._awake = asyncio.Event()  # set when there may be something to store or to claim
        # Set when the last claim returned fewer jobs than requested.
        self._is_empty = asyncio.Event()
        self._returned = asyncio.Event()  # set when a fetcher's call of the store has returned
        self._updating = asyncio.Lock()  # held while updates are stored
        self._storing_single = asyncio.Lock()
        self._pause_seconds = FIRST_PAUSE_SECONDS

    @property
    def engine(self) -> Engine:
        """The engine of the queue's store: a new object after the store was closed and reopened."""
        return self._find_engine()

    def services(self) -> list[Service]:
        """Return the listener and the fetchers, which run until the worker has stopped."""
        # A new partial for each fetcher, because `BackgroundServices` takes equal callables for
        # one service.
        return [
            self._run_job_listener,
            *(partial(self._run_fetcher) for _ in range(self._max_in_flight)),
        ]

    def wake(self) -> None:
        """Make idle fetchers check whether there is something to store or to claim."""
        self._awake.set()

    def _wake_from_any_thread(self) -> None:
        """Wake the fetchers from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.wake)

    # Fetching -----------------------------------------------------------------------------------

    async def _run_fetcher(self) -> None:
        """Store outcomes and claim the next jobs, in a loop.

        Waits while there is nothing to store and nothing to claim.
        """
        while True:
            portion = self._outbox.take_portion()
            claim = None if portion.is_single else self._next_claim()
            if claim is None and portion.is_empty:
                self._awake.clear()
                await self._awake.wait()
            else:
                await self._settle_and_start_jobs(portion, claim)

    def _next_claim(self) -> ClaimRequest | None:
        """Reserve capacity for the next jobs, and return a claim for as many.

        Returns None if no jobs may be claimed now, or the queue is known to have none.
        """
        if (
            self._is_stopping
            or not self._share.may_have_work
            or self._outbox.has_waiting_outcomes
            or self._poison_jobs.must_pause_claiming
        ):
            self._capacity.skip_turn(self._share)
            return None
        count = self._capacity.reserve(self._share, self._max_claim)
        if not count:
            return None
        worker = self._worker
        return ClaimRequest(count, next(worker.tokens), worker.name, worker.lease_ms)

    async def _settle_and_start_jobs(
        self, portion: OutboxPortion, claim: ClaimRequest | None
    ) -> None:
        """Store a portion of the outbox, and start the jobs that the claim returns."""
        self._in_flight += 1
        try:
            # Single items are stored one after the other, so that two fetchers keep their order.
            async with self._storing_single if portion.is_single else contextlib.nullcontext():
                batch = await self._store_updates_and_settle(portion, claim)
        except BaseException as error:  # noqa: BLE001  # raised again by `_handle_settle_error`
            self._free_unused_capacity(claim, returned_count=0)
            self._poison_jobs.try_start_chosen_suspect()
            await self._handle_settle_error(error, portion)
        else:
            self._pause_seconds = FIRST_PAUSE_SECONDS
            self._outage.record_success(self._activity)
            if claim is not None:
                self.last_fetch_ms = self.clock.now_ms()
            self._free_unused_capacity(claim, returned_count=len(batch.leases))
            self._remove_settled_runs(portion.outcomes)
            self._observers = self._worker.observers
            if (spans := get_spans_if_tracing()) is not None:
                self._observers = [spans, *self._observers]
            self._logs_runs = logger.isEnabledFor(logging.DEBUG)
            for lease in batch.leases:
                self._start_or_hand_back(lease)
            self.lost_leases += len(batch.lost)
            self.dropped_slots += batch.dropped_slots
            self._outbox.mark_stored(portion.outcomes, batch.lost)  # last, because it logs
            self._poison_jobs.try_start_chosen_suspect()
            if claim is not None and len(batch.leases) < claim.count:
                self._mark_empty(batch.next_due_ms)
        finally:
            self._in_flight -= 1
            self._returned.set()

    async def _store_updates_and_settle(
        self, portion: OutboxPortion, claim: ClaimRequest | None
    ) -> ClaimedJobs:
        """Store a portion of the outbox and claim jobs, in one call of `Engine.settle`.

        Progress and log lines are stored before, in a call of `Engine.update`.
        """
        now_ms = self.clock.now_ms()
        if portion.updates or self._updating.locked():
            async with self._updating:  # in order, and before the outcomes of the same jobs
                if portion.updates:
                    await self.engine.update(self.name, portion.updates, now_ms=now_ms)
                    portion.updates.clear()  # so that they are not stored again if `settle` fails
        if not portion.outcomes and claim is None:
            return ClaimedJobs([])
        return await self.engine.settle(
            self.name,
            portion.outcomes,
            claim,
            now_ms=now_ms,
            metrics_minutes=self._worker.metrics_minutes,
        )

    def _free_unused_capacity(self, claim: ClaimRequest | None, *, returned_count: int) -> None:
        """Free the capacity that was reserved for a claim, except for the jobs that it returned.

        returned_count is the number of these jobs. claim is None if none was made.
        """
        if claim is not None:
            self._capacity.finish_claim(self._share, claim.count, returned_count)

    def _remove_settled_runs(self, outcomes: list[Outcome]) -> None:
        """Remove the runs whose outcomes are stored, so that their leases are not renewed."""
        if outcomes:
            for outcome in outcomes:
                self._remove_run(outcome.id, outcome.token)
            self._poison_jobs.mark_outcomes_stored(outcome.id for outcome in outcomes)

    def _remove_run(self, id: str, token: str) -> None:
        """Remove the run with this token, but not a later run of the same job."""
        run = self.runs.get(id)
        if run is not None and run.lease.token == token:
            del self.runs[id]

    async def _handle_settle_error(self, error: BaseException, portion: OutboxPortion) -> None:
        """Put a portion that could not be stored back into the outbox, and wait for a moment.

        If the store has rejected the data of the portion, the items are stored one at a time
        instead. Raises the error again unless it is a `StoreError`.
        """
        if isinstance(error, StoreRejected) and not portion.is_empty:
            for outcome in self._outbox.handle_rejected_portion(portion, error):
                self._remove_run(outcome.id, outcome.token)
            self.wake()
            return
        # If the call was cancelled or interrupted, the store may or may not have applied it.
        is_unapplied = isinstance(error, StoreError) and not isinstance(error, StoreInterrupted)
        self._outbox.put_back(portion, maybe_stored=not is_unapplied)
        self.wake()
        if not isinstance(error, StoreError):
            raise error
        self._outage.record_failure(self._activity, error)
        await self._wait_before_retry()

    async def _wait_before_retry(self) -> None:
        """Wait before the next call of a store that has failed, each time twice as long."""
        await asyncio.sleep(self._pause_seconds)
        self._pause_seconds = min(self._pause_seconds * 2, LAST_PAUSE_SECONDS)

    # Running ------------------------------------------------------------------------------------

    def _start_or_hand_back(self, lease: Lease) -> None:
        """Start a claimed job, or hand it back if it must not run now."""
        job = lease.job
        run = Run(lease, self._loop, self._make_context)
        if (older := self.runs.get(job.id)) is not None:
            older.request_stop(
                StopReason.LOST
            )  # its lease expired, and this worker claimed the job again
        self.runs[job.id] = run
        if self._is_stopping:  # the claim was in progress when the worker began to stop
            self._end_run(run, Released(job.id, lease.token))
        elif not self._poison_jobs.is_suspect(job):
            self._create_run_task(run)
        elif not self._poison_jobs.try_choose_run(run, partial(self._create_run_task, run)):
            self._end_run(run, Postponed(job.id, lease.token, poison_jobs.PAUSE_MS))

    def _create_run_task(self, run: Run) -> None:
        """Create the asyncio task that runs the job."""
        run.task = self._loop.create_task(self._run_job(run))

    async def _run_job(self, run: Run) -> None:
        """Run the job, and add its outcome to the outbox, whatever the handler raises."""
        run.has_begun = True
        running_job.set(run)  # in the context of this task only
        if self._observers or self._logs_runs:
            self._notify_start(run)
        try:
            outcome = await self._runner.run(run)
        except BaseException as error:
            # A handler can throw an exception into this coroutine: a GeneratorExit that it raises
            # closes the coroutines that await it. This counts as a failed attempt, like any other
            # error: otherwise the job would run again and again.
            outcome = self._runner.outcome_of_unhandled_error(error, run)
            if isinstance(error, KeyboardInterrupt) and not self._worker.handles_signals():
                self._end_run(run, outcome)
                assert run.task is not None
                run.task.add_done_callback(mark_error_retrieved)  # asyncio.run raises it, too
                run.task = None
                raise  # it may be the user's Ctrl+C, which must end the program
        self._end_run(run, outcome)
        run.task = None  # its context refers to the run: the cycle would be garbage

    def _notify_start(self, run: Run) -> None:
        run.began_at = self._loop.time()
        for observer in self._observers:
            observer.started(run)
        if self._logs_runs:
            failure_log.log_started_run(run.lease.job)

    def _notify_end(self, run: Run, outcome: Outcome | None) -> None:
        for observer in self._observers:
            observer.ended(run, outcome)
        if self._logs_runs:
            failure_log.log_ended_run(run.lease.job, outcome, run.elapsed_seconds())

    def _end_run(self, run: Run, outcome: Outcome | None) -> None:
        """Free the capacity of a run, and add its outcome to the outbox.

        The outcome is dropped if the job was handed back while its handler was still running.
        """
        self._capacity.release(self._share)
        self._poison_jobs.mark_ended(run)
        if not run.has_ended:
            self._add_outcome(run, outcome)

    def _add_outcome(self, run: Run, outcome: Outcome | None) -> None:
        """Add the outcome of a run to the outbox, which a fetcher stores.

        outcome is None if the lease is lost: nothing is stored then.
        """
        run.mark_ended()
        job = run.lease.job
        if self._observers or self._logs_runs:
            self._notify_end(run, outcome)
        if outcome is None:
            self.lost_leases += 1
            self._remove_run(job.id, run.lease.token)
        else:
            length = len(job.data)
            if type(outcome) is Completed:
                length += len(outcome.result)
            self._outbox.add_outcome(outcome, length)
        self.wake()

    def running_tasks(self) -> list[asyncio.Task[None]]:
        """Return the asyncio tasks of the jobs that are running."""
        runs = self.runs.values()
        return [run.task for run in runs if run.task is not None and not run.has_ended]

    # Listening ----------------------------------------------------------------------------------

    def _mark_empty(self, next_due_ms: int | None) -> None:
        """Stop claiming jobs, and let the listener wait until there may be one."""
        self._capacity.mark_empty(self._share)
        self._next_due_ms = next_due_ms
        self._is_empty.set()

    def _mark_ready(self) -> None:
        """Let the fetchers claim jobs again."""
        self._capacity.mark_may_have_work(self._share)
        self._is_empty.clear()
        self.wake()

    async def _run_job_listener(self) -> None:
        """Whenever the queue is empty, wait until it may have a job, and mark it as ready."""
        with contextlib.suppress(StoreError):  # a fetcher has the same problem, and logs it
            await self.engine.register_worker(self.name, self._worker.id, name=self._worker.name)
        activity = f"wait for jobs of queue {self.name}"
        while True:
            await self._is_empty.wait()
            try:
                await self._wait_for_work()
            except StoreError as error:
                self._outage.record_failure(activity, error)
                await self._wait_before_retry()
            else:
                self._outage.record_success(activity)
            self._mark_ready()

    async def _wait_for_work(self) -> None:
        """Wait until the queue may have a job to claim, but not longer than `MAX_IDLE_SECONDS`."""
        due_ms = self._next_due_ms
        waits = [
            self.engine.wait_for_jobs(self.name, next_due_ms=due_ms, worker_id=self._worker.id)
        ]
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
                # Only the first error is raised; the other must not be logged.
                task.add_done_callback(mark_error_retrieved)
                task.cancel()

    # Recovering ---------------------------------------------------------------------------------

    def end_unstarted_runs(self) -> None:
        """End the runs whose asyncio task was cancelled before its first step.

        Such a task executes none of its code, so it cannot end its run itself.
        """
        for run in list(self.runs.values()):
            if run.task is not None and run.task.done() and not run.has_ended:
                self._end_run(
                    run, self._runner.outcome_of_unhandled_error(asyncio.CancelledError(), run)
                )

    async def reclaim(self, store_wait_began_at: float, now_ms: int) -> None:
        """Take back the jobs of dead workers, unless the store has failed recently.

        While a store is down, no worker can renew its leases, and the jobs of live workers look
        like those of dead ones. So nothing is taken back until the store has worked for the length
        of a lease, in which live workers have renewed theirs.

        store_wait_began_at is when the worker began to wait for the store, by the clock of the
        event loop: a long wait counts as a failure. now_ms is the time before the worker renewed
        its own leases.
        """
        activity = f"take back the jobs of dead workers of queue {self.name}"
        lease_seconds = self._worker.lease_ms / 1000
        try:
            await self.engine.wait_until_writable(self.name)
            if self._loop.time() - store_wait_began_at > lease_seconds / RENEWALS_PER_LEASE:
                self._outage.record_slow_call_as_failure()
            ids = []
            if self._outage.seconds_since_failure() >= lease_seconds:
                ids = await self.engine.reclaim(
                    self.name, crash_limit=self._worker.crash_limit, now_ms=now_ms
                )
        except StoreError as error:
            self._outage.record_failure(activity, error)
            return
        self._outage.record_success(activity)
        if ids:
            self.reclaimed += len(ids)
            logger.warning(
                "queue %s: took back %d jobs of dead workers: %s",
                self.name, len(ids), ", ".join(ids[:10]),
            )  # fmt: skip

    # Stopping -----------------------------------------------------------------------------------

    def stop_claiming(self) -> None:
        """Claim no more jobs. The worker is stopping."""
        self._is_stopping = True
        self._outbox.hold_released_jobs()

    def stop_runs(self) -> None:
        """Request that all running jobs stop. They are then handed back to the queue."""
        for run in self.runs.values():
            if run.task is None and not run.has_ended:
                # A suspected poison job that has not started.
                self._end_run(run, Released(run.lease.job.id, run.lease.token))
            else:
                run.request_stop(StopReason.RELEASED)

    def hand_back_running_jobs(self) -> None:
        """Hand back the jobs whose handlers are still running after the request to stop."""
        for run in list(self.runs.values()):
            if not run.has_ended:
                logger.error(
                    "job %s: handler still running after being asked to stop; job handed back",
                    run.lease.job.id,
                )
                self._add_outcome(run, Released(run.lease.job.id, run.lease.token))

    async def store_all_outcomes(self) -> None:
        """Store all outcomes. The worker has stopped claiming jobs.

        Jobs that a claim in progress still returns are handed back together with the other jobs.
        """
        while self._share.claims:
            self._returned.clear()
            await self._returned.wait()
        self._outbox.add_held_jobs(self.runs)
        while self._outbox or self._in_flight:
            self._returned.clear()
            self.wake()
            await self._returned.wait()

    def report_worker(self, info: WorkerInfo, lifetime_ms: int) -> None:
        """Store what the worker does. Without another report it counts as dead after lifetime_ms.

        Blocks, so it is called from a thread. Errors are logged.
        """
        activity = f"report the worker of queue {self.name}"
        try:
            is_paused = self.engine.report_worker(
                self.name, info, lifetime_ms=lifetime_ms, now_ms=self.clock.now_ms()
            )
        except StoreUnavailable as error:
            self._outage.record_failure(activity, error)
        except Exception:  # noqa: BLE001  # the thread must not end, nor jobs be left where they are
            self._report_errors.exception(f"cannot {activity}")
        else:
            self._outage.record_success(activity)
            self._log_pause(is_paused=is_paused)

    def _log_pause(self, *, is_paused: bool) -> None:
        """Log that the queue was paused or resumed since the last report."""
        if is_paused and not self._was_paused:
            logger.info("queue %s: paused, no jobs are started until it is resumed", self.name)
        elif self._was_paused and not is_paused:
            logger.info("queue %s: resumed", self.name)
        self._was_paused = is_paused

    def state(self, average_run_seconds: float | None) -> ServedQueue:
        """Return what the worker does for the queue at present. Safe to call from any thread.

        average_run_seconds is how long the last runs took on average, None if there were none.
        """
        runs = self.runs.copy()
        now_ms, fetched_ms = self.clock.now_ms(), self.last_fetch_ms
        error, failing = self._outage.current_failure() or (None, 0.0)
        return ServedQueue(
            queue=self.name,
            fetch_age=None if fetched_ms is None else max(0.0, (now_ms - fetched_ms) / 1000),
            running=len(runs),
            running_seconds=sum(run.elapsed_seconds() for run in runs.values()),
            average_run_seconds=average_run_seconds,
            store_error=error,
            failing_seconds=failing,
        )

    async def unregister(self) -> None:
        """Unregister the worker, so that the engine closes the connection that it holds for it."""
        await self.engine.unregister_worker(self.name, self._worker.id)
