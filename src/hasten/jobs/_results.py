"""Waiting for results: one reader of the events for all callers in an event loop."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence

from hasten.errors import JobCancelled, JobFailed, JobNotFound, ResultTimeout, StoreError
from hasten.jobs._engine import CANCELLED_ERROR, Engine
from hasten.jobs._record import MISSED, Event
from hasten.jobs._states import State

# Events report the end of a job at once. Jobs that are deleted together (drained, cleaned) have no
# event of their own, so the jobs themselves are checked this often.
CHECK_SECONDS = 5.0

# Each check reads so many of the awaited jobs, in turn: its cost does not grow with their number.
CHECKED_AT_ONCE = 1_000

# An event loop that ends cancels all its tasks, and ends before this.
RESTART_SECONDS = 0.1

ENDS = frozenset({"completed", "failed", "removed"})

TOO_LARGE = (
    "its result of {:,} bytes was too large for the queue's events, and the job was deleted: keep "
    "it longer with keep_completed, or store the result elsewhere and return a reference"
)

NOT_KEPT = (
    "it does not exist, was removed, or was deleted by keep_completed or keep_failed, and its "
    "result is no longer in the queue's events"
)


class Results:
    """The jobs of one queue whose results are awaited. Belongs to one event loop."""

    def __init__(self, engine: Callable[[], Engine], queue: str) -> None:
        self._engine = engine
        self._queue = queue
        self._waiting: dict[str, _Waiting] = {}
        self._reader: asyncio.Task[None] | None = None
        self._cursor: str | None = None  # None until the reader listens
        self._checking: set[asyncio.Task[None]] = set()

    async def wait(self, id: str, timeout: float | None, *, since: str | None) -> str:
        """Wait for the JSON result of a job. Raises what `Job.result` raises.

        since is a cursor before the end of the job, if one is known.
        """
        waiting = self._add(id, since)
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(waiting.end)
        except TimeoutError as exc:
            assert timeout is not None
            raise ResultTimeout(id, timeout) from exc
        finally:
            self._remove(id, waiting)

    def _add(self, id: str, since: str | None) -> _Waiting:
        waiting = self._waiting.get(id)
        if waiting is None:
            waiting = self._waiting[id] = _Waiting(since)
            if self._reader is None or self._reader.done():
                self._start_reader()
            elif self._cursor is not None:
                # It may have ended already: the reader has passed its event then.
                waiting.begin(self._cursor)
                self._check_soon([id])
        waiting.callers += 1
        return waiting

    def _start_reader(self) -> None:
        self._cursor = None
        self._reader = asyncio.create_task(self._read())
        self._reader.add_done_callback(self._reader_ended)

    def _reader_ended(self, reader: asyncio.Task[None]) -> None:
        if reader.cancelled() and reader is self._reader:
            # Not by this class: all tasks of the event loop are being cancelled.
            asyncio.get_running_loop().call_later(RESTART_SECONDS, self._restart_reader, reader)

    def _restart_reader(self, reader: asyncio.Task[None]) -> None:
        if reader is self._reader and self._waiting:
            self._start_reader()

    def _check_soon(self, ids: Sequence[str]) -> None:
        check = asyncio.create_task(self._check(ids))
        self._checking.add(check)
        check.add_done_callback(self._checking.discard)

    def _remove(self, id: str, waiting: _Waiting) -> None:
        waiting.callers -= 1
        if waiting.callers:
            return
        if self._waiting.get(id) is waiting:
            del self._waiting[id]
        waiting.end.cancel()
        if not self._waiting and self._reader is not None:
            self._reader.cancel()
            self._reader, self._cursor = None, None

    async def _read(self) -> None:
        """Read the events as long as a result is awaited."""
        try:
            self._cursor = (await self._engine().events(self._queue, after=None)).cursor
            for waiting in self._waiting.values():
                waiting.begin(self._cursor)
            await self._check(list(self._waiting))
            loop = asyncio.get_running_loop()
            next_check = loop.time() + CHECK_SECONDS
            while True:
                try:
                    async with asyncio.timeout_at(next_check):
                        page = await self._engine().events(self._queue, after=self._cursor)
                except TimeoutError:
                    await self._check(self._next_in_turn())
                    next_check = loop.time() + CHECK_SECONDS
                    continue
                self._cursor = page.cursor
                for event in page.events:
                    self._handle(event)
        except StoreError as error:
            self._cursor = None
            for waiting in self._waiting.values():
                waiting.fail(error)

    def _next_in_turn(self) -> list[str]:
        """Return the jobs whose last check is longest ago, and move them behind the others."""
        ids = list(itertools.islice(self._waiting, CHECKED_AT_ONCE))
        for id in ids:
            self._waiting[id] = self._waiting.pop(id)
        return ids

    def _handle(self, event: Event) -> None:
        if event.kind == MISSED:
            self._check_soon(list(self._waiting))
        waiting = self._waiting.get(event.job_id)
        if waiting is None:
            return
        match event.kind:
            case "completed" if event.omitted_bytes is not None:
                self._check_soon([event.job_id])  # the job has it
            case "completed":
                waiting.complete(event.value)
            case "failed":
                waiting.fail(_failure(event.job_id, event.error))
            case "removed":
                waiting.fail(JobNotFound(self._queue, event.job_id, "it was removed"))

    async def _check(self, ids: Sequence[str]) -> None:
        """Check whether these jobs have ended already."""
        try:
            await self._check_jobs(ids)
        except StoreError as error:
            for id in ids:
                if (waiting := self._waiting.get(id)) is not None:
                    waiting.fail(error)

    async def _check_jobs(self, ids: Sequence[str]) -> None:
        gone: list[str] = []
        for id, end in zip(ids, await self._engine().ends(self._queue, ids), strict=True):
            waiting = self._waiting.get(id)
            if waiting is None:
                continue
            if end is None:
                gone.append(id)
            elif end.state is State.COMPLETED:
                waiting.complete(end.value)
            elif end.state is State.FAILED:
                waiting.fail(_failure(id, end.value))
        if gone:
            await self._search_events(gone)

    async def _search_events(self, ids: Sequence[str]) -> None:
        """Find the ends of deleted jobs in the events up to now."""
        newest = await self._engine().events(self._queue, after=None)
        found = ((id, self._waiting.get(id)) for id in ids)
        # Callers that came meanwhile have no beginning yet: the new reader checks their jobs.
        waits = {id: waiting for id, waiting in found if waiting is not None and waiting.since}
        cursor = min((waiting.since for waiting in waits.values()), key=_to_numbers, default="0-0")
        ends: dict[str, Event] = {}
        while waits and _to_numbers(cursor) < _to_numbers(newest.cursor):
            page = await self._engine().events(self._queue, after=cursor, wait=False)
            if not page.events:
                break
            # The last event counts: a failed job may have run again.
            ends.update((event.job_id, event) for event in page.events if event.kind in ENDS)
            cursor = page.cursor
        for id, waiting in waits.items():
            end = ends.get(id)
            if end is None:
                waiting.fail(JobNotFound(self._queue, id, NOT_KEPT))
            elif end.omitted_bytes is not None:
                reason = TOO_LARGE.format(end.omitted_bytes)
                waiting.fail(JobNotFound(self._queue, id, reason))
            else:
                self._handle(end)


class _Waiting:
    """The awaited end of one job, and the number of callers. Its event comes after `since`."""

    def __init__(self, since: str | None) -> None:
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.callers = 0
        self._added = since
        self.since = ""

    def begin(self, cursor: str) -> None:
        """Set the beginning: the reader has seen no event of this job up to a cursor."""
        self.since = self._added or cursor

    def complete(self, result: str | None) -> None:
        if not self.end.done():
            self.end.set_result("null" if result is None else result)

    def fail(self, error: Exception) -> None:
        if not self.end.done():
            self.end.set_exception(error)
            self.end.exception()  # no warning of asyncio if all callers are cancelled meanwhile


def _to_numbers(cursor: str) -> tuple[int, int]:
    """Return a cursor as numbers, which can be compared."""
    row, _, place = cursor.partition("-")
    return int(row), int(place)


def _failure(id: str, error: str | None) -> JobFailed:
    if error == CANCELLED_ERROR:
        return JobCancelled(id, error)
    return JobFailed(id, error or "unknown error")
