"""`CrashTest`: runs a job again and again, and lets its worker die at another point each time."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from hasten.errors import InvalidOption, JobFailed, UsageError
from hasten.jobs import Arguments, Queue, State
from hasten.jobs._current import running_job
from hasten.jobs._engine import Engine
from hasten.jobs._record import AddResult, ClaimRequest, JobRecord, Lease, NewJob, Outcome
from hasten.jobs._run import Run, StopReason
from hasten.jobs._states import FINISHED
from hasten.jobs._task_definition import TaskDefinition
from hasten.jobs._tasks import Enqueuer
from hasten.jobs._threads import Threads
from hasten.testing._caller_thread import call_function
from hasten.testing._crash_report import CrashDifference, CrashReport
from hasten.testing._enqueued import AnyTask, EnqueuedJobs, task_name
from hasten.testing._isolated_stores import IsolatedStores
from hasten.testing._job_driver import LEASE_MS, THREADS, WORKER_NAME, InProcessRunner
from hasten.testing._jobs_clock import JobsClock, is_job_of_test
from hasten.testing._killable import (
    CrashPlan,
    make_killable,
    plan_of_handler,
    tasks_die_with_handler,
)

CRASH_LIMIT: Final = 3
LONG_LEASE_MS: Final = 10 * 365 * 24 * 3_600_000

# How long one try may take, in real time.
TRY_SECONDS: Final = 30.0

# Operations that only wait and read. Callers that share a task make them at any time.
_NOT_POINTS: Final = frozenset({"events", "get_ends", "wait_for_jobs"})

_tokens: Final = itertools.count(1)


class EngineGate:
    """Receives the operations of all engines, and holds those back whose worker is dead."""

    def __init__(
        self,
        record_added: Callable[[Sequence[NewJob], Sequence[AddResult]], None],
        record_settled: Callable[[Sequence[Outcome]], None],
    ) -> None:
        self._record_added = record_added
        self._record_settled = record_settled

    async def before_call(self, operation: str) -> None:
        """Stop the caller for ever if its worker dies before this operation."""
        plan = plan_of_handler.get()
        if plan is None or operation in _NOT_POINTS:
            return
        if plan.reach(f"before the operation {operation!r} of the store"):
            await plan.wait_forever()

    def after_add(self, jobs: Sequence[NewJob], results: Sequence[AddResult]) -> None:
        """Record added jobs."""
        self._record_added(jobs, results)

    def after_settle(self, outcomes: Sequence[Outcome]) -> None:
        """Record the jobs that were added together with outcomes."""
        self._record_settled(outcomes)


@dataclass(frozen=True, slots=True)
class FinalState:
    """What is compared at the end of a try."""

    job: JobRecord
    result: Any
    jobs_added: list[str]
    snapshot: Any


class CrashTest:
    """Lets the worker of a job die at each point; see `JobsTester.crash_everywhere`."""

    def __init__(
        self,
        stores: IsolatedStores,
        clock: JobsClock,
        task: AnyTask,
        arguments: Mapping[str, object] | Arguments[Any, Any] | None,
        *,
        added: EnqueuedJobs,
        snapshot: Callable[[], object] | None,
        reset: Callable[[], object] | None,
        compare_result: bool,
        max_crashes: int,
    ) -> None:
        self._stores = stores
        self._clock = clock
        self._queue, self._task = _find_task(stores.queues(), task)
        self._arguments = _to_dict(arguments)
        self._added = added
        self._snapshot = snapshot
        self._reset = reset
        self._compare_result = compare_result
        self._max_crashes = max_crashes
        self._plans: list[CrashPlan] = []
        self._error: BaseException | None = None

    async def run(self) -> CrashReport:
        """Run the job without a crash, then with a crash at each point, and compare."""
        name = self._task.name
        began_ms = self._clock.now_ms()
        try:
            with tasks_die_with_handler():
                clean, plan = await self._try_from(began_ms, None)
                if clean.job.state is State.FAILED:
                    raise self._error or JobFailed(clean.job.id, clean.job.error or "unknown error")
                points = plan.points
                if len(points) > self._max_crashes:
                    raise UsageError(
                        f"crash_everywhere: task {name!r} has {len(points):,} points at which its "
                        f"worker can die, more than max_crashes={self._max_crashes:,}. Use smaller "
                        "arguments, or allow more"
                    )
                differences: list[CrashDifference] = []
                for number, point in enumerate(points):
                    state, _ = await self._try_from(began_ms, number, point)
                    differences += self._compare(f"it died {point}", clean, state)
        finally:
            self._clock.set_back_to(began_ms)
            for each in self._plans:
                await each.drop()
        return CrashReport(name, points, differences)

    async def _try_from(
        self, began_ms: int, crash_at: int | None, point: str = ""
    ) -> tuple[FinalState, CrashPlan]:
        """Run the job in empty queues at the time began_ms, and return its final state."""
        self._clock.set_back_to(began_ms)
        self._added.clear()
        bring_back = self._stores.begin_empty()
        plan = CrashPlan(crash_at)
        self._plans.append(plan)
        try:
            if self._reset is not None:
                await call_function(self._reset)
            async with asyncio.timeout(TRY_SECONDS):
                job = await self._run_job(plan)
            return await self._read_state(job), plan
        except TimeoutError as error:
            where = f" after its worker died {point}" if point else ""
            raise UsageError(
                f"crash_everywhere: job of task {self._task.name!r} has not ended within "
                f"{TRY_SECONDS:g} s{where}. Does it wait for a lock that the dead worker has, or "
                "for another job? Jobs of other tasks do not run"
            ) from error
        finally:
            bring_back()

    async def _run_job(self, plan: CrashPlan) -> JobRecord:
        """Add the job, and run it until it has ended. The plan applies to the first run."""
        enqueuer: Enqueuer[..., Any] = Enqueuer(
            self._task, self._queue.producer, self._task.options, {}
        )
        id = (await enqueuer.enqueue(**self._arguments)).id
        self._added.clear()
        engine, name = self._queue.engine, self._queue.name
        threads = Threads(THREADS)
        next_plan: CrashPlan | None = plan
        try:
            while True:
                claimed = await engine.claim(
                    name, self._claim_request(), now_ms=self._clock.now_ms()
                )
                for lease in claimed.leases:
                    if lease.job.id == id:  # other jobs stay claimed, so that they do not run
                        await self._run_once(lease, engine, threads, next_plan)
                        next_plan = None
                (job,) = await engine.get(name, [id])
                assert job is not None, "the job was deleted"
                if job.state in FINISHED:
                    return job
                if not claimed.leases:
                    self._wait_until_due(job, claimed.next_due_ms)
        finally:
            threads.close()

    def _claim_request(self) -> ClaimRequest:
        return ClaimRequest(1, f"crash:{next(_tokens)}", WORKER_NAME, LONG_LEASE_MS)

    def _wait_until_due(self, job: JobRecord, due_ms: int | None) -> None:
        if due_ms is None or due_ms <= self._clock.now_ms():
            raise UsageError(
                f"crash_everywhere: job of task {self._task.name!r} does not end: it is "
                f"{job.state}, and no other job runs"
            )
        self._clock.move_to(due_ms)

    async def _run_once(
        self, lease: Lease, engine: Engine, threads: Threads, plan: CrashPlan | None
    ) -> None:
        """Run the claimed job once, and store the outcome unless the worker dies before."""
        runner = InProcessRunner(
            self._queue, threads, None if plan is None else _make_wrapper(plan)
        )
        run = Run(lease, asyncio.get_running_loop(), runner.make_context)
        running = asyncio.create_task(self._call_runner(run, runner))
        run.task = cast("asyncio.Task[None]", running)
        try:
            ends: set[asyncio.Future[Any]] = {running}
            if plan is not None:
                ends.add(plan.dead)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if plan is not None and plan.is_dead:
                await self._let_worker_die(run, running, engine)
                return
            outcome = await running
        finally:
            if not running.done():
                await _cancel(run, running)
            run.mark_ended()
            run.task = None
        self._error = runner.errors.get(run, self._error)
        now_ms = self._clock.now_ms()
        assert outcome is not None
        if runner.updates:
            await engine.update(self._queue.name, runner.updates, now_ms=now_ms)
        await engine.settle(self._queue.name, [outcome], None, now_ms=now_ms)

    async def _call_runner(self, run: Run, runner: InProcessRunner) -> Outcome | None:
        running_job.set(run)
        is_job_of_test.set(True)
        run.has_begun = True
        return await runner.run(run)

    async def _let_worker_die(
        self, run: Run, running: asyncio.Task[Outcome | None], engine: Engine
    ) -> None:
        """Leave the handler where it is, and let the lease of the job expire."""
        await _cancel(run, running)
        self._stores.drop_pending_calls()
        job = run.lease.job
        now_ms = self._clock.now_ms()
        await asyncio.to_thread(
            engine.renew, job.queue, {job.id: run.lease.token}, lease_ms=LEASE_MS, now_ms=now_ms
        )
        self._clock.move_to(now_ms + LEASE_MS + 1)
        await engine.reclaim(job.queue, crash_limit=CRASH_LIMIT, now_ms=self._clock.now_ms())

    async def _read_state(self, job: JobRecord) -> FinalState:
        result = None
        if job.result is not None:
            result = self._queue.decode_result(job.name, job.result)
        value = None if self._snapshot is None else await call_function(self._snapshot)
        with contextlib.suppress(Exception):  # an object that cannot be copied
            value = copy.deepcopy(value)
        return FinalState(job, result, sorted(map(str, self._added.find())), value)

    def _compare(self, point: str, clean: FinalState, state: FinalState) -> list[CrashDifference]:
        found: list[CrashDifference] = []
        if clean.job.state is not state.job.state:
            error = f" ({state.job.error})" if state.job.error else ""
            found.append(
                CrashDifference(point, "state", str(clean.job.state), f"{state.job.state}{error}")
            )
        if self._compare_result and clean.result != state.result:
            found.append(CrashDifference(point, "result", clean.result, state.result))
        if clean.jobs_added != state.jobs_added:
            found.append(CrashDifference(point, "jobs added", clean.jobs_added, state.jobs_added))
        if clean.snapshot != state.snapshot:
            found.append(CrashDifference(point, "snapshot", clean.snapshot, state.snapshot))
        return found


async def _cancel(run: Run, running: asyncio.Task[Outcome | None]) -> None:
    """End the task of a run whose outcome nobody wants."""
    run.stop_reason = StopReason.LOST
    running.cancel()
    await asyncio.wait({running}, timeout=1)


def _make_wrapper(plan: CrashPlan) -> Callable[[TaskDefinition, Run], TaskDefinition]:
    def wrap(task: TaskDefinition, _run: Run) -> TaskDefinition:
        wrapped = copy.copy(task)
        wrapped.function = make_killable(task.function, plan, is_async=task.run_in == "loop")
        wrapped.run_in = "loop"
        return wrapped

    return wrap


def _find_task(queues: Sequence[Queue], task: AnyTask) -> tuple[Queue, TaskDefinition]:
    """Return the queue that has a task, and its definition. Raises `InvalidOption`."""
    name = task_name(task)
    definition = task.definition if isinstance(task, Enqueuer) else None
    for queue in queues:
        found = queue.tasks.get(name)
        if found is not None and definition in {None, found}:
            if found.run_in == "process":
                raise UsageError(
                    f"crash_everywhere: task {name!r} has run_in='process', and the points inside "
                    "another process cannot be counted: call its function in a task without run_in"
                )
            return queue, found
    raise InvalidOption("task", task, "a task of a queue that exists")


def _to_dict(arguments: Mapping[str, object] | Arguments[Any, Any] | None) -> dict[str, Any]:
    given: object = arguments
    match given:
        case None:
            return {}
        case Arguments():
            return given.by_name
        case Mapping():
            return dict(given)
    expected = "a dict of arguments by name, or task.args(…)"
    raise InvalidOption("arguments", arguments, expected, is_private=True)
