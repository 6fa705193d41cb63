"""`SyncQueueEvents`: iterates over the events of a queue, for code without an event loop."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from hasten import _portal
from hasten.jobs._events import QueueEvents
from hasten.jobs._record import Event


class SyncQueueEvents:
    """A blocking iterator over the events of a queue: `for event in queue.sync.events():`.

    See `QueueEvents` for the events. The iteration ends when another thread calls `close`. In a
    thread that runs an event loop it raises `UsageError`: use `async for event in queue.events()`
    there.
    """

    def __init__(self, events: QueueEvents) -> None:
        self._events = events

    def __repr__(self) -> str:
        return f"{self._events!r}.sync"

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        try:
            return _portal.run_for_sync_method(self._events.__anext__(), may_deadlock=True)
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End the iteration, also if another thread is waiting for the next event."""
        _portal.run_for_sync_method(self._events.aclose())

    def __enter__(self) -> Self:
        _portal.run_for_sync_method(self._events.__aenter__(), may_deadlock=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
