"""`JobsTester`: isolates the queues of an application in a test, and runs their jobs."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

from hasten import _portal
from hasten._checks import check_flag, check_whole_number
from hasten._durations import Duration, to_nearest_ms
from hasten._loops import require_asyncio
from hasten.errors import UsageError
from hasten.jobs import Arguments, Queue
from hasten.jobs._record import AddResult, NewJob, Outcome
from hasten.testing._caller_thread import wait_in_this_thread
from hasten.testing._crash_report import CrashReport
from hasten.testing._crashes import CrashTest, EngineGate
from hasten.testing._enqueued import AnyTask, EnqueuedJobs
from hasten.testing._isolated_stores import IsolatedStores
from hasten.testing._job_driver import JobDriver, raise_unrecovered, store_declared_schedules
from hasten.testing._jobs_clock import JobsClock
from hasten.testing._manual_clock import DEFAULT_START, ManualClock
from hasten.testing._records import EnqueuedJob, JobRun

MAX_RUNS: Final = 10_000
MAX_INLINE_DEPTH: Final = 50

_inline_depth: Final = ContextVar("hasten_inline_depth", default=0)

_lock: Final = threading.Lock()
_active: Final[list[JobsTester]] = []  # none or one


class JobsTester:
    """Isolates all queues in a test, and runs their jobs: `with JobsTester() as jobs: …`.

    With pytest, use the fixture `hasten_jobs`, with unittest the class `JobsTestCase`. Both create
    a `JobsTester` for each test.

    Inside the block, all queues use stores in memory, whatever store they were given: those that
    the application made when it was imported, and those that are made later. Queues that share a
    store outside share one inside. The limits of `hasten.ratelimit` count in memory, too, and the
    caches of `hasten.compression` are empty. At the end, everything is as it was before.

    `clock` is the time of these queues and limits; it changes only when the test moves it. Jobs run
    only when the test calls `run_until_idle` or `advance`, one after the other, in this process.

    - start: the time at the beginning.
    - inline: whether jobs run at once when they are added; see `inline`.
    - workers: whether workers that the application starts run jobs, as they do in production. By
      default, `Worker.start` does nothing, so that the test decides when jobs run.

    There can be one at a time in a process. Raises `UsageError`.
    """

    def __init__(
        self, *, start: datetime = DEFAULT_START, inline: bool = False, workers: bool = False
    ) -> None:
        self._clock = JobsClock(start)
        self._is_inline = check_flag("inline", inline)
        self._inline_raises = True
        self._workers_may_start = check_flag("workers", workers)
        self._enqueued = EnqueuedJobs()
        self._runs: list[JobRun] = []
        self._gate = EngineGate(self._record_added, self._record_settled)
        self._stores = IsolatedStores(self._clock, self._gate)
        self._is_open = False
        self._queues_with_schedules: weakref.WeakSet[Queue] = weakref.WeakSet()  # stored already
        self._endless: UsageError | None = None  # jobs run inside each other without an end
        self._previous_wait_for: _portal.WaitFor | None = None

    def __enter__(self) -> Self:
        with _lock:
            if _active:
                raise UsageError(
                    "another JobsTester is active in this process: use the fixture hasten_jobs, "
                    "or the tester of the test case, instead of making a second one"
                )
            _active.append(self)
        self._is_open = True
        self._previous_wait_for, _portal.wait_for = _portal.wait_for, wait_in_this_thread
        self._set_hooks()
        self._stores.replace_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_open = False
        _portal.wait_for = self._previous_wait_for
        try:
            self._stores.restore_all()
        finally:
            _active.remove(self)

    @property
    def clock(self) -> ManualClock:
        """The clock of all queues and limits. `advance` moves it, and runs what becomes due."""
        return self._clock

    @property
    def runs(self) -> Sequence[JobRun]:
        """All runs of jobs since the beginning of the test, in order."""
        return tuple(self._runs)

    # Running ------------------------------------------------------------------------------------

    async def run_until_idle(
        self, *, raises: bool = True, max_runs: int = MAX_RUNS
    ) -> list[JobRun]:
        """Run all jobs that are ready, and those that they add, until none is ready.

        The time does not change, so delayed jobs do not become due: see `advance`. Returns the
        runs, in order.

        If the latest run of a job has failed, its exception is raised at the end, when all jobs
        have run, with the traceback of the handler. With raises=False, it is only in the returned
        runs.

        Raises `UsageError` after max_runs runs: probably a task enqueues itself without an end.
        """
        __tracebackhide__ = True
        return await self._drive("run_until_idle", self._clock.now_ms(), raises, max_runs)

    async def advance(
        self,
        duration: Duration = 0,
        *,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        raises: bool = True,
        max_runs: int = MAX_RUNS,
    ) -> list[JobRun]:
        """Advance the time, and run each job when it becomes due: `await jobs.advance(hours=1)`.

        The clock stops at each time at which a job is due. So jobs run in the order of their times,
        and a job that is added or retried on the way runs, too, if it becomes due in time. The
        schedules that the code declares run, too; they begin with the first call that advances the
        time.

        Returns the runs, and raises exceptions, as `run_until_idle` does. duration is added to the
        other arguments.
        """
        __tracebackhide__ = True
        total_ms = to_nearest_ms("duration", duration) + to_nearest_ms(
            "advance",
            timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds),
        )
        return await self._drive("advance", self._clock.now_ms() + total_ms, raises, max_runs)

    @contextlib.contextmanager
    def inline(self, *, raises: bool = True) -> Iterator[None]:
        """Run jobs at once when they are added: `with jobs.inline(): …`.

        A call that adds a job, such as `enqueue`, returns when the job has run, and all other jobs
        that are ready. Delayed jobs wait for `advance`. If a job fails, the call raises its
        exception, unless raises is False.
        """
        before = self._is_inline, self._inline_raises
        self._is_inline, self._inline_raises = True, raises
        self._set_hooks()
        try:
            yield
        finally:
            self._is_inline, self._inline_raises = before
            self._set_hooks()

    # Looking ------------------------------------------------------------------------------------

    def enqueued(self, task: AnyTask | None = None) -> list[EnqueuedJob]:
        """Return the jobs that were added in this test, in order, also those that have run.

        task is a task or the name of one; None for the jobs of all tasks. Jobs that were in their
        queue already, with the same job_id, are not included.
        """
        return self._enqueued.find(task)

    def assert_enqueued(self, task: AnyTask, /, **partial: object) -> EnqueuedJob:
        """Check that a job with these arguments was added: `jobs.assert_enqueued(send, to="ada")`.

        The job may have other arguments, too, and may have run already. Values are compared as the
        handler gets them, or as JSON. Returns the first job that matches. The `AssertionError`
        lists what was added instead.
        """
        __tracebackhide__ = True
        return self._enqueued.assert_one(task, partial)

    def assert_not_enqueued(self, task: AnyTask, /, **partial: object) -> None:
        """Check that no job with these arguments was added; see `assert_enqueued`."""
        __tracebackhide__ = True
        self._enqueued.assert_none(task, partial)

    # Crashing -----------------------------------------------------------------------------------

    async def crash_everywhere(
        self,
        task: AnyTask,
        arguments: Mapping[str, object] | Arguments[Any, Any] | None = None,
        *,
        snapshot: Callable[[], object] | None = None,
        reset: Callable[[], object] | None = None,
        compare_result: bool = True,
        raises: bool = True,
        max_crashes: int = 200,
    ) -> CrashReport:
        """Check that a job ends in the same state wherever its worker dies during the first run.

        The job runs once without a crash. Then it runs again and again, each time in empty queues,
        and each time its worker dies at another point. The lease of the dead worker expires, and
        the job runs a second time, to its end. The points are

        - after each `await` in the code of the handler, and wherever other code that it awaits
          really waits; for a handler without `async`, after each of its lines;
        - before each operation in the store of the queue, such as adding a job;
        - after the handler has returned, before its result is stored.

        At the end of each try, these must be as in the first one: the state of the job, its result
        (unless compare_result is False), the jobs that it has added, and what snapshot returns,
        such as the rows of a table. snapshot and reset may be async. reset is called before each
        try, and brings back the state outside the queues: it empties the table.

        A dead worker executes nothing: neither `except` nor `finally` blocks, and no further code.
        They are executed after the last try, when hasten drops the handler. Objects of this process
        that the handler has locked stay locked until then.

        The jobs of other tasks do not run. arguments are those of the job: a dict by name, or
        `task.args(…)`. The time is set back at the end of each try, and the jobs in the queues come
        back at the end.

        Returns what was found. Raises `AssertionError` if a state differs, unless raises is False;
        the exception of the handler if the job fails without a crash; and `UsageError` for a task
        with run_in="process", for more than max_crashes points, and if a second run does not end.
        """
        __tracebackhide__ = True
        self._check_usable("crash_everywhere")
        before, self._enqueued = self._enqueued, EnqueuedJobs()
        self._stores.set_hooks(workers_may_start=False, after_add=None)
        try:
            test = CrashTest(
                self._stores,
                self._clock,
                task,
                arguments,
                added=self._enqueued,
                snapshot=snapshot,
                reset=reset,
                compare_result=check_flag("compare_result", compare_result),
                max_crashes=check_whole_number("max_crashes", max_crashes, 1),
            )
            report = await test.run()
        finally:
            self._enqueued = before
            self._set_hooks()
        if raises:
            report.raise_for_differences()
        return report

    @property
    def sync(self) -> SyncJobsTester:
        """Blocking versions of these methods, for tests that are not async."""
        return SyncJobsTester(self)

    async def _drive(
        self, called: str, target_ms: int, raises: bool, max_runs: int
    ) -> list[JobRun]:
        __tracebackhide__ = True
        self._check_usable(called)
        driver = JobDriver(
            self._stores.queues,
            self._clock,
            max_runs=check_whole_number("max_runs", max_runs, 1),
            called=called,
            check_may_continue=self._raise_if_endless,
        )
        try:
            if target_ms > self._clock.now_ms():
                await self._store_declared_schedules()
            await driver.run_until(target_ms)
        finally:
            driver.close()
            self._runs += driver.runs
        if raises:
            raise_unrecovered(driver.runs)
        return driver.runs

    async def _store_declared_schedules(self) -> None:
        """Store the schedules that the queues declare, as a worker does when it starts."""
        for queue in self._stores.queues():
            if queue not in self._queues_with_schedules:
                self._queues_with_schedules.add(queue)
                await store_declared_schedules(queue, self._clock.now_ms())

    def _check_usable(self, called: str) -> None:
        require_asyncio(
            f"JobsTester.{called}",
            f"run the test on asyncio, or call jobs.sync.{called} in a thread",
        )
        if not self._is_open:
            raise UsageError(
                f"{called} is for the block of this JobsTester: with JobsTester() as jobs"
            )

    def _record_added(self, jobs: Sequence[NewJob], results: Sequence[AddResult]) -> None:
        self._enqueued.record(jobs, results, self._clock.now_ms())

    def _record_settled(self, outcomes: Sequence[Outcome]) -> None:
        self._enqueued.record_children(outcomes, self._clock.now_ms())

    def _set_hooks(self) -> None:
        self._stores.set_hooks(
            workers_may_start=self._workers_may_start,
            after_add=self._run_inline if self._is_inline else None,
        )

    async def _run_inline(self) -> None:
        """Run the jobs that are ready, because one was added in inline mode."""
        __tracebackhide__ = True
        depth = _inline_depth.get()
        if depth >= MAX_INLINE_DEPTH:
            latest = self._enqueued.find()[-1]
            self._endless = UsageError(
                f"inline mode: {depth} jobs run inside each other, and {latest} is the next one. "
                "Does a task enqueue itself without an end?"
            )
        self._raise_if_endless()
        token = _inline_depth.set(depth + 1)
        try:
            await self.run_until_idle(raises=self._inline_raises)
        finally:
            _inline_depth.reset(token)
            if not depth:
                self._endless = None

    def _raise_if_endless(self) -> None:
        """Raise the error again in each of the jobs that run inside each other."""
        if self._endless is not None:
            raise self._endless


class SyncJobsTester:
    """Blocking versions of the methods of `JobsTester`, for tests that are not async.

    Handlers without `async` run in the thread of the test, so that they use its database
    connection. Async handlers run on an event loop in another thread.
    """

    def __init__(self, tester: JobsTester) -> None:
        self._tester = tester

    def run_until_idle(self, *, raises: bool = True, max_runs: int = MAX_RUNS) -> list[JobRun]:
        """Run all jobs that are ready; see `JobsTester.run_until_idle`."""
        __tracebackhide__ = True
        return _portal.run_for_sync_method(
            self._tester.run_until_idle(raises=raises, max_runs=max_runs)
        )

    def advance(
        self,
        duration: Duration = 0,
        *,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        raises: bool = True,
        max_runs: int = MAX_RUNS,
    ) -> list[JobRun]:
        """Advance the time, and run each job when it becomes due; see `JobsTester.advance`."""
        __tracebackhide__ = True
        return _portal.run_for_sync_method(
            self._tester.advance(
                duration,
                weeks=weeks,
                days=days,
                hours=hours,
                minutes=minutes,
                seconds=seconds,
                raises=raises,
                max_runs=max_runs,
            )
        )

    def crash_everywhere(
        self,
        task: AnyTask,
        arguments: Mapping[str, object] | Arguments[Any, Any] | None = None,
        *,
        snapshot: Callable[[], object] | None = None,
        reset: Callable[[], object] | None = None,
        compare_result: bool = True,
        raises: bool = True,
        max_crashes: int = 200,
    ) -> CrashReport:
        """Check that crashes change no result; see `JobsTester.crash_everywhere`."""
        __tracebackhide__ = True
        return _portal.run_for_sync_method(
            self._tester.crash_everywhere(
                task,
                arguments,
                snapshot=snapshot,
                reset=reset,
                compare_result=compare_result,
                raises=raises,
                max_crashes=max_crashes,
            )
        )
