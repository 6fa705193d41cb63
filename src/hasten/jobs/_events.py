"""Following what happens to a queue's jobs."""

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
    """What happens to the jobs of a queue, in any process, as it happens; without end.

    Made by `Queue.events`, for one reader. Without a cursor it starts when it is made: what this
    process does after that, in any thread, is not missed. `async with queue.events() as events`
    waits until it has started: then nothing that any other process does later is missed either.

    If the store fails, a read raises `StoreError`; the next read continues where that one stopped.
    A reader that falls behind what the store keeps gets an event of the kind "missed" in place of
    the events that it has missed.
    """

    def __init__(self, engine: Callable[[], Engine], queue: str, after: str | None) -> None:
        self._engine = engine
        self._queue = queue
        self._cursor = None if after is None else check_cursor(after)
        self._start: Future[str] | None = None
        if after is None:
            self._start = engine().begin_events(queue)
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
            await self._read()
        raise StopAsyncIteration

    async def _read(self) -> None:
        """Wait for the next page, or until the events are closed."""
        if self._reader is not None:
            raise UsageError("another task reads these events: call queue.events() for each")
        self._reader = task = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        try:
            cursor = await self._listen()
            page = await self._engine().events(self._queue, after=cursor)
        except asyncio.CancelledError:
            if not self._closed or task.uncancel() > cancelling:
                raise
        else:
            self._cursor, self._page = page.cursor, iter(page.events)
        finally:
            self._reader = None

    async def _listen(self) -> str:
        """The cursor to read on from; waits for the start."""
        if self._cursor is None:
            if self._start is None:
                self._start = self._engine().begin_events(self._queue)
            start = self._start
            try:
                # Not to be cancelled with its reader, who may come back.
                self._cursor = await asyncio.shield(asyncio.wrap_future(start))
            except StoreError:
                self._start = None
                raise
        return self._cursor

    async def aclose(self) -> None:
        """End the iteration, also that of a task that waits for the next event."""
        self._closed = True
        if self._reader is not None and self._reader is not asyncio.current_task():
            self._reader.cancel()

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
