"""A job in the hands of its user: what is known of it, and what can be done with it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from msgspec import UNSET

from hasten import _portal
from hasten._durations import Duration, to_seconds
from hasten._escapes import printable
from hasten.errors import JobNotFound
from hasten.jobs._encoding import decode_json
from hasten.jobs._record import JobRecord, NewJob
from hasten.jobs._states import State

if TYPE_CHECKING:
    from hasten.jobs._queue import Queue

T_co = TypeVar("T_co", covariant=True)

LATEST_MS: Final = 253_402_300_799_000  # the last second of the year 9999


class Job(Generic[T_co]):
    """One queued run of a task. Its attributes are as of when it was read; `refresh` reads again.

    Two objects are equal if they stand for the same id in a queue of the same name.

    T is what the task returns. is_duplicate is True if the call that returned this job found it in
    the queue by its job_id and added none; its attributes are then those of the job that is there.
    It is False for a job that was added, and for one that was read.
    """

    __slots__ = ("_added", "_record", "_since", "id", "is_duplicate", "queue")

    def __init__(
        self,
        queue: Queue,
        id: str,
        known: JobRecord | tuple[NewJob, int],
        since: str | None = None,
        *,
        is_duplicate: bool = False,
    ) -> None:
        self.queue = queue
        self.id = id
        self.is_duplicate = is_duplicate
        self._since = since  # a cursor: the end of the job, if it has one by now, comes after it
        self._record: JobRecord | None = known if isinstance(known, JobRecord) else None
        self._added: tuple[NewJob, int] | None = None if isinstance(known, JobRecord) else known

    @property
    def record(self) -> JobRecord:
        """All that is known of it, undecoded."""
        if self._record is None:
            assert self._added is not None
            self._record = _as_added(self.id, *self._added)
        return self._record

    @property
    def name(self) -> str:
        """The name of its task."""
        return self.record.name

    @property
    def state(self) -> State:
        return self.record.state

    @property
    def data(self) -> Any:
        """Its arguments by parameter name, as JSON says them."""
        return decode_json(self.record.data)

    @property
    def value(self) -> T_co | None:
        """What its handler returned; None until it has completed."""
        text = self.record.result
        return None if text is None else cast(T_co, self.queue.decode_result(self.name, text))

    @property
    def error(self) -> str | None:
        """Why its latest failed run failed."""
        return self.record.error

    @property
    def tracebacks(self) -> list[str]:
        """The tracebacks of its failed runs, oldest first; the newest 20 are kept."""
        return self.record.tracebacks

    @property
    def progress(self) -> Any:
        """What its handler last said of its progress; None if nothing."""
        text = self.record.progress
        return None if text is None else decode_json(text)

    @property
    def priority(self) -> int:
        return self.record.priority

    @property
    def attempts_made(self) -> int:
        """How many runs have counted as attempts."""
        return self.record.attempts_made

    @property
    def created_at(self) -> datetime:
        return _time(self.record.created_ms)

    @property
    def due_at(self) -> datetime | None:
        """When it is due, while it is delayed."""
        ms = self.record.due_ms
        return None if ms is None else _time(ms)

    @property
    def started_at(self) -> datetime | None:
        """When its latest run started."""
        ms = self.record.started_ms
        return None if ms is None else _time(ms)

    @property
    def finished_at(self) -> datetime | None:
        ms = self.record.finished_ms
        return None if ms is None else _time(ms)

    def __repr__(self) -> str:
        return printable(f"<Job {self.id} {self.name} of {self.queue.name}, {self.state}>")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Job):
            return NotImplemented
        return (self.queue.name, self.id) == (other.queue.name, other.id)

    def __hash__(self) -> int:
        return hash((self.queue.name, self.id))

    async def refresh(self) -> Job[T_co]:
        """Read it again, and return it. Raises `JobNotFound` once it has been removed."""
        (record,) = await self.queue.engine.get(self.queue.name, [self.id])
        if record is None:
            raise JobNotFound(self.queue.name, self.id)
        self._record = record
        return self

    async def result(self, timeout: Duration | None = None) -> T_co:
        """Wait until it has finished, and return what its handler returned.

        timeout is a `Duration`; None waits for ever. Raises `ResultTimeout` (the job goes
        on), `JobFailed` with its error, `JobCancelled`, or `JobNotFound` if it was removed.

        The result of a job that is not kept (`keep_completed=0`) is in the queue's events only. It
        is found there for as long as they are kept, by the `Job` that `enqueue` or `add` returned.
        Beyond 32 MiB it is not there either: `JobNotFound` says so.
        """
        seconds = None if timeout is None else to_seconds("timeout", timeout)
        text = await self.queue.results.wait(self.id, seconds, since=self._since)
        return cast(T_co, self.queue.decode_result(self.name, text))

    async def logs(self) -> list[str]:
        """The lines that its handler has logged, oldest first."""
        return await self.queue.engine.logs(self.queue.name, self.id)

    async def cancel(self) -> bool:
        """End it; see `Queue.cancel`. Returns False if it had finished, or is gone."""
        return bool(await self.queue.cancel(self.id))

    async def update(
        self,
        *,
        data: object = UNSET,
        priority: int | None = None,
        delay: Duration | None = None,
        progress: object = UNSET,
    ) -> None:
        """See `Queue.update`. The attributes are as before; `refresh` reads the new ones."""
        await self.queue.update(
            self.id, data=data, priority=priority, delay=delay, progress=progress
        )

    async def log(self, line: str) -> None:
        """See `Queue.log`."""
        await self.queue.log(self.id, line)

    async def retry(self) -> bool:
        """Run it again; see `Queue.retry`. Returns False if it has not finished, or is gone."""
        return bool(await self.queue.retry(self.id))

    async def promote(self) -> bool:
        """Run it now; see `Queue.promote`. Returns False if it is not delayed, or is gone."""
        return bool(await self.queue.promote(self.id))

    async def remove(self) -> bool:
        """Delete it; see `Queue.remove`. Returns False if it is running, or was gone."""
        return bool(await self.queue.remove(self.id))

    @property
    def sync(self) -> SyncJob[T_co]:
        """The same methods for code without an event loop."""
        return SyncJob(self)


class SyncJob(Generic[T_co]):
    """A job's methods, blocking. In a running event loop they warn, for they block it.

    `result` raises `UsageError` there: use `await job.result()`.
    """

    __slots__ = ("_job",)

    def __init__(self, job: Job[T_co]) -> None:
        self._job = job

    def __repr__(self) -> str:
        return f"{self._job!r}.sync"

    def refresh(self) -> Job[T_co]:
        return _portal.call(self._job.refresh())

    def result(self, timeout: Duration | None = None) -> T_co:
        return _portal.call(self._job.result(timeout), waits=True)

    def logs(self) -> list[str]:
        return _portal.call(self._job.logs())

    def cancel(self) -> bool:
        return _portal.call(self._job.cancel())

    def update(
        self,
        *,
        data: object = UNSET,
        priority: int | None = None,
        delay: Duration | None = None,
        progress: object = UNSET,
    ) -> None:
        _portal.call(self._job.update(data=data, priority=priority, delay=delay, progress=progress))

    def log(self, line: str) -> None:
        _portal.call(self._job.log(line))

    def retry(self) -> bool:
        return _portal.call(self._job.retry())

    def promote(self) -> bool:
        return _portal.call(self._job.promote())

    def remove(self) -> bool:
        return _portal.call(self._job.remove())


def _as_added(id: str, job: NewJob, now_ms: int) -> JobRecord:
    if job.delay_ms > 0:
        state, due_ms = State.DELAYED, now_ms + job.delay_ms
    else:
        state, due_ms = State.PRIORITIZED if job.priority else State.WAITING, None
    return JobRecord(
        queue=job.queue,
        id=id,
        name=job.name,
        data=job.data,
        opts=job.opts,
        state=state,
        priority=job.priority,
        delay_ms=job.delay_ms,
        created_ms=now_ms,
        attempts_made=0,
        attempts_started=0,
        crashes=0,
        due_ms=due_ms,
    )


def _time(ms: int) -> datetime:
    # Another program may have stored any number.
    return datetime.fromtimestamp(min(max(ms, 0), LATEST_MS) / 1000, UTC)
