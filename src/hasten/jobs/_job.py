"""A job as its users see it: its attributes, and what can be done with it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar, cast

from msgspec import UNSET

from hasten import _portal
from hasten._clock import Clock
from hasten._durations import Duration, to_seconds
from hasten._escapes import printable
from hasten.errors import JobNotFound
from hasten.jobs._encoding import decode_json
from hasten.jobs._engine import Engine
from hasten.jobs._epoch import to_datetime
from hasten.jobs._options import decode_options
from hasten.jobs._record import JobRecord, NewJob
from hasten.jobs._results import Results
from hasten.jobs._states import State
from hasten.jobs._watching import Watches
from hasten.jobs._why import Why

T_co = TypeVar("T_co", covariant=True)


class JobQueue(Protocol):
    """What a job uses of its `Queue`."""

    name: str

    @property
    def clock(self) -> Clock: ...
    @property
    def engine(self) -> Engine: ...
    @property
    def results(self) -> Results: ...
    @property
    def watches(self) -> Watches: ...

    @property
    def middlewares(self) -> Sequence[Callable[[Any, Any], Awaitable[Any]]]: ...

    def decode_result(self, task: str, text: str) -> Any: ...

    async def why(self, id: str) -> Why: ...
    async def cancel(self, *ids: str) -> list[str]: ...
    async def retry(self, *ids: str) -> list[str]: ...
    async def promote(self, *ids: str) -> list[str]: ...
    async def remove(self, *ids: str) -> list[str]: ...
    async def log(self, id: str, line: str) -> None: ...
    async def update(
        self,
        id: str,
        *,
        data: object = UNSET,
        priority: int | None = None,
        delay: Duration | None = None,
        progress: object = UNSET,
    ) -> None: ...


class Job(Generic[T_co]):
    """One queued run of a task. Its attributes show the job when it was read; see `refresh`.

    Two objects are equal if they have the same id in a queue of the same name.

    T is what the task returns. is_duplicate is True if the call that returned this job found a job
    with its job_id in the queue and added none. The attributes are those of the existing job then.
    """

    __slots__ = ("_added", "_queue", "_record", "_since", "id", "is_duplicate")

    def __init__(
        self,
        queue: JobQueue,
        id: str,
        known: JobRecord | tuple[NewJob, int],
        since: str | None = None,
        *,
        is_duplicate: bool = False,
    ) -> None:
        self._queue = queue
        self.id = id
        self.is_duplicate = is_duplicate
        self._since = since  # a cursor before the event of the job's end
        self._record: JobRecord | None = known if isinstance(known, JobRecord) else None
        self._added: tuple[NewJob, int] | None = None if isinstance(known, JobRecord) else known

    @property
    def record(self) -> JobRecord:
        """The stored job: all fields, undecoded."""
        if self._record is None:
            assert self._added is not None
            self._record = _as_added(self.id, *self._added)
        return self._record

    @property
    def queue(self) -> str:
        """The name of its queue."""
        return self._queue.name

    @property
    def name(self) -> str:
        """The name of its task."""
        return self.record.name

    @property
    def state(self) -> State:
        """Its state."""
        return self.record.state

    @property
    def data(self) -> Any:
        """Its arguments by parameter name, decoded from JSON."""
        return decode_json(self.record.data)

    @property
    def metadata(self) -> dict[str, str]:
        """The texts that middlewares stored with it when it was added."""
        try:
            return dict(decode_options(self.record.opts).metadata or {})
        except ValueError:  # options of another program, which cannot be read
            return {}

    @property
    def value(self) -> T_co | None:
        """What its handler returned; None until it has completed."""
        text = self.record.result
        return None if text is None else cast(T_co, self._queue.decode_result(self.name, text))

    @property
    def error(self) -> str | None:
        """The error of its latest failed run."""
        return self.record.error

    @property
    def tracebacks(self) -> list[str]:
        """The tracebacks of its failed runs, oldest first; the newest 20 are kept."""
        return self.record.tracebacks

    @property
    def progress(self) -> Any:
        """The progress that its handler reported last; None if it reported none."""
        text = self.record.progress
        return None if text is None else decode_json(text)

    @property
    def priority(self) -> int:
        """Its priority: 1 runs first; 0, no priority, before all others."""
        return self.record.priority

    @property
    def attempts_made(self) -> int:
        """How many of its runs counted as attempts."""
        return self.record.attempts_made

    @property
    def created_at(self) -> datetime:
        """When it was added."""
        return to_datetime(self.record.created_ms)

    @property
    def due_at(self) -> datetime | None:
        """When it is due, while it is delayed."""
        ms = self.record.due_ms
        return None if ms is None else to_datetime(ms)

    @property
    def started_at(self) -> datetime | None:
        """When its latest run started."""
        ms = self.record.started_ms
        return None if ms is None else to_datetime(ms)

    @property
    def finished_at(self) -> datetime | None:
        """When it finished."""
        ms = self.record.finished_ms
        return None if ms is None else to_datetime(ms)

    def __repr__(self) -> str:
        return printable(f"<Job {self.id} {self.name} of {self.queue}, {self.state}>")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Job):
            return NotImplemented
        return (self.queue, self.id) == (other.queue, other.id)

    def __hash__(self) -> int:
        return hash((self.queue, self.id))

    async def refresh(self) -> Job[T_co]:
        """Read the job again, and return it. Raises `JobNotFound` if it was removed."""
        (record,) = await self._queue.engine.get(self.queue, [self.id])
        if record is None:
            raise JobNotFound(self.queue, self.id)
        self._record = record
        return self

    async def result(self, timeout: Duration | None = None) -> T_co:
        """Wait until the job has finished, and return what its handler returned.

        timeout is a `Duration`; None waits for ever. Raises `ResultTimeout` (the job continues),
        `JobFailed` with its error, `JobCancelled`, or `JobNotFound` if it was removed.

        The result of a job that is not kept (`keep_completed=0`) is stored in the queue's events
        only, for as long as these are kept. The `Job` that `enqueue` or `add` returned finds it
        there, unless it is larger than 32 MiB: then `JobNotFound` is raised.
        """
        seconds = None if timeout is None else to_seconds("timeout", timeout)
        text = await self._queue.results.wait(self.id, seconds, since=self._since)
        return cast(T_co, self._queue.decode_result(self.name, text))

    async def watch(self) -> AsyncGenerator[Job[T_co]]:
        """Follow the job: `async for job in job.watch():`.

        Yields the job as it is now, and then a new object after every change of its state or its
        progress, in any process, until it has finished. No change between the two is missed; of
        progress that is reported faster than it is read, the newest is kept. All jobs that an event
        loop follows share one reader of the queue's events.

        Raises `JobNotFound` if the job does not exist or is removed, and `StoreError`: call `watch`
        again to continue.
        """
        async with contextlib.aclosing(self._queue.watches.watch(self.id)) as records:
            async for record in records:
                yield Job(self._queue, self.id, record, self._since)

    async def logs(self) -> list[str]:
        """Return the lines that its handler has logged, oldest first."""
        return await self._queue.engine.logs(self.queue, self.id)

    async def why(self) -> Why:
        """Return why the job does not run now, or how it has ended; see `Queue.why`."""
        return await self._queue.why(self.id)

    async def cancel(self) -> bool:
        """Cancel the job; see `Queue.cancel`. Returns False if it has finished or is missing."""
        return bool(await self._queue.cancel(self.id))

    async def update(
        self,
        *,
        data: object = UNSET,
        priority: int | None = None,
        delay: Duration | None = None,
        progress: object = UNSET,
    ) -> None:
        """Change the job; see `Queue.update`. `refresh` reads the new attributes."""
        await self._queue.update(
            self.id, data=data, priority=priority, delay=delay, progress=progress
        )

    async def log(self, line: str) -> None:
        """Add a line to its log; see `Queue.log`."""
        await self._queue.log(self.id, line)

    async def retry(self) -> bool:
        """Run the job again; see `Queue.retry`. Returns False if it is unfinished or missing."""
        return bool(await self._queue.retry(self.id))

    async def promote(self) -> bool:
        """Run the job now; see `Queue.promote`. Returns False if it is not delayed or missing."""
        return bool(await self._queue.promote(self.id))

    async def remove(self) -> bool:
        """Delete the job; see `Queue.remove`. Returns False if it is running or missing."""
        return bool(await self._queue.remove(self.id))

    @property
    def sync(self) -> SyncJob[T_co]:
        """The same methods, blocking, for code without an event loop."""
        return SyncJob(self)


class SyncJob(Generic[T_co]):
    """The methods of a job, blocking. In a running event loop they warn, because they block it.

    `result` raises `UsageError` there: use `await job.result()`.
    """

    __slots__ = ("_job",)

    def __init__(self, job: Job[T_co]) -> None:
        self._job = job

    def __repr__(self) -> str:
        return f"{self._job!r}.sync"

    def refresh(self) -> Job[T_co]:
        """Read the job again; see `Job.refresh`."""
        return _portal.call(self._job.refresh())

    def result(self, timeout: Duration | None = None) -> T_co:
        """Wait for the result; see `Job.result`."""
        return _portal.call(self._job.result(timeout), waits=True)

    def watch(self) -> Generator[Job[T_co]]:
        """Follow the job; see `Job.watch`."""
        changes = self._job.watch()

        async def next_change() -> Job[T_co] | None:
            return await anext(changes, None)

        async def close() -> None:
            await changes.aclose()

        try:
            while (job := _portal.call(next_change(), waits=True)) is not None:
                yield job
        finally:
            _portal.call(close())

    def logs(self) -> list[str]:
        """Return the lines of its log; see `Job.logs`."""
        return _portal.call(self._job.logs())

    def why(self) -> Why:
        """Return why the job does not run now; see `Job.why`."""
        return _portal.call(self._job.why())

    def cancel(self) -> bool:
        """Cancel the job; see `Job.cancel`."""
        return _portal.call(self._job.cancel())

    def update(
        self,
        *,
        data: object = UNSET,
        priority: int | None = None,
        delay: Duration | None = None,
        progress: object = UNSET,
    ) -> None:
        """Change the job; see `Job.update`."""
        _portal.call(self._job.update(data=data, priority=priority, delay=delay, progress=progress))

    def log(self, line: str) -> None:
        """Add a line to its log; see `Job.log`."""
        _portal.call(self._job.log(line))

    def retry(self) -> bool:
        """Run the job again; see `Job.retry`."""
        return _portal.call(self._job.retry())

    def promote(self) -> bool:
        """Run the job now; see `Job.promote`."""
        return _portal.call(self._job.promote())

    def remove(self) -> bool:
        """Delete the job; see `Job.remove`."""
        return _portal.call(self._job.remove())


def _as_added(id: str, job: NewJob, now_ms: int) -> JobRecord:
    template, options = job.template, job.template.options
    if options.delay_ms > 0:
        state, due_ms = State.DELAYED, now_ms + options.delay_ms
    else:
        state, due_ms = State.PRIORITIZED if options.priority else State.WAITING, None
    return JobRecord(
        queue=job.queue,
        id=id,
        name=template.name,
        data=job.data,
        opts=template.opts,
        state=state,
        priority=options.priority,
        delay_ms=options.delay_ms,
        created_ms=now_ms,
        attempts_made=0,
        attempts_started=0,
        crashes=0,
        due_ms=due_ms,
    )
