"""A worker: claims jobs from queues, runs them and stores their outcomes.

Theory of operation. Each queue has a lane with these tasks of the event loop:

- a *fetcher* does the one thing that counts: `settle` what has ended and claim the next jobs, in
  one step of the store. What ends while such a step is under way gathers for the next one, so the
  batches grow with the load. There are as many as the engine's `max_in_flight`, each for its part
  of the room: on Redis two, so that the server works while the worker does. (In SQLite's case they
  and the store's thread would only take turns at the interpreter's lock.)
- the *listener* waits for the store to have something once the fetcher came back empty-handed.

A worker has room for `concurrency` runs, over all its queues, and claims no job that it has no room
for. One more task takes back what dead workers held, and a thread renews the leases (`leases.py`).

The tasks named here are the worker's services (`services.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
from collections.abc import Iterator, Sequence
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Final, Self

from hasten._checks import check_whole_number
from hasten._clock import Clock
from hasten._durations import Duration, to_ms
from hasten._logs import get_logger
from hasten._store_url import File
from hasten.errors import InvalidOption, StoreError, StoreInterrupted, StoreRejected, UsageError
from hasten.jobs import _failure_log as failure_log
from hasten.jobs import _suspects as suspects
from hasten.jobs._lane import Lane
from hasten.jobs._leases import RENEWALS_PER_LEASE, LeaseKeeper
from hasten.jobs._options import (
    DEFAULT_KEEP_COMPLETED,
    DEFAULT_KEEP_FAILED,
    Keep,
    check_keep,
    check_name,
)
from hasten.jobs._outages import Outage
from hasten.jobs._processes import Processes
from hasten.jobs._queue import Queue
from hasten.jobs._record import (
    Batch,
    Claim,
    Failed,
    Lease,
    Outcome,
    Postponed,
    Released,
    RunUpdate,
)
from hasten.jobs._room import Room
from hasten.jobs._run import Run, Stop
from hasten.jobs._services import Services, retrieve
from hasten.jobs._suspects import Suspects
from hasten.jobs._threads import Threads

logger = get_logger("hasten.worker")

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

# An idle lane claims this often without being told to: no lost message may leave it idle.
LOOK_ANYWAY_SECONDS: Final = 5.0

# After the grace period: how long cancelled handlers have to end, and then the store to accept the
# last outcomes.
LAST_WORDS_SECONDS: Final = 5.0


class Worker:
    """Runs the jobs of some queues, up to concurrency at once: `async with Worker(mail): …`.

    Leaving the block, `stop` or `aclose` ends it gracefully: it takes no more jobs, gives the
    running ones grace to finish, and hands back the rest without using up an attempt of theirs.

    lease is how long a job stays with a worker that stops renewing it. It is renewed four times as
    often, from a thread, so that a blocked event loop loses nothing. A job whose worker
    has died crash_limit times while running it fails. keep_completed and keep_failed are for jobs
    that do not say themselves (`Keep`, a count, True or False). handler_processes is how many
    handlers with run_in="process" run at once; None means as many as there are processors.
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
    ) -> None:
        if not queues or not all(isinstance(queue, Queue) for queue in queues):
            raise InvalidOption("queues", queues, "one Queue or more")
        if len(set(map(_place, queues))) < len(set(queues)):
            raise InvalidOption("queues", queues, "one Queue object for each queue")
        for option, value in {"concurrency": concurrency, "crash_limit": crash_limit}.items():
            check_whole_number(option, value, 1)
        if handler_processes is not None:
            check_whole_number("handler_processes", handler_processes, 1)
        self.name = check_name("worker", name or f"{socket.gethostname()}:{os.getpid()}")
        self._queues = tuple(dict.fromkeys(queues))
        self._concurrency = concurrency
        self._lease_ms = to_ms("lease", lease, at_least_ms=1000)
        self._grace = to_ms("grace", grace) / 1000
        self._crash_limit = crash_limit
        self._keep_completed = (
            check_keep("keep_completed", keep_completed) or DEFAULT_KEEP_COMPLETED
        )
        self._keep_failed = check_keep("keep_failed", keep_failed) or DEFAULT_KEEP_FAILED
        self._process_count = handler_processes or os.cpu_count() or 1
        self._clock: Clock = queues[0].clock
        self._lanes: list[Lane] = []
        self._suspects = Suspects(crash_limit)
        self._id = secrets.token_hex(8)
        self._claims = 0
        self._claiming = 0  # claims that are under way
        self._stopping = False
        self._handles_signals = False
        self._failure: BaseException | None = None
        self._holder: asyncio.Task[Any] | None = None  # runs the `async with` block
        self._has_cancelled_holder = False
        self._grace_until = 0.0  # by the clock of the event loop
        self._grace_period: asyncio.Timeout | None = None
        self._stopped: asyncio.Event | None = None
        self._stop_requested: asyncio.Event | None = None

    def __repr__(self) -> str:
        names = ", ".join(queue.name for queue in self._queues)
        return f"<Worker {self.name} of {names}>"

    # Life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to take jobs. They run in the event loop that this is called in.

        Raises what `Queue.check_tasks` raises.
        """
        if self._lanes:
            raise UsageError("this worker has been started already: make another one")
        for queue in self._queues:
            queue.check_tasks()
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._stop_requested = asyncio.Event()
        self._room = Room(self._concurrency)
        self._threads = Threads(self._concurrency)
        self._processes = Processes(self._process_count)
        self._keeper = LeaseKeeper(self._clock, self._lease_ms)
        # Without its event loop a worker runs nothing, and must not keep its jobs.
        self._services = Services(self.name, failed=self._fail, loop_ended=self._keeper.stop)
        await self._services.open()
        outages: dict[str, Outage] = {}
        for queue in self._queues:
            queue.store_use.acquire(self)  # it stays open when the queue is closed
            url = queue.store_use.engine().url
            self._lanes.append(
                Lane(
                    queue,
                    room=self._room,
                    outage=outages.setdefault(url, Outage(url)),
                    keeper=self._keeper,
                    threads=self._threads,
                    processes=self._processes,
                    keep_completed=self._keep_completed,
                    keep_failed=self._keep_failed,
                )
            )
        for lane in self._lanes:
            self._services.start(partial(self._listen, lane))
            for _ in range(lane.engine.max_in_flight):
                self._services.start(partial(self._fetch, lane))
        self._services.start(self._take_back)
        self._keeper.start()
        logger.info("worker %s serves %s", self.name, ", ".join(q.name for q in self._queues))

    def _fail(self, error: BaseException) -> None:
        """Stop after an error of ours, and let whoever holds the worker know."""
        if self._failure is None:
            self._failure = error
        if not self._stopping:
            self._begin_to_stop(self._grace)
            self.request_stop()
            if self._holder is not None:
                self._has_cancelled_holder = self._holder.cancel()
        logger.critical("worker %s has failed and stops", self.name, exc_info=error)

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
        """Stop. Raises what the worker has failed with, which cancelled the block."""
        holder, self._holder = self._holder, None
        was_cancelled = isinstance(error, asyncio.CancelledError)
        by_others = was_cancelled
        if self._has_cancelled_holder and holder is not None:
            if not was_cancelled:  # the block has ended before the cancellation reached it
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
            by_others = holder.uncancel() > 0
        await self._stop(self._grace)
        # Neither an error of the block's own nor somebody else's cancellation is replaced.
        if self._failure is not None and (error is None or (was_cancelled and not by_others)):
            raise self._failure

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT; a second one ends the process at once.

        The jobs that such a process was running are taken back when their leases run out. To be
        called in the main thread, as signals are. Raises what the worker itself has failed with.
        """
        await self.start()
        assert self._stop_requested is not None
        with self._signals():
            try:
                await self._stop_requested.wait()
            except asyncio.CancelledError:
                logger.error("worker %s: the task that runs it was cancelled; it stops", self.name)
                await self._stop(self._grace)
                raise
            await self.stop()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Let the first signal ask us to stop, and the second one end the process.

        By `signal.signal`, whose handlers run even while a job blocks the event loop.
        """
        signalled = False

        def on_signal(number: int, _frame: FrameType | None) -> None:
            nonlocal signalled
            if signalled:
                os._exit(128 + number)
            signalled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: it is over anyway
                self._loop.call_soon_threadsafe(self.request_stop)

        before = {number: signal.signal(number, on_signal) for number in STOP_SIGNALS}
        self._handles_signals = True
        try:
            yield
        finally:
            self._handles_signals = False
            for number, handler in before.items():
                signal.signal(number, handler)

    def request_stop(self) -> None:
        """Make `run` stop the worker, and return at once. Call it in the worker's event loop."""
        if self._stop_requested is not None and not self._stop_requested.is_set():
            logger.info("worker %s stops; a second signal ends it at once", self.name)
            self._stop_requested.set()

    async def aclose(self) -> None:
        """The same as `stop()`."""
        await self.stop()

    async def stop(self, grace: Duration | None = None) -> None:
        """End gracefully; returns when all is stored or handed back. Safe to call twice.

        If it is cancelled, the grace period ends at once, and it still waits for the rest. Raises
        what the worker itself has failed with, and `UsageError` in a handler of this worker.
        """
        await self._stop(self._grace if grace is None else to_ms("grace", grace) / 1000)
        if self._failure is not None:
            raise self._failure

    async def _stop(self, grace: float) -> None:
        if self._stopped is None:
            return
        self._begin_to_stop(grace)
        if asyncio.current_task() in self._running():
            # It would be handed back, and stop the next worker, too.
            raise UsageError("a handler cannot wait for its own worker, which is stopping now")
        try:
            await self._stopped.wait()
        except asyncio.CancelledError:
            # Whoever cancels us is in a hurry; but what runs must not go on without a lease.
            self._end_grace()
            await self._stopped.wait()
            raise

    def _begin_to_stop(self, grace: float) -> None:
        if not self._stopping:
            self._stopping = True
            self._grace_until = self._loop.time() + grace
            for lane in self._lanes:
                lane.keep_released()
            self._services.start(self._shut_down)

    def _end_grace(self) -> None:
        self._grace_until = self._loop.time()
        if self._grace_period is not None:
            self._grace_period.reschedule(self._grace_until)

    async def _shut_down(self) -> None:
        """Stop gracefully. It may be cancelled by a handler, and begins anew then."""
        assert self._stopped is not None
        try:
            await self._let_finish()
            await self._hand_back()
            await self._store_the_rest()
        except Exception as error:  # noqa: BLE001  # a fault of ours must not keep us from ending
            self._fail(error)
        self._keeper.stop()
        try:
            await self._services.end()
            await self._leave()
        finally:
            self._threads.close()
            self._processes.close()
            self._stopped.set()
            logger.info("worker %s has stopped", self.name)

    def _running(self) -> list[asyncio.Task[None]]:
        return [
            run.task
            for lane in self._lanes
            for run in lane.runs.values()
            if run.task is not None and not run.has_ended
        ]

    async def _let_finish(self) -> None:
        running = self._running()
        seconds = self._grace_until - self._loop.time()
        if running and seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds) as self._grace_period:
                    await asyncio.wait(running)
        self._grace_period = None

    async def _hand_back(self) -> None:
        for lane in self._lanes:
            for run in lane.runs.values():
                if run.task is None and not run.has_ended:  # a suspect that has not begun
                    self._end(lane, run, Released(run.lease.job.id, run.lease.token))
                else:
                    run.stop(Stop.RELEASED)
        if running := self._running():
            await asyncio.wait(running, timeout=LAST_WORDS_SECONDS)
        for lane in self._lanes:
            for run in list(lane.runs.values()):
                if not run.has_ended:
                    logger.error(
                        "job %s: handler still running after being asked to stop; job handed back",
                        run.lease.job.id,
                    )
                    lane.enter(run, Released(run.lease.job.id, run.lease.token))

    async def _store_the_rest(self) -> None:
        try:
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await asyncio.gather(*map(_store_rest, self._lanes))
        except TimeoutError:
            logger.error(
                "worker %s: the last outcomes were not stored within %g s; "
                "these jobs run again when their leases expire",
                self.name,
                LAST_WORDS_SECONDS,
            )

    async def _leave(self) -> None:
        for lane in self._lanes:
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(LAST_WORDS_SECONDS):
                    await lane.engine.unregister_worker(lane.name, self._id)
        for queue in self._queues:
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(LAST_WORDS_SECONDS):
                    await queue.store_use.release(self)

    # Fetching -----------------------------------------------------------------------------------

    async def _fetch(self, lane: Lane) -> None:
        """Settle what has ended and claim what there is room for, again and again."""
        activity = f"settle jobs of queue {lane.name}"
        while True:
            notes, outcomes, alone = lane.take()
            claim = None if alone else self._next_claim(lane)
            if not notes and not outcomes and claim is None:
                lane.signal.clear()
                await lane.signal.wait()
                continue
            lane.flights += 1
            try:
                # Two fetchers that store one thing each must not overtake each other.
                async with lane.in_order if alone else contextlib.nullcontext():
                    batch = await self._settle(lane, notes, outcomes, claim)
            except StoreError as error:
                self._return_room(lane, claim)
                self._begin_suspect()
                if isinstance(error, StoreRejected) and (notes or outcomes):
                    self._find_culprit(lane, notes, outcomes, alone, error)
                    continue
                lane.put_back(notes, outcomes, alone=alone)
                if isinstance(error, StoreInterrupted):
                    lane.unsure.update(outcome.id for outcome in outcomes)
                lane.outage.failed(activity, error)
                await lane.pause()
            except BaseException:
                # Cancelled, or a fault of ours: the store may or may not have applied the call.
                self._return_room(lane, claim)
                self._begin_suspect()
                lane.put_back(notes, outcomes, alone=alone)
                lane.unsure.update(outcome.id for outcome in outcomes)
                raise
            else:
                lane.recovered()
                lane.outage.succeeded(activity)
                self._return_room(lane, claim, used=len(batch.leases))
                self._take_in(lane, outcomes, claim, batch)
            finally:
                lane.flights -= 1
                lane.turned.set()

    def _find_culprit(
        self,
        lane: Lane,
        notes: list[RunUpdate],
        outcomes: list[Outcome],
        alone: bool,
        error: StoreRejected,
    ) -> None:
        """The store rejects something of a batch: only the job that it belongs to may suffer."""
        if not alone:
            lane.put_back(notes, outcomes, alone=True)
            return
        for note in notes:
            logger.error(
                "queue %s: dropped a log line or the progress of job %s: cannot be stored: %s",
                lane.name, note.id, error.reason,
            )  # fmt: skip
        for outcome in outcomes:
            self._replace(lane, outcome, error)

    def _replace(self, lane: Lane, outcome: Outcome, error: StoreRejected) -> None:
        """Fail the job of an outcome that cannot be stored."""
        run = (outcome.id, outcome.token)
        reason = f"its outcome cannot be stored: {error.reason}"
        failure_log.not_stored(lane.name, outcome.id, reason)
        if run in lane.replaced:  # that cannot be stored either: its lease runs out
            lane.replaced.discard(run)
            lane.forget(*run)
        else:
            lane.replaced.add(run)
            failed = Failed(outcome.id, outcome.token, reason, None, self._keep_failed)
            lane.put_back([], [failed], alone=True)

    async def _settle(
        self,
        lane: Lane,
        notes: list[RunUpdate],
        outcomes: Sequence[Outcome],
        claim: Claim | None,
    ) -> Batch:
        now_ms = self._clock.now_ms()
        if notes or lane.noting.locked():
            async with lane.noting:  # in order, and before the ends of the jobs that they are about
                if notes:
                    await lane.engine.update(lane.name, notes, now_ms=now_ms)
                    notes.clear()  # they must not be stored twice if the next step fails
        if not outcomes and claim is None:
            return Batch([])
        return await lane.engine.settle(lane.name, outcomes, claim, now_ms=now_ms)

    def _next_claim(self, lane: Lane) -> Claim | None:
        """Reserve room for the next jobs of a lane, if it has jobs and there is room."""
        if self._stopping or not lane.share.wants or lane.is_behind or self._suspects.is_waiting:
            self._room.pass_on(lane.share)
            return None
        at_most = min(-(-self._concurrency // lane.engine.max_in_flight), lane.engine.max_batch)
        room = self._room.reserve(lane.share, at_most)
        if not room:
            return None
        self._claiming += 1
        lane.claims += 1
        self._claims += 1
        token = f"{self._id}:{self._claims}"
        return Claim(room, token, self.name, self._lease_ms)

    def _return_room(self, lane: Lane, claim: Claim | None, used: int = 0) -> None:
        """Give back the places of a claim, except those that its jobs use."""
        if claim is None:
            return
        self._claiming -= 1
        lane.claims -= 1
        if used:
            self._room.begin(lane.share)
        if used < claim.count:
            self._room.give_back(lane.share, claim.count - used)
        elif used > claim.count:  # an earlier claim, whose answer was lost, brought some of them
            self._room.take(lane.share, used - claim.count)

    def _take_in(
        self, lane: Lane, outcomes: Sequence[Outcome], claim: Claim | None, batch: Batch
    ) -> None:
        """Forget what has been settled, and start what has been claimed."""
        for outcome in outcomes:
            lane.forget(outcome.id, outcome.token)
        for id in batch.lost:
            if id in lane.unsure:  # the first attempt may well have been the one that counts
                logger.info("job %s: outcome stored by an earlier call, or lease lost", id)
            else:
                logger.warning("job %s: outcome discarded, lease lost", id)
        if lane.replaced:
            lane.replaced.difference_update((outcome.id, outcome.token) for outcome in outcomes)
        if lane.unsure:
            lane.unsure.difference_update(outcome.id for outcome in outcomes)
        self._suspects.settled(outcome.id for outcome in outcomes)
        for lease in batch.leases:
            self._start(lane, lease)
        self._begin_suspect()
        if claim is not None and len(batch.leases) < claim.count:
            lane.sated(batch.next_due_ms)

    def _begin_suspect(self) -> None:
        """Begin with a suspect once nothing else is on its way to us that it could take along."""
        if not self._stopping and not self._claiming and self._suspects.begin():
            for lane in self._lanes:
                lane.wake()

    def _start(self, lane: Lane, lease: Lease) -> None:
        job = lease.job
        run = Run(lease, self._loop)
        if (older := lane.runs.get(job.id)) is not None:
            older.stop(Stop.LOST)  # its lease ran out, and the job has come back to us
        lane.runs[job.id] = run
        if self._stopping:  # it was on its way when the worker was told to stop
            self._end(lane, run, Released(job.id, lease.token))
        elif not self._suspects.is_suspect(job):
            self._begin(lane, run)
        elif not self._suspects.take(run, partial(self._begin, lane, run)):
            self._end(lane, run, Postponed(job.id, lease.token, suspects.PAUSE_MS))

    def _begin(self, lane: Lane, run: Run) -> None:
        run.task = self._loop.create_task(self._run(lane, run))

    async def _run(self, lane: Lane, run: Run) -> None:
        run.has_begun = True
        try:
            outcome = await lane.runner.run(run)
        except BaseException as error:
            # A handler may have thrown into this coroutine (GeneratorExit closes what it awaits).
            # It counts as an attempt like any other error: nothing goes round uncounted.
            outcome = lane.runner.failed(error, run)
            if isinstance(error, KeyboardInterrupt) and not self._handles_signals:
                self._end(lane, run, outcome)
                assert run.task is not None
                run.task.add_done_callback(retrieve)  # whoever runs the event loop gets it
                raise  # the user's Ctrl+C, perhaps
        self._end(lane, run, outcome)

    def _end_dropped(self, lane: Lane) -> None:
        """End the runs whose task was cancelled before its first step, which it never took."""
        for run in list(lane.runs.values()):
            if run.task is not None and run.task.done() and not run.has_ended:
                self._end(lane, run, lane.runner.failed(asyncio.CancelledError(), run))

    def _end(self, lane: Lane, run: Run, outcome: Outcome | None) -> None:
        self._room.give_back(lane.share)
        self._suspects.ended(run)
        if run.has_ended:
            return  # handed back already, when the worker stopped
        lane.enter(run, outcome)

    # Listening ----------------------------------------------------------------------------------

    async def _listen(self, lane: Lane) -> None:
        """Make a lane hungry again when there is, or may be, something for it."""
        with contextlib.suppress(StoreError):  # the fetcher tells of it
            await lane.engine.register_worker(lane.name, self._id, name=self.name)
        activity = f"wait for jobs of queue {lane.name}"
        while True:
            await lane.idle.wait()
            try:
                await self._until_work(lane)
            except StoreError as error:
                lane.outage.failed(activity, error)
                await lane.pause()
            else:
                lane.outage.succeeded(activity)
            lane.feed()

    async def _until_work(self, lane: Lane) -> None:
        waits = [lane.engine.wait(lane.name, next_due_ms=lane.next_due_ms, worker=self._id)]
        if lane.next_due_ms is not None:
            waits.append(self._clock.sleep_until(lane.next_due_ms))
        tasks = [self._loop.create_task(wait) for wait in waits]
        try:
            done, _ = await asyncio.wait(
                tasks, timeout=LOOK_ANYWAY_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.add_done_callback(retrieve)  # one error is enough
                task.cancel()

    # Taking back --------------------------------------------------------------------------------

    async def _take_back(self) -> None:
        """Recover the jobs of dead workers, for as long as the worker runs."""
        while True:
            # What we hold comes first: after the machine has slept, all leases have run out, and
            # ours must not be taken for those of the dead.
            asked_at, now_ms = self._loop.time(), self._clock.now_ms()
            await asyncio.wrap_future(self._keeper.renew())
            for lane in self._lanes:
                self._end_dropped(lane)
                await self._reclaim(lane, asked_at, now_ms)
                asked_at = self._loop.time()
            await self._clock.sleep(self._lease_ms / 1000 / RENEWALS_PER_LEASE)

    async def _reclaim(self, lane: Lane, asked_at: float, now_ms: int) -> None:
        """Take back the jobs of dead workers.

        Not before the store has worked for as long as a lease lasts: in an outage nobody can renew
        a lease, and live workers must have had the chance to. asked_at is since when we have waited
        for the store, by the clock of the event loop; now_ms is before our own leases were renewed.
        """
        activity = f"take back the jobs of dead workers of queue {lane.name}"
        lease_seconds = self._lease_ms / 1000
        try:
            await lane.engine.probe(lane.name)
            if self._loop.time() - asked_at > lease_seconds / RENEWALS_PER_LEASE:
                lane.outage.was_slow()
            ids = []
            if lane.outage.seconds_without_trouble() >= lease_seconds:
                ids = await lane.engine.reclaim(
                    lane.name, crash_limit=self._crash_limit, now_ms=now_ms
                )
        except StoreError as error:
            lane.outage.failed(activity, error)
            return
        lane.outage.succeeded(activity)
        if ids:
            logger.warning(
                "took back %d jobs of queue %s whose worker is gone: %s",
                len(ids), lane.name, ", ".join(ids[:10]),
            )  # fmt: skip


def _place(queue: Queue) -> tuple[object, ...]:
    """Where the jobs of a queue are: equal if two queue objects stand for one queue."""
    store = queue.store_use.made
    if store is None or store.location == File(None):  # that of the process; one in memory
        return id(store or queue.store_use), queue.name
    return queue.store_use.engine().url, store.prefix, queue.name


async def _store_rest(lane: Lane) -> None:
    """Store what has come of runs, and hand back the rest."""
    # What a claim that is still under way brings is handed back with the others.
    await lane.until_claimed()
    lane.hand_back()
    await lane.until_settled()
