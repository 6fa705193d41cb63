"""A queue: where jobs are added, found and looked after."""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Protocol, Self, TypeVar, Unpack, overload

from msgspec import UNSET

from hasten import _portal
from hasten._clock import SYSTEM_CLOCK, Clock
from hasten._coalescing import Coalescer, portions
from hasten._durations import Duration, to_ms
from hasten._sizes import Size, to_bytes
from hasten._store import Store
from hasten.errors import (
    AddedInPart,
    InvalidArgument,
    InvalidOption,
    JobNotFound,
    PayloadTooLarge,
    StoreError,
    WrongState,
)
from hasten.jobs._backoff import BackoffFunction
from hasten.jobs._context import Context, encode_progress, log_line
from hasten.jobs._definitions import Execution
from hasten.jobs._encoding import NotStorable, decode_json, encode_json
from hasten.jobs._engine import Engine
from hasten.jobs._engines import open_engine
from hasten.jobs._events import QueueEvents
from hasten.jobs._functions import describe
from hasten.jobs._job import Job
from hasten.jobs._options import (
    MAX_PRIORITY,
    JobOptions,
    Options,
    TaskOptions,
    check_job_options,
    check_name,
    check_switch,
    check_task_options,
    check_whole,
    encode_options,
)
from hasten.jobs._record import Change, JobRecord, NewJob, Update
from hasten.jobs._results import Results
from hasten.jobs._states import FINISHED, State
from hasten.jobs._store_use import use_of
from hasten.jobs._tasks import ContextTask, RunIn, Task, TaskCore, check_function

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

DEFAULT_MAX_SIZE: Final = "1mb"
MAX_SIZE: Final = 256 * 1024 * 1024  # what every store holds in one text, with room for the rest

# Adding holds up everybody else who uses the store: a Redis server for 7 ms with a thousand plain
# jobs. One that has a place or an id of its own takes twice as long, and so do 2 kB of data.
ADDED_AT_ONCE: Final = 1_000
BYTES_LIKE_A_JOB: Final = 2_000

JobSpec = tuple[str, object] | tuple[str, object, JobOptions]
"""A job to add: the name of its task, its data and, if you like, its options."""


@dataclass(frozen=True, slots=True)
class Template:
    """What the jobs of one task with the same options have in common."""

    name: str
    opts: str
    id: str | None
    delay_ms: int
    priority: int
    lifo: bool


class Queue:
    """A queue of jobs, by name, in a store: `Queue("mail")`, or `Queue("mail", store)`.

    store is a `Store`, or the URL of one. Queues that are given the same `Store` share its
    connections and transactions, its clock and its life. A URL makes a store that this queue has
    for itself: two queues with `memory://` share nothing. None means the store of the process,
    which all queues that name none share: `Store.from_env()`, made at the first use. Nothing is
    opened before the first use.

    max_size limits the JSON of a job's data, of its result and of its progress. show_values is
    whether the errors about data that does not fit a task may repeat its values: errors are stored
    and logged. check_arguments is whether arguments are checked against the annotations of a task
    when a job is added: without it, a job that does not fit fails when a worker takes it. options
    hold for all its tasks that do not set them themselves.

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
            raise InvalidOption("max_size", max_size, "256mb at most: some stores hold no more")
        self.show_values = check_switch("show_values", show_values)
        self.check_arguments = check_switch("check_arguments", check_arguments)
        self.tasks: dict[str, TaskCore] = {}
        self._options = check_task_options(options)
        self._backoff_function = _function_of(options)
        self.store_use = use_of(store)
        self._is_open = False
        if self.store_use.made is not None:
            open_engine(self.store_use.made)  # opens nothing, but reports what is missing or wrong
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _InLoop]
        self._loops = weakref.WeakKeyDictionary()
        self._latest: tuple[asyncio.AbstractEventLoop, _InLoop] | None = None

    def __repr__(self) -> str:
        store = self.store_use.made
        return f"<Queue {self.name}{'' if store is None else f' in {store.url}'}>"

    @property
    def store(self) -> Store:
        """Where its jobs are."""
        return self.store_use.store

    @property
    def clock(self) -> Clock:
        """The clock of its store."""
        store = self.store_use.made
        return SYSTEM_CLOCK if store is None else store.clock  # the default store has no other one

    @property
    def engine(self) -> Engine:
        """What keeps its jobs in the store, which is in use from now on until `aclose`."""
        if not self._is_open:
            self._is_open = True
            self.store_use.acquire(self)
        return self.store_use.engine()

    async def aclose(self) -> None:
        """Close the store, if it is this queue's own, and no worker uses it. Safe to call twice.

        The store of the process is closed with the last of its queues and workers. A `Store` that
        was given to the queue stays open. The queue may be used again, and opens its store again.
        """
        self._is_open = False
        self._latest = None
        self._loops.clear()
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

    # The signatures overlap: a function of a Context is a function, too. The first that fits holds.
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

        name is the function's unless given; a producer in another language adds jobs by it.
        An `async def` runs in the worker's event loop, a plain function in a thread, either in
        a process of its own with run_in="process". If a plain function returns a coroutine, that
        is awaited. give_up_on are exceptions after which no further attempt is made.
        check_arguments as in `Queue`, whose choice holds for None.

        Raises `InvalidOption`, also for a name that another task of this queue object has, and
        `InvalidTask` for what cannot be called with stored arguments.

        options: attempts (total runs, 1), backoff (a delay, "exponential", `Fixed`, `Exponential`,
        or a function of the attempt and the error), timeout of one run, expires (fails if not
        started that long after it was due), delay, priority (1 first, 2,097,151 last; 0, none,
        before all), lifo, keep_completed and keep_failed (`Keep`, a count, True or False),
        keep_logs (the newest lines of `ctx.log` that are kept, 1,000). Times are `Duration`s.

        After a time-out, a thread that is in a long call in C is left behind after some seconds:
        it may still run while the next attempt does.
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
            else check_switch("check_arguments", check_arguments),
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
            expected = f"@queue.task(name=…) for {function!r}, which has no name of its own"
            raise InvalidOption("name", name, expected)
        core = TaskCore(
            self,
            function,
            check_name("task", name),
            check_task_options(options, self._options),
            run_in=run_in,
            give_up_on=give_up_on,
            check_arguments=check_arguments,
            backoff_function=_function_of(options) or self._backoff_function,
            made_in=made_in,
        )
        other = self.tasks.get(core.name)
        if other is not None and not core.definition.may_replace(other.definition):
            first, second = describe(other.function), describe(function)
            raise InvalidOption(
                "name",
                core.name,
                f"a name that no other task of queue {self.name!r} has. {first} is the task of "
                f"this name{', made twice by the same code' if first == second else ''}: give "
                f"{second} another one with @queue.task(name=…)",
            )
        self.tasks[core.name] = core
        return Task(core)

    def check_tasks(self) -> None:
        """Check what could not be checked when the tasks were made. A worker does so at its start.

        Annotations may name what is defined further down in a module, or comes to be there later.
        Raises `InvalidTask` or `InvalidOption`, which names the task.
        """
        for core in self.tasks.values():
            core.check()

    def decode_result(self, task: str, text: str) -> Any:
        """A stored result as the task's own return type, where the task is known here.

        Raises `ValueError` if it is no JSON.
        """
        core = self.tasks.get(task)
        return core.parameters.decode_result(text) if core else decode_json(text)

    # Producing ----------------------------------------------------------------------------------

    async def add(self, name: str, data: object = None, **options: Unpack[JobOptions]) -> Job[Any]:
        """Add a job by the name of its task: for tasks that live elsewhere, in any language.

        data is its arguments by parameter name, or any JSON that the other side understands. For a
        task of this queue object it is checked. Options as in `using`.

        Raises `InvalidArgument` for data that does not fit, `PayloadTooLarge` or `StoreError`.
        """
        template, text = self._prepare(name, data, options)
        return await self.submit(template, text)

    async def add_many(self, jobs: Iterable[JobSpec]) -> list[Job[Any]]:
        """Add jobs, `(name, data)` or `(name, data, options)`.

        Up to 1,000 jobs are added in one transaction: all or none. A job with a delay, a priority
        or a job_id counts as two, and each 2,000 bytes of data as one more. A larger call is
        several transactions, in the order of the jobs. Nothing is added if one of the jobs is
        refused before that; if the store fails after the first transaction, `AddedInPart` has the
        ids of the jobs that are stored.
        """
        return await self.submit_many([self._prepare(*_unpack(job)) for job in jobs])

    def _prepare(self, name: str, data: object, given: Mapping[str, Any]) -> tuple[Template, str]:
        core = self.tasks.get(name)
        options = check_job_options(
            given, core.options if core else self._options, now_ms=self.clock.now_ms()
        )
        text = self._encode_data(name, data)
        return self.template(check_name("task", name), options), text

    def _encode_data(self, name: str, data: object) -> str:
        """The JSON of the data of a task's job. Raises `InvalidArgument` or `PayloadTooLarge`."""
        try:
            encoded = encode_json({} if data is None else data)
        except NotStorable as exc:
            raise InvalidArgument(name, "data", exc.reason, exc.path) from exc
        except Exception as exc:
            raise InvalidArgument(name, "data", f"cannot be stored as JSON: {exc}") from exc
        if len(encoded) > self.max_size:
            raise PayloadTooLarge(name, "data", len(encoded), self.max_size)
        text = encoded.decode()
        core = self.tasks.get(name)
        if core is not None:
            core.parameters.check_data(data, text, check=core.check_arguments)
        return text

    def template(self, name: str, options: Options) -> Template:
        resolved = options.resolved(self.clock.now_ms())
        return Template(
            name=name,
            opts=encode_options(resolved),
            id=options.job_id,
            delay_ms=options.delay_ms,
            priority=options.priority,
            lifo=options.lifo,
        )

    def submit(self, template: Template, data: str) -> Awaitable[Job[Any]]:
        """Add one job, together with all that are added in this tick of the event loop."""
        return self._in_loop().adding.put(self._new_job(template, data))

    async def submit_many(self, jobs: Sequence[tuple[Template, str]]) -> list[Job[Any]]:
        new = [self._new_job(template, data) for template, data in jobs]
        added: list[Job[Any]] = []
        for part in portions(new, ADDED_AT_ONCE, _weight) if new else ():
            try:
                added += await self._send(new[part])
            except StoreError as error:
                if not added:
                    raise
                raise AddedInPart(error, [job.id for job in added], len(new)) from error
        return added

    def _new_job(self, template: Template, data: str) -> NewJob:
        return NewJob(
            self.name,
            template.name,
            data,
            template.opts,
            template.id,
            template.delay_ms,
            template.priority,
            template.lifo,
        )

    async def _send(self, jobs: Sequence[NewJob]) -> list[Job[Any]]:
        now_ms = self.clock.now_ms()
        added = await self.engine.add(jobs, now_ms=now_ms)
        return [
            Job(self, answer.id, (job, now_ms), answer.cursor)
            if answer.existing is None
            else Job(self, answer.id, answer.existing, answer.cursor, is_duplicate=True)
            for job, answer in zip(jobs, added, strict=True)
        ]

    def _in_loop(self) -> _InLoop:
        """What belongs to the running event loop."""
        loop = asyncio.get_running_loop()
        latest = self._latest  # read once: another thread may change it
        if latest is not None and latest[0] is loop:
            return latest[1]
        own = self._loops.get(loop)
        if own is None:
            own = self._loops[loop] = _InLoop(self._send)
        self._latest = loop, own
        return own

    @property
    def results(self) -> Results:
        """Where the running event loop waits for results."""
        own = self._in_loop()
        if own.results is None:
            own.results = Results(lambda: self.engine, self.name)
        return own.results

    # Reading ------------------------------------------------------------------------------------

    async def get(self, id: str) -> Job[Any] | None:
        """The job with this id; None if there is none, or no more."""
        _check_id(id)
        (record,) = await self.engine.get(self.name, [id])
        return None if record is None else Job(self, id, record)

    async def jobs(
        self, state: State | str, *, offset: int = 0, limit: int = 100, newest_first: bool = False
    ) -> list[Job[Any]]:
        """A page of the jobs in a state, in the order in which they would be taken.

        The page skips offset jobs and has limit jobs at most. Delayed ones come by due time, active
        ones by start, finished ones by finish. On Redis a long page is read in portions: jobs that
        move meanwhile may be missing.
        """
        records = await self.engine.page(
            self.name,
            _check_state(state),
            offset=check_whole("offset", offset, 0),
            limit=check_whole("limit", limit, 0),
            newest_first=newest_first,
        )
        return [Job(self, record.id, record) for record in records]

    async def counts(self) -> dict[State, int]:
        """How many jobs are in each state."""
        return await self.engine.count(self.name)

    def events(self, *, after: str | None = None) -> QueueEvents:
        """What happens to the queue's jobs, in any process: `async for event in queue.events():`.

        after is the `cursor` of the last event that was seen; None starts now, at the call. See
        `QueueEvents`. At least the newest 10,000 events are kept, but of large results, errors
        and progress no more than 32 MiB. A value of more than 64 KiB stays with its job: the event
        has its size in `omitted_bytes`, and no value.
        """
        return QueueEvents(self, after)

    # Looking after ------------------------------------------------------------------------------

    async def cancel(self, *ids: str) -> list[str]:
        """End jobs: at once if they have not started, else their workers stop them, anywhere.

        They fail with the error "cancelled". Returns the ids of those that had not finished. A
        running job may still complete before its worker learns of the call. Raises `WrongState`
        for the next run of a BullMQ scheduler, which goes with its scheduler, when the others are
        cancelled. Many jobs are cancelled in portions; if the call fails halfway, repeat it.
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
        """Change a job: what is given, all at once.

        data takes the place of the arguments by parameter name; a run that has begun goes on with
        those it has. priority puts a job that waits behind those that have it already, and holds
        for later attempts; no finished job has one. delay, of a delayed job, counts from now;
        a job that expires does so when it would have. progress is any JSON value of up to the
        queue's max_size.

        Raises `JobNotFound`, or `WrongState` if the job's state does not allow one of the changes:
        then none was made.
        """
        _check_id(id)
        change = Change(
            id,
            data=None if data is UNSET else self._encode_data((await self._find(id)).name, data),
            priority=None
            if priority is None
            else check_whole("priority", priority, 0, MAX_PRIORITY),
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
        """Run failed jobs again, with a full set of attempts; completed ones, too.

        Returns the ids of those that are queued again: a job in another state stays as it is. Many
        jobs are moved in portions; if the call fails halfway, repeat it.
        """
        return await self._requeue(ids, (State.FAILED, State.COMPLETED))

    async def promote(self, *ids: str) -> list[str]:
        """Run delayed jobs now. Returns the ids of those that were delayed; see `retry`."""
        return await self._requeue(ids, (State.DELAYED,))

    async def _requeue(self, ids: Sequence[str], sources: Sequence[State]) -> list[str]:
        chosen = _check_ids(ids)
        by_state: dict[State, list[str]] = {source: [] for source in sources}
        for record in await self.engine.get(self.name, chosen):
            if record is not None and record.state in by_state:
                by_state[record.state].append(record.id)
        moved: set[str] = set()
        for source, of_state in by_state.items():
            now_ms = self.clock.now_ms()
            found = await self.engine.requeue(self.name, of_state, source, now_ms=now_ms)
            moved.update(id for id, state in zip(of_state, found, strict=True) if state is source)
        return [id for id in chosen if id in moved]

    async def remove(self, *ids: str) -> list[str]:
        """Delete jobs and all that belongs to them, running ones excepted: cancel those first.

        Returns the ids of those that are deleted. Many jobs are deleted in portions; if the call
        fails halfway, repeat it.
        """
        chosen = _check_ids(ids)
        found = await self.engine.remove(self.name, chosen, now_ms=self.clock.now_ms())
        return _those(chosen, found, lambda state: state is not State.ACTIVE)

    async def drain(self, *, delayed: bool = False) -> int:
        """Delete the jobs that wait to run; also those that are delayed, if asked for.

        Returns how many there were. Running and finished ones stay. Many jobs are deleted in
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
        """Delete jobs in a state that finished (or were added) longer ago than older_than.

        `clean("completed", older_than="1d")`; with 0 all of them. At most limit jobs are deleted,
        in the order of `jobs`: finished ones from the oldest, waiting ones from the next to run.
        Returns their ids. Many jobs are deleted in portions; if the call fails halfway, repeat it.
        Raises `InvalidOption` for the state active: running jobs are cancelled, not cleaned.
        """
        checked = _check_state(state)
        if checked is State.ACTIVE:
            raise InvalidOption("state", state, "one whose jobs are not running")
        if limit is not None:
            check_whole("limit", limit, 0)
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

        Raises `WrongState` while jobs are running, unless force: then their workers find that
        they have lost them. A large queue is deleted in portions, and is paused meanwhile; if the
        call fails halfway, repeat it.
        """
        if not force:
            running = await self.jobs(State.ACTIVE, limit=1)
            if running:
                raise WrongState(self.name, running[0].id, State.ACTIVE, ["finished", "cancelled"])
        await self.engine.obliterate(self.name)

    async def pause(self) -> None:
        """Let no worker, anywhere, take jobs of this queue until `resume`. Running ones go on."""
        await self.engine.pause(self.name, now_ms=self.clock.now_ms())

    async def resume(self) -> None:
        """End a pause."""
        await self.engine.resume(self.name, now_ms=self.clock.now_ms())

    async def is_paused(self) -> bool:
        return await self.engine.is_paused(self.name)

    @property
    def sync(self) -> SyncQueue:
        """The same methods for code without an event loop."""
        return SyncQueue(self)


class SyncQueue:
    """A queue's methods, blocking. In a running event loop they warn, for they block it.

    `close` raises `UsageError` there.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def __repr__(self) -> str:
        return f"{self._queue!r}.sync"

    def add(self, name: str, data: object = None, **options: Unpack[JobOptions]) -> Job[Any]:
        return _portal.call(self._queue.add(name, data, **options))

    def add_many(self, jobs: Iterable[JobSpec]) -> list[Job[Any]]:
        return _portal.call(self._queue.add_many(jobs))

    def get(self, id: str) -> Job[Any] | None:
        return _portal.call(self._queue.get(id))

    def jobs(
        self, state: State | str, *, offset: int = 0, limit: int = 100, newest_first: bool = False
    ) -> list[Job[Any]]:
        return _portal.call(
            self._queue.jobs(state, offset=offset, limit=limit, newest_first=newest_first)
        )

    def counts(self) -> dict[State, int]:
        return _portal.call(self._queue.counts())

    def cancel(self, *ids: str) -> list[str]:
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
        _portal.call(
            self._queue.update(id, data=data, priority=priority, delay=delay, progress=progress)
        )

    def log(self, id: str, line: str) -> None:
        _portal.call(self._queue.log(id, line))

    def retry(self, *ids: str) -> list[str]:
        return _portal.call(self._queue.retry(*ids))

    def promote(self, *ids: str) -> list[str]:
        return _portal.call(self._queue.promote(*ids))

    def remove(self, *ids: str) -> list[str]:
        return _portal.call(self._queue.remove(*ids))

    def drain(self, *, delayed: bool = False) -> int:
        return _portal.call(self._queue.drain(delayed=delayed))

    def clean(
        self,
        state: State | str,
        *,
        older_than: Duration,
        limit: int | None = None,
    ) -> list[str]:
        return _portal.call(self._queue.clean(state, older_than=older_than, limit=limit))

    def obliterate(self, *, force: bool = False) -> None:
        _portal.call(self._queue.obliterate(force=force))

    def pause(self) -> None:
        _portal.call(self._queue.pause())

    def resume(self) -> None:
        _portal.call(self._queue.resume())

    def is_paused(self) -> bool:
        return _portal.call(self._queue.is_paused())

    def close(self) -> None:
        _portal.call(self._queue.aclose(), waits=True)  # for what this loop has open, too


class TaskDecorator(Protocol):
    """What `@queue.task(…)` returns: it keeps the signature of what it decorates."""

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


class _InLoop:
    """What a queue has in each event loop that uses it."""

    def __init__(self, send: Callable[[Sequence[NewJob]], Awaitable[list[Job[Any]]]]) -> None:
        self.adding = Coalescer(send, at_most=ADDED_AT_ONCE, weigh=_weight, in_turn=True)
        self.results: Results | None = None


def _weight(job: NewJob) -> int:
    """What it costs to add a job, as a number of plain ones without data."""
    data = job.data
    size = len(data) if data.isascii() else len(data.encode())
    is_plain = job.id is None and not job.delay_ms and not job.priority
    return (1 if is_plain else 2) + size // BYTES_LIKE_A_JOB


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
        raise InvalidOption("id", id, "the id of a job as text: str(id)")
    return id


def _check_ids(ids: Iterable[object]) -> list[str]:
    """Ids of a call, each once, in its order."""
    return list(dict.fromkeys(map(_check_id, ids)))


def _those(
    ids: Sequence[str], found: Sequence[State | None], moves: Callable[[State], bool]
) -> list[str]:
    """The ids of the jobs that were found in a state from which a verb moves them."""
    return [id for id, state in zip(ids, found, strict=True) if state is not None and moves(state)]


def _check_state(state: object) -> State:
    try:
        return State(state)  # type: ignore[arg-type]  # a wrong type is a wrong value
    except ValueError:
        raise InvalidOption("state", state, f"one of {', '.join(State)}") from None
