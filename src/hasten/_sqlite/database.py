"""`Database`: callers put work into its inbox, and its thread runs the work in transactions."""

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
from hasten._sqlite.calls import (
    ConditionWatch,
    TransactionCall,
    Work,
    deliver_results,
    set_future_outcome,
)
from hasten._sqlite.connection import Connector
from hasten._sqlite.maintenance import Maintenance
from hasten._sqlite.watches import ConditionWatches, ReadMarks
from hasten.errors import StoreBusy, StoreError, StoreRejected, StoreUnavailable

logger = get_logger("hasten.sqlite")

T = TypeVar("T")

# The largest total weight of the calls in one transaction, roughly in rows. With a few hundred
# rows the commit is already a small part of the cost. Larger transactions would be slower: callers
# process the results of one transaction while the next one runs.
GROUP_WEIGHT: Final = 256

# A transaction also ends when it has changed this many rows. The remaining calls of its group run
# in the next transaction.
GROUP_ROWS: Final = 2_048

# The pause between attempts to get the lock of the file. SQLite's own busy handler waits up to
# 100 ms between attempts, so a process that commits all the time would starve the others.
RETRY_SECONDS: Final = 0.001


class Database:
    """A SQLite file, or a database in memory if path is None. The first work opens it.

    name is the store's URL, for messages. prepare is called with each new connection, to migrate
    the schema. synchronous is SQLite's setting: with FULL, commits survive a power cut; with
    NORMAL, the last commits may be lost. With FULL, a transaction without `durable` work is not
    flushed to the disk until a later transaction is. busy_seconds is how long to wait for a lock
    that another process holds. read_marks is called with the connection and topics, and returns a
    number for each topic, which every change of the topic changes: so `wait_until` finds the topics
    that other processes have changed.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        name: str,
        prepare: Callable[[sqlite3.Connection], None],
        synchronous: str = "FULL",
        busy_seconds: float = 10.0,
        read_marks: ReadMarks = lambda connection, topics: {},
    ) -> None:
        self._name = name
        self._inbox: Inbox[TransactionCall[Any] | ConditionWatch[Any] | None] = Inbox()
        self._lock = threading.Lock()
        self._in_use = threading.Lock()  # held while the thread uses the connection
        self._thread: threading.Thread | None = None
        self._closed = False
        # Used by the thread only:
        self._connector = Connector(path, name, prepare, synchronous, busy_seconds)
        self._watches = ConditionWatches(self._connector, read_marks, self._lock)
        self._maintenance = Maintenance(self._connector)
        self._postponed: TransactionCall[Any] | None = None  # did not fit into the last group
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
        topic: str | set[str] | None = None,
    ) -> T:
        """Run work in a transaction, and return its result after the commit.

        write: the work writes. durable: flush its commit to the disk. weight: its cost, roughly in
        rows, of which one transaction has at most `GROUP_WEIGHT`. topic: the part of the data that
        it may change, None for any part; callers of `wait_until` for this topic check again. If it
        is a set, the work may add other parts to it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._put_into_inbox(
            TransactionCall(
                work, write, durable, weight, topic, loop, partial(set_future_outcome, future)
            )
        )
        return await future

    def run_blocking(
        self, work: Work[T], *, write: bool = True, durable: bool = True, topic: str | None = None
    ) -> T:
        """Run work and block until its commit, for threads without an event loop; see `run`."""
        return self.submit(work, write=write, durable=durable, topic=topic).result()

    def submit(
        self, work: Work[T], *, write: bool = True, durable: bool = True, topic: str | None = None
    ) -> concurrent.futures.Future[T]:
        """Put work into the inbox, and return a future of its result without waiting; see `run`.

        Work runs in the order in which it was put into the inbox.
        """
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._put_into_inbox(
            TransactionCall(
                work, write, durable, 1, topic, None, partial(set_future_outcome, future)
            )
        )
        return future

    def submit_and_forget(self, work: Work[None], *, topic: str | None = None) -> None:
        """Put work into the inbox without waiting for its result. Errors are logged.

        Work runs in the order in which it was put into the inbox.
        """
        self._put_into_inbox(
            TransactionCall(work, True, False, 1, topic, None, self._log_failed_transaction)
        )

    def _log_failed_transaction(self, _result: object, error: Exception | None) -> None:
        if error is not None:
            logger.error("%s: a background transaction failed: %s", self._name, error)

    async def wait_until(self, topic: str, probe: Work[T | None]) -> T:
        """Wait until probe returns something other than None, and return that.

        probe runs now and after every commit that may have changed the topic. Commits of this
        process are noticed at once. Commits of other processes are noticed when the file system
        reports them, or within `POLL_SECONDS` if it does not report writes.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._put_into_inbox(
            ConditionWatch(topic, probe, loop, partial(set_future_outcome, future), future.done)
        )
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

    def _put_into_inbox(self, item: TransactionCall[Any] | ConditionWatch[Any]) -> None:
        """Put a call or a watch into the inbox. The first one starts the thread."""
        with self._lock:
            if self._closed:
                raise StoreUnavailable(self._name, "the store is closed")
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run_thread, name=f"hasten {self._name}", daemon=True
                )
                self._thread.start()
            self._inbox.put(item)

    # The thread ---------------------------------------------------------------------------------

    def _run_thread(self) -> None:
        """Run the work in the inbox until the database is closed. This is the thread's function."""
        self._watches.start_file_watch()
        while True:
            group = self._next_group()
            if group is None:
                break
            with self._in_use:
                if group:
                    self._run_group_and_check_watches(group)
                    del group  # do not keep its calls in memory while waiting for the next group
                elif self._maintenance.is_due:
                    self._maintenance.run()
                self._watches.check_after_foreign_commits()
        self._watches.fail_all(StoreUnavailable(self._name, "the store is closed"))
        self._connector.disconnect()
        self._watches.stop_file_watch()

    def _run_group_and_check_watches(self, group: list[TransactionCall[Any]]) -> None:
        """Run the calls of a group and deliver their results.

        Then schedule maintenance, and check the conditions that callers wait for in the topics that
        the group has written.
        """
        self._watches.disarm_before_own_commit()
        self._run_and_deliver(group)
        topics: set[str | None] = set()
        for call in group:
            if call.write:
                topics.update(call.topic if isinstance(call.topic, set) else (call.topic,))
        self._maintenance.schedule_after_transaction(has_written=bool(topics))
        self._watches.check_after_own_commit(topics)

    def _next_group(self) -> list[TransactionCall[Any]] | None:
        """Wait for work, and return the calls to run in one transaction, up to `GROUP_WEIGHT`.

        Returns an empty list when maintenance or a check for commits of other processes is due, and
        None when the thread should end.
        """
        group: list[TransactionCall[Any]] = []
        weight = 0
        if self._postponed is not None:
            group, weight, self._postponed = [self._postponed], self._postponed.weight, None
        while weight < GROUP_WEIGHT:
            try:
                if group:
                    item = self._inbox.get_nowait()
                else:
                    item = self._inbox.get(
                        self._seconds_to_wait(), self._watches.file_watch_if_armed
                    )
            except queue.Empty:
                break
            match item:
                case None if group:
                    self._inbox.put(None)  # end after this group
                    break
                case None:
                    return None
                case ConditionWatch():
                    with self._in_use:
                        self._watches.add(item)
                case TransactionCall() if group and weight + item.weight > GROUP_WEIGHT:
                    self._postponed = item
                    break
                case TransactionCall():
                    group.append(item)
                    weight += item.weight
        return group

    def _seconds_to_wait(self) -> float | None:
        """Return for how many seconds the thread may wait for work, None for no limit."""
        times = (self._maintenance.due_at, self._watches.next_check_at)
        due = [time_ for time_ in times if time_ is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _run_and_deliver(self, group: list[TransactionCall[Any]]) -> None:
        """Run the calls of a group in one transaction, and deliver the results.

        If the work of one call fails, each call of the group runs again in its own transaction.
        """
        try:
            results = self._commit_with_retries(group)
        except Exception as error:  # noqa: BLE001  # delivered to the caller
            concerns_all = isinstance(error, StoreError) and not isinstance(error, StoreRejected)
            if concerns_all or len(group) == 1:
                deliver_results([(call, None, error) for call in group])
            else:
                for call in group:
                    self._run_and_deliver([call])
        else:
            deliver_results(
                [(call, result, None) for call, result in zip(group, results, strict=False)]
            )
            if len(results) < len(group):
                self._run_and_deliver(group[len(results) :])

    def _commit_with_retries(self, group: list[TransactionCall[Any]]) -> list[Any]:
        """Run calls in one transaction, with retries while another process holds the lock.

        Returns the results of the calls; see `_commit_once`.
        """
        begin = "BEGIN IMMEDIATE" if any(call.write for call in group) else "BEGIN"
        deadline = time.monotonic() + self._connector.busy_seconds
        while True:
            try:
                return self._commit_once(begin, group)
            except StoreBusy:
                if time.monotonic() >= deadline or self._closed:
                    raise
            time.sleep(RETRY_SECONDS)

    def _commit_once(self, begin: str, group: list[TransactionCall[Any]]) -> list[Any]:
        """Run calls in one transaction, and return their results. begin is the BEGIN statement.

        If the calls change more than `GROUP_ROWS` rows, it commits early and returns fewer results:
        the remaining calls have not run.
        """
        with self._connector.translate_errors():
            connection = self._connector.connect()
            is_durable = any(call.durable and call.write for call in group)
            self._connector.set_flush_at_commit(connection, is_durable)
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
                    if connection.in_transaction:  # SQLite has already ended it if the disk is full
                        connection.execute("ROLLBACK")
                raise
        return results

    # Forks --------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Wait until the thread does not use the connection, and close it until the fork is done.

        SQLite records in memory which locks of a file it holds. A child process would inherit these
        records and act as if it held its parent's locks, which can corrupt the file.
        """
        self._in_use.acquire()
        if self._connector.path is not None:  # one in memory has no locks: the child gets a copy
            self._connector.disconnect()

    def after_fork_in_parent(self) -> None:
        """Let the thread continue. The next work opens the file again."""
        self._in_use.release()

    def after_fork_in_child(self) -> None:
        """Reset the state in the child process: a new thread will start, with an empty inbox.

        The thread, the inbox and the waiting callers of the parent do not exist in the child.
        """
        self._inbox = Inbox()
        self._lock = threading.Lock()
        self._watches.drop_all_after_fork(self._lock)
        self._in_use = threading.Lock()
        self._thread = None
        self._postponed = None
        self._maintenance.due_at = None


_databases: Final[weakref.WeakSet[Database]] = weakref.WeakSet()
_registering = threading.Lock()  # held during a fork, so that no database is added meanwhile


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
