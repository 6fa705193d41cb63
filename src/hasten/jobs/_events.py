"""`QueueEvents`: an asynchronous iterator over the events of a queue and its jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from hasten.errors import StoreError, UsageError
from hasten.jobs._engine import Engine, check_cursor
from hasten.jobs._record import Event


class QueueEvents:
    """An endless iterator over the events of a queue, whichever process causes them.

    Created by `Queue.events`, for one reader. With a cursor, it starts after that event. Without
    one, it starts at its creation: it returns all events that this process causes later. Enter
    `async with queue.events() as events` to wait until reading has started at the store: from then
    on it returns all events of other processes, too.

    If the store fails, reading raises `StoreError`; the next read continues at the same place. A
    reader that is too slow gets one event of the kind "missed" in place of the events that the
    store has deleted before they were read.
    """

    def __init__(self, engine: Callable[[], Engine], queue: str, after: str | None) -> None:
        self._queue = queue
        self._engine = engine
        self._cursor = None if after is None else check_cursor(after)
        self._start: Future[str] | None = None
        if after is None:
            self._start = engine().start_reading_latest_cursor(queue)
        self._page: Iterator[Event] = iter(())
        self._reader: asyncio.Task[object] | None = None
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else self._cursor or "not started"
        return f"<QueueEvents of {self._queue}, {state}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._closed:
            for event in self._page:
                return event
            await self._read_next_page()
        raise StopAsyncIteration

    async def _read_next_page(self) -> None:
        """Wait for the next page of events, or until `aclose` is called."""
        if self._reader is not None:
            raise UsageError(
                "another task is reading these events: call queue.events() once for each task"
            )
        self._reader = task = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        try:
            cursor = await self._wait_for_start_cursor()
            page = await self._engine().events(self._queue, after=cursor)
        except asyncio.CancelledError:
            if not self._closed or task.uncancel() > cancelling:
                raise
        else:
            self._cursor, self._page = page.cursor, iter(page.events)
        finally:
            self._reader = None

    async def _wait_for_start_cursor(self) -> str:
        """Wait until reading has started, and return the cursor after which to read."""
        if self._cursor is None:
            if self._start is None:
                self._start = self._engine().start_reading_latest_cursor(self._queue)
            start = self._start
            try:
                # Shielded: a reader that is cancelled may read again, and needs the start then.
                self._cursor = await asyncio.shield(asyncio.wrap_future(start))
            except StoreError:
                self._start = None
                raise
        return self._cursor

    async def aclose(self) -> None:
        """End the iteration, also for a task that is waiting for the next event."""
        self._closed = True
        if self._reader is not None and self._reader is not asyncio.current_task():
            self._reader.cancel()

    async def __aenter__(self) -> Self:
        await self._wait_for_start_cursor()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
