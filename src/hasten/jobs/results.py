"""Waiting for the end of jobs: one reader of the event stream for all who wait in a loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hasten.errors import JobCancelled, JobFailed, JobNotFound, ResultTimeout, StoreError
from hasten.jobs.engine import CANCELLED_REASON, Engine
from hasten.jobs.record import Event
from hasten.jobs.states import State

# Events say at once that a job has ended. Should one be missed (the reader fell behind, the store
# was away), the jobs themselves are looked at this often.
LOOK_AGAIN_SECONDS = 5.0


class Results:
    """The jobs of one queue that somebody waits for. Belongs to one event loop."""

    def __init__(self, engine: Engine, queue: str) -> None:
        self._engine = engine
        self._queue = queue
        self._waiting: dict[str, _Waiting] = {}
        self._reader: asyncio.Task[None] | None = None
        self._cursor: str | None = None  # None until the reader listens
        self._looking: set[asyncio.Task[None]] = set()

    async def wait(self, id: str, timeout: float | None) -> str:
        """The JSON result of a job, once it has one. Errors as in `Job.result`."""
        waiting = self._enlist(id)
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(waiting.end)
        except TimeoutError as exc:
            assert timeout is not None
            raise ResultTimeout(id, timeout) from exc
        finally:
            self._leave(id, waiting)

    def _enlist(self, id: str) -> _Waiting:
        waiting = self._waiting.get(id)
        if waiting is None:
            waiting = self._waiting[id] = _Waiting()
            if self._reader is None or self._reader.done():
                self._reader = asyncio.create_task(self._read())
            elif self._cursor is not None:
                # It may have ended before we came: its event is behind the reader.
                look = asyncio.create_task(self._look([id]))
                self._looking.add(look)
                look.add_done_callback(self._looking.discard)
        waiting.callers += 1
        return waiting

    def _leave(self, id: str, waiting: _Waiting) -> None:
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
        """Follow the events as long as somebody waits."""
        try:
            self._cursor = (await self._engine.events(self._queue, after=None)).cursor
            await self._look(list(self._waiting))
            while True:
                try:
                    async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                        page = await self._engine.events(self._queue, after=self._cursor)
                except TimeoutError:
                    await self._look(list(self._waiting))
                    continue
                self._cursor = page.cursor
                for event in page.events:
                    self._hear(event)
        except StoreError as error:
            self._cursor = None
            for waiting in self._waiting.values():
                waiting.fail(error)

    def _hear(self, event: Event) -> None:
        waiting = self._waiting.get(event.job_id)
        if waiting is None:
            return
        match event.kind:
            case "completed":
                waiting.complete(event.value)
            case "failed":
                waiting.fail(_failure(event.job_id, event.reason))
            case "removed":
                waiting.fail(JobNotFound(self._queue, event.job_id))

    async def _look(self, ids: Sequence[str]) -> None:
        """Look whether these jobs have ended already."""
        try:
            records = await self._engine.get(self._queue, ids)
        except StoreError as error:
            records = [None] * len(ids)
            missing: Exception | None = error
        else:
            missing = None
        for id, record in zip(ids, records, strict=True):
            waiting = self._waiting.get(id)
            if waiting is None:
                continue
            if record is None:
                waiting.fail(missing or JobNotFound(self._queue, id))
            elif record.state is State.COMPLETED:
                waiting.complete(record.result)
            elif record.state is State.FAILED:
                waiting.fail(_failure(id, record.failed_reason))


class _Waiting:
    """The end of one job, and how many wait for it."""

    def __init__(self) -> None:
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.callers = 0

    def complete(self, result: str | None) -> None:
        if not self.end.done():
            self.end.set_result("null" if result is None else result)

    def fail(self, error: Exception) -> None:
        if not self.end.done():
            self.end.set_exception(error)
            self.end.exception()  # seen: no complaint if all who wait are cancelled just now


def _failure(id: str, reason: str | None) -> JobFailed:
    if reason == CANCELLED_REASON:
        return JobCancelled(id, reason)
    return JobFailed(id, reason or "for an unknown reason")
