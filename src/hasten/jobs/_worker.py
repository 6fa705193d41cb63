"""`Worker`: runs the jobs of one or more queues, from `start` until it is stopped gracefully.

Each queue has a consumer (`_consumer.py`), which claims jobs, runs them and stores their outcomes.
The worker starts and stops the consumers, and owns the objects that they share: the capacity for
`concurrency` jobs over all queues (`_capacity.py`), the threads and processes for handlers, and the
thread that renews the leases (`_leases.py`). It also takes back the jobs of dead workers.

The worker's own tasks on the event loop are services (`_services.py`), which are restarted if a
handler cancels them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import socket
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import hasten
from hasten._checks import check_whole_number
from hasten._clock import Clock
from hasten._durations import Duration, to_nearest_ms
from hasten._logs import get_logger, reenable_disabled_loggers
from hasten._store_url import SqliteFile
from hasten.errors import InvalidOption, StoreError, UsageError
from hasten.jobs._capacity import WorkerCapacity
from hasten.jobs._consumer import ConsumerDependencies, QueueConsumer, RunObserver
from hasten.jobs._epoch import to_datetime
from hasten.jobs._failures import describe_exception
from hasten.jobs._heartbeat import Heartbeat, report_lifetime_ms
from hasten.jobs._leases import RENEWALS_PER_LEASE, LeaseKeeper
from hasten.jobs._loop_lag import BlockedLoopLog, LoopLag
from hasten.jobs._options import (
    DEFAULT_KEEP_COMPLETED,
    DEFAULT_KEEP_FAILED,
    MAX_COUNT,
    MAX_METRICS_MINUTES,
    Keep,
    check_keep,
    check_name,
)
from hasten.jobs._outages import OutageLog
from hasten.jobs._poison_jobs import PoisonJobIsolator
from hasten.jobs._process_memory import resident_memory
from hasten.jobs._processes import Processes
from hasten.jobs._queue import Queue
from hasten.jobs._release_gate import AppReleaseGate
from hasten.jobs._releases import check_release
from hasten.jobs._run_counters import RunCounters
from hasten.jobs._run_totals import QueueTotals, Totals
from hasten.jobs._schedule_watch import ScheduleWatch
from hasten.jobs._services import BackgroundServices
from hasten.jobs._stop_signals import handle_stop_signals
from hasten.jobs._threads import Threads
from hasten.jobs._worker_info import WorkerInfo
from hasten.jobs._worker_state import WorkerState

logger = get_logger("hasten.worker")

# Time limits after the grace period: first for the cancelled handlers to end, then for the store to
# accept the last outcomes, then for each call that releases something in the store.
END_SECONDS: Final = 5.0

# How long to wait for the store to delete the report of the worker, which expires anyway.
UNREGISTER_SECONDS: Final = 1.0


class Worker:
    """Runs the jobs of queues, at most concurrency of them at once: `async with Worker(mail): …`.

    Leaving the block, `stop` and `aclose` stop the worker gracefully: it claims no more jobs, waits
    for the running ones for the time grace, and then returns the unfinished ones to their queues
    without using up an attempt.

    If a worker dies, other workers run its jobs after the time lease. A live worker renews its
    leases four times in this time, in a thread, so that it loses no jobs while a handler blocks the
    event loop. A job fails when crash_limit workers have died while they ran it.

    name is shown in logs and stored with the jobs; the default is the host name and the process id.
    keep_completed and keep_failed (`Keep`, a count, True or False) apply to jobs that do not have
    these options. handler_processes is how many handlers with run_in="process" run at once; None
    means one for each processor. release is the version of your code, such as "2026.12.1"; the
    default is the environment variable HASTEN_RELEASE. A job whose task needs a later release
    (`since`) is returned to its queue for other workers, without using up an attempt. A queue in
    Redis counts its finished jobs per minute, as with BullMQ's option `metrics`, if
    bullmq_metrics_minutes is set: it is how many minutes to keep, such as 10,080 for a week. Use
    the same number for all workers of a queue.
    """

    def __init__(
        self,
        *queues: Queue,
        concurrency: int = 100,
        name: str | None = None,
        lease: Duration = 10.0,
        grace: Duration = 15.0,
        crash_limit: int = 3,
        keep_completed: Keep | bool | int = DEFAULT_KEEP_COMPLETED,
        keep_failed: Keep | bool | int = DEFAULT_KEEP_FAILED,
        handler_processes: int | None = None,
        release: str | None = None,
        bullmq_metrics_minutes: int | None = None,
    ) -> None:
        if not queues or not all(isinstance(queue, Queue) for queue in queues):
            raise InvalidOption("queues", queues, "one or more Queue objects")
        if len(set(map(_identify_queue, queues))) < len(set(queues)):
            raise InvalidOption(
                "queues",
                queues,
                "distinct: two of these Queue objects name the same queue of the same store",
            )
        if handler_processes is not None:
            check_whole_number("handler_processes", handler_processes, 1, MAX_COUNT)
        self.name = check_name("worker", name or f"{socket.gethostname()}:{os.getpid()}")
        self._queues = tuple(dict.fromkeys(queues))
        self._concurrency = check_whole_number("concurrency", concurrency, 1, MAX_COUNT)
        self._lease_ms = to_nearest_ms("lease", lease, at_least_ms=1000)
        self._grace = to_nearest_ms("grace", grace) / 1000
        self._crash_limit = check_whole_number("crash_limit", crash_limit, 1, MAX_COUNT)
        self._keep_completed = (
            check_keep("keep_completed", keep_completed) or DEFAULT_KEEP_COMPLETED
        )
        self._keep_failed = check_keep("keep_failed", keep_failed) or DEFAULT_KEEP_FAILED
        self._code_release = check_release(
            "release", release or os.environ.get("HASTEN_RELEASE") or None
        )
        if bullmq_metrics_minutes is not None:
            check_whole_number(
                "bullmq_metrics_minutes", bullmq_metrics_minutes, 1, MAX_METRICS_MINUTES
            )
        self._metrics_minutes = bullmq_metrics_minutes
        self._process_count = handler_processes or os.cpu_count() or 1
        self._clock: Clock = queues[0].clock
        self.observers: list[RunObserver] = []
        self._id = secrets.token_hex(8)
        self._host = socket.gethostname()
        self._loop_lag = LoopLag()
        self._blocked_loop_log = BlockedLoopLog(self.name, self._loop_lag)
        self._heartbeats: list[Heartbeat] = []
        self._consumers: list[QueueConsumer] = []
        self._stopping = False
        self._handles_signals = False
        self._has_signal = False
        self._failure: BaseException | None = None
        self._holder: asyncio.Task[Any] | None = None  # runs the `async with` block
        self._has_cancelled_holder = False
        self._grace_until = 0.0  # by the clock of the event loop
        self._grace_period: asyncio.Timeout | None = None
        self._stop_requested = asyncio.Event()
        self._stopped = asyncio.Event()

    def __repr__(self) -> str:
        names = ", ".join(queue.name for queue in self._queues)
        return f"<Worker {self.name} of {names}>"

    # Life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start to claim and run jobs, in the current event loop.

        Raises `UsageError` if the worker was started before, and the errors of `Queue.check_tasks`.
        In a test with `hasten.testing.JobsTester`, the test runs the jobs, and this does nothing.
        """
        if not all(queue.shared_store.starts_workers for queue in self._queues):
            logger.info("worker %s not started: hasten.testing runs the jobs", self.name)
            return
        if self._consumers:
            raise UsageError("this worker has been started already: create a new Worker")
        self._clock = self._queues[0].clock
        reenable_disabled_loggers()
        for queue in self._queues:
            queue.check_tasks()
        self._loop = asyncio.get_running_loop()
        self._threads = Threads(self._concurrency)
        self._processes = Processes(self._process_count)
        self._capacity = WorkerCapacity(self._concurrency)
        self._poison_jobs = PoisonJobIsolator(
            self._crash_limit, self._capacity, on_start=self._wake_consumers
        )
        self._leases = LeaseKeeper(self._lease_ms)
        # When the event loop has ended, no handler runs any more. The leases must expire then, so
        # that other workers get the jobs.
        self._services = BackgroundServices(
            self.name, failed=self._stop_after_internal_error, loop_ended=self._stop_threads
        )
        await self._services.open()
        self._schedule_watches: list[ScheduleWatch] = []
        self._consumers = self._make_consumers()
        for consumer in self._consumers:
            for service in consumer.services():
                self._services.start(service)
        for watch in self._schedule_watches:
            self._services.start(watch.run)
        self._services.start(self._reclaim_repeatedly)
        self._leases.start()
        self._started_ms = self._clock.now_ms()
        self._loop_lag.start()
        self._start_heartbeats()
        logger.info("worker %s serves %s", self.name, ", ".join(q.name for q in self._queues))

    def _start_heartbeats(self) -> None:
        """Report to each store, from a thread for each."""
        by_store: dict[str, list[QueueConsumer]] = {}
        for consumer in self._consumers:
            by_store.setdefault(consumer.engine.url, []).append(consumer)
        for consumers in by_store.values():
            heartbeat = Heartbeat(self._lease_ms, partial(self._store_worker_info, consumers))
            self._heartbeats.append(heartbeat)
            heartbeat.start()

    def _store_worker_info(self, consumers: list[QueueConsumer]) -> None:
        """Store what the worker does in each of these queues, for `Queue.workers`. Blocks."""
        if consumers[0] is self._consumers[0]:  # not in the threads of the other stores
            self._blocked_loop_log.update()
        for consumer in consumers:
            consumer.report_worker(self._info_of(consumer), report_lifetime_ms(self._lease_ms))

    def _stop_threads(self) -> None:
        self._leases.stop()
        self._stop_heartbeats()

    def _stop_heartbeats(self) -> None:
        for heartbeat in self._heartbeats:
            heartbeat.stop()

    def _make_consumers(self) -> list[QueueConsumer]:
        """Create a consumer and a `ScheduleWatch` for each queue.

        Queues in the same store share an `OutageLog`.
        """
        id = self._id
        parts = ConsumerDependencies(
            name=self.name,
            id=id,
            tokens=(f"{id}:{number}" for number in itertools.count(1)),
            lease_ms=self._lease_ms,
            crash_limit=self._crash_limit,
            metrics_minutes=self._metrics_minutes,
            keep_completed=self._keep_completed,
            keep_failed=self._keep_failed,
            capacity=self._capacity,
            poison_jobs=self._poison_jobs,
            leases=self._leases,
            threads=self._threads,
            processes=self._processes,
            observers=self.observers,
            gate=AppReleaseGate(self._code_release),
            handles_signals=lambda: self._handles_signals,
        )
        outages: dict[str, OutageLog] = {}
        consumers = []
        for queue in self._queues:
            queue.shared_store.acquire(self)  # the store stays open when the queue is closed
            url = queue.shared_store.engine().url
            outage = outages.setdefault(url, OutageLog(url))
            consumers.append(QueueConsumer(queue, parts, outage))
            self._schedule_watches.append(ScheduleWatch(queue, outage))
        return consumers

    def _wake_consumers(self) -> None:
        """Wake the fetchers of all consumers."""
        for consumer in self._consumers:
            consumer.wake()

    def _stop_after_internal_error(self, error: BaseException) -> None:
        """Record and log an internal error, and begin to stop the worker.

        Ends `run`, or cancels the task that is inside the `async with` block.
        """
        if self._failure is None:
            self._failure = error
        if not self._stopping:
            self._begin_stop(self._grace)
            self.request_stop()
            if self._holder is not None:
                self._has_cancelled_holder = self._holder.cancel()
        logger.critical(
            "worker %s: internal error, the worker is stopping", self.name, exc_info=error
        )

    async def __aenter__(self) -> Self:
        await self.start()
        self._holder = asyncio.current_task()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the worker.

        If an internal error of the worker has cancelled the block, raise that error instead of the
        `CancelledError`.
        """
        holder, self._holder = self._holder, None
        was_cancelled = isinstance(error, asyncio.CancelledError)
        by_other_code = was_cancelled
        if self._has_cancelled_holder and holder is not None:
            if not was_cancelled:  # the block ended before the cancellation reached it
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
            by_other_code = holder.uncancel() > 0
        await self._stop(self._grace)
        # An error that the block raised, or a cancellation by other code, has precedence.
        if self._failure is not None and (error is None or (was_cancelled and not by_other_code)):
            raise self._failure

    async def run(self) -> None:
        """Run jobs until SIGTERM or SIGINT, then stop gracefully.

        A second signal ends the process at once; other workers take back its jobs when the leases
        expire. Must be called in the main thread, which receives the signals. If the worker fails
        with an internal error, it stops, and the error is raised.
        """
        await self.start()
        self._handles_signals = True
        with handle_stop_signals(self._on_signal):
            try:
                await self._stop_requested.wait()
            except asyncio.CancelledError:
                logger.error(
                    "worker %s: stopping, because the task that called Worker.run was cancelled",
                    self.name,
                )
                await self._stop(self._grace)
                raise
            await self.stop()

    def _on_signal(self, number: int) -> None:
        """Request a graceful stop at the first signal, and end the process at the second one."""
        if self._has_signal:
            os._exit(128 + number)
        self._has_signal = True
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.request_stop)

    def request_stop(self) -> None:
        """Make `run` stop the worker, and return at once without waiting for that.

        Must be called in the worker's event loop.
        """
        if self._consumers and not self._stop_requested.is_set():
            logger.info(
                "worker %s is stopping; a second signal ends the process at once", self.name
            )
            self._stop_requested.set()

    async def aclose(self) -> None:
        """Stop gracefully, like `stop()`."""
        await self.stop()

    async def stop(self, grace: Duration | None = None) -> None:
        """Stop gracefully, and return when all outcomes are stored. Safe to call twice.

        grace replaces the grace period of the worker. If the call is cancelled, the grace period
        ends at once, and the call still waits until the worker has stopped.

        Raises the error of a worker that has failed. Raises `UsageError` if a handler stops its own
        worker: the worker stops, but the handler cannot wait for that.
        """
        await self._stop(self._grace if grace is None else to_nearest_ms("grace", grace) / 1000)
        if self._failure is not None:
            raise self._failure

    async def _stop(self, grace: float) -> None:
        if not self._consumers:  # the worker was never started
            return
        self._begin_stop(grace)
        if asyncio.current_task() in self._running_asyncio_tasks():
            # Not cancelled: its job would be handed back, and would stop the next worker, too.
            raise UsageError(
                "a handler cannot wait until its own worker has stopped; the worker is stopping now"
            )
        try:
            await self._stopped.wait()
        except asyncio.CancelledError:
            # The caller does not want to wait, but no handler may continue without a lease.
            self._end_grace_period()
            await self._stopped.wait()
            raise

    def _begin_stop(self, grace: float) -> None:
        if not self._stopping:
            self._stopping = True
            self._grace_until = self._loop.time() + grace
            self._poison_jobs.stop_starting_suspects()
            for consumer in self._consumers:
                consumer.stop_claiming()
            self._services.start(self._shut_down)

    def _end_grace_period(self) -> None:
        """End the grace period now, also if the worker is already waiting for handlers."""
        self._grace_until = self._loop.time()
        if self._grace_period is not None:
            self._grace_period.reschedule(self._grace_until)

    async def _shut_down(self) -> None:
        """Wait for handlers, hand back unfinished jobs, store the outcomes, and release the stores.

        If a handler cancels the task of this coroutine, it is started again, so each step can be
        repeated.
        """
        try:
            await self._wait_for_handlers()
            await self._cancel_and_hand_back_running()
            self._stop_heartbeats()  # their threads end while the last outcomes are stored
            await self._flush_outcomes()
        except Exception as error:  # noqa: BLE001  # the worker must stop even after an internal error
            self._stop_after_internal_error(error)
        self._stop_threads()
        self._loop_lag.stop()
        try:
            await self._services.cancel_all()
            await self._release_stores()
        finally:
            self._threads.close()
            self._processes.close()
            self._stopped.set()
            logger.info("worker %s has stopped", self.name)

    def _running_asyncio_tasks(self) -> list[asyncio.Task[None]]:
        """Return the asyncio tasks that run jobs."""
        return [task for consumer in self._consumers for task in consumer.running_tasks()]

    async def _wait_for_handlers(self) -> None:
        """Wait until all handlers have ended, at most until the end of the grace period."""
        running = self._running_asyncio_tasks()
        seconds = self._grace_until - self._loop.time()
        if running and seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds) as self._grace_period:
                    await asyncio.wait(running)
        self._grace_period = None

    async def _cancel_and_hand_back_running(self) -> None:
        """Cancel the handlers that still run, and hand their jobs back to the queues."""
        for consumer in self._consumers:
            consumer.stop_runs()
        if running := self._running_asyncio_tasks():
            await asyncio.wait(running, timeout=END_SECONDS)
        for consumer in self._consumers:
            consumer.hand_back_running_jobs()

    async def _flush_outcomes(self) -> None:
        """Store all outcomes that are not stored yet, or log that it takes too long."""
        try:
            async with asyncio.timeout(END_SECONDS):
                await asyncio.gather(
                    *(consumer.store_all_outcomes() for consumer in self._consumers)
                )
        except TimeoutError:
            logger.error(
                "worker %s: some outcomes could not be stored within %g s; "
                "the jobs run again when their leases expire",
                self.name,
                END_SECONDS,
            )

    async def _release_stores(self) -> None:
        """Unregister the worker in the stores, and close the stores that have no other user."""
        # A report that is under way must not be stored after its deletion.
        ends = (heartbeat.wait_for_thread_end(END_SECONDS) for heartbeat in self._heartbeats)
        await asyncio.gather(*ends)
        for consumer in self._consumers:
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(UNREGISTER_SECONDS):
                    await consumer.unregister()
        for queue in self._queues:
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await queue.shared_store.release(self)

    # Reporting ----------------------------------------------------------------------------------

    def info(self) -> list[WorkerInfo]:
        """Return what the worker does at present, for each of its queues; see `WorkerInfo`.

        Safe to call from any thread, also while the event loop is blocked. Returns an empty list
        before the worker has started and after it has stopped.
        """
        if self._stopped.is_set():
            return []
        return [self._info_of(consumer) for consumer in self._consumers]

    def _info_of(self, consumer: QueueConsumer) -> WorkerInfo:
        fetched_ms = consumer.last_fetch_ms
        return WorkerInfo(
            queue=consumer.name,
            name=self.name,
            id=self._id,
            host=self._host,
            pid=os.getpid(),
            version=hasten.__version__,
            release=self._code_release,
            started_at=to_datetime(self._started_ms),
            tasks=sorted(consumer.tasks.copy()),
            slots=self._concurrency,
            slots_used=sum(len(each.runs) for each in self._consumers),
            running=len(consumer.runs),
            lease=self._lease_ms / 1000,
            stopping=self._stopping,
            loop_lag=round(self._loop_lag.largest_recent_seconds(), 6),
            memory=resident_memory(),
            last_fetch_at=None if fetched_ms is None else to_datetime(fetched_ms),
            last_seen_at=to_datetime(consumer.clock.now_ms()),
        )

    @property
    def queues(self) -> Sequence[Queue]:
        """The queues whose jobs the worker runs."""
        return self._queues

    def start_counting_runs(self) -> RunCounters:
        """Begin to count the runs of the worker, and return the counters.

        A second call returns the same counters.
        """
        for observer in self.observers:
            if isinstance(observer, RunCounters):
                return observer
        counters = RunCounters({queue.name: queue.tasks for queue in self._queues})
        self.observers.append(counters)
        return counters

    def state(self) -> WorkerState:
        """Return what the worker does at present. Safe to call from any thread.

        Calls no store, and does not need the event loop, which may be blocked.
        """
        counters, consumers = self.start_counting_runs(), self._consumers
        failure = self._failure
        return WorkerState(
            name=self.name,
            is_running=bool(consumers) and not self._stopped.is_set(),
            is_stopping=self._stopping,
            failure=None if failure is None else describe_exception(failure),
            blocked_seconds=self._loop_lag.currently_blocked_seconds(),
            lag_seconds=self._loop_lag.largest_recent_seconds(),
            slots=self._concurrency,
            slots_used=sum(len(each.runs) for each in consumers),
            memory=resident_memory(),
            queues=[
                each.state(counters.moving_average_run_seconds(each.name)) for each in consumers
            ],
        )

    def totals(self) -> Totals:
        """Return how many runs ended, and how many jobs were taken back or lost their leases.

        Runs are counted from the first call of `start_counting_runs`, `state` or this method. Safe
        to call from any thread.
        """
        return Totals(
            self.start_counting_runs().run_totals(),
            [
                QueueTotals(each.name, each.reclaimed, each.lost_leases, each.dropped_slots)
                for each in self._consumers
            ],
        )

    # Recovering ---------------------------------------------------------------------------------

    async def _reclaim_repeatedly(self) -> None:
        """Take back the jobs of dead workers, in a loop, for as long as the worker runs."""
        while True:
            # Renew the worker's own leases first: after the machine has slept, all leases have
            # expired, and the worker must not take back its own jobs.
            store_wait_began_at = self._loop.time()
            times = [consumer.clock.now_ms() for consumer in self._consumers]
            await asyncio.wrap_future(self._leases.request_renewal())
            for consumer, now_ms in zip(self._consumers, times, strict=True):
                consumer.end_unstarted_runs()
                await consumer.reclaim(store_wait_began_at, now_ms)
                store_wait_began_at = self._loop.time()
            await self._clock.sleep(self._lease_ms / 1000 / RENEWALS_PER_LEASE)


def _identify_queue(queue: Queue) -> tuple[object, ...]:
    """Return a value that identifies the queue in its store.

    It is equal for two `Queue` objects of the same name in the same store.
    """
    store = queue.shared_store.existing_store
    if store is None or store.location == SqliteFile(None):  # no location outside this object
        return id(store or queue.shared_store), queue.name
    return queue.shared_store.engine().url, store.prefix, queue.name
