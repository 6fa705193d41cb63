"""Following the events of a queue without an event loop."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from hasten import _portal
from hasten.jobs._events import QueueEvents
from hasten.jobs._record import Event


class SyncQueueEvents:
    """The events of a queue, blocking: `for event in queue.sync.events():`. See `QueueEvents`.

    The iteration ends when another thread calls `close`. In a running event loop it raises
    `UsageError`: use `async for event in queue.events()` there.
    """

    def __init__(self, events: QueueEvents) -> None:
        self._events = events

    def __repr__(self) -> str:
        return f"{self._events!r}.sync"

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        try:
            return _portal.call(self._events.__anext__(), waits=True)
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End the iteration, also in a thread that waits for the next event."""
        _portal.call(self._events.aclose())

    def __enter__(self) -> Self:
        _portal.call(self._events.__aenter__(), waits=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
