"""A queue: its tasks, and adding, finding and administering jobs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import (
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
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

from hasten import _portal
from hasten._checks import check_flag, check_whole_number
from hasten._clock import SYSTEM_CLOCK, Clock
from hasten._durations import Duration, to_ms
from hasten._sizes import Size, to_bytes
from hasten._store import Store
from hasten.errors import (
    InvalidArgument,
    InvalidOption,
    JobNotFound,
    PayloadTooLarge,
    WrongState,
)
from hasten.jobs._backoff import BackoffFunction
from hasten.jobs._context import Context, encode_progress, log_line
from hasten.jobs._encoding import NotStorable, decode_json, encode_json
from hasten.jobs._engine import Engine
from hasten.jobs._engines import open_engine
from hasten.jobs._events import QueueEvents
from hasten.jobs._function_origin import Execution
from hasten.jobs._functions import describe
from hasten.jobs._job import Job
from hasten.jobs._middleware import EnqueueCall, Middleware, check_middleware
from hasten.jobs._options import (
    MAX_COUNT,
    MAX_PRIORITY,
    JobOptions,
    Options,
    TaskOptions,
    check_job_options,
    check_name,
    check_task_options,
)
from hasten.jobs._per_loop import PerLoop
from hasten.jobs._producer import Producer
from hasten.jobs._record import Change, JobRecord, JobTemplate, Update
from hasten.jobs._results import Results
from hasten.jobs._states import FINISHED, State
from hasten.jobs._store_use import use_of
from hasten.jobs._sync_events import SyncQueueEvents
from hasten.jobs._task_definition import RunIn, TaskDefinition, check_function
from hasten.jobs._tasks import ContextTask, Task
from hasten.jobs._watching import Watches
from hasten.jobs._why import Why, explain
from hasten.jobs._worker_info import WorkerInfo

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
M = TypeVar("M", bound=Middleware)

DEFAULT_MAX_SIZE: Final = "1mb"
MAX_SIZE: Final = 256 * 1024 * 1024  # every store can hold this, and the rest of a job, in one text

JobSpec = tuple[str, object] | tuple[str, object, JobOptions]
"""A job to add: the name of its task, its data and optionally its options."""


class Queue:
    """A queue of jobs, by name, in a store: `Queue("mail")`, or `Queue("mail", store)`.

    store is a `Store` or a URL. Queues with the same `Store` share its connections, transactions,
    clock and life cycle. A URL makes a store for this queue only: two queues with `memory://` share
    nothing. None is the default store of the process, which all queues without a store share:
    `Store.from_env()`, made at the first use. Nothing is opened before the first use.

    max_size limits the JSON of a job's data, result and progress. show_values is whether errors
    about data that does not fit a task may contain its values: errors are stored and logged.
    check_arguments is whether arguments are checked against the annotations of a task when a job is
    added; without this check, a job that does not fit fails when a worker claims it. options are
    the defaults for all tasks of the queue.

    A queue may be used from several event loops and threads, and after a fork. `aclose`, or the end
    of `async with`, closes what the queue has opened.
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
        self.max_size = to_bytes("max_size", max_size, at_least=1)
        if self.max_size > MAX_SIZE:
            raise InvalidOption("max_size", max_size, "at most 256mb, the limit of some stores")
        self.show_values = check_flag("show_values", show_values)
        self.check_arguments = check_flag("check_arguments", check_arguments)
        self.tasks: dict[str, TaskDefinition] = {}
        self._options = check_task_options(options)
        self._backoff_function = _function_of(options)
        self.store_use = use_of(store)
        self._middlewares: tuple[Middleware, ...] = ()
        self._is_open = False
        if self.store_use.made is not None:
            open_engine(self.store_use.made)  # opens nothing, but reports wrong options
        self.producer = Producer(self)
        self._results = PerLoop(lambda: Results(lambda: self.engine, self.name))
        self._watches = PerLoop(lambda: Watches(lambda: self.engine, self.name))

    def __repr__(self) -> str:
        store = self.store_use.made
        return f"<Queue {self.name}{'' if store is None else f' in {store.url}'}>"

    @property
    def store(self) -> Store:
        """The store of its jobs."""
        return self.store_use.store

    @property
    def clock(self) -> Clock:
        """The clock of its store."""
        store = self.store_use.made
        return SYSTEM_CLOCK if store is None else store.clock  # the default store has this one

    @property
    def engine(self) -> Engine:
        """The engine of the store. The first access keeps the store open until `aclose`."""
        if not self._is_open:
            self._is_open = True
            self.store_use.acquire(self)
        return self.store_use.engine()

    async def aclose(self) -> None:
        """Close the store if it was made from a URL and no worker uses it. Safe to call twice.

        The default store is closed with the last of its queues and workers. A `Store` that was
        passed to the queue stays open. The queue may be used again; it reopens its store then.
        """
        self._is_open = False
        self.producer.close()
        self._results.clear()
        self._watches.clear()
        await self.store_use.release(self)

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

    # The signatures overlap, as a function of a Context is a function, too. The first match wins.
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
        run_in="process", both run in a process of their own. If a plain function returns a
        coroutine, it is awaited.

        - name: the name that is stored with a job, also by producers in other languages. By default
          it is the name of the function.
        - give_up_on: after one of these exceptions, the job is not retried.
        - check_arguments: None uses the setting of the `Queue`.
        - attempts: how often the job runs at most, 1 by default.
        - backoff: a delay, "exponential", `Fixed`, `Exponential`, or a function of the attempt and
          the error.
        - timeout: how long one run may take.
        - expires: the job fails if it has not started this long after it was due.
        - delay: how long to wait before the job is due.
        - priority: 1 runs first, 2,097,151 last; 0, the default, runs before all of them.
        - lifo: run the newest job first.
        - keep_completed, keep_failed: which finished jobs to keep: `Keep`, a count, True or False.
        - keep_logs: how many of the newest lines of `ctx.log` to keep, 1,000 by default.
        - since: the release that a worker must have at least to run the job, such as "2026.12".
          Other workers hand the job back: see `Worker`.

        Times are `Duration`s. Raises `InvalidOption`, also if another task of this queue object has
        the name, and `InvalidTask` for a function that cannot be called with stored arguments.

        After a time-out, a thread in a long call in C is abandoned after some seconds: it may still
        run during the next attempt.
        """
        caller = sys._getframe(1)
        made_in = Execution.of(caller.f_code, caller.f_globals)
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
        made_in: Execution,
    ) -> Task[..., Any, Any]:
        check_function(function)
        if name is None:
            name = getattr(function, "__name__", None)
        if name is None:
            expected = f"@queue.task(name=…) for {function!r}, which has no name"
            raise InvalidOption("name", name, expected)
        definition = TaskDefinition(
            function,
            check_name("task", name),
            check_task_options(options, self._options),
            run_in=run_in,
            give_up_on=give_up_on,
            check_arguments=check_arguments,
            backoff_function=_function_of(options) or self._backoff_function,
            max_size=self.max_size,
            show_values=self.show_values,
            made_in=made_in,
        )
        self._check_unique(definition)
        self.tasks[definition.name] = definition
        return Task(definition, self.producer)

    def _check_unique(self, definition: TaskDefinition) -> None:
        other = self.tasks.get(definition.name)
        if other is None or definition.origin.may_replace(other.origin):
            return
        first, second = describe(other.function), describe(definition.function)
        raise InvalidOption(
            "name",
            definition.name,
            f"unique in queue {self.name!r}, but {first} already has this name"
            f"{' (the same code made two tasks)' if first == second else ''}: give "
            f"{second} another name with @queue.task(name=…)",
        )

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
        self._middlewares = (*self._middlewares, check_middleware(middleware))
        return middleware

    @property
    def middlewares(self) -> Sequence[Middleware]:
        """The middlewares, outermost first."""
        return self._middlewares

    def check_tasks(self) -> None:
        """Check the annotations of all tasks. A worker does this when it starts.

        Annotations may refer to names that are defined further down in a module, so they cannot all
        be checked when a task is made. Raises `InvalidTask` or `InvalidOption` with the task.
        """
        for definition in self.tasks.values():
            definition.check()

    def decode_result(self, task: str, text: str) -> Any:
        """Decode a stored result, to the return type of the task if the queue has this task.

        Raises `ValueError` for invalid JSON.
        """
        definition = self.tasks.get(task)
        return definition.parameters.decode_result(text) if definition else decode_json(text)

    # Adding -------------------------------------------------------------------------------------

    async def add(self, name: str, data: object = None, **options: Unpack[JobOptions]) -> Job[Any]:
        """Add a job by the name of its task: for tasks of other programs, in any language.

        data is the arguments by parameter name, or any JSON that the other program understands. It
        is checked if this queue object has the task. For options see `using`.

        Raises `InvalidArgument` for data that does not fit, `PayloadTooLarge` or `StoreError`.
        """
        if self._middlewares:
            return await self.producer.submit_through(*self._prepare_call(name, data, options))
        template, text = self._prepare(name, data, options)
        return await self.producer.submit(template, text)

    async def add_many(self, jobs: Iterable[JobSpec]) -> list[Job[Any]]:
        """Add jobs, `(name, data)` or `(name, data, options)`.

        Up to 1,000 jobs are added in one transaction: all or none. A job with a delay, a priority
        or a job_id counts as two, and each 2,000 bytes of data as one more. A larger call is
        several transactions, in the order of the jobs. Nothing is added if one of the jobs is
        invalid; if the store fails after the first transaction, `AddedInPart` has the ids of the
        jobs that are stored.
        """
        if self._middlewares:
            calls = [self._prepare_call(*_unpack(job)) for job in jobs]
            return await self.producer.submit_many_through(calls)
        return await self.producer.submit_many([self._prepare(*_unpack(job)) for job in jobs])

    def _prepare(
        self, name: str, data: object, given: Mapping[str, Any]
    ) -> tuple[JobTemplate, str]:
        options = check_job_options(given, self._defaults(name), now_ms=self.clock.now_ms())
        text = self._encode_data(name, data)
        return self.producer.template(check_name("task", name), options), text

    def _prepare_call(
        self, name: str, data: object, given: Mapping[str, Any]
    ) -> tuple[EnqueueCall, Options, str]:
        """Check a job, and return it for the middlewares, with its default options and its JSON."""
        defaults = self._defaults(check_name("task", name))
        check_job_options(given, defaults, now_ms=self.clock.now_ms())
        text = self._encode_data(name, data)
        call = EnqueueCall(
            self.name, name, {} if data is None else data, cast(JobOptions, {**given})
        )
        return call, defaults, text

    def _defaults(self, task: str) -> Options:
        definition = self.tasks.get(task)
        return definition.options if definition else self._options

    def _encode_data(self, name: str, data: object) -> str:
        """Encode and check the data of a job. Raises `InvalidArgument` or `PayloadTooLarge`."""
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
            definition.parameters.check_data(data, text, check=definition.check_arguments)
        return text

    @property
    def results(self) -> Results:
        """Where callers of the running event loop wait for results."""
        return self._results.get()

    @property
    def watches(self) -> Watches:
        """The jobs that callers of the running event loop follow."""
        return self._watches.get()

    # Reading ------------------------------------------------------------------------------------

    async def get(self, id: str) -> Job[Any] | None:
        """Return the job with this id; None if it does not exist, or no longer."""
        _check_id(id)
        (record,) = await self.engine.get(self.name, [id])
        return None if record is None else Job(self, id, record)

    async def why(self, id: str) -> Why:
        """Return why a job does not run now, or how it has ended: `print(await queue.why("7"))`.

        There may be several reasons. The one that is returned has to end first. It is computed from
        the store and from what the workers of the queue have reported within the last seconds: see
        `workers`. Raises `JobNotFound`.
        """
        _check_id(id)
        now_ms = self.clock.now_ms()
        situation, workers = await asyncio.gather(
            self.engine.situation(self.name, id, now_ms=now_ms),
            self.engine.workers(self.name, now_ms=now_ms),
        )
        if situation is None:
            raise JobNotFound(self.name, id)
        others = await self.engine.count_other_workers(self.name, workers)
        return explain(situation, workers, others, now_ms=now_ms)

    async def jobs(
        self, state: State | str, *, offset: int = 0, limit: int = 100, newest_first: bool = False
    ) -> list[Job[Any]]:
        """Return a page of the jobs in a state, in the order in which they would be claimed.

        The page skips offset jobs and has limit jobs at most. Delayed jobs are sorted by due time,
        active ones by start, finished ones by finish. On Redis a long page is read in portions:
        jobs that move meanwhile may be missing.
        """
        records = await self.engine.page(
            self.name,
            _check_state(state),
            offset=check_whole_number("offset", offset, 0, MAX_COUNT),
            limit=check_whole_number("limit", limit, 0, MAX_COUNT),
            newest_first=newest_first,
        )
        return [Job(self, record.id, record) for record in records]

    async def counts(self) -> dict[State, int]:
        """Return how many jobs are in each state."""
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
        """Follow the events of all jobs, in any process: `async for event in queue.events():`.

        after is the `cursor` of the last event that was read; None starts at this call. See
        `QueueEvents`. At least the newest 10,000 events are kept, but no more than 32 MiB of large
        results, errors and progress. A value of more than 64 KiB is stored with its job only: the
        event has its size in `omitted_bytes`, and no value.
        """
        return QueueEvents(lambda: self.engine, self.name, after)

    # Administration -----------------------------------------------------------------------------

    async def cancel(self, *ids: str) -> list[str]:
        """Cancel jobs. They fail with the error "cancelled".

        Jobs that have not started fail at once, running ones are stopped by their workers, on any
        machine. A running job may still complete before that. Returns the ids of the jobs that had
        not finished. Raises `WrongState` for the next run of a BullMQ scheduler, after the others
        are cancelled: cancel it with its scheduler. Many jobs are cancelled in portions; if the
        call fails halfway, repeat it.
        """
        chosen = _check_ids(ids)
        found = await self.engine.cancel(self.name, chosen, now_ms=self.clock.now_ms())
        return _those(chosen, found, lambda state: state not in FINISHED)

    async def update(
        self,
        id: str,
        *,
        data: object = UNSET,
        priority: int | None = None,
        delay: Duration | None = None,
        progress: object = UNSET,
    ) -> None:
        """Change a job in one step: only the given values change.

        data replaces the arguments by parameter name; a run in progress keeps its own. priority
        places a waiting job behind those that have this priority, and applies to later attempts; a
        finished job cannot have one. delay, of a delayed job only, counts from now; the time of
        expiry does not change. progress is any JSON value of up to the queue's max_size.

        Raises `JobNotFound`, or `WrongState` if the state of the job does not allow one of the
        changes: then none is made.
        """
        _check_id(id)
        change = Change(
            id,
            data=None if data is UNSET else self._encode_data((await self._find(id)).name, data),
            priority=None
            if priority is None
            else check_whole_number("priority", priority, 0, MAX_PRIORITY),
            delay_ms=None if delay is None else to_ms("delay", delay),
            progress=None if progress is UNSET else encode_progress(progress, self.max_size),
        )
        found = await self._apply(change)
        if found not in change.states:
            raise WrongState(self.name, id, found, change.states)

    async def log(self, id: str, line: str) -> None:
        """Add a line to a job's log, as `ctx.log` does. Raises `JobNotFound`."""
        _check_id(id)
        await self._apply(log_line(await self._find(id), line))

    async def _find(self, id: str) -> JobRecord:
        (record,) = await self.engine.get(self.name, [id])
        if record is None:
            raise JobNotFound(self.name, id)
        return record

    async def _apply(self, update: Update) -> State:
        """Store an update. Returns the state in which the job was found."""
        now_ms = self.clock.now_ms()
        (found,) = await self.engine.update(self.name, [update], now_ms=now_ms)
        if found is None:
            raise JobNotFound(self.name, update.id)
        return found

    async def retry(self, *ids: str) -> list[str]:
        """Run finished jobs again, failed and completed ones, with all their attempts.

        Returns the ids of the jobs that are queued again; jobs in another state are not changed.
        Many jobs are moved in portions; if the call fails halfway, repeat it.
        """
        return await self._requeue(ids, FINISHED)

    async def promote(self, *ids: str) -> list[str]:
        """Run delayed jobs now. Returns the ids of the jobs that were delayed; see `retry`."""
        return await self._requeue(ids, {State.DELAYED})

    async def _requeue(self, ids: Sequence[str], sources: Collection[State]) -> list[str]:
        chosen = _check_ids(ids)
        now_ms = self.clock.now_ms()
        found = await self.engine.requeue(self.name, chosen, sources, now_ms=now_ms)
        return _those(chosen, found, lambda state: state in sources)

    async def remove(self, *ids: str) -> list[str]:
        """Delete jobs with their logs and children, except running ones: cancel these first.

        Returns the ids of the deleted jobs. Many jobs are deleted in portions; if the call
        fails halfway, repeat it.
        """
        chosen = _check_ids(ids)
        found = await self.engine.remove(self.name, chosen, now_ms=self.clock.now_ms())
        return _those(chosen, found, lambda state: state is not State.ACTIVE)

    async def drain(self, *, delayed: bool = False) -> int:
        """Delete the jobs that wait to run, and with `delayed=True` the delayed ones as well.

        Returns how many were deleted. Running and finished jobs are kept. Many jobs are deleted in
        portions; if the call fails halfway, repeat it.
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
        """Delete the jobs in a state that finished (or were added) longer ago than older_than.

        `clean("completed", older_than="1d")`; 0 deletes all of them. At most limit jobs are
        deleted, in the order of `jobs`: the oldest finished or the next waiting ones first. Returns
        their ids. Many jobs are deleted in portions; if the call fails halfway, repeat it. Raises
        `InvalidOption` for the state active: cancel running jobs instead.
        """
        checked = _check_state(state)
        if checked is State.ACTIVE:
            raise InvalidOption(
                "state", state, "any state except active: cancel running jobs instead"
            )
        if limit is not None:
            check_whole_number("limit", limit, 0, MAX_COUNT)
        before_ms = self.clock.now_ms() - to_ms("older_than", older_than)
        return await self._purge({checked}, before_ms, limit)

    async def _purge(
        self, states: set[State], before_ms: int | None, limit: int | None
    ) -> list[str]:
        now_ms = self.clock.now_ms()
        return await self.engine.purge(
            self.name, states, before_ms=before_ms, limit=limit, now_ms=now_ms
        )

    async def obliterate(self, *, force: bool = False) -> None:
        """Delete the queue with all its jobs, events and settings.

        Raises `WrongState` while jobs are running, unless force is True: then their workers lose
        the leases, and discard the results. A large queue is paused and deleted in portions; if the
        call fails halfway, repeat it.
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
        """The same methods, blocking, for code without an event loop."""
        return SyncQueue(self)


class SyncQueue:
    """The methods of a queue, blocking. In a running event loop they warn, because they block it.

    `close` and iterating over `events` raise `UsageError` there.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def __repr__(self) -> str:
        return f"{self._queue!r}.sync"

    def add(self, name: str, data: object = None, **options: Unpack[JobOptions]) -> Job[Any]:
        """Add a job; see `Queue.add`."""
        return _portal.call(self._queue.add(name, data, **options))

    def add_many(self, jobs: Iterable[JobSpec]) -> list[Job[Any]]:
        """Add jobs; see `Queue.add_many`."""
        return _portal.call(self._queue.add_many(jobs))

    def get(self, id: str) -> Job[Any] | None:
        """Return a job; see `Queue.get`."""
        return _portal.call(self._queue.get(id))

    def why(self, id: str) -> Why:
        """Return why a job does not run now; see `Queue.why`."""
        return _portal.call(self._queue.why(id))

    def jobs(
        self, state: State | str, *, offset: int = 0, limit: int = 100, newest_first: bool = False
    ) -> list[Job[Any]]:
        """Return a page of jobs; see `Queue.jobs`."""
        return _portal.call(
            self._queue.jobs(state, offset=offset, limit=limit, newest_first=newest_first)
        )

    def counts(self) -> dict[State, int]:
        """Count the jobs in each state; see `Queue.counts`."""
        return _portal.call(self._queue.counts())

    def workers(self) -> list[WorkerInfo]:
        """Return the workers of the queue; see `Queue.workers`."""
        return _portal.call(self._queue.workers())

    def events(self, *, after: str | None = None) -> SyncQueueEvents:
        """Follow the events: `for event in queue.sync.events():`; see `Queue.events`."""
        return SyncQueueEvents(self._queue.events(after=after))

    def cancel(self, *ids: str) -> list[str]:
        """Cancel jobs; see `Queue.cancel`."""
        return _portal.call(self._queue.cancel(*ids))

    def update(
        self,
        id: str,
        *,
        data: object = UNSET,
        priority: int | None = None,
        delay: Duration | None = None,
        progress: object = UNSET,
    ) -> None:
        """Change a job; see `Queue.update`."""
        _portal.call(
            self._queue.update(id, data=data, priority=priority, delay=delay, progress=progress)
        )

    def log(self, id: str, line: str) -> None:
        """Add a line to a job's log; see `Queue.log`."""
        _portal.call(self._queue.log(id, line))

    def retry(self, *ids: str) -> list[str]:
        """Run jobs again; see `Queue.retry`."""
        return _portal.call(self._queue.retry(*ids))

    def promote(self, *ids: str) -> list[str]:
        """Run delayed jobs now; see `Queue.promote`."""
        return _portal.call(self._queue.promote(*ids))

    def remove(self, *ids: str) -> list[str]:
        """Delete jobs; see `Queue.remove`."""
        return _portal.call(self._queue.remove(*ids))

    def drain(self, *, delayed: bool = False) -> int:
        """Delete the jobs that wait to run; see `Queue.drain`."""
        return _portal.call(self._queue.drain(delayed=delayed))

    def clean(
        self,
        state: State | str,
        *,
        older_than: Duration,
        limit: int | None = None,
    ) -> list[str]:
        """Delete old jobs in a state; see `Queue.clean`."""
        return _portal.call(self._queue.clean(state, older_than=older_than, limit=limit))

    def obliterate(self, *, force: bool = False) -> None:
        """Delete the queue; see `Queue.obliterate`."""
        _portal.call(self._queue.obliterate(force=force))

    def pause(self) -> None:
        """Stop claiming jobs; see `Queue.pause`."""
        _portal.call(self._queue.pause())

    def resume(self) -> None:
        """End a pause; see `Queue.resume`."""
        _portal.call(self._queue.resume())

    def is_paused(self) -> bool:
        """Return whether the queue is paused; see `Queue.is_paused`."""
        return _portal.call(self._queue.is_paused())

    def close(self) -> None:
        """Close the store; see `Queue.aclose`."""
        _portal.call(self._queue.aclose(), waits=True)  # for what this loop has open, too


class TaskDecorator(Protocol):
    """The type of `@queue.task(…)`: it keeps the signature of the decorated function."""

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


def _unpack(job: JobSpec) -> tuple[str, object, Mapping[str, Any]]:
    match job:
        case (str() as name, data):
            return name, data, {}
        case (str() as name, data, Mapping() as options):
            return name, data, options
    raise InvalidOption("jobs", job, "(name, data) or (name, data, options)", is_private=True)


def _function_of(options: Mapping[str, Any]) -> BackoffFunction | None:
    backoff: BackoffFunction | None = options.get("backoff")
    return backoff if callable(backoff) else None


def _check_id(id: object) -> str:
    if not isinstance(id, str):
        raise InvalidOption("id", id, "the id of a job as a string: str(id)")
    return id


def _check_ids(ids: Iterable[object]) -> list[str]:
    """Check the ids of a call, and return each once, in order."""
    return list(dict.fromkeys(map(_check_id, ids)))


def _those(
    ids: Sequence[str], found: Sequence[State | None], moves: Callable[[State], bool]
) -> list[str]:
    """Return the ids of the jobs in a state that `moves` accepts."""
    return [id for id, state in zip(ids, found, strict=True) if state is not None and moves(state)]


def _check_state(state: object) -> State:
    try:
        return State(state)  # type: ignore[arg-type]  # a wrong type is a wrong value
    except ValueError:
        raise InvalidOption("state", state, f"one of {', '.join(State)}") from None
