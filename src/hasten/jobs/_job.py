"""`Job`, which shows the attributes of a job and changes it, and its blocking form `SyncJob`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from datetime import datetime
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from msgspec import UNSET

from hasten import _portal
from hasten._checks import check_flag, check_whole_number
from hasten._clock import Clock
from hasten._durations import Duration, to_seconds
from hasten._escapes import escape_unprintable
from hasten.errors import JobFailed, JobNotFound
from hasten.jobs import _child_ends as child_ends
from hasten.jobs import _family as family
from hasten.jobs._deduplication import read_deduplication_id, to_deduplication_key
from hasten.jobs._encoding import decode_json
from hasten.jobs._engine import Engine
from hasten.jobs._epoch import to_datetime
from hasten.jobs._family import Child, ChildProgress, JobTree
from hasten.jobs._options import MAX_COUNT, decode_options
from hasten.jobs._record import JobRecord, NewJob, ParentLink, WhyFacts
from hasten.jobs._results import ResultWaiter
from hasten.jobs._states import State
from hasten.jobs._watching import Watches
from hasten.jobs._why import Why

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

MAX_TREE_DEPTH: Final = 1_000
MAX_TREE_JOBS: Final = 100_000


class JobQueue(Protocol):
    """The attributes and methods of `Queue` that `Job` uses."""

    name: str

    @property
    def clock(self) -> Clock: ...
    @property
    def engine(self) -> Engine: ...
    @property
    def results(self) -> ResultWaiter: ...
    @property
    def watches(self) -> Watches: ...

    def decode_result(self, task: str, text: str) -> Any: ...
    def shares_store_with(self, other: JobQueue) -> bool: ...
    def queue_named(self, name: str) -> JobQueue: ...

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
    """One queued run of a task. The attributes are a snapshot, which `refresh` updates.

    Two objects are equal if they have the same id and their queues have the same name.

    T is the return type of the task. is_duplicate is True if `enqueue` or `add` added no job,
    because one with the same job_id was already in the queue, or because one owns the deduplication
    key: the attributes are those of that job. If the owner of the key of a `throttle` has been
    deleted since it ended, the attributes are those of the call, and the state is completed.
    """

    __slots__ = ("_added", "_queue", "_record", "_since", "id", "is_duplicate")

    def __init__(
        self,
        queue: JobQueue,
        id: str,
        source: JobRecord | tuple[NewJob, int],
        since: str | None = None,
        *,
        is_duplicate: bool = False,
    ) -> None:
        self._queue = queue
        self.id = id
        self.is_duplicate = is_duplicate
        self._since = since  # cursor of the queue's events from before the job could end
        self._record: JobRecord | None = source if isinstance(source, JobRecord) else None
        self._added: tuple[NewJob, int] | None = None if isinstance(source, JobRecord) else source

    @property
    def record(self) -> JobRecord:
        """All stored fields of the job. Fields that hold JSON are not decoded."""
        if self._record is None:
            assert self._added is not None
            self._record = build_record(self.id, *self._added)
        return self._record

    @property
    def queue(self) -> str:
        """The name of the job's queue."""
        return self._queue.name

    @property
    def name(self) -> str:
        """The name of the job's task."""
        return self.record.name

    @property
    def state(self) -> State:
        """The state of the job when it was last read."""
        return self.record.state

    @property
    def data(self) -> Any:
        """The arguments of the job by parameter name, decoded from JSON."""
        return decode_json(self.record.data)

    @property
    def metadata(self) -> dict[str, str]:
        """The texts that middlewares stored with it when it was added."""
        try:
            return dict(decode_options(self.record.opts).metadata or {})
        except ValueError:  # options of another program, which cannot be read
            return {}

    @property
    def deduplication_key(self) -> str | None:
        """The key that it was added with by unique, throttle, debounce or latest; None without one.

        A job that another program has added may have any key.
        """
        id = read_deduplication_id(self.record.opts)
        return None if id is None else to_deduplication_key(self.name, id)

    @property
    def value(self) -> T_co | None:
        """The return value of the task's function; None until the job has completed."""
        text = self.record.result
        return None if text is None else cast(T_co, self._queue.decode_result(self.name, text))

    @property
    def error(self) -> str | None:
        """The error of the latest failed run; None if no run has failed."""
        return self.record.error

    @property
    def tracebacks(self) -> list[str]:
        """The tracebacks of the failed runs, oldest first. The newest 20 are kept."""
        return self.record.tracebacks

    @property
    def progress(self) -> Any:
        """The progress value that was reported last; None if none was reported."""
        text = self.record.progress
        return None if text is None else decode_json(text)

    @property
    def priority(self) -> int:
        """The priority: 0, the default, runs before all others, then 1 to 2,097,151."""
        return self.record.priority

    @property
    def attempts_made(self) -> int:
        """The number of runs that counted as attempts.

        Runs that were postponed or handed back do not count.
        """
        return self.record.attempts_made

    @property
    def created_at(self) -> datetime:
        """The time at which the job was added."""
        return to_datetime(self.record.created_ms)

    @property
    def due_at(self) -> datetime | None:
        """The time at which a delayed job becomes ready to run; None in any other state."""
        ms = self.record.due_ms
        return None if ms is None else to_datetime(ms)

    @property
    def started_at(self) -> datetime | None:
        """The time at which the latest run started; None before the first run."""
        ms = self.record.started_ms
        return None if ms is None else to_datetime(ms)

    @property
    def finished_at(self) -> datetime | None:
        """The time at which the job completed or failed; None before that."""
        ms = self.record.finished_ms
        return None if ms is None else to_datetime(ms)

    @property
    def parent(self) -> ParentLink | None:
        """The queue and id of the job that waits for this one, None for a job without a parent.

        On Redis it is also set if the parent was deleted.
        """
        return self.record.parent

    def __repr__(self) -> str:
        return escape_unprintable(f"<Job {self.id} {self.name} of {self.queue}, {self.state}>")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Job):
            return NotImplemented
        return (self.queue, self.id) == (other.queue, other.id)

    def __hash__(self) -> int:
        return hash((self.queue, self.id))

    async def refresh(self) -> Job[T_co]:
        """Read the job from the store again, and return this object. Raises `JobNotFound`."""
        (record,) = await self._queue.engine.get(self.queue, [self.id])
        if record is None:
            raise JobNotFound(self.queue, self.id)
        self._record = record
        return self

    async def result(self, timeout: Duration | None = None) -> T_co:
        """Wait until the job has finished, and return the return value of the task's function.

        timeout is a `Duration`; None waits without limit. Raises `ResultTimeout` (the job
        continues), `JobFailed` with the job's error, `JobCancelled`, or `JobNotFound` if the job
        was removed.

        A job with `keep_completed=0` is deleted when it completes. Its result is then only in the
        queue's events, until the event is deleted, and only the `Job` that `enqueue` or `add`
        returned can find it there. If the result is larger than 32 MiB, it is not in the events,
        and `JobNotFound` is raised.
        """
        seconds = None if timeout is None else to_seconds("timeout", timeout)
        text = await self._queue.results.wait(self.id, seconds, since_cursor=self._since)
        return cast(T_co, self._queue.decode_result(self.name, text))

    async def watch(self) -> AsyncGenerator[Job[T_co]]:
        """Follow the job: `async for job in job.watch():`.

        Yields the job as it is now, and then a new object after every change of its state or its
        progress, in any process, until it has finished. No change of state is missed between two
        objects; of progress that is reported faster than it is read, the newest is kept. All jobs
        that an event loop follows share one reader of the queue's events.

        Raises `JobNotFound` if the job does not exist or is removed, and `StoreError`: call `watch`
        again to continue.
        """
        async with contextlib.aclosing(self._queue.watches.watch(self.id)) as records:
            async for record in records:
                yield Job(self._queue, self.id, record, self._since)

    async def logs(self) -> list[str]:
        """Return the lines of the job's log, oldest first."""
        return await self._queue.engine.logs(self.queue, self.id)

    async def why(self) -> Why:
        """Return why the job does not run now, or how it has ended; see `Queue.why`."""
        return await self._queue.why(self.id)

    async def cancel(self, *, children: bool = False) -> bool:
        """Cancel the job; see `Queue.cancel`.

        With `children=True`, all unfinished jobs below it are cancelled, too: its children, their
        children, and so on. That takes several transactions, from the job downwards; if the call
        fails halfway, repeat it.

        Returns False if the job has finished or does not exist.
        """
        cancelled = bool(await self._queue.cancel(self.id))
        if check_flag("children", children):
            now_ms = self._queue.clock.now_ms()
            await family.cancel_descendants(self._queue.engine, self.queue, self.id, now_ms=now_ms)
        return cancelled

    # Children -----------------------------------------------------------------------------------

    async def children(self, *, offset: int = 0, limit: int = 100) -> list[Child]:
        """Return a page of the jobs that this job waits for or has waited for.

        They are in the order in which they were added. offset is how many to skip, limit how many
        to return at most. A child that was deleted before it had finished is not included; one that
        was deleted later is, with its result. Empty for a job without children.
        """
        found = await self._queue.engine.children(
            self.queue,
            self.id,
            offset=check_whole_number("offset", offset, 0, MAX_COUNT),
            limit=check_whole_number("limit", limit, 0, MAX_COUNT),
        )
        return [
            family.to_child(child, None if child.value is None else decode_json(child.value))
            for child in found
        ]

    async def child_progress(self) -> ChildProgress:
        """Return how many children of this job are pending, have completed or have failed."""
        counts = await self._queue.engine.count_children(self.queue, self.id)
        return family.to_progress(counts)

    async def tree(self, *, max_depth: int = 10, max_jobs: int = 1_000) -> JobTree:
        """Return this job with its children, their children, and so on.

        At most max_depth levels below this job are read, and at most max_jobs jobs, level by level.
        `JobTree.is_cut` tells whether there are more. The tree is read in several transactions, so
        it may show one job before and another one after the same change. Raises `JobNotFound`.
        """
        check_whole_number("max_depth", max_depth, 0, MAX_TREE_DEPTH)
        check_whole_number("max_jobs", max_jobs, 1, MAX_TREE_JOBS)
        engine = self._queue.engine
        record = await family.require_job(engine, self.queue, self.id)
        return await family.read_tree(engine, record, max_depth=max_depth, max_jobs=max_jobs)

    async def children_ended(self, timeout: Duration | None = None) -> ChildProgress:
        """Wait until all children of this job have ended for good, and return how.

        A failed child with `on_failure="wait"` has not: it may be retried. Works in any process,
        also for children that other processes add meanwhile. timeout is a `Duration`; None waits
        without limit. Raises `ResultTimeout`, and `JobNotFound` if this job does not exist.
        """

        async def read(_facts: WhyFacts) -> ChildProgress | None:
            progress = await self.child_progress()
            return None if progress.pending else progress

        return await self._wait_for_children(read, timeout)

    async def first_child_failure(self, timeout: Duration | None = None) -> Child | None:
        """Wait until a child of this job has failed for good, and return it.

        Returns None if all have ended, and none has failed. If several have failed before, it
        returns one of them. Children with `on_failure="remove"` are not noticed. timeout and the
        exceptions are those of `children_ended`.
        """

        async def read(facts: WhyFacts) -> tuple[Child | None] | None:
            found = await child_ends.find_failed_child(self._queue.engine, facts)
            if found is not None:
                return (found,)
            return None if (await self.child_progress()).pending else (None,)

        return (await self._wait_for_children(read, timeout))[0]

    async def children_succeeded(self, timeout: Duration | None = None) -> ChildProgress:
        """Wait until all children of this job have completed. Returns their number.

        Raises `JobFailed` as soon as one of them has failed for good, and the exceptions of
        `children_ended`.
        """

        async def read(facts: WhyFacts) -> ChildProgress | None:
            failed = await child_ends.find_failed_child(self._queue.engine, facts)
            if failed is not None:
                raise JobFailed(failed.id, failed.error or "unknown error")
            progress = await self.child_progress()
            return None if progress.pending else progress

        return await self._wait_for_children(read, timeout)

    async def _wait_for_children(
        self, read: Callable[[WhyFacts], Awaitable[T | None]], timeout: Duration | None
    ) -> T:
        return await child_ends.wait_for(
            self._queue, self._queue.queue_named, self.id, read, child_ends.to_timeout(timeout)
        )

    async def update(
        self,
        *,
        data: object = UNSET,
        priority: int | None = None,
        delay: Duration | None = None,
        progress: object = UNSET,
    ) -> None:
        """Change the data, priority, delay or progress of the job; see `Queue.update`.

        The attributes of this object do not change; call `refresh` to read the new values.
        """
        await self._queue.update(
            self.id, data=data, priority=priority, delay=delay, progress=progress
        )

    async def log(self, line: str) -> None:
        """Add a line to the job's log; see `Queue.log`."""
        await self._queue.log(self.id, line)

    async def retry(self) -> bool:
        """Queue the finished job again; see `Queue.retry`.

        Returns False if the job has not finished or does not exist.
        """
        return bool(await self._queue.retry(self.id))

    async def promote(self) -> bool:
        """Make the delayed job ready to run now; see `Queue.promote`.

        Returns False if the job is not delayed or does not exist.
        """
        return bool(await self._queue.promote(self.id))

    async def remove(self) -> bool:
        """Delete the job; see `Queue.remove`. Returns False if it is running or does not exist."""
        return bool(await self._queue.remove(self.id))

    @property
    def sync(self) -> SyncJob[T_co]:
        """Blocking versions of these methods, for code that does not run in an event loop."""
        return SyncJob(self)


class SyncJob(Generic[T_co]):
    """Blocking versions of the methods of `Job`, for code that does not run in an event loop.

    Called in a thread that runs an event loop, they issue a warning, because they block the loop;
    `result` raises `UsageError` there: use `await job.result()`.
    """

    __slots__ = ("_job",)

    def __init__(self, job: Job[T_co]) -> None:
        self._job = job

    def __repr__(self) -> str:
        return f"{self._job!r}.sync"

    def refresh(self) -> Job[T_co]:
        """Read the job from the store again; see `Job.refresh`."""
        return _portal.run_for_sync_method(self._job.refresh())

    def result(self, timeout: Duration | None = None) -> T_co:
        """Wait until the job has finished, and return its result; see `Job.result`."""
        return _portal.run_for_sync_method(self._job.result(timeout), may_deadlock=True)

    def watch(self) -> Generator[Job[T_co]]:
        """Follow the job; see `Job.watch`."""
        changes = self._job.watch()
        reading: asyncio.Task[Any] | None = None

        async def read_next() -> Job[T_co] | None:
            nonlocal reading
            reading = asyncio.current_task()
            return await anext(changes, None)

        async def close() -> None:
            # After Ctrl+C, nobody waits for the task that reads, and it still runs.
            if reading is not None and not reading.done():
                reading.cancel()
                await asyncio.wait([reading])
            await changes.aclose()

        try:
            while (job := _portal.run_for_sync_method(read_next(), may_deadlock=True)) is not None:
                yield job
        finally:
            _portal.run_without_loop_check(close())

    def logs(self) -> list[str]:
        """Return the lines of the job's log; see `Job.logs`."""
        return _portal.run_for_sync_method(self._job.logs())

    def why(self) -> Why:
        """Return why the job does not run now; see `Job.why`."""
        return _portal.run_for_sync_method(self._job.why())

    def cancel(self, *, children: bool = False) -> bool:
        """Cancel the job; see `Job.cancel`."""
        return _portal.run_for_sync_method(self._job.cancel(children=children))

    def children(self, *, offset: int = 0, limit: int = 100) -> list[Child]:
        """Return a page of the children of the job; see `Job.children`."""
        return _portal.run_for_sync_method(self._job.children(offset=offset, limit=limit))

    def child_progress(self) -> ChildProgress:
        """Return how many children have ended; see `Job.child_progress`."""
        return _portal.run_for_sync_method(self._job.child_progress())

    def tree(self, *, max_depth: int = 10, max_jobs: int = 1_000) -> JobTree:
        """Return the job with all jobs below it; see `Job.tree`."""
        return _portal.run_for_sync_method(self._job.tree(max_depth=max_depth, max_jobs=max_jobs))

    def children_ended(self, timeout: Duration | None = None) -> ChildProgress:
        """Wait until all children have ended; see `Job.children_ended`."""
        return _portal.run_for_sync_method(self._job.children_ended(timeout), may_deadlock=True)

    def first_child_failure(self, timeout: Duration | None = None) -> Child | None:
        """Wait until a child has failed; see `Job.first_child_failure`."""
        return _portal.run_for_sync_method(
            self._job.first_child_failure(timeout), may_deadlock=True
        )

    def children_succeeded(self, timeout: Duration | None = None) -> ChildProgress:
        """Wait until all children have completed; see `Job.children_succeeded`."""
        return _portal.run_for_sync_method(self._job.children_succeeded(timeout), may_deadlock=True)

    def update(
        self,
        *,
        data: object = UNSET,
        priority: int | None = None,
        delay: Duration | None = None,
        progress: object = UNSET,
    ) -> None:
        """Change the data, priority, delay or progress of the job; see `Job.update`."""
        _portal.run_for_sync_method(
            self._job.update(data=data, priority=priority, delay=delay, progress=progress)
        )

    def log(self, line: str) -> None:
        """Add a line to the job's log; see `Job.log`."""
        _portal.run_for_sync_method(self._job.log(line))

    def retry(self) -> bool:
        """Queue the finished job again; see `Job.retry`."""
        return _portal.run_for_sync_method(self._job.retry())

    def promote(self) -> bool:
        """Make the delayed job ready to run now; see `Job.promote`."""
        return _portal.run_for_sync_method(self._job.promote())

    def remove(self) -> bool:
        """Delete the job; see `Job.remove`."""
        return _portal.run_for_sync_method(self._job.remove())


def build_record(id: str, job: NewJob, now_ms: int) -> JobRecord:
    """Return the record of a job that was just added, without reading it from the store.

    The job is no parent of others.
    """
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
        parent=job.parent,
    )
