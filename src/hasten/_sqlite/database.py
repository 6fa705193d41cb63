"""A database: callers put work into its inbox, and its thread runs it in transactions."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import queue
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from hasten._inbox import Inbox
from hasten._logs import get_logger
from hasten._sqlite.calls import Call, Watch, Work, deliver_all, set_future
from hasten._sqlite.connection import Connector
from hasten._sqlite.maintenance import Maintenance
from hasten._sqlite.watches import ReadMarks, Watches
from hasten.errors import StoreBusy, StoreError, StoreRejected, StoreUnavailable

logger = get_logger("hasten.sqlite")

T = TypeVar("T")

# The maximum weight of a transaction (roughly in rows). From some hundred rows on, the commit is a
# small share of the cost, and two batches that overlap with their callers are faster than one that
# does not.
GROUP_WEIGHT: Final = 256

# A transaction also ends when it has changed so many rows; the rest of the group goes into another.
GROUP_ROWS: Final = 2_048

# SQLite's own wait for a lock backs off to 100 ms, so a process that commits all the time would
# starve others. This one retries every millisecond.
RETRY_SECONDS: Final = 0.001


class Database:
    """A database file, or one in memory if path is None. The first work opens it.

    prepare is called with each new connection, to migrate the schema. It raises `StoreError`.
    synchronous is SQLite's setting: FULL survives a power cut, NORMAL may lose the last commits.
    With FULL, a group without `durable` work is not flushed; the next flush includes it.
    read_marks is needed by callers of `until`, see `ReadMarks`.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        name: str,
        prepare: Callable[[sqlite3.Connection], None],
        synchronous: str = "FULL",
        busy_seconds: float = 10.0,
        marks: ReadMarks = lambda connection, topics: {},
    ) -> None:
        self._name = name
        self._inbox: Inbox[Call[Any] | Watch[Any] | None] = Inbox()
        self._lock = threading.Lock()
        self._in_use = threading.Lock()  # held while the thread uses the connection
        self._thread: threading.Thread | None = None
        self._closed = False
        # Used by the thread only:
        self._connector = Connector(path, name, prepare, synchronous, busy_seconds)
        self._watches = Watches(self._connector, marks, self._lock)
        self._maintenance = Maintenance(self._connector)
        self._postponed: Call[Any] | None = None  # too heavy for the last group
        with _registering:
            _databases.add(self)

    # Callers ------------------------------------------------------------------------------------

    async def run(
        self,
        work: Work[T],
        *,
        write: bool = True,
        durable: bool = True,
        weight: int = 1,
        topic: str | None = None,
    ) -> T:
        """Run work in a transaction, and return its result after the commit.

        topic is what the work may change; None: anything.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._put(Call(work, write, durable, weight, topic, loop, partial(set_future, future)))
        return await future

    def call(
        self, work: Work[T], *, write: bool = True, durable: bool = True, topic: str | None = None
    ) -> T:
        """Do the same as `run` from a thread, which blocks."""
        return self.submit(work, write=write, durable=durable, topic=topic).result()

    def submit(
        self, work: Work[T], *, write: bool = True, durable: bool = True, topic: str | None = None
    ) -> concurrent.futures.Future[T]:
        """Do the same as `run`, without waiting. The work runs before all later work."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._put(Call(work, write, durable, 1, topic, None, partial(set_future, future)))
        return future

    def post(self, work: Work[None], *, topic: str | None = None) -> None:
        """Run work after all earlier work, without waiting. Errors are logged."""
        self._put(Call(work, True, False, 1, topic, None, self._log_error))

    def _log_error(self, _result: object, error: Exception | None) -> None:
        if error is not None:
            logger.error("%s: work in the background failed: %s", self._name, error)

    async def until(self, topic: str, probe: Work[T | None]) -> T:
        """Run probe now and after every commit about topic, until it does not return None.

        Commits of this process are noticed at once; those of others when the file system reports
        them, or within `POLL_SECONDS` where it does not.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._put(Watch(topic, probe, loop, partial(set_future, future), future.done))
        return await future

    def close(self) -> None:
        """Finish all work in the inbox, then close the connection. Safe to call twice."""
        with self._lock:
            self._closed = True
            thread = self._thread
            if thread is not None:
                self._inbox.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _put(self, item: Call[Any] | Watch[Any]) -> None:
        with self._lock:
            if self._closed:
                raise StoreUnavailable(self._name, "the store is closed")
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._serve, name=f"hasten {self._name}", daemon=True
                )
                self._thread.start()
            self._inbox.put(item)

    # The thread ---------------------------------------------------------------------------------

    def _serve(self) -> None:
        self._watches.start()
        while True:
            group = self._next_group()
            if group is None:
                break
            with self._in_use:
                if group:
                    self._run_group(group)
                    del group  # its results must not live until the next one
                elif self._maintenance.is_due:
                    self._maintenance.run()
                self._watches.check_for_others()
        self._watches.fail(StoreUnavailable(self._name, "the store is closed"))
        self._connector.disconnect()
        self._watches.stop()

    def _run_group(self, group: list[Call[Any]]) -> None:
        self._watches.before_own_commit()
        self._transact(group)
        topics = {call.topic for call in group if call.write}
        self._maintenance.schedule(written=bool(topics))
        self._watches.after_own_commit(topics)

    def _next_group(self) -> list[Call[Any]] | None:
        """Wait for work, and return all there is, up to a weight.

        Returns an empty list when maintenance or a check for other commits is due, None when the
        thread has to end.
        """
        group: list[Call[Any]] = []
        weight = 0
        if self._postponed is not None:
            group, weight, self._postponed = [self._postponed], self._postponed.weight, None
        while weight < GROUP_WEIGHT:
            try:
                if group:
                    item = self._inbox.get_nowait()
                else:
                    item = self._inbox.get(self._seconds_to_wait(), self._watches.armed_file_watch)
            except queue.Empty:
                break
            match item:
                case None if group:
                    self._inbox.put(None)  # end after this group
                    break
                case None:
                    return None
                case Watch():
                    with self._in_use:
                        self._watches.add(item)
                case Call() if group and weight + item.weight > GROUP_WEIGHT:
                    self._postponed = item
                    break
                case Call():
                    group.append(item)
                    weight += item.weight
        return group

    def _seconds_to_wait(self) -> float | None:
        """Return how many seconds to wait for work, None to wait without a limit."""
        times = (self._maintenance.due_at, self._watches.next_check_at)
        due = [time_ for time_ in times if time_ is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _transact(self, group: list[Call[Any]]) -> None:
        """Run the work of a group in one transaction. If one fails, run each in its own."""
        try:
            results = self._attempt(group)
        except Exception as error:  # noqa: BLE001  # delivered to the caller
            concerns_all = isinstance(error, StoreError) and not isinstance(error, StoreRejected)
            if concerns_all or len(group) == 1:
                deliver_all([(call, None, error) for call in group])
            else:
                for call in group:
                    self._transact([call])
        else:
            deliver_all(
                [(call, result, None) for call, result in zip(group, results, strict=False)]
            )
            if len(results) < len(group):
                self._transact(group[len(results) :])

    def _attempt(self, group: list[Call[Any]]) -> list[Any]:
        """Commit a group, and retry while the database is locked."""
        begin = "BEGIN IMMEDIATE" if any(call.write for call in group) else "BEGIN"
        deadline = time.monotonic() + self._connector.busy_seconds
        while True:
            try:
                return self._commit(begin, group)
            except StoreBusy:
                if time.monotonic() >= deadline or self._closed:
                    raise
            time.sleep(RETRY_SECONDS)

    def _commit(self, begin: str, group: list[Call[Any]]) -> list[Any]:
        """Run calls in one transaction, and return their results.

        Stops early after a call if many rows have changed: the caller runs the rest.
        """
        with self._connector.errors_translated():
            connection = self._connector.connect()
            is_durable = any(call.durable and call.write for call in group)
            self._connector.set_flushing(connection, is_durable)
            try:
                connection.execute(begin)
                enough = connection.total_changes + GROUP_ROWS
                results: list[Any] = []
                for call in group:
                    results.append(call.work(connection))
                    if connection.total_changes >= enough:
                        break
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    if connection.in_transaction:  # a full disk has already ended it
                        connection.execute("ROLLBACK")
                raise
        return results

    # Forks --------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Wait until the connection is not in use, and close the file.

        SQLite keeps the locks of a file in the memory of the process. A child that inherits them
        would assume that it holds the locks of its parent, and the two could destroy the file.
        """
        self._in_use.acquire()
        if self._connector.path is not None:  # one in memory has no locks, and is copied
            self._connector.disconnect()

    def after_fork_in_parent(self) -> None:
        """Continue. The next work opens the file again."""
        self._in_use.release()

    def after_fork_in_child(self) -> None:
        """Start with a new thread and an empty inbox: the others belong to the parent."""
        self._inbox = Inbox()
        self._lock = threading.Lock()
        self._watches.reset(self._lock)
        self._in_use = threading.Lock()
        self._thread = None
        self._postponed = None
        self._maintenance.due_at = None


_databases: Final[weakref.WeakSet[Database]] = weakref.WeakSet()
_registering = threading.Lock()  # also held during a fork, so that no database is added meanwhile


def _before_fork() -> None:
    _registering.acquire()
    for database in _databases:
        database.before_fork()


def _after_fork_in_parent() -> None:
    for database in _databases:
        database.after_fork_in_parent()
    _registering.release()


def _after_fork_in_child() -> None:
    for database in _databases:
        database.after_fork_in_child()
    _registering.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
