"""The conditions that callers of a database wait for, and when to check them."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeAlias

from hasten._inbox import FileWatch
from hasten._sqlite.calls import ConditionWatch, Delivery, deliver_results
from hasten._sqlite.connection import Connector
from hasten.errors import StoreBusy, StoreError

ReadMarks: TypeAlias = Callable[[sqlite3.Connection, list[str]], dict[str, int]]
"""A function that returns a number for each topic. Every change of a topic changes its number.

By comparing two results, the thread finds the topics that other processes have changed.
"""

# How often to check for commits of other processes while callers wait, if the file system does not
# report writes.
POLL_SECONDS: Final = 0.01

# The file system reports a write before the commit is visible to this process. After such a
# report, each pause between two checks is twice as long as the one before.
FIRST_PAUSE_SECONDS: Final = 0.0005
LONGEST_PAUSE_SECONDS: Final = 0.25

# After this many commits in a row that the file system has not reported, the thread polls instead.
UNNOTICED_COMMITS: Final = 10


class ConditionWatches:
    """The conditions that callers of a `Database` wait for. Only its thread uses them.

    lock is the lock that callers hold while they put an item into the inbox. They may wake the file
    watch then, so it must not be closed without the lock.
    """

    def __init__(self, connector: Connector, read_marks: ReadMarks, lock: threading.Lock) -> None:
        self._connector = connector
        self._read_marks = read_marks
        self._lock = lock
        self._by_topic: dict[str, list[ConditionWatch[Any]]] = {}
        self._marks: dict[str, int] = {}  # result of read_marks at the last check
        self._check_at = 0.0  # of the monotonic clock, like the times below
        self._checked_at = 0.0
        self._pause = POLL_SECONDS
        self._file_watch: FileWatch | None = None
        self._is_armed = False
        self._unnoticed = 0  # commits in a row

    def start_file_watch(self) -> None:
        """Watch the file for writes, if the system supports that."""
        if self._connector.path is not None:
            with contextlib.suppress(OSError):  # not supported on this system, or too many
                self._file_watch = FileWatch()

    def stop_file_watch(self) -> None:
        """Stop watching the file for writes."""
        watch, self._file_watch, self._is_armed = self._file_watch, None, False
        if watch is not None:
            with self._lock:  # another thread may be about to wake it
                watch.close()

    def drop_all_after_fork(self, lock: threading.Lock) -> None:
        """Drop all watches in a child process after a fork: their callers are in the parent."""
        self._lock = lock
        self.stop_file_watch()
        self._by_topic = {}
        self._marks = {}

    def fail_all(self, error: StoreError) -> None:
        """Deliver an error to the callers of all watches, and drop the watches."""
        deliver_results(
            [(watch, None, error) for group in self._by_topic.values() for watch in group]
        )
        self._by_topic = {}

    @property
    def file_watch_if_armed(self) -> FileWatch | None:
        """The file watch, if it is armed: it will report the next write. Otherwise None."""
        return self._file_watch if self._is_armed else None

    @property
    def next_check_at(self) -> float | None:
        """When to check for commits of other processes, None if that is not necessary."""
        return self._check_at if self._by_topic and self._connector.path is not None else None

    def add(self, watch: ConditionWatch[Any]) -> None:
        """Check the condition of a new watch. If it is not met, keep the watch for later checks."""
        if self._deliver_met_and_return_unmet([watch]):
            waiting = self._by_topic.get(watch.topic, [])
            self._by_topic[watch.topic] = [w for w in waiting if not w.is_done()] + [watch]

    def disarm_before_own_commit(self) -> None:
        """Prepare for a commit of this process: check soon for commits of other processes.

        The file watch cannot tell which process has written. It would report the commit of this
        process, so its report is ignored, and the thread polls until the watch is armed again.
        """
        self._is_armed = False
        self._check_at = min(self._check_at, self._checked_at + POLL_SECONDS)

    def check_after_own_commit(self, topics: set[str | None]) -> None:
        """Check the conditions of callers that wait for topics that this process has just written.

        None in topics means any topic.
        """
        self._check_topics(list(self._by_topic) if None in topics else topics)

    def check_after_foreign_commits(self) -> None:
        """If a check is due, look for commits of other processes.

        Then check the conditions of the callers that wait for the changed topics.
        """
        if not self._by_topic or self._connector.path is None:
            return
        now = time.monotonic()
        if self._has_file_watch_fired():
            self._pause = FIRST_PAUSE_SECONDS
            self._unnoticed = 0
        elif now < self._check_at:
            return
        changed = self._check_topics_if_others_committed()
        if changed and self._is_armed and not self._has_file_watch_fired():
            self._unnoticed += 1
            if self._unnoticed == UNNOTICED_COMMITS:
                self.stop_file_watch()
        may_arm = not changed and self._pause >= POLL_SECONDS and not self._is_armed
        if may_arm and self._arm_file_watch():
            changed = (
                self._check_topics_if_others_committed()
            )  # a commit just before the file was watched
        if changed or (self._pause >= POLL_SECONDS and not self._is_armed):
            self._pause = POLL_SECONDS
        self._checked_at, self._check_at = now, now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def _has_file_watch_fired(self) -> bool:
        """Return whether the file watch has reported a write. It is then no longer armed."""
        if (
            self._is_armed
            and self._file_watch is not None
            and self._file_watch.check_and_reset_written()
        ):
            self._is_armed = False
            return True
        return False

    def _arm_file_watch(self) -> bool:
        """Make the file watch report the next write. Returns whether that is possible."""
        if self._file_watch is not None:
            try:
                self._file_watch.arm(Path(f"{self._connector.path}-wal"))
                self._is_armed = True
            except FileNotFoundError:
                self._is_armed = False  # the log does not exist before the first write
            except OSError:
                self.stop_file_watch()
        return self._is_armed

    def _check_topics_if_others_committed(self) -> bool:
        """Check the conditions of callers that wait for topics that other processes have changed.

        Returns whether another process has committed since the last check.
        """
        connector = self._connector
        try:
            with connector.translate_errors():
                connection = connector.connect()
                (version,) = connection.execute("PRAGMA data_version").fetchone()
                if version == connector.data_version:
                    return False
                marks = self._read_marks(connection, list(self._by_topic))
                before, self._marks, connector.data_version = self._marks, marks, version
                self._check_topics([t for t in self._by_topic if marks.get(t) != before.get(t)])
        except StoreBusy:
            return False  # the next check follows after the process with the lock has committed
        except StoreError as error:
            self.fail_all(error)
        return True

    def _check_topics(self, topics: Iterable[str | None]) -> None:
        """Check the watches of these topics, and keep those whose condition is not met."""
        for topic in [topic for topic in topics if topic in self._by_topic]:
            assert topic is not None
            remaining = self._deliver_met_and_return_unmet(self._by_topic[topic])
            if remaining:
                self._by_topic[topic] = remaining
            else:
                del self._by_topic[topic]

    def _deliver_met_and_return_unmet(
        self, watches: list[ConditionWatch[Any]]
    ) -> list[ConditionWatch[Any]]:
        """Check conditions and deliver the results of those that are met.

        Returns the watches whose condition is not met.
        """
        deliveries: list[Delivery] = []
        remaining: list[ConditionWatch[Any]] = []
        for watch in watches:
            if watch.is_done():
                continue
            try:
                with self._connector.translate_errors():
                    result = watch.probe(self._connector.connect())
            except StoreBusy:
                remaining.append(watch)
                self._connector.data_version = -1  # so that the next check probes it again
                self._marks.pop(watch.topic, None)
            except Exception as error:  # noqa: BLE001  # delivered to the caller
                deliveries.append((watch, None, error))
            else:
                if result is None:
                    remaining.append(watch)
                else:
                    deliveries.append((watch, result, None))
        deliver_results(deliveries)
        return remaining
