"""`JobDriver`: runs the jobs of a test one after the other, by the rules of a worker.

It uses the parts of a `Worker` that decide: `Engine.claim` chooses the next job, and `Runner` runs
it and decides on the outcome. It has no lease thread, no heartbeats and no tasks of its own, so the
order of the runs depends on nothing but the jobs.

If a handler is still running after `PATIENCE_SECONDS`, the next job is started, too: the handler
may be waiting for the result of that job.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

from hasten._checks import is_async
from hasten.errors import JobFailed, UsageError
from hasten.jobs import Queue
from hasten.jobs._current import running_job
from hasten.jobs._encoding import decode_json
from hasten.jobs._engine import Engine
from hasten.jobs._epoch import to_datetime
from hasten.jobs._failures import Failure
from hasten.jobs._options import DEFAULT_KEEP_COMPLETED, DEFAULT_KEEP_FAILED, Options
from hasten.jobs._processes import Processes
from hasten.jobs._record import ClaimRequest, Lease, Outcome, Postponed, RunUpdate
from hasten.jobs._release_gate import AppReleaseGate
from hasten.jobs._run import Run, StopReason
from hasten.jobs._runner import Runner
from hasten.jobs._services import mark_error_retrieved
from hasten.jobs._task_definition import TaskDefinition
from hasten.jobs._threads import Interrupted, Threads
from hasten.testing._caller_thread import waiting_thread
from hasten.testing._jobs_clock import JobsClock, is_job_of_test
from hasten.testing._records import JobRun, RunOutcome

WORKER_NAME: Final = "test"
LEASE_MS: Final = 10_000
THREADS: Final = 100

# For how long a handler runs, in real time, before the next job is started beside it.
PATIENCE_SECONDS: Final = 0.25

_OWN_FOLDERS: Final = (str(Path(__file__).parents[1]), str(Path(asyncio.__file__).parent))

# Exceptions that mean something else to the test or to asyncio than to a job.
_NOT_RAISED_AGAIN: Final = (
    *(SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, StopAsyncIteration),
    *(asyncio.CancelledError, Interrupted),
)

# How many further failed jobs the notes of an exception list.
MAX_NOTES: Final = 10

_tokens: Final = itertools.count(1)

WrapTask = Callable[[TaskDefinition, Run], TaskDefinition]
"""Returns the task to run instead of another one."""


class InProcessRunner(Runner):
    """Runs jobs in the process of the test, and keeps the exceptions of their handlers."""

    def __init__(self, queue: Queue, threads: Threads, wrap_task: WrapTask | None = None) -> None:
        self.updates: list[RunUpdate] = []
        self.errors: dict[Run, BaseException] = {}
        self._wrap_task = wrap_task
        super().__init__(
            queue,
            threads=threads,
            processes=Processes(1),  # not used
            keep_completed=DEFAULT_KEEP_COMPLETED,
            keep_failed=DEFAULT_KEEP_FAILED,
            gate=AppReleaseGate(None),
            report=self.updates.append,
        )

    async def _call_handler(self, task: TaskDefinition, run: Run, options: Options) -> str:
        task = run_in_this_process(task)
        if self._wrap_task is not None:
            task = self._wrap_task(task, run)
        return await super()._call_handler(task, run, options)

    async def _call_in_thread(self, run: Run, call: Callable[[], Any]) -> Any:
        thread = waiting_thread.get()
        if thread is None:
            return await super()._call_in_thread(run, call)
        result = await thread.run(call)
        return await result if asyncio.iscoroutine(result) else result

    def _log_and_decide_outcome(
        self, failure: Failure, run: Run, options: Options, error: BaseException
    ) -> Outcome:
        self.errors[run] = error
        return super()._log_and_decide_outcome(failure, run, options, error)

    def _fail_without_running(self, run: Run, reason: str, options: Options) -> Outcome:
        self.errors[run] = JobFailed(run.lease.job.id, reason)
        return super()._fail_without_running(run, reason, options)


def run_in_this_process(task: TaskDefinition) -> TaskDefinition:
    """Return a task that does not run in a child process.

    A child process would use the real store, and none of the objects that the test has replaced.
    """
    if task.run_in != "process":
        return task
    local = copy.copy(task)
    local.run_in = "loop" if is_async(task.function) else "thread"
    return local


class JobDriver:
    """Runs the jobs of queues until no job is ready, and collects the runs.

    find_queues returns the queues. check_may_continue is called before each job, and raises an
    exception if no further job may run. Belongs to one call of the test, and so to one event loop.
    """

    def __init__(
        self,
        find_queues: Callable[[], list[Queue]],
        clock: JobsClock,
        *,
        max_runs: int,
        called: str,
        check_may_continue: Callable[[], None],
    ) -> None:
        self.runs: list[JobRun] = []
        self.next_due_ms: int | None = None  # when the next delayed job is due
        self._find_queues = find_queues
        self._clock = clock
        self._max_runs = max_runs
        self._called = called
        self._check_may_continue = check_may_continue
        self._threads = Threads(THREADS)
        self._running: set[asyncio.Task[None]] = set()
        self._active: set[Run] = set()

    async def run_until(self, target_ms: int) -> None:
        """Run all ready jobs, and move the clock from one due job to the next, up to target_ms."""
        while True:
            await self.run_ready()
            due_ms = self.next_due_ms
            if due_ms is None or due_ms > target_ms:
                break
            self._clock.move_to(due_ms)
        if self._clock.now_ms() < target_ms:
            self._clock.move_to(target_ms)
            await self.run_ready()

    async def run_ready(self) -> None:
        """Run jobs until none is ready and none is running."""
        try:
            while True:
                self._check_may_continue()
                is_started = await self._start_next_job()
                if not is_started and not self._running:
                    return
                timeout = PATIENCE_SECONDS if is_started else PATIENCE_SECONDS / 10
                await asyncio.wait(
                    self._running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                )
                for task in [task for task in self._running if task.done()]:
                    self._running.discard(task)
                    task.result()
        finally:
            await self._abandon_running()

    def close(self) -> None:
        """End the threads."""
        self._threads.close()

    async def _start_next_job(self) -> bool:
        """Start the next job of any queue. Returns whether there was one."""
        now_ms = self._clock.now_ms()
        due_times = []
        for queues in self._groups():
            engine, name = queues[0].engine, queues[0].name
            token = f"{WORKER_NAME}:{next(_tokens)}"
            claimed = await engine.claim(
                name, ClaimRequest(1, token, WORKER_NAME, LEASE_MS), now_ms=now_ms
            )
            if claimed.leases:
                self._check_count(claimed.leases[0])
                self._start(claimed.leases[0], queues, engine)
                return True
            if claimed.next_due_ms is not None and claimed.next_due_ms > now_ms:
                due_times.append(claimed.next_due_ms)
        self.next_due_ms = min(due_times, default=None)
        return False

    def _groups(self) -> Iterable[list[Queue]]:
        """Return the queue objects that have tasks, grouped by the queue that they name."""
        groups: dict[tuple[object, str], list[Queue]] = {}
        for queue in self._find_queues():
            if queue.tasks:
                groups.setdefault((queue.shared_store, queue.name), []).append(queue)
        return groups.values()

    def _check_count(self, lease: Lease) -> None:
        if len(self.runs) + len(self._running) < self._max_runs:
            return
        counts = Counter(run.task for run in self.runs).most_common(3)
        most = ", ".join(f"{task}: {count:,}" for task, count in counts)
        raise UsageError(
            f"{self._called}: {self._max_runs:,} jobs have run, and job {lease.job.id} "
            f"({lease.job.name}) is ready, too (runs by task: {most}). Does a task enqueue itself "
            "without an end? If not, allow more runs with max_runs"
        )

    def _start(self, lease: Lease, queues: list[Queue], engine: Engine) -> None:
        # The newest queue object that has the task. Without one, the job fails as in a worker.
        with_task = [queue for queue in queues if lease.job.name in queue.tasks]
        queue = (with_task or queues)[-1]
        runner = InProcessRunner(queue, self._threads)
        run = Run(lease, asyncio.get_running_loop(), runner.make_context)
        context = contextvars.copy_context()
        context.run(running_job.set, run)
        context.run(is_job_of_test.set, True)
        task = asyncio.get_running_loop().create_task(
            self._run_job(run, runner, queue, engine), context=context
        )
        run.task = task
        self._active.add(run)
        self._running.add(task)

    async def _run_job(
        self, run: Run, runner: InProcessRunner, queue: Queue, engine: Engine
    ) -> None:
        run.has_begun = True
        began_ms = self._clock.now_ms()
        try:
            outcome = await runner.run(run)
        except BaseException as error:
            outcome = runner.outcome_of_unhandled_error(error, run)
            if isinstance(error, KeyboardInterrupt):
                raise
        finally:
            run.mark_ended()
            run.task = None
            self._active.discard(run)
        if outcome is None:
            return
        job, now_ms = run.lease.job, self._clock.now_ms()
        if runner.updates:
            await engine.update(job.queue, runner.updates, now_ms=now_ms)
        await engine.settle(job.queue, [outcome], None, now_ms=now_ms)
        self.runs.append(
            JobRun(
                task=job.name,
                queue=job.queue,
                job_id=job.id,
                arguments=decode_or_keep(job.data),
                outcome=cast("RunOutcome", type(outcome).__name__.lower()),
                at=to_datetime(began_ms),
                attempt=job.attempts_made + 1,
                result=_decode_result(queue, job.name, outcome),
                error=_as_seen_by_test(runner.errors.get(run), outcome, job.id),
            )
        )

    async def _abandon_running(self) -> None:
        """Stop the handlers that are still running, because the call of the test ends."""
        for run in list(self._active):
            run.request_stop(StopReason.LOST)  # its outcome is not stored
        running, self._running = self._running, set()
        if running:
            await asyncio.wait(running, timeout=1)
        for task in running:
            task.add_done_callback(mark_error_retrieved)


async def store_declared_schedules(queue: Queue, now_ms: int) -> None:
    """Store the schedules that a queue object declares."""
    schedules = queue.schedules
    for declaration in list(schedules.declared.values()):
        new = schedules.make_declared(declaration)
        await queue.engine.upsert_schedule(queue.name, new, now_ms=now_ms)


def decode_or_keep(data: str) -> Any:
    """Return the data of a job. Data that is no JSON is returned as it is."""
    try:
        return decode_json(data)
    except ValueError:
        return data


def _decode_result(queue: Queue, task: str, outcome: Outcome) -> Any:
    text = getattr(outcome, "result", None)
    return None if text is None else queue.decode_result(task, text)


def _as_seen_by_test(
    error: BaseException | None, outcome: Outcome, id: str
) -> BaseException | None:
    """Return the exception of a run, without the frames of hasten in front of the handler's."""
    if error is None or type(outcome) is Postponed:
        return None
    if isinstance(error, _NOT_RAISED_AGAIN):
        replaced = JobFailed(id, f"{type(error).__name__}: {error}")
        replaced.__cause__ = error
        return replaced
    return error.with_traceback(_without_own_frames(error.__traceback__))


def _without_own_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that begins in the code of the application."""
    rest = trace
    while rest is not None:
        if not rest.tb_frame.f_code.co_filename.startswith(_OWN_FOLDERS):
            return rest
        rest = rest.tb_next
    return trace


def raise_unrecovered(runs: Iterable[JobRun]) -> None:
    """Raise the error of the first job whose latest run has failed."""
    latest: dict[tuple[str, str], JobRun] = {}
    for run in runs:
        latest[run.queue, run.job_id] = run
    failed = [run for run in latest.values() if run.outcome in {"failed", "retry"}]
    if not failed:
        return
    first, *others = failed
    error = first.error or JobFailed(first.job_id, "unknown error")
    retried = " and will be retried" if first.outcome == "retry" else ""
    error.add_note(
        f"job {first.job_id} ({first.task}) of queue {first.queue} failed in attempt "
        f"{first.attempt}{retried}. With raises=False, errors are only in the returned runs."
    )
    for other in others[:MAX_NOTES]:
        error.add_note(f"another failed job: {other}")
    __tracebackhide__ = True
    raise error
