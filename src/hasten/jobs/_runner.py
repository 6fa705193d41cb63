"""`Runner`: runs a leased job. It finds the task, decodes the data, and calls the function."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from hasten._logs import get_logger
from hasten.errors import JobFailed, JobTimeout, StoreError
from hasten.jobs import _failure_log as failure_log
from hasten.jobs import _failures as failures
from hasten.jobs._arguments import encode_result
from hasten.jobs._built_in_tasks import BUILT_IN_TASKS
from hasten.jobs._children import NewChildren, check_after_return
from hasten.jobs._context import Context
from hasten.jobs._control_exceptions import WaitForChildren
from hasten.jobs._engine import CANCELLED_ERROR, resolve_keep
from hasten.jobs._failures import Failure
from hasten.jobs._middleware import Middleware, RunCall, call_through
from hasten.jobs._moments import run_built_in
from hasten.jobs._options import DEFAULT_OPTIONS, Keep, Options, decode_options
from hasten.jobs._processes import Processes
from hasten.jobs._queue import Queue
from hasten.jobs._record import (
    Completed,
    Failed,
    JobRecord,
    Outcome,
    Parked,
    Postponed,
    Released,
    RunUpdate,
    is_first_start,
)
from hasten.jobs._release_gate import AppReleaseGate
from hasten.jobs._run import Run, StopReason
from hasten.jobs._services import RESTART_SECONDS
from hasten.jobs._task_definition import TaskDefinition
from hasten.jobs._threads import Threads

logger = get_logger("hasten.worker")

# After an error of the store, a built-in job runs again after this time.
BUILT_IN_RETRY_MS: Final = 1_000

# If all threads for handlers are abandoned, a job waits in the worker for NO_THREAD_SECONDS, and is
# then postponed by NO_THREAD_PAUSE_MS, because another worker may have a thread for it.
NO_THREAD_SECONDS: Final = 0.1
NO_THREAD_PAUSE_MS: Final = 1_000


class Runner:
    """Runs jobs of one queue, and decides on their outcomes."""

    def __init__(
        self,
        queue: Queue,
        *,
        threads: Threads,
        processes: Processes,
        keep_completed: Keep,
        keep_failed: Keep,
        gate: AppReleaseGate,
        report: Callable[[RunUpdate], None],
    ) -> None:
        self._queue = queue
        self._producer = queue.producer
        self._gate = gate
        self._threads = threads
        self._processes = processes
        self._keep_completed = keep_completed
        self._keep_failed = keep_failed
        self._report = report

    async def run(self, run: Run) -> Outcome | None:
        """Run a job, and return its outcome; None if its lease was lost.

        An exception of the handler leads to an outcome, too. Only a `KeyboardInterrupt` of a
        handler in the event loop is raised again, because it may be the user's Ctrl+C; the caller
        then gets the outcome from `outcome_of_unhandled_error`.
        """
        lease = run.lease
        job = lease.job
        try:
            options = decode_options(job.opts)
        except ValueError as exc:
            return self._fail_without_running(run, str(exc), DEFAULT_OPTIONS)
        reason = job.deferred_failure
        if reason is None and options.expires_at_ms is not None:
            reason = self._find_expiry_error(job, options, options.expires_at_ms)
        if reason is None and options.since is not None:
            pause_ms = self._gate.find_postponement_ms(job.queue, job.name, options.since)
            if pause_ms is not None:
                return Postponed(job.id, lease.token, pause_ms)
        task = self._queue.tasks.get(job.name)
        if reason is not None or task is None:
            if reason is None and job.name in BUILT_IN_TASKS:
                return await self._run_built_in(run)
            return self._fail_without_running(run, reason or self._unknown_task_error(job), options)
        try:
            if (
                task.run_in == "thread"
                and self._threads.has_only_abandoned_threads
                and not run.should_stop()
            ):
                # So that the worker does not claim and postpone jobs in a tight loop.
                await asyncio.sleep(NO_THREAD_SECONDS)
                return Postponed(job.id, lease.token, NO_THREAD_PAUSE_MS)
            if middlewares := self._producer.middlewares:
                result = await self._call_through(middlewares, task, run, options)
            else:
                result = await self._call_handler(task, run, options)
            if (children := run.used_children) is not None:
                await check_after_return(children)
        except JobFailedWithRetryDecision as error:
            loggable = _to_loggable_error(job.id, error.failure)
            return self._log_and_decide_outcome(error.failure, run, options, loggable)
        except BaseException as error:  # sys.exit() in a handler ends its job, not the worker
            if isinstance(error, KeyboardInterrupt) and task.run_in == "loop":
                raise
            return self._outcome_of_run_exception(error, task, run, options)
        keep = resolve_keep(options.keep_completed, self._keep_completed)
        return Completed(job.id, lease.token, result, keep)

    async def _run_built_in(self, run: Run) -> Outcome:
        """Run a job of hasten itself, and return its outcome."""
        lease = run.lease
        try:
            return await run_built_in(self._queue.engine, lease, self._queue.clock.now_ms())
        except StoreError as error:
            # The outcome is stored when the store works again, and then it is tried again.
            logger.warning("job %s (%s) is tried again: %s", lease.job.id, lease.job.name, error)
            return Postponed(lease.job.id, lease.token, BUILT_IN_RETRY_MS)
        except ValueError as error:
            return self._fail_without_running(run, str(error), DEFAULT_OPTIONS)

    def outcome_of_unhandled_error(self, error: BaseException, run: Run) -> Outcome | None:
        """Return the outcome of a run that ended with an exception that `run` has not handled."""
        job = run.lease.job
        try:
            options = decode_options(job.opts)
        except ValueError as exc:
            return self._fail_without_running(run, str(exc), DEFAULT_OPTIONS)
        return self._outcome_of_run_exception(error, self._queue.tasks.get(job.name), run, options)

    def _fail_without_running(self, run: Run, reason: str, options: Options) -> Outcome:
        """Log that a job fails without being run, and return this outcome."""
        keep = resolve_keep(options.keep_failed, self._keep_failed)
        outcome = failures.make_failed_outcome(run.lease, reason, keep)
        if reason == CANCELLED_ERROR:
            failure_log.log_cancelled(run.lease.job)
        else:
            failure_log.log_failed_without_run(run.lease.job, outcome.error)
        return outcome

    def _unknown_task_error(self, job: JobRecord) -> str:
        """Return the error of a job whose task this worker does not have."""
        known = ", ".join(sorted(self._queue.tasks)) or "none"
        return f"this worker has no task {job.name!r} (its tasks: {known})"

    def _find_expiry_error(
        self, job: JobRecord, options: Options, expires_at_ms: int
    ) -> str | None:
        """Return the error of a job that starts for the first time, and too late."""
        if not is_first_start(job, options):
            return None
        late_ms = self._queue.clock.now_ms() - expires_at_ms
        return f"expired {late_ms / 1000:.3f} s before it could start" if late_ms > 0 else None

    def make_context(self, job: JobRecord) -> Context:
        """Create the context of a job of the queue."""
        return Context(job, self._report, max_bytes=self._queue.max_size, queue=self._queue)

    async def _call_through(
        self, middlewares: Sequence[Middleware], task: TaskDefinition, run: Run, options: Options
    ) -> str:
        """Call the handler through the middlewares. Returns their result as JSON."""
        _start_timeout(run, options)  # a middleware may hang as well as a handler
        handled: list[tuple[Any, str]] = []

        async def call_handler(_call: RunCall) -> Any:
            try:
                result = await self._call_handler(task, run, options)
            except BaseException as error:
                if run.should_stop() and not isinstance(error, asyncio.CancelledError):
                    # Handlers in threads and processes are stopped in other ways.
                    raise asyncio.CancelledError from error
                raise
            value = task.parameters.decode_result(result)
            handled.append((value, result))
            return value

        call = RunCall(run.context, MappingProxyType(options.metadata or {}))
        returned = await call_through(middlewares, call, call_handler)
        for value, result in handled:
            if returned is value:  # as the handler returned it: its type may have lost something
                return result
        return encode_result(returned, self._queue.max_size)

    async def _call_handler(self, task: TaskDefinition, run: Run, options: Options) -> str:
        """Decode the data and call the task's function in the event loop, a thread or a process.

        Returns its result as JSON. Raises the error of the function, or
        `JobFailedWithRetryDecision`.
        """
        job = run.lease.job
        if run.should_stop():
            raise asyncio.CancelledError
        if task.run_in == "process":
            run.cancel_timeout()  # a job that waits for a process does not run
            started = partial(_start_timeout, run, options)
            try:
                result = await self._processes.run(task, run, self._report, started=started)
            finally:
                run.interrupt = None  # the process may run another job already
            if isinstance(result, Failure):
                raise JobFailedWithRetryDecision(job.id, result)
            if isinstance(result, NewChildren):
                run.context.children.parked = result
                raise WaitForChildren
            return result
        context = run.context if task.parameters.wants_context else None
        try:
            args, kwargs = task.parameters.decode(job.data, context)
        except ValueError as exc:
            raise JobFailedWithRetryDecision(job.id, Failure(str(exc), "", final=True)) from None
        _start_timeout(run, options)
        if task.run_in == "loop":
            value = await task.function(*args, **kwargs)
        else:
            value = await self._call_in_thread(run, partial(task.function, *args, **kwargs))
        return encode_result(value, self._queue.max_size)

    async def _call_in_thread(self, run: Run, call: Callable[[], Any]) -> Any:
        """Call a handler in a thread. If it returns an awaitable, await that in the event loop."""

        def set_interrupt_and_abandon(
            interrupt: Callable[[], None], abandon: Callable[[], None]
        ) -> None:
            run.interrupt, run.abandon = interrupt, abandon

        job = run.lease.job
        try:
            value = await self._threads.run(
                call, set_interrupt_and_abandon, description=f"job {job.id} ({job.name})"
            )
        finally:
            run.interrupt = run.abandon = None
        if not inspect.isawaitable(value):
            return value
        # The handler is a plain function that returned a coroutine, such as a wrapper of an async
        # function. The event loop runs the coroutine.
        if run.should_stop():
            if inspect.iscoroutine(value):
                value.close()
            raise asyncio.CancelledError
        return await value

    def _outcome_of_run_exception(
        self, error: BaseException, task: TaskDefinition | None, run: Run, options: Options
    ) -> Outcome | None:
        """Return the outcome of a run that ended with an exception; None if its lease was lost.

        If the run was stopped early, the reason for that decides, and not the exception.
        """
        lease = run.lease
        match run.stop_reason:
            case StopReason.LOST:
                return None
            case StopReason.RELEASED:
                return Released(lease.job.id, lease.token)
            case StopReason.CANCELLED:
                failure_log.log_cancelled(lease.job)
                keep = resolve_keep(options.keep_failed, self._keep_failed)
                return Failed(lease.job.id, lease.token, CANCELLED_ERROR, None, keep)
            case StopReason.TIMEOUT:
                seconds = (options.timeout_ms or 0) / 1000
                error = JobTimeout(seconds).with_traceback(error.__traceback__)
            case None if isinstance(error, asyncio.CancelledError) and not error.args:
                # The worker sets a reason when it cancels a run, so a handler has done this.
                text = "the asyncio task of the job was cancelled by a handler, not by the worker"
                error = asyncio.CancelledError(text).with_traceback(error.__traceback__)
        failure = failures.classify_exception(
            error,
            attempt=lease.job.attempts_made + 1,
            give_up_on=task.give_up_on if task else (),
            backoff_function=task.backoff_function if task else None,
        )
        if failure.parks and (children := run.used_children) is not None and children.parked:
            new = children.parked
            return Parked(lease.job.id, lease.token, new.jobs, new.add_calls)
        return self._log_and_decide_outcome(failure, run, options, error)

    def _log_and_decide_outcome(
        self, failure: Failure, run: Run, options: Options, error: BaseException
    ) -> Outcome:
        """Log a failed run, and return its outcome: another attempt, or a final failure."""
        keep = resolve_keep(options.keep_failed, self._keep_failed)
        outcome = failures.decide_outcome(failure, run.lease, options, keep)
        log = partial(
            failure_log.log_failed_run, run.lease.job, outcome, failure, options.attempts, error
        )
        if isinstance(error, asyncio.CancelledError):
            # The event loop may be ending, which cancels this task, too. Then the outcome is not
            # stored, and it must not be logged either: the delayed call never happens.
            run.loop.call_later(RESTART_SECONDS, log)
        else:
            log()
        return outcome


def _start_timeout(run: Run, options: Options) -> None:
    """Start the time-out of a run, if the job has one and it has not been started."""
    if options.timeout_ms is not None and not run.is_timeout_started:
        run.start_timeout(options.timeout_ms / 1000)


class JobFailedWithRetryDecision(JobFailed):
    """Raised if a run failed in a child process, or the data of its job could not be decoded.

    failure has the error, and decides whether the job is retried.
    """

    def __init__(self, id: str, failure: Failure) -> None:
        super().__init__(id, failure.error)
        self.failure = failure


def _to_loggable_error(id: str, failure: Failure) -> JobFailed:
    """Return a `JobFailed` to log for an exception that was raised in a child process."""
    error = JobFailed(id, failure.error)
    if failure.traceback:
        error.__cause__ = failure_log.RemoteTraceback(failure.traceback)
    return error
