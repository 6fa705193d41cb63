"""`ResultWaiter`: waits for the results of jobs.

One task reads the events of the queue for all callers in an event loop.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence

from hasten.errors import JobCancelled, JobFailed, JobNotFound, ResultTimeout, StoreError
from hasten.jobs._engine import CANCELLED_ERROR, Engine
from hasten.jobs._record import MISSED, Event
from hasten.jobs._states import State

# The end of a job is usually reported by an event. But jobs that are deleted by `drain` or `clean`
# have no events of their own, so the awaited jobs are also read, at this interval.
CHECK_SECONDS = 5.0

# How many of the awaited jobs one check reads. Later checks read the others in turn, so the cost of
# a check does not grow with the number of awaited jobs.
CHECKED_AT_ONCE = 1_000

# The reader was cancelled together with all tasks of the event loop. If the loop is ending, it will
# have ended before this time has passed; otherwise the reader is started again.
RESTART_SECONDS = 0.1

ENDS = frozenset({"completed", "failed", "removed"})

TOO_LARGE = (
    "it was deleted, and its result of {:,} bytes was too large for the queue's events: keep the "
    "job longer with keep_completed, or store the result elsewhere and return a reference"
)

NOT_KEPT = (
    "it does not exist, was removed, or was deleted by keep_completed or keep_failed, and its "
    "result is no longer in the queue's events"
)


class ResultWaiter:
    """Waits for the results of jobs of one queue, for all callers in one event loop."""

    def __init__(self, engine: Callable[[], Engine], queue: str) -> None:
        self._engine = engine
        self._queue = queue
        self._awaited: dict[str, _AwaitedJob] = {}
        self._reader: asyncio.Task[None] | None = None
        self._cursor: str | None = None  # after the latest event that was read; None before reading
        self._checking: set[asyncio.Task[None]] = set()

    async def wait(self, id: str, timeout: float | None, *, since_cursor: str | None) -> str:
        """Wait until a job has ended, and return its result as JSON.

        Raises the exceptions of `Job.result`. since_cursor is a cursor of the queue's events from
        before the end of the job, None if none is known.
        """
        awaited = self._add_caller(id, since_cursor)
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(awaited.end)
        except TimeoutError as exc:
            assert timeout is not None
            raise ResultTimeout(id, timeout) from exc
        finally:
            self._remove_caller(id, awaited)

    def _add_caller(self, id: str, since: str | None) -> _AwaitedJob:
        """Add a caller that waits for a job, and start the reader if it is not running."""
        awaited = self._awaited.get(id)
        if awaited is None:
            awaited = self._awaited[id] = _AwaitedJob(since)
            if self._reader is None or self._reader.done():
                self._start_reader()
            elif self._cursor is not None:
                # The job may have ended before: then the reader has already read its event.
                awaited.set_default_search_start(self._cursor)
                self._start_delivering_ends([id])
        awaited.callers += 1
        return awaited

    def _start_reader(self) -> None:
        """Start the task that reads the events."""
        self._cursor = None
        self._reader = asyncio.create_task(self._run_reader())
        self._reader.add_done_callback(self._restart_cancelled_reader)

    def _restart_cancelled_reader(self, reader: asyncio.Task[None]) -> None:
        """Restart the reader a little later if it was cancelled by other code."""
        if reader.cancelled() and reader is self._reader:
            # `_remove_caller` has not done this: all tasks of the event loop are being cancelled.
            asyncio.get_running_loop().call_later(
                RESTART_SECONDS, self._restart_unless_replaced, reader
            )

    def _restart_unless_replaced(self, reader: asyncio.Task[None]) -> None:
        """Start a new reader, unless this one was replaced already or no caller waits."""
        if reader is self._reader and self._awaited:
            self._start_reader()

    def _start_delivering_ends(self, ids: Sequence[str]) -> None:
        """Start a task that checks whether these jobs have ended."""
        check = asyncio.create_task(self._deliver_ends_or_error(ids))
        self._checking.add(check)
        check.add_done_callback(self._checking.discard)

    def _remove_caller(self, id: str, awaited: _AwaitedJob) -> None:
        """Remove a caller that waits for a job, and stop the reader with the last one."""
        awaited.callers -= 1
        if awaited.callers:
            return
        if self._awaited.get(id) is awaited:
            del self._awaited[id]
        awaited.end.cancel()
        if not self._awaited and self._reader is not None:
            self._reader.cancel()
            self._reader, self._cursor = None, None

    async def _run_reader(self) -> None:
        """Read events, and pass them on, for as long as results are awaited."""
        try:
            self._cursor = (await self._engine().events(self._queue, after=None)).cursor
            for awaited in self._awaited.values():
                awaited.set_default_search_start(self._cursor)
            await self._deliver_ends_or_error(list(self._awaited))
            loop = asyncio.get_running_loop()
            next_check = loop.time() + CHECK_SECONDS
            while True:
                try:
                    async with asyncio.timeout_at(next_check):
                        page = await self._engine().events(self._queue, after=self._cursor)
                except TimeoutError:
                    await self._deliver_ends_or_error(self._take_longest_unchecked_ids())
                    next_check = loop.time() + CHECK_SECONDS
                    continue
                self._cursor = page.cursor
                for event in page.events:
                    self._handle_event(event)
        except StoreError as error:
            self._cursor = None
            for awaited in self._awaited.values():
                awaited.fail(error)

    def _take_longest_unchecked_ids(self) -> list[str]:
        """Return the jobs that were not checked for the longest time, and put them at the end."""
        ids = list(itertools.islice(self._awaited, CHECKED_AT_ONCE))
        for id in ids:
            self._awaited[id] = self._awaited.pop(id)
        return ids

    def _handle_event(self, event: Event) -> None:
        """Pass the end of a job that an event reports to the callers that wait for the job."""
        if event.kind == MISSED:
            self._start_delivering_ends(list(self._awaited))
        awaited = self._awaited.get(event.job_id)
        if awaited is None:
            return
        match event.kind:
            case "completed" if event.omitted_bytes is not None:
                # The event has no value, but the job has the result.
                self._start_delivering_ends([event.job_id])
            case "completed":
                awaited.complete(event.value)
            case "failed":
                awaited.fail(_to_job_failed(event.job_id, event.error))
            case "removed":
                awaited.fail(JobNotFound(self._queue, event.job_id, "it was removed"))

    async def _deliver_ends_or_error(self, ids: Sequence[str]) -> None:
        """Read these jobs, and pass the ends of those that have ended to the waiting callers.

        If the store fails, the callers of all these jobs get the error.
        """
        try:
            await self._deliver_ends(ids)
        except StoreError as error:
            for id in ids:
                if (awaited := self._awaited.get(id)) is not None:
                    awaited.fail(error)

    async def _deliver_ends(self, ids: Sequence[str]) -> None:
        """Read these jobs, and pass the ends of those that have ended to the waiting callers.

        For a deleted job, the events are searched. Raises `StoreError`.
        """
        gone: list[str] = []
        for id, end in zip(ids, await self._engine().get_ends(self._queue, ids), strict=True):
            awaited = self._awaited.get(id)
            if awaited is None:
                continue
            if end is None:
                gone.append(id)
            elif end.state is State.COMPLETED:
                awaited.complete(end.value)
            elif end.state is State.FAILED:
                awaited.fail(_to_job_failed(id, end.value))
        if gone:
            await self._search_events_for_ends(gone)

    async def _search_events_for_ends(self, ids: Sequence[str]) -> None:
        """Search the events for the ends of deleted jobs, and pass them to the waiting callers."""
        newest = await self._engine().events(self._queue, after=None)
        found = ((id, self._awaited.get(id)) for id in ids)
        # Jobs without `since` were added meanwhile: the reader that starts now checks them.
        waits = {id: awaited for id, awaited in found if awaited is not None and awaited.since}
        cursor = min(
            (awaited.since for awaited in waits.values()), key=_to_comparable_cursor, default="0-0"
        )
        ends: dict[str, Event] = {}
        while waits and _to_comparable_cursor(cursor) < _to_comparable_cursor(newest.cursor):
            page = await self._engine().events(self._queue, after=cursor, wait=False)
            if not page.events:
                break
            # The latest event of each job counts, because a failed job may have run again.
            ends.update((event.job_id, event) for event in page.events if event.kind in ENDS)
            cursor = page.cursor
        for id, awaited in waits.items():
            end = ends.get(id)
            if end is None:
                awaited.fail(JobNotFound(self._queue, id, NOT_KEPT))
            elif end.omitted_bytes is not None:
                reason = TOO_LARGE.format(end.omitted_bytes)
                awaited.fail(JobNotFound(self._queue, id, reason))
            else:
                self._handle_event(end)


class _AwaitedJob:
    """A job whose end is awaited, with the number of callers that wait for it.

    since is a cursor of the queue's events before the event that reports the end of the job. It is
    "" until the reader has started.
    """

    def __init__(self, since: str | None) -> None:
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.callers = 0
        self._added = since
        self.since = ""

    def set_default_search_start(self, cursor: str) -> None:
        """Set `since` when the reader begins to read the events after this cursor.

        If the caller has passed an earlier cursor, `since` is that one.
        """
        self.since = self._added or cursor

    def complete(self, result: str | None) -> None:
        """Let the waiting callers return this result, which is JSON."""
        if not self.end.done():
            self.end.set_result("null" if result is None else result)

    def fail(self, error: Exception) -> None:
        """Let the waiting callers raise this exception."""
        if not self.end.done():
            self.end.set_exception(error)
            self.end.exception()  # so that asyncio does not warn if all callers were cancelled


def _to_comparable_cursor(cursor: str) -> tuple[int, int]:
    """Return a cursor as a pair of numbers, for comparing it with another one."""
    row, _, place = cursor.partition("-")
    return int(row), int(place)


def _to_job_failed(id: str, error: str | None) -> JobFailed:
    """Return the exception for the stored error of a failed job."""
    if error == CANCELLED_ERROR:
        return JobCancelled(id, error)
    return JobFailed(id, error or "unknown error")
