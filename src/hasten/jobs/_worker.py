"""A worker: takes jobs from queues and runs them, from its start to its graceful end.

Each queue has a consumer (`_consumer.py`), which claims jobs, runs them and stores their outcomes.
The worker starts and stops the consumers, and owns what they share: the capacity for `concurrency`
jobs over all queues (`_capacity.py`), threads and processes for handlers, and a thread that renews
the leases (`_leases.py`). It also takes back the jobs of dead workers.

What runs on the event loop, runs as a service (`_services.py`), which restarts it if it is
cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import socket
from types import TracebackType
from typing import Any, Final, Self

from hasten._checks import check_whole_number
from hasten._clock import Clock
from hasten._durations import Duration, to_ms
from hasten._logs import enable_loggers, get_logger
from hasten._store_url import File
from hasten.errors import InvalidOption, StoreError, UsageError
from hasten.jobs._capacity import Capacity
from hasten.jobs._consumer import QueueConsumer, RunObserver, WorkerParts
from hasten.jobs._leases import RENEWALS_PER_LEASE, LeaseKeeper
from hasten.jobs._options import (
    DEFAULT_KEEP_COMPLETED,
    DEFAULT_KEEP_FAILED,
    MAX_COUNT,
    Keep,
    check_keep,
    check_name,
)
from hasten.jobs._outages import Outage
from hasten.jobs._poison_jobs import PoisonJobs
from hasten.jobs._processes import Processes
from hasten.jobs._queue import Queue
from hasten.jobs._releases import ReleaseGate, check_release
from hasten.jobs._services import Services
from hasten.jobs._stop_signals import handle_stop_signals
from hasten.jobs._threads import Threads
from hasten.jobs._tracing import load_spans

logger = get_logger("hasten.worker")

# After the grace period: how long cancelled handlers have to end, and then the store to store the
# last outcomes.
END_SECONDS: Final = 5.0


class Worker:
    """Runs the jobs of queues, up to concurrency at once: `async with Worker(mail): …`.

    Leaving the block, `stop` and `aclose` stop it gracefully: it takes no more jobs, gives the
    running ones the time grace to finish, and hands back the rest without using up an attempt.

    A job whose worker has died is run by another worker after the time lease. A live worker renews
    its leases four times as often, in a thread, so that a blocked event loop loses no job. A job
    fails when its workers have died crash_limit times while they ran it. keep_completed and
    keep_failed (`Keep`, a count, True or False) hold for jobs without these options.
    handler_processes is how many handlers with run_in="process" run at once; None means one for
    each processor. release is the version of your code, such as "2026.12.1", by default from
    HASTEN_RELEASE: jobs of tasks with a later `since` are handed back for newer workers, without
    using up an attempt.
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
    ) -> None:
        if not queues or not all(isinstance(queue, Queue) for queue in queues):
            raise InvalidOption("queues", queues, "one Queue or more")
        if len(set(map(_location, queues))) < len(set(queues)):
            raise InvalidOption("queues", queues, "one Queue object for each queue")
        if handler_processes is not None:
            check_whole_number("handler_processes", handler_processes, 1, MAX_COUNT)
        self.name = check_name("worker", name or f"{socket.gethostname()}:{os.getpid()}")
        self._queues = tuple(dict.fromkeys(queues))
        self._concurrency = check_whole_number("concurrency", concurrency, 1, MAX_COUNT)
        self._lease_ms = to_ms("lease", lease, at_least_ms=1000)
        self._grace = to_ms("grace", grace) / 1000
        self._crash_limit = check_whole_number("crash_limit", crash_limit, 1, MAX_COUNT)
        self._keep_completed = (
            check_keep("keep_completed", keep_completed) or DEFAULT_KEEP_COMPLETED
        )
        self._keep_failed = check_keep("keep_failed", keep_failed) or DEFAULT_KEEP_FAILED
        self._code_release = check_release(
            "release", release or os.environ.get("HASTEN_RELEASE") or None
        )
        self._process_count = handler_processes or os.cpu_count() or 1
        self._clock: Clock = queues[0].clock
        self.observers: list[RunObserver] = []
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
        """Start to take jobs. They run in the current event loop.

        Raises `UsageError` if the worker was started before, and what `Queue.check_tasks` raises.
        """
        if self._consumers:
            raise UsageError("this worker has been started already: create another one")
        enable_loggers()
        for queue in self._queues:
            queue.check_tasks()
        self._loop = asyncio.get_running_loop()
        self._threads = Threads(self._concurrency)
        self._processes = Processes(self._process_count)
        self._capacity = Capacity(self._concurrency)
        self._poison_jobs = PoisonJobs(self._crash_limit, self._capacity, on_start=self._wake)
        self._leases = LeaseKeeper(self._lease_ms)
        # A worker whose event loop has ended runs nothing: other workers must get its jobs.
        self._services = Services(self.name, failed=self._fail, loop_ended=self._leases.stop)
        await self._services.open()
        if (spans := load_spans()) is not None:
            self.observers.append(spans)
        self._consumers = self._make_consumers()
        for consumer in self._consumers:
            for service in consumer.services():
                self._services.start(service)
        self._services.start(self._recover)
        self._leases.start()
        logger.info("worker %s serves %s", self.name, ", ".join(q.name for q in self._queues))

    def _make_consumers(self) -> list[QueueConsumer]:
        id = secrets.token_hex(8)
        parts = WorkerParts(
            name=self.name,
            id=id,
            tokens=(f"{id}:{number}" for number in itertools.count(1)),
            lease_ms=self._lease_ms,
            crash_limit=self._crash_limit,
            keep_completed=self._keep_completed,
            keep_failed=self._keep_failed,
            capacity=self._capacity,
            poison_jobs=self._poison_jobs,
            leases=self._leases,
            threads=self._threads,
            processes=self._processes,
            observers=self.observers,
            gate=ReleaseGate(self._code_release),
            handles_signals=lambda: self._handles_signals,
        )
        outages: dict[str, Outage] = {}
        consumers = []
        for queue in self._queues:
            queue.store_use.acquire(self)  # the store stays open when the queue is closed
            url = queue.store_use.engine().url
            outage = outages.setdefault(url, Outage(url))
            consumers.append(QueueConsumer(queue, parts, outage))
        return consumers

    def _wake(self) -> None:
        for consumer in self._consumers:
            consumer.wake()

    def _fail(self, error: BaseException) -> None:
        """Stop after an internal error, and cancel the `async with` block or end `run`."""
        if self._failure is None:
            self._failure = error
        if not self._stopping:
            self._begin_to_stop(self._grace)
            self.request_stop()
            if self._holder is not None:
                self._has_cancelled_holder = self._holder.cancel()
        logger.critical("worker %s has failed and is stopping", self.name, exc_info=error)

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
        """Stop the worker. If the worker has failed and cancelled the block, raise its error."""
        holder, self._holder = self._holder, None
        was_cancelled = isinstance(error, asyncio.CancelledError)
        by_other_code = was_cancelled
        if self._has_cancelled_holder and holder is not None:
            if not was_cancelled:  # the block ended before it could be cancelled
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
            by_other_code = holder.uncancel() > 0
        await self._stop(self._grace)
        # An error of the block, or its cancellation by other code, is not replaced.
        if self._failure is not None and (error is None or (was_cancelled and not by_other_code)):
            raise self._failure

    async def run(self) -> None:
        """Run jobs until SIGTERM or SIGINT; a second signal ends the process at once.

        Other workers take back the jobs of a process that ends at once when their leases expire.
        Call it in the main thread, which receives signals. Raises the error of a worker that fails.
        """
        await self.start()
        self._handles_signals = True
        with handle_stop_signals(self._on_signal):
            try:
                await self._stop_requested.wait()
            except asyncio.CancelledError:
                logger.error(
                    "worker %s: stopping, because the task that runs it was cancelled", self.name
                )
                await self._stop(self._grace)
                raise
            await self.stop()

    def _on_signal(self, number: int) -> None:
        """Stop at the first signal, and end the process at the second one."""
        if self._has_signal:
            os._exit(128 + number)
        self._has_signal = True
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.request_stop)

    def request_stop(self) -> None:
        """Make `run` stop the worker, and do not wait. Call it in the worker's event loop."""
        if self._consumers and not self._stop_requested.is_set():
            logger.info("worker %s is stopping; a second signal ends it at once", self.name)
            self._stop_requested.set()

    async def aclose(self) -> None:
        """Stop gracefully, as `stop()` does."""
        await self.stop()

    async def stop(self, grace: Duration | None = None) -> None:
        """Stop gracefully. Returns when all outcomes are stored. Safe to call twice.

        If the call is cancelled, the grace period ends at once, and it still waits for the rest.
        Raises the error of a worker that has failed, and `UsageError` in one of its own handlers.
        """
        await self._stop(self._grace if grace is None else to_ms("grace", grace) / 1000)
        if self._failure is not None:
            raise self._failure

    async def _stop(self, grace: float) -> None:
        if not self._consumers:  # it was never started
            return
        self._begin_to_stop(grace)
        if asyncio.current_task() in self._running():
            # The job would be handed back, and would stop the next worker, too.
            raise UsageError("a handler cannot wait for its own worker, which is stopping now")
        try:
            await self._stopped.wait()
        except asyncio.CancelledError:
            # The caller does not want to wait; but no job may run on without a lease.
            self._end_grace()
            await self._stopped.wait()
            raise

    def _begin_to_stop(self, grace: float) -> None:
        if not self._stopping:
            self._stopping = True
            self._grace_until = self._loop.time() + grace
            self._poison_jobs.stop()
            for consumer in self._consumers:
                consumer.stop_claiming()
            self._services.start(self._shut_down)

    def _end_grace(self) -> None:
        self._grace_until = self._loop.time()
        if self._grace_period is not None:
            self._grace_period.reschedule(self._grace_until)

    async def _shut_down(self) -> None:
        """Stop gracefully. If a handler cancels this task, it starts from the beginning."""
        try:
            await self._let_finish()
            await self._hand_back()
            await self._store_the_rest()
        except Exception as error:  # noqa: BLE001  # the worker must stop even after an internal error
            self._fail(error)
        self._leases.stop()
        try:
            await self._services.end()
            await self._release()
        finally:
            self._threads.close()
            self._processes.close()
            self._stopped.set()
            logger.info("worker %s has stopped", self.name)

    def _running(self) -> list[asyncio.Task[None]]:
        return [task for consumer in self._consumers for task in consumer.running()]

    async def _let_finish(self) -> None:
        running = self._running()
        seconds = self._grace_until - self._loop.time()
        if running and seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds) as self._grace_period:
                    await asyncio.wait(running)
        self._grace_period = None

    async def _hand_back(self) -> None:
        for consumer in self._consumers:
            consumer.stop_runs()
        if running := self._running():
            await asyncio.wait(running, timeout=END_SECONDS)
        for consumer in self._consumers:
            consumer.hand_back_running()

    async def _store_the_rest(self) -> None:
        try:
            async with asyncio.timeout(END_SECONDS):
                await asyncio.gather(*(consumer.flush() for consumer in self._consumers))
        except TimeoutError:
            logger.error(
                "worker %s: the last outcomes were not stored within %g s; "
                "these jobs run again when their leases expire",
                self.name,
                END_SECONDS,
            )

    async def _release(self) -> None:
        for consumer in self._consumers:
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await consumer.unregister()
        for queue in self._queues:
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await queue.store_use.release(self)

    # Recovering ---------------------------------------------------------------------------------

    async def _recover(self) -> None:
        """Take back the jobs of dead workers, for as long as the worker runs."""
        while True:
            # Its own leases first: after the machine has slept, all leases have expired, and the
            # worker must not take back its own jobs.
            asked_at = self._loop.time()
            times = [consumer.clock.now_ms() for consumer in self._consumers]
            await asyncio.wrap_future(self._leases.renew())
            for consumer, now_ms in zip(self._consumers, times, strict=True):
                consumer.end_unstarted_runs()
                await consumer.reclaim(asked_at, now_ms)
                asked_at = self._loop.time()
            await self._clock.sleep(self._lease_ms / 1000 / RENEWALS_PER_LEASE)


def _location(queue: Queue) -> tuple[object, ...]:
    """Return where the jobs of a queue are: equal for two objects of the same queue."""
    store = queue.store_use.made
    if store is None or store.location == File(None):  # the default store, or one in memory
        return id(store or queue.store_use), queue.name
    return queue.store_use.engine().url, store.prefix, queue.name
