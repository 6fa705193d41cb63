"""Following single jobs: one reader of the events for all of them in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextvars import Context
from typing import Final

from msgspec.structs import replace

from hasten.errors import JobNotFound
from hasten.jobs._engine import Engine
from hasten.jobs._record import MISSED, Event, JobRecord
from hasten.jobs._states import FINISHED, READY, State

# A job that is deleted together with others (drained, cleaned) has no event of its own, so the job
# itself is read this often.
CHECK_SECONDS: Final = 5.0

# More progress events than these are not kept for a caller that is slow: the newest one counts.
MAX_UNREAD: Final = 100

# The state of a job after an event of this kind.
_STATES: Final = {
    "waiting": State.WAITING,
    "active": State.ACTIVE,
    "delayed": State.DELAYED,
    "prioritized": State.PRIORITIZED,
    "waiting-children": State.WAITING_CHILDREN,
    "completed": State.COMPLETED,
    "failed": State.FAILED,
}

# After an event of one of these kinds, fewer jobs are unfinished.
_ENDS: Final = frozenset({"completed", "failed", "removed", "cleaned", MISSED})


class Watches:
    """The jobs of one queue that are followed. Belongs to one event loop."""

    def __init__(self, engine: Callable[[], Engine], queue: str) -> None:
        self._engine = engine
        self._queue = queue
        self._inboxes: dict[str, set[_Inbox]] = {}
        self._listeners: set[asyncio.Event] = set()
        self._reader: asyncio.Task[None] | None = None
        self._listening: asyncio.Future[None] | None = None

    async def watch(self, id: str) -> AsyncGenerator[JobRecord]:
        """Yield a job as it is now, and then after every change, until it has finished.

        Raises `JobNotFound` if it does not exist or is removed, and `StoreError`.
        """
        inbox = self._add(id)
        try:
            await self._ensure_listening()
            record = await inbox.read_current_record(self._engine(), self._queue, id)
            yield record
            while record.state not in FINISHED:
                event = await inbox.next(CHECK_SECONDS)
                changed = await self._read_if_changed(event, record, inbox)
                if changed is not None:
                    record = changed
                    yield record
        finally:
            self._remove(id, inbox)

    @contextlib.asynccontextmanager
    async def listen(self, changed: asyncio.Event) -> AsyncGenerator[None]:
        """Set an event whenever any job of the queue has ended or was deleted, inside the block.

        It is also set if the events can no longer be read: read what you wait for again then, and
        after `CHECK_SECONDS`. Raises `StoreError`.
        """
        self._listeners.add(changed)
        try:
            await self._ensure_listening()
            yield
        finally:
            self._listeners.discard(changed)
            self._stop_if_unused()

    async def _read_if_changed(
        self, event: Event | None, record: JobRecord, inbox: _Inbox
    ) -> JobRecord | None:
        """Return the record of the job after an event; None if nothing has changed.

        event is None after some time without events. The job is then read again, and also if the
        event alone does not tell what has changed.
        """
        engine, queue, id = self._engine(), self._queue, record.id
        if event is None or event.kind == MISSED or not inbox.is_later_than_last_read(event):
            present = await inbox.read_current_record(engine, queue, id)
            return present if _has_changed(record, present) else None
        if event.kind == "removed":
            raise JobNotFound(queue, id, "it was removed")
        if event.kind == "progress" and event.omitted_bytes is None:
            return replace(record, progress=event.value)
        state = _STATES.get(event.kind)
        if state is None and event.kind != "progress":
            return None
        (stored,) = await engine.get(queue, [id])
        if stored is None:  # it is not kept, or was removed since: the event says what is known
            return replace(
                record, state=state or record.state, error=event.error, result=event.value
            )
        if state is None or stored.state is state or {stored.state, state} == READY:
            return stored
        # The job has changed again since: its further events follow.
        return replace(
            stored,
            state=state,
            result=event.value,
            error=event.error or stored.error,
            due_ms=event.due_ms,
            finished_ms=None,
        )

    def _add(self, id: str) -> _Inbox:
        inbox = _Inbox()
        self._inboxes.setdefault(id, set()).add(inbox)
        return inbox

    def _remove(self, id: str, inbox: _Inbox) -> None:
        inboxes = self._inboxes[id]
        inboxes.discard(inbox)
        if not inboxes:
            del self._inboxes[id]
        self._stop_if_unused()

    def _stop_if_unused(self) -> None:
        """Stop the reader if no caller needs it."""
        if not self._inboxes and not self._listeners and self._reader is not None:
            self._reader.cancel()
            self._reader = None

    async def _ensure_listening(self) -> None:
        """Start the reader if it does not run, and wait until it listens."""
        if self._reader is None or self._reader.done():
            self._listening = asyncio.get_running_loop().create_future()
            # In a context of its own: it serves all callers, not only the job of the first one.
            self._reader = asyncio.create_task(self._run_reader(self._listening), context=Context())
        assert self._listening is not None
        # Not cancelled together with one of the callers that wait for it.
        await asyncio.shield(self._listening)

    async def _run_reader(self, listening: asyncio.Future[None]) -> None:
        """Deliver the events to the inboxes, as long as a job is followed."""
        try:
            cursor = (await self._engine().events(self._queue, after=None)).cursor
            listening.set_result(None)
            while True:
                page = await self._engine().events(self._queue, after=cursor)
                cursor = page.cursor
                for event in page.events:
                    self._deliver(event)
        except asyncio.CancelledError:
            # By `_remove`, or with all tasks of the event loop: nobody must wait for ever.
            self._fail_or_cancel_callers(listening, None)
            raise
        except Exception as error:  # noqa: BLE001  # delivered to the callers
            self._fail_or_cancel_callers(listening, error)

    def _fail_or_cancel_callers(
        self, listening: asyncio.Future[None], error: Exception | None
    ) -> None:
        """End the reader: let all callers raise the error, or be cancelled if it is None."""
        if not listening.done():
            if error is None:
                listening.cancel()
            else:
                listening.set_exception(error)
                listening.exception()  # no warning of asyncio if all callers are cancelled
        if self._reader is not asyncio.current_task():
            return  # another reader serves the present callers
        self._notify_listeners()
        for inboxes in self._inboxes.values():
            for inbox in inboxes:
                inbox.fail_or_cancel(error)

    def _deliver(self, event: Event) -> None:
        if self._listeners and event.kind in _ENDS:
            self._notify_listeners()
        if event.kind == MISSED:
            for inboxes in self._inboxes.values():
                for inbox in inboxes:
                    inbox.put(event)
        else:
            for inbox in self._inboxes.get(event.job_id, ()):
                inbox.put(event)

    def _notify_listeners(self) -> None:
        for changed in self._listeners:
            changed.set()


class _Inbox:
    """The events of one job that a caller has not read yet."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._error: BaseException | None = None
        self._arrived = asyncio.Event()
        self._before = (0, 0)  # events up to here are contained in what was read last
        self._after = (0, 0)  # events from here on are not

    def put(self, event: Event) -> None:
        if (
            event.kind == "progress"
            and len(self._events) >= MAX_UNREAD
            and self._events[-1].kind == "progress"
        ):
            self._events.pop()
        self._events.append(event)
        self._arrived.set()

    def fail_or_cancel(self, error: BaseException | None) -> None:
        """Let `next` raise the error, or `asyncio.CancelledError` for None."""
        self._error = asyncio.CancelledError() if error is None else error
        self._arrived.set()

    async def next(self, timeout: float) -> Event | None:
        """Wait for the next event. Returns None after timeout seconds without one."""
        while True:
            if self._events:
                event = self._events.popleft()
                if event.kind == MISSED or _to_numbers(event.cursor) > self._before:
                    return event
                continue
            if self._error is not None:
                raise self._error
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._arrived.wait()
            except TimeoutError:
                return None

    def is_later_than_last_read(self, event: Event) -> bool:
        """Return whether the event certainly happened after the job was read last."""
        return _to_numbers(event.cursor) > self._after

    async def read_current_record(self, engine: Engine, queue: str, id: str) -> JobRecord:
        """Read the job from the store, and remember the event cursors before and after that.

        Raises `JobNotFound`.
        """
        before = await engine.events(queue, after=None)
        (record,) = await engine.get(queue, [id])
        if record is None:
            raise JobNotFound(queue, id)
        after = await engine.events(queue, after=None)
        self._before, self._after = _to_numbers(before.cursor), _to_numbers(after.cursor)
        return record


def _to_numbers(cursor: str) -> tuple[int, int]:
    """Return a cursor as numbers, which can be compared."""
    row, _, place = cursor.partition("-")
    return int(row), int(place)


def _has_changed(old: JobRecord, new: JobRecord) -> bool:
    return (old.state, old.progress, old.attempts_started, old.due_ms) != (
        new.state, new.progress, new.attempts_started, new.due_ms,
    )  # fmt: skip
