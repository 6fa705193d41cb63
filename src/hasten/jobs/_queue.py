"""`Queue`: define tasks, and add, find, change and delete the jobs of one named queue."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import (
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import (
    Any,
    Concatenate,
    Final,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from msgspec import UNSET
from msgspec.structs import replace

from hasten import _portal
from hasten._checks import check_flag, check_whole_number
from hasten._clock import SYSTEM_CLOCK, Clock
from hasten._durations import Duration, to_nearest_ms
from hasten._sizes import Size, to_byte_count
from hasten._store import Store
from hasten._store_url import SqliteFile
from hasten.errors import (
    InvalidArgument,
    InvalidOption,
    JobNotFound,
    PayloadTooLarge,
    WrongState,
)
from hasten.jobs._arguments import TaskParameters
from hasten.jobs._backoff import BackoffFunction
from hasten.jobs._batch import MAX_BATCH_ID, Batch, find_batch, open_batch, to_batch
from hasten.jobs._built_in_tasks import BATCH_TASK, opening_id
from hasten.jobs._context import Context, encode_progress, make_log_line
from hasten.jobs._deduplication import check_key_text, to_deduplication_id
from hasten.jobs._encoding import NotStorable, decode_json, encode_json
from hasten.jobs._engine import Engine
from hasten.jobs._engines import open_engine
from hasten.jobs._events import QueueEvents
from hasten.jobs._flow import Arguments, Moment, check_hook
from hasten.jobs._flow_adding import prepare_hooks
from hasten.jobs._function_origin import CodeExecution
from hasten.jobs._functions import describe_function
from hasten.jobs._job import Job, JobQueue
from hasten.jobs._middleware import EnqueueCall, Middleware, check_middleware
from hasten.jobs._options import (
    MAX_COUNT,
    MAX_PRIORITY,
    JobOptions,
    Options,
    TaskOptions,
    check_job_id,
    check_name,
    merge_job_options,
    merge_task_options,
)
from hasten.jobs._per_loop import PerLoop
from hasten.jobs._producer import Producer
from hasten.jobs._record import (
    ChildJob,
    JobChange,
    JobRecord,
    JobTemplate,
    Update,
    WhyFacts,
)
from hasten.jobs._results import ResultWaiter
from hasten.jobs._schedule_record import Missed, Overlap
from hasten.jobs._schedules import Declaration, Schedules, SyncSchedules
from hasten.jobs._shared_store import SharedStore, get_or_make_shared_store
from hasten.jobs._states import FINISHED, READY, State
from hasten.jobs._store_substitution import register_queue
from hasten.jobs._sync_events import SyncQueueEvents
from hasten.jobs._task_definition import RunIn, TaskDefinition, check_function
from hasten.jobs._tasks import ContextTask, Enqueuer, Task
from hasten.jobs._watching import Watches
from hasten.jobs._why import Why, explain
from hasten.jobs._worker_info import WorkerInfo

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
M = TypeVar("M", bound=Middleware)
TaskT = TypeVar("TaskT", bound=Enqueuer[Any, Any])

DEFAULT_MAX_OPEN: Final = "7d"
DEFAULT_MAX_SIZE: Final = "1mb"
# Bytes. Every store can hold a value of this size, also together with the other fields of a job.
MAX_SIZE: Final = 256 * 1024 * 1024

# A queue keeps so many objects for other queues of its store. They are made again when needed.
MAX_OTHER_QUEUES: Final = 100

JobSpec = tuple[str, object] | tuple[str, object, JobOptions]
"""A job to add: `(name of its task, data)` or `(name of its task, data, options)`."""


class Queue:
    """A named queue of jobs in a store: `Queue("mail")`, or `Queue("mail", store)`.

    store is a `Store` or a URL. Queues that are created with the same `Store` object share its
    connections, transactions and clock, and are closed with it. With a URL, the queue creates a
    store of its own: two queues with `memory://` share nothing. None is the default store of the
    process, which all queues without a store share; `Store.from_env()` creates it at the first use.
    Files and connections are opened at the first use, too, and not by this constructor.

    max_size is the largest size of a job's data, result or progress, in bytes of JSON. show_values
    is whether error messages about data that does not fit a task may contain its values: such
    errors are stored with the job and logged. check_arguments is whether arguments are checked
    against the annotations of the task when a job is added; without this check, a job whose
    arguments do not fit fails when a worker runs it. options are the default options of all tasks
    of the queue.

    A queue may be used from several event loops and threads, and after a fork. `aclose`, or leaving
    an `async with` block, closes the connections that the queue has opened.
    """

    def __init__(
        self,
        name: str,
        store: str | Store | None = None,
        *,
        max_size: Size = DEFAULT_MAX_SIZE,
        show_values: bool = False,
        check_arguments: bool = True,
        **options: Unpack[TaskOptions],
    ) -> None:
        self.name = check_name("queue", name)
        self.max_size = to_byte_count("max_size", max_size, at_least=1)
        if self.max_size > MAX_SIZE:
            raise InvalidOption("max_size", max_size, "at most 256mb, the limit of some stores")
        self.show_values = check_flag("show_values", show_values)
        self.check_arguments = check_flag("check_arguments", check_arguments)
        self.tasks: dict[str, TaskDefinition] = {}
        self._options = merge_task_options(options)
        self._backoff_function = _get_backoff_function(options)
        self.own_store = get_or_make_shared_store(store)
        self.shared_store = self.own_store
        self._is_open = False
        self._is_own_store_open = False  # set while another store is used
        if self.shared_store.existing_store is not None:
            # This opens no connection yet, but rejects wrong options.
            open_engine(self.shared_store.existing_store)
        self.producer = Producer(self, self._get_parameters)
        self.schedules = Schedules(self)
        self._others: dict[str, Queue] = {}
        self._results = PerLoop(lambda: ResultWaiter(lambda: self.engine, self.name))
        self._watches = PerLoop(lambda: Watches(lambda: self.engine, self.name))
        register_queue(self)

    def __repr__(self) -> str:
        store = self.shared_store.existing_store
        return f"<Queue {self.name}{'' if store is None else f' in {store.url}'}>"

    @property
    def store(self) -> Store:
        """The store that holds the jobs of this queue."""
        return self.shared_store.store

    def queue_named(self, name: str) -> Queue:
        """Return a queue of this store by name, which has no tasks; this object for its own name.

        Used to read jobs that are connected with those of this queue.
        """
        if name == self.name:
            return self
        if name not in self._others:
            if len(self._others) >= MAX_OTHER_QUEUES:
                self._others.clear()
            self._others[name] = Queue(name, self.store)
        return self._others[name]

    def shares_store_with(self, other: JobQueue) -> bool:
        """Return whether jobs of this queue and of another one are in the same store."""
        assert isinstance(other, Queue)
        one, two = self.store, other.store
        return one is two or (
            one.location == two.location
            and one.prefix == two.prefix
            and one.location != SqliteFile(None)
        )

    @property
    def clock(self) -> Clock:
        """The clock of the store; all times of the queue are read from it."""
        store = self.shared_store.existing_store
        # The default store may not exist yet. It uses the system clock.
        return SYSTEM_CLOCK if store is None else store.clock

    @property
    def engine(self) -> Engine:
        """The object that performs this queue's operations in the store.

        The first access registers the queue as a user of the store, which stays open until
        `aclose`.
        """
        if not self._is_open:
            self._is_open = True
            self.shared_store.acquire(self)
        return self.shared_store.engine()

    async def aclose(self) -> None:
        """Close the store if the queue created it from a URL and no worker uses it.

        The default store is closed when the last queue or worker that uses it is closed. A `Store`
        object that was passed to the queue stays open. Safe to call twice. A closed queue reopens
        its store when it is used again.
        """
        self._is_open = False
        self.drop_pending_calls()
        others, self._others = self._others, {}
        for other in others.values():
            await other.aclose()
        await self.shared_store.release(self)

    def use_store(self, store: SharedStore) -> None:
        """Use another store, or `own_store` again. For `hasten.testing`."""
        if store is self.shared_store:
            return
        self.drop_pending_calls()
        self._others = {}  # they use the store of this queue
        if self.shared_store is self.own_store:
            self._is_own_store_open = self._is_open
        self.shared_store = store
        self._is_open = store is self.own_store and self._is_own_store_open
        self.producer.after_add = store.after_add

    def drop_pending_calls(self) -> None:
        """Forget the calls of all event loops that wait for the store, for jobs or results."""
        self.producer.close()
        self._results.drop_all()
        self._watches.drop_all()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    # Tasks --------------------------------------------------------------------------------------

    # The signatures overlap: the last two also match functions whose first parameter is a Context.
    # Type checkers use the first match.
    @overload
    def task(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, T]], /
    ) -> ContextTask[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def task(self, function: Callable[Concatenate[Context, P], T], /) -> ContextTask[P, T, T]: ...
    @overload
    def task(
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> Task[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def task(self, function: Callable[P, T], /) -> Task[P, T, T]: ...
    @overload
    def task(
        self,
        *,
        name: str | None = None,
        run_in: RunIn | None = None,
        give_up_on: tuple[type[BaseException], ...] | type[BaseException] = (),
        check_arguments: bool | None = None,
        **options: Unpack[TaskOptions],
    ) -> TaskDecorator: ...

    def task(  # type: ignore[misc]  # the last overload's options are among **options
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        run_in: RunIn | None = None,
        give_up_on: tuple[type[BaseException], ...] | type[BaseException] = (),
        check_arguments: bool | None = None,
        **options: Any,  # TaskOptions, as the overloads say
    ) -> Any:
        """Make a function a task of this queue: `@queue.task` or `@queue.task(attempts=5)`.

        An `async def` runs in the worker's event loop, a plain function in a thread. With
        run_in="process", either runs in a child process. If a plain function returns an awaitable,
        the worker awaits it.

        - name: the task name that is stored with each job, and by which other programs add jobs.
          The default is the name of the function.
        - give_up_on: an exception class or a tuple of them. A job that raises one fails without
          further attempts.
        - check_arguments: whether arguments are checked against the annotations when a job is
          added. None uses the setting of the `Queue`.
        - attempts: the maximum number of attempts, 1 by default.
        - backoff: the delay before the next attempt: a `Duration`, "exponential", `Fixed`,
          `Exponential`, or a function that is called with the number of the failed attempt and its
          error, and returns the delay.
        - timeout: how long one run may take.
        - expires: how long after its due time a job may still start. After that it fails.
        - delay: how long after it is added the job becomes due.
        - priority: 0, the default, runs before all jobs with a priority; of these, 1 runs first and
          2,097,151 last.
        - lifo: put the job in front of the waiting jobs instead of behind them.
        - keep_completed, keep_failed: how many of the finished jobs to keep, and how long: a
          `Keep`, a count, True (all) or False (none).
        - keep_logs: how many of the newest lines of `ctx.log` to keep, 1,000 by default.
        - since: the release that a worker must have at least to run the job, such as "2026.12".
          Other workers hand the job back: see `Worker`.
        - unique: a key. While a job with this key has not ended, no further one is added.
        - throttle: (key, time). After a job with this key was added, no further one is added until
          the time has passed, even if the first one has ended.
        - debounce: (key, quiet time, longest wait). The job runs when no further one has been added
          for the quiet time, with the arguments of the last call, and at the latest when it has
          waited for the longest wait. It is delayed until then.
        - latest: a key. While a job with this key waits, further calls replace its arguments. While
          it runs, the arguments of the last call are kept, and one more job runs with them after it
          has ended.

        A job has at most one of the last four. A call that adds no job returns the existing one:
        see `Job`, `job.is_duplicate`. Each task has keys of its own. A key is a text of up to 512
        characters: the name of a parameter (for its argument), any other text, or a function that
        returns one. The function is called with those arguments that its parameters name. None
        turns off for a job what its task sets.

        Times are `Duration`s. Raises `InvalidOption`, also if another task of this queue object has
        the same name, and `InvalidTask` for a function whose arguments cannot be stored as JSON.

        A thread cannot be killed. If a plain function is inside a long call to C code when it times
        out, the worker stops waiting for its thread after some seconds. That call may still be
        running during the next attempt.
        """
        caller = sys._getframe(1)
        made_in = CodeExecution.defining(caller.f_code, caller.f_globals)
        add = partial(
            self._add_task,
            name=name,
            run_in=run_in,
            give_up_on=give_up_on,
            check_arguments=self.check_arguments
            if check_arguments is None
            else check_flag("check_arguments", check_arguments),
            options=options,
            made_in=made_in,
        )
        return add if function is None else add(function)

    def _add_task(
        self,
        function: Callable[..., Any],
        *,
        name: str | None,
        run_in: RunIn | None,
        give_up_on: Any,
        check_arguments: bool,
        options: Mapping[str, Any],
        made_in: CodeExecution,
    ) -> Task[..., Any, Any]:
        check_function(function)
        if name is None:
            name = getattr(function, "__name__", None)
        if name is None:
            expected = f"given as @queue.task(name=…), because {function!r} has no __name__"
            raise InvalidOption("name", name, expected)
        definition = TaskDefinition(
            function,
            check_name("task", name),
            merge_task_options(options, self._options),
            run_in=run_in,
            give_up_on=give_up_on,
            check_arguments=check_arguments,
            backoff_function=_get_backoff_function(options) or self._backoff_function,
            max_size=self.max_size,
            show_values=self.show_values,
            made_in=made_in,
        )
        self._check_task_name_is_unique(definition)
        self.tasks[definition.name] = definition
        return Task(definition, self.producer)

    def _check_task_name_is_unique(self, definition: TaskDefinition) -> None:
        other = self.tasks.get(definition.name)
        if other is None or definition.origin.may_replace(other.origin):
            return
        first, second = describe_function(other.function), describe_function(definition.function)
        raise InvalidOption(
            "name",
            definition.name,
            f"unique in queue {self.name!r}, but {first} already has this name"
            f"{' (the same code made two tasks)' if first == second else ''}: give "
            f"{second} another name with @queue.task(name=…)",
        )

    def cron(
        self,
        pattern: str,
        *,
        id: str | None = None,
        tz: str | None = None,
        limit: int | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        jitter: Duration = 0,
        missed: Missed = "last",
        overlap: Overlap = "allow",
        arguments: Mapping[str, Any] | None = None,
        **options: Unpack[TaskOptions],
    ) -> Callable[[TaskT], TaskT]:
        """Run a task at the times of a cron pattern. Written above the task::

            @queue.cron("0 7 * * mon-fri", tz="Europe/Madrid")
            @queue.task
            async def send_report() -> None: ...

        The schedule is stored when a worker starts: see `Schedules.upsert` for the options. id is
        the id of the schedule, by default the name of the task. A task may have several schedules
        with different ids. options are options of the jobs, in place of those of the task.

        A schedule that is no longer declared keeps running until it is deleted with
        `Schedules.prune` or `Schedules.remove`. Raises `InvalidOption`.
        """
        times = {"cron": pattern, "tz": tz, "limit": limit, "start": start, "end": end}
        policy = {"jitter": jitter, "missed": missed, "overlap": overlap}
        return self._declare_schedule(
            id, {**times, **policy, "arguments": arguments, "options": options}
        )

    def every(
        self,
        interval: Duration,
        *,
        id: str | None = None,
        offset: Duration | None = None,
        limit: int | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        jitter: Duration = 0,
        missed: Missed = "last",
        overlap: Overlap = "allow",
        arguments: Mapping[str, Any] | None = None,
        **options: Unpack[TaskOptions],
    ) -> Callable[[TaskT], TaskT]:
        """Run a task at an interval: `@queue.every("10m")` above `@queue.task`. See `cron`."""
        times = {"every": interval, "offset": offset, "limit": limit, "start": start, "end": end}
        policy = {"jitter": jitter, "missed": missed, "overlap": overlap}
        return self._declare_schedule(
            id, {**times, **policy, "arguments": arguments, "options": options}
        )

    def _declare_schedule(
        self, id: str | None, options: Mapping[str, Any]
    ) -> Callable[[TaskT], TaskT]:
        """Return a decorator that declares a schedule of a task."""

        def declare(task: TaskT) -> TaskT:
            if not isinstance(task, Task) or self.tasks.get(task.name) is not task.definition:
                raise InvalidOption(
                    "task", task, f"a task of queue {self.name!r}: write @queue.cron and "
                    "@queue.every above @queue.task",
                )  # fmt: skip
            self.schedules.declare(Declaration(task.name if id is None else id, task, options))
            return task

        return declare

    def prepare_template(
        self, task: str, data: object, options: Mapping[str, Any]
    ) -> tuple[str, Options]:
        """Check the arguments and options of the jobs of a schedule. Returns data and options.

        Raises `InvalidOption`, `InvalidArgument` and `PayloadTooLarge`.
        """
        checked = merge_job_options(
            options, self._default_options(task), now_ms=self.clock.now_ms()
        )
        return self._encode_data(task, data), checked

    def use(self, middleware: M) -> M:
        """Add a middleware around each enqueue and each run: ``queue.use(middleware)``.

        A middleware is an async function of a call and of a function that continues with it::

            @queue.use
            async def measure(call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
                started = time.monotonic()
                try:
                    return await call_next(call)
                finally:
                    print(call.task, time.monotonic() - started)

        - The middleware that is added first is the outermost. Each queue object has its own
          middlewares: add them where both producers and workers import the queue.
        - Around an enqueue (`EnqueueCall`), the middleware runs in the code that enqueues, and
          `call_next` returns the `Job`. It may change the options and the metadata of the job. If
          many jobs are added at once, it is called for each job, and then they are added together.
        - Around a run (`RunCall`), the middleware runs in the event loop of the worker, also for
          handlers in threads and processes. `call_next` returns what the handler returned.
        - A middleware that does not call `call_next` adds no job and must return a `Job`, or it
          completes the run with the value that it returns.
        - If a middleware raises, the enqueue raises this error, or the attempt fails as if the
          handler had raised it. If the run is stopped, `call_next` raises
          `asyncio.CancelledError`.

        Usable as a decorator. Raises `InvalidOption`.
        """
        self.producer.middlewares = (*self.producer.middlewares, check_middleware(middleware))
        return middleware

    @property
    def middlewares(self) -> Sequence[Middleware]:
        """The middlewares, outermost first."""
        return self.producer.middlewares

    def check_tasks(self) -> None:
        """Check all tasks again, now that their modules are complete. Called when a worker starts.

        Annotations may refer to names that are defined further down in a module, so not all can be
        checked when a task is defined. Raises `InvalidTask` for an annotation that cannot be used,
        and `InvalidOption` for a task with run_in="process" that a child process could not import.
        """
        for definition in self.tasks.values():
            definition.check_after_import()
        self.schedules.check_declared()

    def decode_result(self, task: str, text: str) -> Any:
        """Decode the JSON text of a job's result.

        If this queue object has the task, the result is converted to the return type of its
        function, otherwise to plain JSON values. Raises `ValueError` for invalid JSON.
        """
        definition = self.tasks.get(task)
        return definition.parameters.decode_result(text) if definition else decode_json(text)

    # Adding -------------------------------------------------------------------------------------

    async def add(self, name: str, data: object = None, **options: Unpack[JobOptions]) -> Job[Any]:
        """Add a job by the name of its task, which may be defined in another program or language.

        data is a dict of the arguments by parameter name, or any JSON value that the other program
        accepts. If this queue object has the task, data is checked against its parameters. options
        are those of `task`, and those of `JobOptions`: at and job_id. A deduplication key is a
        literal text, or a function that is called with members of data.

        Raises `InvalidArgument` for data that does not fit the task, `PayloadTooLarge` or
        `StoreError`.
        """
        if self.producer.middlewares:
            return await self.producer.submit_through_middlewares(
                *self._prepare_call(name, data, options)
            )
        template, text = self._prepare_job(name, data, options)
        return await self.producer.submit(template, text)

    async def add_many(self, jobs: Iterable[JobSpec]) -> list[Job[Any]]:
        """Add several jobs, each given as `(name, data)` or `(name, data, options)`.

        Up to 1,000 jobs are added in one transaction: all or none. A job with a delay, a priority
        or a job_id counts as two of them, one with a deduplication key as four, and every 2,000
        bytes of data count as one more. A larger call uses several transactions, in the order of
        the jobs. If one of the jobs is invalid, nothing is added. If the store fails after the
        first transaction, `AddedInPart` is raised with the ids of the jobs that were stored.
        """
        if self.producer.middlewares:
            calls = [self._prepare_call(*_unpack_job_spec(job)) for job in jobs]
            return await self.producer.submit_many_through_middlewares(calls)
        return await self.producer.submit_many(
            [self._prepare_job(*_unpack_job_spec(job)) for job in jobs]
        )

    def _prepare_job(
        self, name: str, data: object, given: Mapping[str, Any]
    ) -> tuple[JobTemplate, str]:
        options = merge_job_options(given, self._default_options(name), now_ms=self.clock.now_ms())
        text = self._encode_data(name, data)
        return self.producer.make_template(check_name("task", name), options, data), text

    def _prepare_call(
        self, name: str, data: object, given: Mapping[str, Any]
    ) -> tuple[EnqueueCall, Options, str]:
        """Check a job, and return it for the middlewares, with its default options and its JSON."""
        defaults = self._default_options(check_name("task", name))
        merge_job_options(given, defaults, now_ms=self.clock.now_ms())
        text = self._encode_data(name, data)
        call = EnqueueCall(
            self.name, name, {} if data is None else data, cast(JobOptions, {**given})
        )
        return call, defaults, text

    def _get_parameters(self, task: str) -> TaskParameters | None:
        definition = self.tasks.get(task)
        return None if definition is None else definition.parameters

    def _default_options(self, task: str) -> Options:
        """Return the options of the task, or those of the queue for a task it does not have."""
        definition = self.tasks.get(task)
        return definition.options if definition else self._options

    def _encode_data(self, name: str, data: object) -> str:
        """Check the data of a job, and return it as JSON.

        Raises `InvalidArgument` or `PayloadTooLarge`.
        """
        try:
            encoded = encode_json({} if data is None else data)
        except NotStorable as exc:
            raise InvalidArgument(name, "data", exc.reason, exc.path) from exc
        except Exception as exc:
            raise InvalidArgument(name, "data", f"cannot be stored as JSON: {exc}") from exc
        if len(encoded) > self.max_size:
            raise PayloadTooLarge(name, "data", len(encoded), self.max_size)
        text = encoded.decode()
        definition = self.tasks.get(name)
        if definition is not None:
            definition.parameters.check_data(data, text, check_decodable=definition.check_arguments)
        return text

    async def batch(
        self,
        id: str | None = None,
        *,
        on_first_failure: Arguments[..., Any] | None = None,
        on_ended: Arguments[..., Any] | None = None,
        on_succeeded: Arguments[..., Any] | None = None,
        max_open: Duration = DEFAULT_MAX_OPEN,
    ) -> Batch:
        """Open a batch, or return the one with this id: `batch = await queue.batch()`.

        Jobs are added with `Batch.add` until `Batch.close` is called, in any process: another one
        gets the same batch by its id. None for id creates a new id. If a batch with this id exists,
        open or not, it is returned, and the other arguments are not used.

        - on_first_failure: a job, such as `alert.args(…)`, that is added when a member has failed
          for good, while others may still run.
        - on_ended: a job that is added when the batch is closed and all members have ended.
        - on_succeeded: a job that is added when the batch is closed and all members have completed.
        - max_open: the batch is closed automatically after this time, in case that the program that
          should close it does not. A `Duration`, one week by default.

        Each of these jobs is added once, by a worker of this queue, also if workers are killed.
        Raises `InvalidOption`, also if a job that is no batch has this id, and `StoreError`.
        """
        if id is None:
            id = uuid.uuid4().hex
        elif len(check_job_id(id)) > MAX_BATCH_ID:
            raise InvalidOption("id", id, f"a string of at most {MAX_BATCH_ID} characters")
        open_ms = to_nearest_ms("max_open", max_open, at_least_ms=1)
        given: dict[Moment, Arguments[..., Any] | None] = {
            "first_failure": on_first_failure, "ended": on_ended, "succeeded": on_succeeded,
        }  # fmt: skip
        hooks = {moment: job for moment, job in given.items() if job is not None}
        for moment, job in hooks.items():
            check_hook(moment, job)
        found = await find_batch(self, id)
        if found is not None:
            return found
        jobs = await prepare_hooks(self.producer, id, hooks)
        return await open_batch(self, id, jobs, open_ms=open_ms)

    async def batches(self, *, limit: int = 100) -> list[Batch]:
        """Return the batches of this queue that have not ended, oldest first, at most limit."""
        check_whole_number("limit", limit, 0, MAX_COUNT)
        found: list[Batch] = []
        for state in (State.WAITING_CHILDREN, *READY, State.ACTIVE):
            offset = 0
            while len(found) < limit:
                page = await self.engine.get_page(
                    self.name, state, offset=offset, limit=1_000, newest_first=False
                )
                if not page:
                    break
                offset += len(page)
                found += [to_batch(self, job) for job in page if job.name == BATCH_TASK]
        return found[:limit]

    @property
    def results(self) -> ResultWaiter:
        """The object through which `Job.result` waits for results in the running event loop."""
        return self._results.get()

    @property
    def watches(self) -> Watches:
        """The jobs that callers of the running event loop follow."""
        return self._watches.get()

    # Reading ------------------------------------------------------------------------------------

    async def get(self, id: str) -> Job[Any] | None:
        """Return the job with this id, or None if it does not exist or was deleted."""
        _check_id(id)
        (record,) = await self.engine.get(self.name, [id])
        return None if record is None else Job(self, id, record)

    async def why(self, id: str) -> Why:
        """Return why a job does not run now, or how it has ended: `print(await queue.why("7"))`.

        There may be several reasons. The one that is returned is the one to resolve first: while it
        lasts, the job does not run even if the others are resolved. It is computed from the store
        and from what the workers of the queue have reported within the last seconds: see `workers`.
        Raises `JobNotFound`.
        """
        _check_id(id)
        now_ms = self.clock.now_ms()
        situation, workers = await asyncio.gather(
            self.engine.get_why_facts(self.name, id, now_ms=now_ms),
            self.engine.workers(self.name, now_ms=now_ms),
        )
        if situation is None:
            raise JobNotFound(self.name, id)
        others = await self.engine.count_workers_except(
            self.name, workers, now_ms=self.clock.now_ms()
        )
        if situation.job.name == BATCH_TASK:
            situation = await self._with_opening_first(situation)
        return explain(situation, workers, others, now_ms=now_ms)

    async def _with_opening_first(self, situation: WhyFacts) -> WhyFacts:
        """Return the facts about a batch with the job that keeps it open as the first child.

        It may not be among those that were read.
        """
        opening = ChildJob(self.name, opening_id(situation.job.id), State.DELAYED)
        (end,) = await self.engine.get_ends(self.name, [opening.id])
        if end is None or end.state in FINISHED or not situation.pending:
            return situation
        others = [child for child in situation.children if child.id != opening.id]
        return replace(situation, children=[opening, *others])

    async def jobs(
        self, state: State | str, *, offset: int = 0, limit: int = 100, newest_first: bool = False
    ) -> list[Job[Any]]:
        """Return a page of the jobs in a state, in the order in which they would be claimed.

        offset is how many jobs to skip, limit how many to return at most. Delayed jobs are sorted
        by due time, active jobs by start time, and finished jobs by the time they finished. On
        Redis a long page is read in several calls: a job that changes its state between two of them
        may be missing.
        """
        records = await self.engine.get_page(
            self.name,
            _check_state(state),
            offset=check_whole_number("offset", offset, 0, MAX_COUNT),
            limit=check_whole_number("limit", limit, 0, MAX_COUNT),
            newest_first=newest_first,
        )
        return [Job(self, record.id, record) for record in records]

    async def counts(self) -> dict[State, int]:
        """Return the number of jobs in each state."""
        return await self.engine.count(self.name)

    async def workers(self) -> list[WorkerInfo]:
        """Return the workers of this queue that run, in all processes, sorted by name.

        A worker reports every few seconds; see `WorkerInfo`. A worker that has died disappears
        after the time of its lease, one that has stopped at once. On Redis, workers of other
        programs (Node) are not included.
        """
        found = await self.engine.workers(self.name, now_ms=self.clock.now_ms())
        return sorted(found, key=lambda info: (info.name, info.id))

    def events(self, *, after: str | None = None) -> QueueEvents:
        """Return an iterator over the events of this queue: `async for event in queue.events():`.

        It returns events that any process causes. after is the `cursor` of the last event that you
        have read: iteration continues with the next one. None starts at this call. See
        `QueueEvents`.

        The store keeps at least the newest 10,000 events, but at most 32 MiB of large results,
        errors and progress values. A value of more than 64 KiB is stored with its job only: its
        event has no value, but the size in `omitted_bytes`.
        """
        return QueueEvents(lambda: self.engine, self.name, after)

    # Administration -----------------------------------------------------------------------------

    async def cancel(self, *ids: str) -> list[str]:
        """Cancel jobs. They fail with the error "cancelled".

        A job that has not started fails at once. A running job is stopped by its worker, which may
        be on another machine; the job may still complete before that. Returns the ids of the jobs
        that had not finished.

        The next job of a BullMQ job scheduler cannot be cancelled: remove the scheduler instead.
        `WrongState` is raised for such a job, after the other jobs are cancelled. Many jobs are
        cancelled in several transactions; if the call fails halfway, repeat it.
        """
        chosen = _check_ids(ids)
        found = await self.engine.cancel(self.name, chosen, now_ms=self.clock.now_ms())
        return _select_ids(chosen, found, lambda state: state not in FINISHED)

    async def update(
        self,
        id: str,
        *,
        data: object = UNSET,
        priority: int | None = None,
        delay: Duration | None = None,
        progress: object = UNSET,
    ) -> None:
        """Change one or more values of a job in one atomic step.

        data is a dict of the new arguments by parameter name; a run in progress continues with the
        old ones. priority moves a waiting job behind the other jobs with this priority, and also
        applies to later attempts; it cannot be changed after the job has finished. delay can be
        changed while the job is delayed; it counts from now, and does not change the time of
        expiry. progress is any JSON value of up to the queue's max_size.

        Raises `JobNotFound`, or `WrongState` if the state of the job does not allow one of the
        changes. Then nothing is changed.
        """
        _check_id(id)
        change = JobChange(
            id,
            data=None
            if data is UNSET
            else self._encode_data((await self._get_record(id)).name, data),
            priority=None
            if priority is None
            else check_whole_number("priority", priority, 0, MAX_PRIORITY),
            delay_ms=None if delay is None else to_nearest_ms("delay", delay),
            progress=None if progress is UNSET else encode_progress(progress, self.max_size),
        )
        found = await self._apply_update(change)
        if found not in change.required_states:
            raise WrongState(self.name, id, found, change.required_states)

    async def log(self, id: str, line: str) -> None:
        """Add a line to a job's log, as `ctx.log` does. Raises `JobNotFound`."""
        _check_id(id)
        await self._apply_update(make_log_line(await self._get_record(id), line))

    async def _get_record(self, id: str) -> JobRecord:
        (record,) = await self.engine.get(self.name, [id])
        if record is None:
            raise JobNotFound(self.name, id)
        return record

    async def _apply_update(self, update: Update) -> State:
        """Store an update, and return the state that the job was in. Raises `JobNotFound`."""
        now_ms = self.clock.now_ms()
        (found,) = await self.engine.update(self.name, [update], now_ms=now_ms)
        if found is None:
            raise JobNotFound(self.name, update.id)
        return found

    async def retry(self, *ids: str) -> list[str]:
        """Queue completed or failed jobs again, with their full number of attempts.

        Returns the ids of the jobs that were queued again. Jobs in another state are not changed.
        Many jobs are moved in several transactions; if the call fails halfway, repeat it.
        """
        return await self._requeue(ids, FINISHED)

    async def promote(self, *ids: str) -> list[str]:
        """Make delayed jobs ready to run now, before they are due.

        Returns the ids of the jobs that were delayed. Jobs in another state are not changed. Many
        jobs are moved in several transactions; if the call fails halfway, repeat it.
        """
        return await self._requeue(ids, {State.DELAYED})

    async def _requeue(self, ids: Sequence[str], from_states: Collection[State]) -> list[str]:
        chosen = _check_ids(ids)
        now_ms = self.clock.now_ms()
        found = await self.engine.requeue(self.name, chosen, from_states, now_ms=now_ms)
        return _select_ids(chosen, found, lambda state: state in from_states)

    async def remove(self, *ids: str) -> list[str]:
        """Delete jobs with their logs and child jobs.

        Running jobs are not deleted: cancel them first. Returns the ids of the deleted jobs. Many
        jobs are deleted in several transactions; if the call fails halfway, repeat it.
        """
        chosen = _check_ids(ids)
        found = await self.engine.remove(self.name, chosen, now_ms=self.clock.now_ms())
        return _select_ids(chosen, found, lambda state: state is not State.ACTIVE)

    async def remove_deduplication_key(self, task: str, key: str) -> bool:
        """Make a deduplication key free, so that the next job of the task with this key is added.

        task is the name of the task. The job that owns the key is not changed. With `latest`, the
        job that is kept until the owner ends is added then nevertheless, unless another job with
        this key was added before. Returns False if the key was not taken.
        """
        id = to_deduplication_id(check_name("task", task), check_key_text("key", key))
        now_ms = self.clock.now_ms()
        return await self.engine.remove_deduplication_key(self.name, id, now_ms=now_ms)

    async def drain(self, *, delayed: bool = False) -> int:
        """Delete the jobs that are ready to run, and with `delayed=True` also the delayed jobs.

        Running and finished jobs are kept. Returns the number of deleted jobs. Many jobs are
        deleted in several transactions; if the call fails halfway, repeat it.
        """
        states = {State.WAITING, State.PRIORITIZED} | ({State.DELAYED} if delayed else set())
        return len(await self._purge(states, None, None))

    async def clean(
        self,
        state: State | str,
        *,
        older_than: Duration,
        limit: int | None = None,
    ) -> list[str]:
        """Delete the old jobs in one state: `queue.clean("completed", older_than="1d")`.

        The age of a finished job is the time since it finished, that of any other job the time
        since it was added. older_than=0 deletes all jobs in the state. At most limit jobs are
        deleted, in the order of `jobs`: the finished jobs that ended first, or the waiting jobs
        that would run next. Returns the ids of the deleted jobs. Many jobs are deleted in several
        transactions; if the call fails halfway, repeat it. Raises `InvalidOption` for the state
        active: cancel running jobs instead.
        """
        checked = _check_state(state)
        if checked is State.ACTIVE:
            raise InvalidOption(
                "state", state, "any state except active: cancel running jobs instead"
            )
        if limit is not None:
            check_whole_number("limit", limit, 0, MAX_COUNT)
        before_ms = self.clock.now_ms() - to_nearest_ms("older_than", older_than)
        return await self._purge({checked}, before_ms, limit)

    async def _purge(
        self, states: set[State], before_ms: int | None, limit: int | None
    ) -> list[str]:
        """Delete jobs in these states, at most limit, and return their ids.

        With before_ms, only those that finished, or were added if unfinished, before this time.
        """
        now_ms = self.clock.now_ms()
        return await self.engine.purge(
            self.name, states, before_ms=before_ms, limit=limit, now_ms=now_ms
        )

    async def obliterate(self, *, force: bool = False) -> None:
        """Delete the queue with all its jobs, events and settings.

        Raises `WrongState` while jobs are running, unless force is True: then their workers lose
        the leases of these jobs and discard the results. A large queue is paused first, and deleted
        in several transactions; if the call fails halfway, repeat it.
        """
        if not force:
            running = await self.jobs(State.ACTIVE, limit=1)
            if running:
                raise WrongState(self.name, running[0].id, State.ACTIVE, ["finished", "cancelled"])
        await self.engine.obliterate(self.name)

    async def pause(self) -> None:
        """Keep workers from claiming jobs of this queue until `resume`. Running jobs continue."""
        await self.engine.pause(self.name, now_ms=self.clock.now_ms())

    async def resume(self) -> None:
        """End a pause: workers claim jobs of this queue again."""
        await self.engine.resume(self.name, now_ms=self.clock.now_ms())

    async def is_paused(self) -> bool:
        """Return whether the queue is paused."""
        return await self.engine.is_paused(self.name)

    @property
    def sync(self) -> SyncQueue:
        """Blocking versions of these methods, for code that does not run in an event loop."""
        return SyncQueue(self)


class SyncQueue:
    """Blocking versions of the methods of `Queue`, for code that does not run in an event loop.

    Called in a thread that runs an event loop, they issue a warning, because they block the loop;
    `close` and iterating over `events` raise `UsageError` there.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def __repr__(self) -> str:
        return f"{self._queue!r}.sync"

    def add(self, name: str, data: object = None, **options: Unpack[JobOptions]) -> Job[Any]:
        """Add a job by the name of its task; see `Queue.add`."""
        return _portal.run_for_sync_method(self._queue.add(name, data, **options))

    def add_many(self, jobs: Iterable[JobSpec]) -> list[Job[Any]]:
        """Add several jobs; see `Queue.add_many`."""
        return _portal.run_for_sync_method(self._queue.add_many(jobs))

    def get(self, id: str) -> Job[Any] | None:
        """Return the job with this id, or None; see `Queue.get`."""
        return _portal.run_for_sync_method(self._queue.get(id))

    def why(self, id: str) -> Why:
        """Return why a job does not run now; see `Queue.why`."""
        return _portal.run_for_sync_method(self._queue.why(id))

    def jobs(
        self, state: State | str, *, offset: int = 0, limit: int = 100, newest_first: bool = False
    ) -> list[Job[Any]]:
        """Return a page of the jobs in a state; see `Queue.jobs`."""
        return _portal.run_for_sync_method(
            self._queue.jobs(state, offset=offset, limit=limit, newest_first=newest_first)
        )

    def counts(self) -> dict[State, int]:
        """Return the number of jobs in each state; see `Queue.counts`."""
        return _portal.run_for_sync_method(self._queue.counts())

    def batch(
        self,
        id: str | None = None,
        *,
        on_first_failure: Arguments[..., Any] | None = None,
        on_ended: Arguments[..., Any] | None = None,
        on_succeeded: Arguments[..., Any] | None = None,
        max_open: Duration = DEFAULT_MAX_OPEN,
    ) -> Batch:
        """Open a batch, or return the one with this id; see `Queue.batch`."""
        return _portal.run_for_sync_method(
            self._queue.batch(
                id,
                on_first_failure=on_first_failure,
                on_ended=on_ended,
                on_succeeded=on_succeeded,
                max_open=max_open,
            )
        )

    def batches(self, *, limit: int = 100) -> list[Batch]:
        """Return the batches that have not ended; see `Queue.batches`."""
        return _portal.run_for_sync_method(self._queue.batches(limit=limit))

    def workers(self) -> list[WorkerInfo]:
        """Return the workers of the queue; see `Queue.workers`."""
        return _portal.run_for_sync_method(self._queue.workers())

    def events(self, *, after: str | None = None) -> SyncQueueEvents:
        """Return an iterator over the events: `for event in queue.sync.events():`.

        See `Queue.events`.
        """
        return SyncQueueEvents(self._queue.events(after=after))

    def cancel(self, *ids: str) -> list[str]:
        """Cancel jobs; see `Queue.cancel`."""
        return _portal.run_for_sync_method(self._queue.cancel(*ids))

    def update(
        self,
        id: str,
        *,
        data: object = UNSET,
        priority: int | None = None,
        delay: Duration | None = None,
        progress: object = UNSET,
    ) -> None:
        """Change the data, priority, delay or progress of a job; see `Queue.update`."""
        _portal.run_for_sync_method(
            self._queue.update(id, data=data, priority=priority, delay=delay, progress=progress)
        )

    def log(self, id: str, line: str) -> None:
        """Add a line to a job's log; see `Queue.log`."""
        _portal.run_for_sync_method(self._queue.log(id, line))

    def retry(self, *ids: str) -> list[str]:
        """Queue finished jobs again; see `Queue.retry`."""
        return _portal.run_for_sync_method(self._queue.retry(*ids))

    def promote(self, *ids: str) -> list[str]:
        """Make delayed jobs ready to run now; see `Queue.promote`."""
        return _portal.run_for_sync_method(self._queue.promote(*ids))

    def remove(self, *ids: str) -> list[str]:
        """Delete jobs; see `Queue.remove`."""
        return _portal.run_for_sync_method(self._queue.remove(*ids))

    def remove_deduplication_key(self, task: str, key: str) -> bool:
        """Make a deduplication key free; see `Queue.remove_deduplication_key`."""
        return _portal.run_for_sync_method(self._queue.remove_deduplication_key(task, key))

    def drain(self, *, delayed: bool = False) -> int:
        """Delete the jobs that are ready to run; see `Queue.drain`."""
        return _portal.run_for_sync_method(self._queue.drain(delayed=delayed))

    def clean(
        self,
        state: State | str,
        *,
        older_than: Duration,
        limit: int | None = None,
    ) -> list[str]:
        """Delete the old jobs in one state; see `Queue.clean`."""
        return _portal.run_for_sync_method(
            self._queue.clean(state, older_than=older_than, limit=limit)
        )

    def obliterate(self, *, force: bool = False) -> None:
        """Delete the queue with all its jobs; see `Queue.obliterate`."""
        _portal.run_for_sync_method(self._queue.obliterate(force=force))

    def pause(self) -> None:
        """Keep workers from claiming jobs; see `Queue.pause`."""
        _portal.run_for_sync_method(self._queue.pause())

    def resume(self) -> None:
        """Let workers claim jobs again; see `Queue.resume`."""
        _portal.run_for_sync_method(self._queue.resume())

    def is_paused(self) -> bool:
        """Return whether the queue is paused; see `Queue.is_paused`."""
        return _portal.run_for_sync_method(self._queue.is_paused())

    @property
    def schedules(self) -> SyncSchedules:
        """The schedules of the queue; see `Schedules`."""
        return self._queue.schedules.sync

    def close(self) -> None:
        """Close the store if the queue created it; see `Queue.aclose`."""
        # may_deadlock: raises UsageError in a running event loop, whose connections could not be
        # closed while this call blocks it.
        _portal.run_for_sync_method(self._queue.aclose(), may_deadlock=True)


class TaskDecorator(Protocol):
    """The type of the decorator `queue.task(…)`: the task keeps the signature of its function."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, T]], /
    ) -> ContextTask[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Context, P], T], /
    ) -> ContextTask[P, T, T]: ...
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> Task[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> Task[P, T, T]: ...


def _unpack_job_spec(job: JobSpec) -> tuple[str, object, Mapping[str, Any]]:
    match job:
        case (str() as name, data):
            return name, data, {}
        case (str() as name, data, Mapping() as options):
            return name, data, options
    raise InvalidOption(
        "jobs", job, "tuples (name, data) or (name, data, options)", is_private=True
    )


def _get_backoff_function(options: Mapping[str, Any]) -> BackoffFunction | None:
    backoff: BackoffFunction | None = options.get("backoff")
    return backoff if callable(backoff) else None


def _check_id(id: object) -> str:
    if not isinstance(id, str):
        raise InvalidOption("id", id, "a job id as a string, such as '42'")
    return id


def _check_ids(ids: Iterable[object]) -> list[str]:
    """Check that all ids are strings, and return them in order without duplicates."""
    return list(dict.fromkeys(map(_check_id, ids)))


def _select_ids(
    ids: Sequence[str], states: Sequence[State | None], is_match: Callable[[State], bool]
) -> list[str]:
    """Return the ids whose state is_match accepts. A state is None if the job does not exist."""
    return [
        id for id, state in zip(ids, states, strict=True) if state is not None and is_match(state)
    ]


def _check_state(state: object) -> State:
    try:
        return State(state)  # type: ignore[arg-type]  # a wrong type is a wrong value
    except ValueError:
        raise InvalidOption("state", state, f"one of {', '.join(State)}") from None
