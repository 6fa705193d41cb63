"""A SQLite database, and the one thread that owns its connection.

Theory of operation. What a commit costs is a flush to the disk, not the rows in it. So all callers,
of any thread or event loop, put their work into one inbox; the thread takes all that waits there,
runs it in one transaction, and answers only after the commit (group commit). While it commits, the
next group gathers.

Work is a function of the connection. It may run more than once (when the database was locked, or
when other work of its group failed), so it must do nothing but read, write and return.

The `sqlite3` module lets go of the interpreter's lock around every step of a statement and takes it
again afterwards. When handlers keep the interpreter busy, each taking costs up to 5 ms. Callers
therefore use few statements for many rows, and fetch one row of JSON instead of many rows.

Whoever waits for a change names its topic (`until`), and so does whoever writes (`run`). After a
commit of ours the thread asks those that wait for its topics, and no others. The topics that other
processes have changed are found with one statement. On Linux the file system tells that they write;
elsewhere the thread looks every few milliseconds.

In quiet moments the thread tidies up: it shortens the write-ahead log, and gives free pages back to
the file system, in steps of a few milliseconds between which it looks for work.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import errno
import os
import queue
import re
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from hasten._inbox import FileWatch, Inbox
from hasten._logs import get_logger
from hasten.errors import (
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreRejected,
    StoreUnavailable,
)

logger = get_logger("hasten.sqlite")

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], T]

Deliver = Callable[[T | None, Exception | None], None]

Marks = Callable[[sqlite3.Connection, list[str]], dict[str, int]]

MIN_VERSION: Final = (3, 37, 0)  # STRICT tables; RETURNING and UPDATE … FROM came before

# A transaction takes in no more work than this (in rows, roughly): beyond some hundred rows the
# commit is a small share of the cost, and two batches that overlap with their callers are faster
# than one that does not.
GROUP_WEIGHT: Final = 256

# It also takes in no more once it has changed so many rows: what follows goes into another one.
GROUP_ROWS: Final = 2_048

# How often at most to look whether other processes have committed, while somebody waits for that.
POLL_SECONDS: Final = 0.01

# A commit can be seen only some time after it was written. From when a write was noticed, the
# pauses between two looks grow: each is twice as long as the one before.
FIRST_PAUSE_SECONDS: Final = 0.0005
LONGEST_PAUSE_SECONDS: Final = 0.25

# After so many commits in a row of which nothing was noticed, the file system is taken for one that
# tells of no writes, and we look as often as we may.
UNNOTICED_COMMITS: Final = 10

# SQLite's own waiting for a lock backs off to 100 ms; a process that commits all the time would
# starve one that waits so. Ours asks again every millisecond.
RETRY_SECONDS: Final = 0.001

# Tidying up begins when the thread has had no work, and the file no writer, for so long.
QUIET_SECONDS: Final = 0.2
TIDY_AGAIN_SECONDS: Final = 5.0  # after somebody was in the way

# The write-ahead log keeps this length, to be written over. It grows beyond it in one large
# transaction, or while a reader keeps it from being written over.
LOG_BYTES: Final = 16 * 1024 * 1024

OWN_TABLES: Final = "hasten_"  # what the names of our tables begin with

# Free pages that a file keeps for what comes next, and how many leave it in one transaction.
FREE_PAGES: Final = 2_048
PAGES_AT_ONCE: Final = 256
INCREMENTAL: Final = 2  # of PRAGMA auto_vacuum


class Database:
    """A database file, or one in memory if path is None. Opened by the first work.

    prepare is run on each new connection, to migrate the schema; it raises `StoreError`.
    synchronous is SQLite's setting: FULL survives a power cut, NORMAL may lose the last commits.
    With FULL, a group of which no work is `durable` is not flushed: the next one takes it along.
    marks returns, for each of some topics, a number that every commit about this topic changes; it
    is needed by those who call `until`.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        name: str,
        prepare: Callable[[sqlite3.Connection], None],
        synchronous: str = "FULL",
        busy_seconds: float = 10.0,
        marks: Marks = lambda connection, topics: {},
    ) -> None:
        self._path = path
        self._name = name
        self._prepare = prepare
        self._synchronous = synchronous
        self._busy_seconds = busy_seconds
        self._read_marks = marks
        self._inbox: Inbox[_Call[Any] | _Watch[Any] | None] = Inbox()
        self._lock = threading.Lock()
        self._at_work = threading.Lock()  # held while the connection is in use
        self._thread: threading.Thread | None = None
        self._closed = False
        # Of the thread alone:
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # device and inode of what is open
        self._data_version = 0
        self._flushing = True
        self._watches: dict[str, list[_Watch[Any]]] = {}  # by topic
        self._marks: dict[str, int] = {}  # of topics that are watched, as of the last look
        self._look_at = 0.0  # by the monotonic clock: when to look for commits of others
        self._looked_at = 0.0
        self._pause = POLL_SECONDS
        self._file_watch: FileWatch | None = None
        self._is_armed = False
        self._unnoticed = 0  # commits in a row
        self._carried: _Call[Any] | None = None
        self._tidy_at: float | None = None  # by the monotonic clock; None: nothing to tidy up
        self._tidied_version = 0
        with _registering:
            _databases.add(self)

    async def run(
        self,
        work: Work[T],
        *,
        write: bool = True,
        durable: bool = True,
        weight: int = 1,
        topic: str | None = None,
    ) -> T:
        """Run work in a transaction and return what it returned, once that is committed.

        topic is what it may change; None: anything.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._put(_Call(work, write, durable, weight, topic, loop, partial(_set, future)))
        return await future

    def call(
        self, work: Work[T], *, write: bool = True, durable: bool = True, topic: str | None = None
    ) -> T:
        """As `run`, for a thread: blocks."""
        return self.submit(work, write=write, durable=durable, topic=topic).result()

    def submit(
        self, work: Work[T], *, write: bool = True, durable: bool = True, topic: str | None = None
    ) -> concurrent.futures.Future[T]:
        """As `run`, without waiting. It is run before all work that is put in later."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._put(_Call(work, write, durable, 1, topic, None, partial(_set, future)))
        return future

    def post(self, work: Work[None], *, topic: str | None = None) -> None:
        """As `run`, behind all that was put in before, without waiting for the end."""
        self._put(_Call(work, True, False, 1, topic, None, self._posted))

    def _posted(self, _result: object, error: Exception | None) -> None:
        if error is not None:
            logger.error("%s: work in the background failed: %s", self._name, error)

    async def until(self, topic: str, probe: Work[T | None]) -> T:
        """Run probe now and after every commit about topic, until it returns something.

        Commits of this process are seen at once. Those of others are seen when the file system
        tells of them, or within `POLL_SECONDS` where it cannot.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._put(_Watch(topic, probe, loop, partial(_set, future), future.done))
        return await future

    def close(self) -> None:
        """Finish what has been put in, then close the connection. Safe to call twice."""
        with self._lock:
            self._closed = True
            thread = self._thread
            if thread is not None:
                self._inbox.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def before_fork(self) -> None:
        """Come to rest and close the file.

        SQLite keeps the locks of a file in the memory of the process. A child that inherits them
        believes that it holds what its parent holds: the two could destroy the file.
        """
        self._at_work.acquire()
        if self._path is not None:  # one in memory has no locks, and is copied as it is
            self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on, and open the file again when there is something to do."""
        self._at_work.release()

    def after_fork_in_child(self) -> None:
        """Begin with a thread of one's own; what waits in the inbox is the parent's."""
        self._inbox = Inbox()
        self._lock = threading.Lock()
        self._stop_watching()  # what is watched is the parent's
        self._at_work = threading.Lock()
        self._thread = None
        self._watches = {}
        self._marks = {}
        self._carried = None
        self._tidy_at = None

    def _put(self, item: _Call[Any] | _Watch[Any]) -> None:
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
        if self._path is not None:
            with contextlib.suppress(OSError):  # not on this system, or too many
                self._file_watch = FileWatch()
        while True:
            group = self._next_group()
            if group is None:
                break
            with self._at_work:
                if group:
                    self._is_armed = False  # it would notice what we write
                    self._look_at = min(self._look_at, self._looked_at + POLL_SECONDS)
                    self._transact(group)
                    topics = {call.topic for call in group if call.write}
                    del group  # its results must not live until the next one
                    self._tidy_after(bool(topics))
                    self._probe(topics if None not in topics else self._watches)
                elif self._tidy_at is not None and time.monotonic() >= self._tidy_at:
                    self._tidy_up()
                self._look_for_others()
        self._fail_watches(StoreUnavailable(self._name, "the store is closed"))
        self._disconnect()
        self._stop_watching()

    def _next_group(self) -> list[_Call[Any]] | None:
        """Wait for work and take all there is, up to a weight.

        Returns an empty list when it is time to look for changes or to tidy up, None when it is
        time to end.
        """
        group: list[_Call[Any]] = []
        weight = 0
        if self._carried is not None:
            group, weight, self._carried = [self._carried], self._carried.weight, None
        while weight < GROUP_WEIGHT:
            try:
                if group:
                    item = self._inbox.get_nowait()
                else:
                    item = self._inbox.get(
                        self._patience(), self._file_watch if self._is_armed else None
                    )
            except queue.Empty:
                break
            match item:
                case None if group:
                    self._inbox.put(None)  # the end comes after this group
                    break
                case None:
                    return None
                case _Watch():
                    with self._at_work:
                        if self._ask([item]):
                            waiting = self._watches.get(item.topic, [])
                            self._watches[item.topic] = [w for w in waiting if not w.done()] + [
                                item
                            ]
                case _Call() if group and weight + item.weight > GROUP_WEIGHT:
                    self._carried = item
                    break
                case _Call():
                    group.append(item)
                    weight += item.weight
        return group

    def _patience(self) -> float | None:
        times = [] if self._tidy_at is None else [self._tidy_at]
        if self._watches and self._path is not None:
            times.append(self._look_at)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _transact(self, group: list[_Call[Any]]) -> None:
        """Run the work of a group in one transaction; if one fails, each in one of its own."""
        try:
            results = self._attempt(group)
        except Exception as error:  # noqa: BLE001  # its caller is told
            concerns_all = isinstance(error, StoreError) and not isinstance(error, StoreRejected)
            if concerns_all or len(group) == 1:
                _deliver([(call, None, error) for call in group])
            else:
                for call in group:
                    self._transact([call])
        else:
            _deliver([(call, result, None) for call, result in zip(group, results, strict=False)])
            if len(results) < len(group):
                self._transact(group[len(results) :])

    def _attempt(self, group: list[_Call[Any]]) -> list[Any]:
        begin = "BEGIN IMMEDIATE" if any(call.write for call in group) else "BEGIN"
        deadline = time.monotonic() + self._busy_seconds
        while True:
            try:
                return self._commit(begin, group)
            except StoreBusy:
                if time.monotonic() >= deadline or self._closed:
                    raise
            time.sleep(RETRY_SECONDS)

    def _commit(self, begin: str, group: list[_Call[Any]]) -> list[Any]:
        """Returns the results of the first ones, where they have changed enough."""
        with self._errors_translated():
            connection = self._connect()
            self._flush(connection, any(call.durable and call.write for call in group))
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
                    if connection.in_transaction:  # a full disk has ended it already
                        connection.execute("ROLLBACK")
                raise
        return results

    def _flush(self, connection: sqlite3.Connection, wanted: bool) -> None:
        """Let the next commit flush, or not. A later one that does takes earlier ones along."""
        if self._synchronous == "FULL" and wanted != self._flushing:
            connection.execute(f"PRAGMA synchronous = {'FULL' if wanted else 'NORMAL'}")
            self._flushing = wanted

    # Watching -----------------------------------------------------------------------------------

    def _look_for_others(self) -> None:
        """Now and then, see whether other processes have committed something that is waited for."""
        if not self._watches or self._path is None:
            return
        now = time.monotonic()
        if self._has_noticed():
            self._pause = FIRST_PAUSE_SECONDS
            self._unnoticed = 0
        elif now < self._look_at:
            return
        changed = self._look()
        if changed and self._is_armed and not self._has_noticed():
            self._unnoticed += 1
            if self._unnoticed == UNNOTICED_COMMITS:
                self._stop_watching()
        if not changed and self._pause >= POLL_SECONDS and not self._is_armed and self._arm():
            changed = self._look()  # something may have come before the file was watched
        if changed or (self._pause >= POLL_SECONDS and not self._is_armed):
            self._pause = POLL_SECONDS
        self._looked_at, self._look_at = now, now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def _has_noticed(self) -> bool:
        if self._is_armed and self._file_watch is not None and self._file_watch.noticed():
            self._is_armed = False
            return True
        return False

    def _arm(self) -> bool:
        """Have the next write to the log noticed, if that is possible here."""
        if self._file_watch is not None:
            try:
                self._file_watch.arm(Path(f"{self._path}-wal"))
                self._is_armed = True
            except FileNotFoundError:
                self._is_armed = False  # nothing was ever written
            except OSError:
                self._stop_watching()
        return self._is_armed

    def _stop_watching(self) -> None:
        watch, self._file_watch, self._is_armed = self._file_watch, None, False
        if watch is not None:
            with self._lock:  # whoever puts something in may be about to wake it
                watch.close()

    def _look(self) -> bool:
        """Ask the watches of what other processes have changed. Returns whether there is any."""
        try:
            with self._errors_translated():
                connection = self._connect()
                (version,) = connection.execute("PRAGMA data_version").fetchone()
                if version == self._data_version:
                    return False
                marks = self._read_marks(connection, list(self._watches))
                before, self._marks, self._data_version = self._marks, marks, version
                self._probe([t for t in self._watches if marks.get(t) != before.get(t)])
        except StoreBusy:
            return False  # whoever holds it will have changed something by the next look
        except StoreError as error:
            self._fail_watches(error)
        return True

    def _probe(self, topics: Iterable[str | None]) -> None:
        """Ask the watches of some topics for their condition, and drop those that are answered."""
        for topic in [topic for topic in topics if topic in self._watches]:
            assert topic is not None
            unanswered = self._ask(self._watches[topic])
            if unanswered:
                self._watches[topic] = unanswered
            else:
                del self._watches[topic]

    def _ask(self, watches: list[_Watch[Any]]) -> list[_Watch[Any]]:
        """Answer the watches whose condition is met; returns the others."""
        answers: list[_Answer] = []
        unanswered: list[_Watch[Any]] = []
        for watch in watches:
            if watch.done():
                continue
            try:
                with self._errors_translated():
                    result = watch.probe(self._connect())
            except StoreBusy:
                unanswered.append(watch)
                self._data_version = -1  # look again
                self._marks.pop(watch.topic, None)
            except Exception as error:  # noqa: BLE001  # its caller is told
                answers.append((watch, None, error))
            else:
                if result is None:
                    unanswered.append(watch)
                else:
                    answers.append((watch, result, None))
        _deliver(answers)
        return unanswered

    def _fail_watches(self, error: StoreError) -> None:
        _deliver([(watch, None, error) for group in self._watches.values() for watch in group])
        self._watches = {}

    # Tidying up ---------------------------------------------------------------------------------

    def _tidy_after(self, written: bool) -> None:
        """Tidy up once it has been quiet, counted from now, if there was something to write."""
        if self._path is not None and (written or self._tidy_at is not None):
            self._tidy_at = time.monotonic() + QUIET_SECONDS

    def _tidy_up(self) -> None:
        """Do one step, and say when the next is due."""
        wait: float | None = None
        # What fails here, the next work meets, too, and its caller is told. A file that was moved
        # or deleted must not come back for this.
        if self._connection is not None and self._path and self._file == _identity(self._path):
            try:
                wait = self._tidy_step(self._connection, self._path)
            except sqlite3.OperationalError:  # above all: another process is in the way
                wait = TIDY_AGAIN_SECONDS
            except sqlite3.Error:
                wait = None
        self._tidy_at = None if wait is None else time.monotonic() + wait

    def _tidy_step(self, connection: sqlite3.Connection, path: Path) -> float | None:
        """Returns after how many seconds the next step is due, None if all is done."""
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version != self._tidied_version:
            self._tidied_version = version
            return QUIET_SECONDS  # others write: it is quiet for us alone
        spare = _free_pages(connection) - FREE_PAGES
        if spare > 0:
            self._flush(connection, wanted=False)
            # Each page is a row without columns. `execute` would end after the first.
            pages = min(spare, PAGES_AT_ONCE)
            connection.executescript(f"PRAGMA incremental_vacuum({pages})")
            return 0.0
        log = Path(f"{path}-wal")
        if _size(log) <= LOG_BYTES and _size(path) <= _length(connection):
            return None
        # Takes no lock that writers or readers wait for. It cuts the file, too, if it is complete.
        busy, length, written = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if busy or length != written:
            return TIDY_AGAIN_SECONDS
        if _size(log) > LOG_BYTES:
            # Takes all locks, waits for none, and has nothing left to do but to cut the log.
            (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return TIDY_AGAIN_SECONDS if busy else None

    # The connection -----------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        """The open connection, opened anew if there is none or its file was replaced."""
        if self._connection is not None:
            if self._path is None or self._file == _identity(self._path):
                return self._connection
            # Writing on would go to a file that nobody can open any more.
            logger.warning("%s was moved or deleted: opening it anew", self._name)
            self._disconnect()
        if sqlite3.sqlite_version_info < MIN_VERSION:
            raise StoreUnavailable(
                self._name,
                f"this Python's SQLite is {sqlite3.sqlite_version}, "
                f"hasten needs {'.'.join(map(str, MIN_VERSION))} or newer",
            )
        if self._path is not None:
            _check_access(self._name, self._path)
            _refuse_foreign(self._name, self._path)
        connection = sqlite3.connect(
            ":memory:" if self._path is None else self._path,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,  # made and used by our thread; another may collect it
            cached_statements=512,
        )
        # Where another program has stored what is no UTF-8, a whole batch must not fail for it.
        connection.text_factory = _text
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._file = None if self._path is None else _identity(self._path)
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        # Some builds of SQLite write zeros over all that is deleted, which takes several times as
        # long, unless they are told not to.
        connection.execute("PRAGMA secure_delete = OFF")
        if self._path is not None:
            _check_tables(self._name, connection)  # what could not be read without a lock
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            if not pages:  # a file that has tables keeps the setting that it has
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise StoreUnavailable(
                    self._name, "it cannot have a write-ahead log: is it on a network file system?"
                )
            # Whoever begins the log anew cuts it to this length.
            connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}").fetchone()
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        self._flushing = True
        connection.execute("PRAGMA cache_size = -32768")  # KiB: an index of 200,000 jobs fits
        self._prepare(connection)
        _forget_statistics(connection)
        (self._data_version,) = connection.execute("PRAGMA data_version").fetchone()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    @contextlib.contextmanager
    def _errors_translated(self) -> Iterator[None]:
        """Turn SQLite's errors into ours, and those of values that it cannot hold."""
        try:
            yield
        except sqlite3.Error as exc:
            error = _store_error(self._name, exc, self._busy_seconds)
            is_of_file = not isinstance(error, StoreBusy | StoreRejected)
            if is_of_file and self._path is not None:
                self._disconnect()  # begin with a new one when the cause has gone
            raise error from exc
        except (UnicodeEncodeError, OverflowError) as exc:
            raise StoreRejected(self._name, f"a value cannot be stored: {_cause(exc)}") from exc


class _Call(Generic[T]):
    """Work, what it may change, and who is told what came of it: deliver, called in loop if any."""

    __slots__ = ("deliver", "durable", "loop", "topic", "weight", "work", "write")

    def __init__(
        self,
        work: Work[T],
        write: bool,
        durable: bool,
        weight: int,
        topic: str | None,
        loop: asyncio.AbstractEventLoop | None,
        deliver: Deliver[T],
    ) -> None:
        self.work = work
        self.write = write
        self.durable = durable
        self.weight = weight
        self.topic = topic
        self.loop = loop
        self.deliver = deliver


class _Watch(Generic[T]):
    """A condition that somebody waits for; done says that nobody does any more."""

    __slots__ = ("deliver", "done", "loop", "probe", "topic")

    def __init__(
        self,
        topic: str,
        probe: Work[T | None],
        loop: asyncio.AbstractEventLoop,
        deliver: Deliver[T],
        done: Callable[[], bool],
    ) -> None:
        self.topic = topic
        self.probe = probe
        self.loop = loop
        self.deliver = deliver
        self.done = done


_Answer = tuple[_Call[Any] | _Watch[Any], Any, Exception | None]


def _deliver(answers: Sequence[_Answer]) -> None:
    """Hand over results and errors. Each event loop is woken once, however many are for it."""
    for_loops: dict[asyncio.AbstractEventLoop, list[tuple[Deliver[Any], Any, Any]]] = {}
    for asked, result, error in answers:
        if asked.loop is None:
            asked.deliver(result, error)
        else:
            for_loops.setdefault(asked.loop, []).append((asked.deliver, result, error))
    for loop, deliveries in for_loops.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
            loop.call_soon_threadsafe(_deliver_in_loop, deliveries)


def _deliver_in_loop(deliveries: Sequence[tuple[Deliver[Any], Any, Exception | None]]) -> None:
    for deliver, result, error in deliveries:
        deliver(result, error)


def _set(
    future: asyncio.Future[T] | concurrent.futures.Future[T],
    result: Any,
    error: Exception | None,
) -> None:
    if future.done():
        return  # the waiting task was cancelled
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _text(stored: bytes) -> str:
    return stored.decode("utf-8", "replace")


def _check_access(name: str, path: Path) -> None:
    """Say what is wrong with a path more clearly than SQLite's error would."""
    folder = path.parent
    if not folder.is_dir():
        raise StoreUnavailable(name, f"there is no folder {folder}: create it")
    if path.exists():
        if not os.access(path, os.W_OK):
            raise StoreReadOnly(name, "it may not be written: make the file writable")
        if not os.access(folder, os.W_OK):
            raise StoreReadOnly(
                name, f"SQLite keeps two more files beside it: make the folder {folder} writable"
            )
    elif not os.access(folder, os.W_OK):
        raise StoreReadOnly(name, f"it cannot be created: make the folder {folder} writable")
    _refuse_links(name, path)
    if not path.exists():
        # For this user alone. SQLite gives its two files beside it the same mode.
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            pass  # another process was faster
        except OSError as exc:
            kind = StoreFull if exc.errno in {errno.ENOSPC, errno.EDQUOT} else StoreUnavailable
            raise kind(name, f"it cannot be created: {exc.strerror}") from exc


def _refuse_links(name: str, path: Path) -> None:
    """Refuse links that would make us write to a file that somebody else has chosen."""
    if path.is_symlink() and not _size(path):
        raise StoreUnavailable(
            name, "it is a symbolic link that leads to no store: name the file, or remove the link"
        )
    for suffix in ("-wal", "-shm", "-journal"):
        beside = Path(os.path.realpath(path) + suffix)
        if beside.is_symlink():
            raise StoreUnavailable(
                name, f"{beside} is a symbolic link, where SQLite keeps a file: remove the link"
            )


def read_only_address(path: Path) -> str:
    """The URI to read a database without a change to it, or to the files beside it."""
    # Of a database whose log is gone, SQLite would make a new log.
    immutable = "" if Path(f"{path}-wal").exists() else "&immutable=1"
    return f"{path.absolute().as_uri()}?mode=ro{immutable}"


def _refuse_foreign(name: str, path: Path) -> None:
    # Errors come again, and are translated, when the database is opened to write.
    with contextlib.suppress(sqlite3.Error):
        address = read_only_address(path)
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=0)) as connection:
            _check_tables(name, connection)


def _check_tables(name: str, connection: sqlite3.Connection) -> None:
    """Raise `StoreCorrupt` for a database that has tables, and none of ours among them."""
    rows = connection.execute("SELECT name FROM sqlite_schema")
    names = [found for (found,) in rows if not found.startswith("sqlite_")]
    if names and not any(found.startswith(OWN_TABLES) for found in names):
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise StoreCorrupt(
            name,
            f"it is a database of another program ({shown}), and was not touched: "
            "name another file",
        )


def _free_pages(connection: sqlite3.Connection) -> int:
    """How many pages hold nothing and can be given back."""
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    if mode != INCREMENTAL:
        return 0
    (pages,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(pages)


def _length(connection: sqlite3.Connection) -> int:
    """How many bytes the database has, with what is still in its log."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(size)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _cause(error: UnicodeEncodeError | OverflowError) -> str:
    if isinstance(error, OverflowError):
        return "a number has more than 64 bits"
    return f"a text is no valid Unicode: it holds a lone surrogate at {error.start}"


def _forget_statistics(connection: sqlite3.Connection) -> None:
    """Delete what ANALYZE has noted about our tables; of other tables it stays.

    They grow and shrink within minutes: a table that was analyzed while it was empty would be
    scanned for every row when it is full. Our statements are written for a planner without
    statistics.
    """
    known = "SELECT name FROM sqlite_schema WHERE name IN ('sqlite_stat1', 'sqlite_stat4')"
    deleted = 0
    for (table,) in connection.execute(known).fetchall():
        ours = f"FROM {table} WHERE tbl GLOB 'hasten_*'"
        if connection.execute(f"SELECT 1 {ours} LIMIT 1").fetchone():
            deleted += connection.execute(f"DELETE {ours}").rowcount
    if deleted:
        connection.execute("PRAGMA writable_schema = RESET")  # reads the schema anew


def _store_error(name: str, exc: sqlite3.Error, busy_seconds: float) -> StoreError:
    """Our error for one of SQLite's: about the file, else about the data."""
    code: int | None = getattr(exc, "sqlite_errorcode", None)  # absent: raised by the module
    match code and code & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            return StoreBusy(
                name, f"another process kept it locked for {busy_seconds:g} s; nothing was written"
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StoreReadOnly(
                name, f"it cannot be written ({exc}): make the file and its folder writable"
            )
        case sqlite3.SQLITE_FULL:
            return StoreFull(name, f"there is no space left for it ({exc}): make room on its disk")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreCorrupt(
                name, f"it is damaged or no SQLite database ({exc}): restore it or move it away"
            )
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_NOMEM:
            return StoreUnavailable(name, f"it cannot be opened, read or written ({exc})")
    if re.match("no such (table|column)", str(exc)):
        return StoreCorrupt(name, f"tables of hasten are missing ({exc}): name another file")
    return StoreRejected(name, str(exc))


# Forks ------------------------------------------------------------------------------------------

_databases: Final[weakref.WeakSet[Database]] = weakref.WeakSet()
_registering = threading.Lock()  # held through a fork, too: no database comes up meanwhile


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
