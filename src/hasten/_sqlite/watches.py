"""Conditions that callers wait for: when to probe them, and how to notice other processes."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeAlias

from hasten._inbox import FileWatch
from hasten._sqlite.calls import Delivery, Watch, deliver_all
from hasten._sqlite.connection import Connector
from hasten.errors import StoreBusy, StoreError

ReadMarks: TypeAlias = Callable[[sqlite3.Connection, list[str]], dict[str, int]]
"""Returns, for each of some topics, a number that every commit about the topic changes."""

# The shortest pause between two checks for commits of other processes, while callers wait.
POLL_SECONDS: Final = 0.01

# A commit becomes visible some time after its write was noticed. From then on, each pause between
# two checks is twice as long as the one before.
FIRST_PAUSE_SECONDS: Final = 0.0005
LONGEST_PAUSE_SECONDS: Final = 0.25

# After so many commits in a row without a notification, the file system is assumed not to send
# any, and the thread polls.
UNNOTICED_COMMITS: Final = 10


class Watches:
    """The watches of a `Database`, by topic. Belongs to its thread.

    lock is held while an item is put into the inbox, which may wake the file watch.
    """

    def __init__(self, connector: Connector, read_marks: ReadMarks, lock: threading.Lock) -> None:
        self._connector = connector
        self._read_marks = read_marks
        self._lock = lock
        self._by_topic: dict[str, list[Watch[Any]]] = {}
        self._marks: dict[str, int] = {}  # of watched topics, at the last check
        self._check_at = 0.0  # by the monotonic clock
        self._checked_at = 0.0
        self._pause = POLL_SECONDS
        self._file_watch: FileWatch | None = None
        self._is_armed = False
        self._unnoticed = 0  # commits in a row

    def start(self) -> None:
        """Use notifications of the file system, where there are any."""
        if self._connector.path is not None:
            with contextlib.suppress(OSError):  # not supported on this system, or too many
                self._file_watch = FileWatch()

    def stop(self) -> None:
        """Stop using notifications of the file system."""
        watch, self._file_watch, self._is_armed = self._file_watch, None, False
        if watch is not None:
            with self._lock:  # another thread may be about to wake it
                watch.close()

    def reset(self, lock: threading.Lock) -> None:
        """Drop all watches: after a fork they belong to the parent."""
        self._lock = lock
        self.stop()
        self._by_topic = {}
        self._marks = {}

    def fail(self, error: StoreError) -> None:
        """Deliver an error to all watches."""
        deliver_all([(watch, None, error) for group in self._by_topic.values() for watch in group])
        self._by_topic = {}

    @property
    def armed_file_watch(self) -> FileWatch | None:
        """The file watch, if it will notice the next write."""
        return self._file_watch if self._is_armed else None

    @property
    def next_check_at(self) -> float | None:
        """When to check for commits of other processes, None if no caller waits for any."""
        return self._check_at if self._by_topic and self._connector.path is not None else None

    def add(self, watch: Watch[Any]) -> None:
        """Probe a watch, and keep it if its condition is not met."""
        if self._probe([watch]):
            waiting = self._by_topic.get(watch.topic, [])
            self._by_topic[watch.topic] = [w for w in waiting if not w.is_done()] + [watch]

    def before_own_commit(self) -> None:
        """Check soon for other commits: the file watch cannot distinguish them."""
        self._is_armed = False
        self._check_at = min(self._check_at, self._checked_at + POLL_SECONDS)

    def after_own_commit(self, topics: set[str | None]) -> None:
        """Probe the watches of the topics that were written. None stands for any topic."""
        self._probe_topics(list(self._by_topic) if None in topics else topics)

    def check_for_others(self) -> None:
        """From time to time, probe the watches of topics that other processes have changed."""
        if not self._by_topic or self._connector.path is None:
            return
        now = time.monotonic()
        if self._has_noticed():
            self._pause = FIRST_PAUSE_SECONDS
            self._unnoticed = 0
        elif now < self._check_at:
            return
        changed = self._check()
        if changed and self._is_armed and not self._has_noticed():
            self._unnoticed += 1
            if self._unnoticed == UNNOTICED_COMMITS:
                self.stop()
        if not changed and self._pause >= POLL_SECONDS and not self._is_armed and self._arm():
            changed = self._check()  # for a commit before the file was watched
        if changed or (self._pause >= POLL_SECONDS and not self._is_armed):
            self._pause = POLL_SECONDS
        self._checked_at, self._check_at = now, now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def _has_noticed(self) -> bool:
        if self._is_armed and self._file_watch is not None and self._file_watch.was_written():
            self._is_armed = False
            return True
        return False

    def _arm(self) -> bool:
        """Watch the log for the next write, and return whether that is possible."""
        if self._file_watch is not None:
            try:
                self._file_watch.arm(Path(f"{self._connector.path}-wal"))
                self._is_armed = True
            except FileNotFoundError:
                self._is_armed = False  # nothing was written yet
            except OSError:
                self.stop()
        return self._is_armed

    def _check(self) -> bool:
        """Probe the watches of changed topics, and return whether another process has committed."""
        connector = self._connector
        try:
            with connector.errors_translated():
                connection = connector.connect()
                (version,) = connection.execute("PRAGMA data_version").fetchone()
                if version == connector.data_version:
                    return False
                marks = self._read_marks(connection, list(self._by_topic))
                before, self._marks, connector.data_version = self._marks, marks, version
                self._probe_topics([t for t in self._by_topic if marks.get(t) != before.get(t)])
        except StoreBusy:
            return False  # the process that holds the lock will have committed by the next check
        except StoreError as error:
            self.fail(error)
        return True

    def _probe_topics(self, topics: Iterable[str | None]) -> None:
        for topic in [topic for topic in topics if topic in self._by_topic]:
            assert topic is not None
            remaining = self._probe(self._by_topic[topic])
            if remaining:
                self._by_topic[topic] = remaining
            else:
                del self._by_topic[topic]

    def _probe(self, watches: list[Watch[Any]]) -> list[Watch[Any]]:
        """Deliver the results of the watches whose condition is met; return the others."""
        deliveries: list[Delivery] = []
        remaining: list[Watch[Any]] = []
        for watch in watches:
            if watch.is_done():
                continue
            try:
                with self._connector.errors_translated():
                    result = watch.probe(self._connector.connect())
            except StoreBusy:
                remaining.append(watch)
                self._connector.data_version = -1  # check again
                self._marks.pop(watch.topic, None)
            except Exception as error:  # noqa: BLE001  # delivered to the caller
                deliveries.append((watch, None, error))
            else:
                if result is None:
                    remaining.append(watch)
                else:
                    deliveries.append((watch, result, None))
        deliver_all(deliveries)
        return remaining
