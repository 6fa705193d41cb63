"""After a commit, only the callers that wait for a changed topic check again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from hasten._inbox import FileWatch
from hasten._sqlite import Database, watches
from tests.patience import DEADLINE_SECONDS

TOPICS = [f"topic {number}" for number in range(50)]


def prepare(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS hasten_marks (topic TEXT PRIMARY KEY, mark INTEGER)"
    )


def write(topic: str) -> Callable[[sqlite3.Connection], None]:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO hasten_marks VALUES (?, 1) ON CONFLICT DO UPDATE SET mark = mark + 1",
            (topic,),
        )

    return work


def mark_of(connection: sqlite3.Connection, topic: str) -> int:
    row = connection.execute("SELECT mark FROM hasten_marks WHERE topic = ?", (topic,)).fetchone()
    return 0 if row is None else int(row[0])


class Waiting:
    """Waits for each topic until two writes, and counts the checks."""

    def __init__(self, path: Path) -> None:
        self.asked: Counter[str] = Counter()
        self.mark_reads = 0
        self.database = Database(path, name="topics", prepare=prepare, read_marks=self._read_marks)
        self.tasks: dict[str, asyncio.Task[int]] = {}

    def _read_marks(self, connection: sqlite3.Connection, topics: list[str]) -> dict[str, int]:
        self.mark_reads += 1
        return {topic: mark_of(connection, topic) for topic in topics}

    def wait(self, topic: str) -> asyncio.Task[int]:
        def probe(connection: sqlite3.Connection) -> int | None:
            self.asked[topic] += 1
            mark = mark_of(connection, topic)
            return mark if mark >= 2 else None

        return asyncio.ensure_future(self.database.wait_until(topic, probe))

    async def begin(self) -> None:
        self.tasks = {topic: self.wait(topic) for topic in TOPICS}
        await asyncio.sleep(0)
        await self.database.run(lambda connection: None, write=False)
        self.asked.clear()


@pytest.fixture
async def waiting(tmp_path: Path) -> AsyncIterator[Waiting]:
    waiting = Waiting(tmp_path / "topics.db")
    await waiting.begin()
    yield waiting
    for task in waiting.tasks.values():
        task.cancel()
    await asyncio.to_thread(waiting.database.close)


async def test_an_own_commit_probes_the_watches_of_its_topic(waiting: Waiting) -> None:
    await waiting.database.run(write(TOPICS[7]), topic=TOPICS[7])
    await waiting.database.run(write(TOPICS[7]), topic=TOPICS[7])
    assert await waiting.tasks[TOPICS[7]] == 2
    assert waiting.asked == {TOPICS[7]: 2}


async def test_a_commit_without_a_topic_probes_all_watches(waiting: Waiting) -> None:
    await waiting.database.run(write(TOPICS[7]))
    await waiting.database.run(lambda connection: None, write=False)  # no caller checks any more
    assert waiting.asked == dict.fromkeys(TOPICS, 1)


async def test_a_foreign_commit_probes_changed_topics(tmp_path: Path, waiting: Waiting) -> None:
    """All versions are read at once. They are unknown before the first read."""
    with contextlib.closing(sqlite3.connect(tmp_path / "topics.db", isolation_level=None)) as other:
        write(TOPICS[1])(other)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while waiting.asked[TOPICS[1]] < 1:
                await asyncio.sleep(0)
        await waiting.database.run(lambda connection: None, write=False)  # the check has ended
        waiting.asked.clear()
        write(TOPICS[7])(other)
        write(TOPICS[7])(other)
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await waiting.tasks[TOPICS[7]] == 2
    assert set(waiting.asked) == {TOPICS[7]}
    assert waiting.mark_reads <= 3


async def test_a_constant_writer_notices_others(tmp_path: Path, waiting: Waiting) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "topics.db", isolation_level=None)) as other:
        write(TOPICS[7])(other)
        write(TOPICS[7])(other)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not waiting.tasks[TOPICS[7]].done():
                await waiting.database.run(write(TOPICS[1]), topic=TOPICS[1])


async def test_cancelled_watches_are_dropped(waiting: Waiting) -> None:
    """An idle worker watches again every few seconds, even if nobody writes."""
    topic = TOPICS[7]
    for _ in range(10):
        waiting.tasks[topic].cancel()
        await asyncio.wait([waiting.tasks[topic]])
        waiting.tasks[topic] = waiting.wait(topic)
        await asyncio.sleep(0)
        await waiting.database.run(lambda connection: None, write=False)
    waiting.asked.clear()
    await waiting.database.run(write(topic), topic=topic)
    await waiting.database.run(lambda connection: None, write=False)
    assert waiting.asked == {topic: 1}
    assert len(waiting.database._watches._by_topic[topic]) == 1


def write_twice(path: Path, topic: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        write(topic)(other)
        write(topic)(other)
        other.execute("COMMIT")


class TestWithoutPolling:
    """Linux reports writes to a watched file."""

    @pytest.fixture(autouse=True)
    def no_looks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watches, "POLL_SECONDS", 3600.0)
        monkeypatch.setattr(watches, "LONGEST_PAUSE_SECONDS", 3600.0)

    async def test_a_foreign_commit_is_noticed(self, tmp_path: Path, waiting: Waiting) -> None:
        await until_armed(waiting.database)
        write_twice(tmp_path / "topics.db", TOPICS[7])
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await waiting.tasks[TOPICS[7]] == 2

    async def test_a_late_commit_is_noticed(self, tmp_path: Path, waiting: Waiting) -> None:
        """A large transaction is written in parts, and the last one makes it visible."""
        await until_armed(waiting.database)
        path = tmp_path / "topics.db"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("PRAGMA cache_size = 1")
            other.execute("BEGIN IMMEDIATE")
            for number in range(1000):
                write(f"other topic {number}")(other)
            await until_armed(waiting.database)
            write(TOPICS[7])(other)
            write(TOPICS[7])(other)
            other.execute("COMMIT")
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await waiting.tasks[TOPICS[7]] == 2

    async def test_a_fork_uses_files_of_its_own(self, tmp_path: Path, waiting: Waiting) -> None:
        await until_armed(waiting.database)
        child = os.fork()
        if not child:
            os._exit(waiting.database._watches._file_watch is not None)
        assert os.waitpid(child, 0)[1] == 0
        write_twice(tmp_path / "topics.db", TOPICS[7])
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await waiting.tasks[TOPICS[7]] == 2

    async def test_work_wakes_a_thread_that_watches_a_file(self, waiting: Waiting) -> None:
        await until_armed(waiting.database)
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await waiting.database.run(lambda connection: 7, write=False) == 7


async def until_armed(database: Database) -> None:
    """Wait until the thread of a database waits for a change of its file."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not database._watches._is_armed or database._inbox._waker is None:
            database._watches._check_at = 0.0  # check now and later
            await database.run(lambda connection: None, write=False)
            await asyncio.sleep(0.001)


async def test_commits_are_noticed_without_file_notifications(
    tmp_path: Path, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileWatch, "check_and_reset_written", lambda watch: False)
    path = tmp_path / "topics.db"
    for topic in TOPICS[: watches.UNNOTICED_COMMITS + 2]:
        write_twice(path, topic)
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await waiting.tasks[topic] == 2


async def test_works_without_watched_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(watch: FileWatch) -> None:
        raise OSError("too many")

    monkeypatch.setattr(FileWatch, "__init__", fail)
    waiting = Waiting(tmp_path / "topics.db")
    await waiting.begin()
    write_twice(tmp_path / "topics.db", TOPICS[7])
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await waiting.tasks.pop(TOPICS[7]) == 2
    for task in waiting.tasks.values():
        task.cancel()
    await asyncio.to_thread(waiting.database.close)
