"""Middlewares of a queue: code around each enqueue and each run."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from hasten._checks import is_async
from hasten.errors import InvalidOption, UsageError
from hasten.jobs._context import Context
from hasten.jobs._encoding import decode_json
from hasten.jobs._job import Job
from hasten.jobs._options import JobOptions
from hasten.jobs._record import JobRecord

# How long a failed call waits for middlewares that do not end when they are cancelled.
CLEAN_UP_SECONDS = 1.0

C = TypeVar("C", bound="EnqueueCall | RunCall")


@dataclass(slots=True)
class EnqueueCall:
    """A job that is about to be added, as a middleware receives it."""

    queue: str
    task: str
    data: Any
    """The arguments, by parameter name. Read only: they are encoded already."""
    options: JobOptions
    """The options of this call, without the defaults of its task. A middleware may change them."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Texts that are stored with the job, for middlewares around its runs. May be changed."""


@dataclass(slots=True)
class RunCall:
    """A run of a job, as a middleware receives it."""

    context: Context
    """The context of the job: its attempt, and methods to report progress and log lines."""
    metadata: Mapping[str, str]
    """The texts that middlewares stored with the job when it was added."""

    @property
    def queue(self) -> str:
        """The name of the queue."""
        return self.job.queue

    @property
    def task(self) -> str:
        """The name of the task."""
        return self.job.name

    @property
    def job(self) -> JobRecord:
        """The job as it was claimed."""
        return self.context.job

    @property
    def data(self) -> Any:
        """The arguments, by parameter name, decoded from JSON."""
        return decode_json(self.job.data)

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self.context.attempt


Call = EnqueueCall | RunCall
"""What a middleware receives. Check the class to handle one of the two only."""

_CALLS: Final = (EnqueueCall, RunCall)

CallNext = Callable[[Any], Awaitable[Any]]
"""Continues with a call: the other middlewares, and then the enqueue or the handler itself."""

Middleware = Callable[[Any, CallNext], Awaitable[Any]]
"""``async def middleware(call, call_next)``. See `Queue.use`."""


def check_middleware(middleware: object) -> Middleware:
    """Return middleware if it is an async function of two parameters. Raises `InvalidOption`."""
    expected = "an async function of two parameters, (call, call_next)"
    if not callable(middleware) or inspect.isclass(middleware):
        raise InvalidOption("middleware", middleware, expected)
    if not is_async(middleware):
        raise InvalidOption("middleware", middleware, expected)
    try:
        inspect.signature(middleware).bind(None, None)
    except TypeError as exc:
        raise InvalidOption("middleware", middleware, f"{expected}, but {exc}") from exc
    return middleware


def call_through(
    middlewares: Sequence[Middleware], call: C, innermost: Callable[[C], Awaitable[Any]]
) -> Awaitable[Any]:
    """Call the first middleware, which calls the next one, and so on. The last calls innermost."""
    if not middlewares:
        return innermost(call)
    return middlewares[0](call, _SingleUseNext(middlewares, 1, innermost))


class _SingleUseNext:
    """The call_next of one call of a middleware. A second call of it raises `UsageError`.

    It would add another job, or run the job again. position is that of the middleware that is
    called next.
    """

    __slots__ = ("_innermost", "_middlewares", "_position", "_was_called")

    def __init__(
        self,
        middlewares: Sequence[Middleware],
        position: int,
        innermost: Callable[[Any], Awaitable[Any]],
    ) -> None:
        self._middlewares = middlewares
        self._position = position
        self._innermost = innermost
        self._was_called = False

    async def __call__(self, call: Any) -> Any:
        if self._was_called:
            raise UsageError(
                "a middleware called call_next() twice: call it once each time the middleware runs"
            )
        if not isinstance(call, _CALLS):
            raise UsageError(
                f"a middleware called call_next({call!r}): pass the call that it received"
            )
        self._was_called = True
        middlewares, position = self._middlewares, self._position
        if position == len(middlewares):
            return await self._innermost(call)
        call_next = _SingleUseNext(middlewares, position + 1, self._innermost)
        return await middlewares[position](call, call_next)


async def add_through(
    middlewares: Sequence[Middleware],
    call: EnqueueCall,
    add: Callable[[EnqueueCall], Awaitable[Job[Any]]],
) -> Job[Any]:
    """Add a job through middlewares. Raises `UsageError` if they return something else."""
    return _check_job(await call_through(middlewares, call, add))


def _check_job(added: object) -> Job[Any]:
    if not isinstance(added, Job):
        raise UsageError(
            f"a middleware around enqueue() returned {added!r}: it must return a Job, usually with "
            "`return await call_next(call)`, or raise an exception"
        )
    return added


async def add_many_through(
    calls: Sequence[tuple[Sequence[Middleware], EnqueueCall]],
    add_many: Callable[[Mapping[int, EnqueueCall]], Awaitable[Sequence[Job[Any]]]],
) -> list[Job[Any]]:
    """Send each call through its middlewares, and add those that reach the end together.

    add_many receives these calls by their index, as the middlewares have passed them on. If a
    middleware raises before that, nothing is added. Costs a task of the event loop per call.

    When an error is raised, the other middlewares are cancelled. They get `CLEAN_UP_SECONDS` to
    end; the error is then raised although some may still be running.
    """
    if not calls:
        return []
    bulk = _Bulk(len(calls))
    create_task = asyncio.get_running_loop().create_task
    tasks = [
        create_task(bulk.run(index, middlewares, call))
        for index, (middlewares, call) in enumerate(calls)
    ]
    try:
        await bulk.are_gathered.wait()
        bulk.raise_first_error()
        arrived = bulk.take_waiting()
        if arrived:
            try:
                jobs = await add_many({index: call for index, (call, _) in arrived.items()})
            except BaseException as error:
                for _, future in arrived.values():
                    _set_exception(future, error)
                await asyncio.wait(tasks, timeout=CLEAN_UP_SECONDS)
                raise
            for (_, future), job in zip(arrived.values(), jobs, strict=True):
                if not future.done():
                    future.set_result(job)
        await bulk.have_ended.wait()
        bulk.raise_first_error()
        return bulk.jobs()
    finally:
        if bulk.running:
            await _cancel_and_leave(tasks)


async def _cancel_and_leave(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks, and wait for a moment until they have ended."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    _left.update(running)  # the event loop has only weak references
    for task in running:
        task.add_done_callback(_left.discard)
    if running:
        await asyncio.wait(running, timeout=CLEAN_UP_SECONDS)


_left: Final[set[asyncio.Task[None]]] = set()


def _set_exception(future: asyncio.Future[Any], error: BaseException) -> None:
    if future.done():
        return
    if isinstance(error, asyncio.CancelledError):
        future.cancel()
    else:
        future.set_exception(error)


Arrived = dict[int, tuple[EnqueueCall, "asyncio.Future[Job[Any]]"]]


class _Bulk:
    """The calls of a bulk on their way through the middlewares.

    Those that have passed all of them wait for their jobs. A call has one task and one future, and
    no callbacks: these would cost as much as adding the job.
    """

    def __init__(self, count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: list[Job[Any] | None] = [None] * count
        self._missing = set(range(count))  # the calls that have neither arrived nor ended
        self._arrived: Arrived = {}
        self._is_taken = False
        self._error: BaseException | None = None
        self.running = count  # the calls whose middlewares have not ended
        self.are_gathered = asyncio.Event()  # no call is missing, or one has failed
        self.have_ended = asyncio.Event()  # all middlewares have ended, or one has failed

    async def run(self, index: int, middlewares: Sequence[Middleware], call: EnqueueCall) -> None:
        """Send a call through the middlewares. Records their job, or their error."""
        try:
            job = await call_through(middlewares, call, partial(self._add, index))
            self._jobs[index] = _check_job(job)
        except BaseException as error:
            if self._error is None:
                self._error = error
            self.are_gathered.set()
            self.have_ended.set()
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
        finally:
            self.running -= 1
            if not self.running:
                self.have_ended.set()
            if index in self._missing:
                self._mark_call_known(index)

    def _add(self, index: int, call: EnqueueCall) -> Awaitable[Job[Any]]:
        """Let a call wait for its job."""
        if self._is_taken:
            raise UsageError("call_next() was called after its middleware had returned")
        future: asyncio.Future[Job[Any]] = self._loop.create_future()
        self._arrived[index] = call, future
        self._mark_call_known(index)
        return future

    def _mark_call_known(self, index: int) -> None:
        """Record that a call waits for its job or has ended. The last one wakes the bulk."""
        self._missing.discard(index)
        if not self._missing:
            self.are_gathered.set()

    def raise_first_error(self) -> None:
        """Raise the first error of a middleware, if there is one."""
        if self._error is not None:
            raise self._error

    def take_waiting(self) -> Arrived:
        """Return the calls that still wait for their job, by index. No more may arrive."""
        self._is_taken = True
        return {
            index: (call, future)
            for index, (call, future) in sorted(self._arrived.items())
            if not future.done()
        }

    def jobs(self) -> list[Job[Any]]:
        """Return the job of each call. All middlewares have ended without an error."""
        return [job for job in self._jobs if job is not None]


class Carry:
    """A middleware that takes context variables from the code that enqueues to the handler.

    ``queue.use(Carry(request_id, tenant))`` stores the values of these variables with each job, in
    its metadata under the names of the variables, and sets them around each run of the job. It also
    works for handlers in threads and processes, and for jobs that a handler enqueues. A variable
    without a value is not carried. Values must be strings: an `InvalidOption` is raised where a job
    is enqueued with another value.
    """

    def __init__(self, *variables: ContextVar[str] | ContextVar[str | None]) -> None:
        if not variables or not all(isinstance(each, ContextVar) for each in variables):
            raise InvalidOption("variables", variables, "one ContextVar or more")
        self._variables: dict[str, ContextVar[Any]]
        self._variables = {variable.name: variable for variable in variables}
        if len(self._variables) < len(variables):
            raise InvalidOption("variables", variables, "variables with different names")

    async def __call__(self, call: EnqueueCall | RunCall, call_next: CallNext) -> Any:
        """Store the values with a new job, or set them around a run."""
        if isinstance(call, EnqueueCall):
            call.metadata.update(self.values())
            return await call_next(call)
        with self.restored(call.metadata):
            return await call_next(call)

    def values(self) -> dict[str, str]:
        """Return the present values by name, without variables that have none."""
        values: dict[str, str] = {}
        for name, variable in self._variables.items():
            value = variable.get(None)
            if value is not None:
                values[name] = value
        return values

    @contextlib.contextmanager
    def restored(self, metadata: Mapping[str, str]) -> Iterator[None]:
        """Set the variables to the values in the metadata of a job.

        A variable that the job does not carry is set to None if the code that started the worker
        has set it, so that the handler does not see that value. Otherwise it stays unset.
        """
        tokens = [
            (variable, variable.set(metadata.get(name)))
            for name, variable in self._variables.items()
            if name in metadata or variable.get(None) is not None
        ]
        try:
            yield
        finally:
            for variable, token in reversed(tokens):
                variable.reset(token)
