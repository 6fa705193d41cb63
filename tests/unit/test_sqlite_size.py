"""The size of a database file and of its log, and the cost of keeping them small."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hasten._sqlite import Database, connection, maintenance
from tests.patience import DEADLINE_SECONDS

KIB = 1024
LOG_BYTES = 256 * KIB
FREE_PAGES = 16


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LOG_BYTES", LOG_BYTES)
    monkeypatch.setattr(maintenance, "LOG_BYTES", LOG_BYTES)
    monkeypatch.setattr(maintenance, "FREE_PAGES", FREE_PAGES)
    monkeypatch.setattr(maintenance, "PAGES_AT_ONCE", 64)
    monkeypatch.setattr(maintenance, "QUIET_SECONDS", 0.02)
    monkeypatch.setattr(maintenance, "RETRY_SECONDS", 0.02)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sizes.db"


def prepare(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS hasten_things (id INTEGER PRIMARY KEY, value BLOB)"
    )


@contextlib.contextmanager
def opened(path: Path, busy_seconds: float = 10.0) -> Iterator[Database]:
    database = Database(path, name=str(path), prepare=prepare, busy_seconds=busy_seconds)
    try:
        yield database
    finally:
        database.close()


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with opened(path) as database:
        yield database


@contextlib.contextmanager
def other_program(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def store(connection: sqlite3.Connection, *, kib: int = 2000) -> None:
    connection.executemany("INSERT INTO hasten_things (value) VALUES (zeroblob(1024))", [()] * kib)


def delete(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM hasten_things")


def count(connection: sqlite3.Connection) -> int:
    (number,) = connection.execute("SELECT count(*) FROM hasten_things").fetchone()
    return int(number)


def is_sound(connection: sqlite3.Connection) -> bool:
    return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def log_of(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.002)


async def test_deleted_data_is_not_overwritten(database: Database) -> None:
    """Some builds of SQLite overwrite it by default."""
    setting = database.run_blocking(lambda connection: connection.execute("PRAGMA secure_delete"))
    assert setting.fetchone() == (0,)


class TestLog:
    async def test_the_log_is_truncated_when_idle(self, database: Database, path: Path) -> None:
        await database.run(store)
        await until(lambda: log_of(path) <= LOG_BYTES)
        assert await database.run(count) == 2000

    async def test_is_truncated_while_a_caller_waits(self, database: Database, path: Path) -> None:
        """An idle worker waits like this."""
        waiting = asyncio.ensure_future(
            database.wait_until("t", lambda connection: count(connection) > 2000 or None)
        )
        await database.run(store)
        await until(lambda: log_of(path) <= LOG_BYTES)
        await database.run(store)
        assert await waiting

    async def test_a_busy_log_is_truncated_by_the_next_commit(
        self, database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(maintenance, "QUIET_SECONDS", 3600)
        await database.run(store)
        await database.run(store)  # the log is written to the file and starts again
        await database.run(lambda connection: store(connection, kib=1))
        await database.run(lambda connection: store(connection, kib=1))
        assert log_of(path) <= LOG_BYTES

    async def test_a_log_being_read_is_truncated_later_and_blocks_nobody(self, path: Path) -> None:
        with opened(path, busy_seconds=0) as database, other_program(path) as reader:
            await database.run(count)
            reader.execute("BEGIN")
            assert count(reader) == 0
            await database.run(store)
            for _ in range(50):
                await database.run(lambda connection: store(connection, kib=1))
                await asyncio.sleep(0.001)  # so that some commits come while it is truncated
            assert log_of(path) > LOG_BYTES
            assert count(reader) == 0
            reader.execute("COMMIT")
            await until(lambda: log_of(path) <= LOG_BYTES)


class TestFreePages:
    async def test_free_pages_are_returned_when_idle(self, database: Database, path: Path) -> None:
        """Some pages are kept for the next jobs."""
        await database.run(store)
        await until(lambda: path.stat().st_size > 2000 * KIB)
        await database.run(delete)
        await until(lambda: path.stat().st_size < 200 * KIB)
        with other_program(path) as other:
            assert is_sound(other)
            (free,) = other.execute("PRAGMA freelist_count").fetchone()
            assert 0 < free <= FREE_PAGES

    async def test_free_pages_are_returned_in_small_steps(
        self, database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A caller that waits for the lock waits for one step."""
        steps: list[int] = []
        free_pages = maintenance.count_free_pages

        def noted(connection: sqlite3.Connection) -> int:
            steps.append(free_pages(connection))
            return steps[-1]

        monkeypatch.setattr(maintenance, "count_free_pages", noted)
        await database.run(store)
        await database.run(delete)
        await until(lambda: steps and steps[-1] <= FREE_PAGES)
        left = steps[steps.index(max(steps)) :]
        taken = [before - after for before, after in itertools.pairwise(left)]
        assert len(taken) > 5
        assert all(pages == 64 for pages in taken[:-1])

    async def test_free_pages_of_an_older_file_are_kept(self, path: Path) -> None:
        """Such a file cannot return pages without a vacuum. It works as before."""
        with other_program(path) as other:
            other.execute("PRAGMA journal_mode = WAL")
            prepare(other)
        with opened(path) as database:
            await database.run(store)
            await database.run(delete)
            await until(lambda: log_of(path) <= LOG_BYTES)
            assert path.stat().st_size > 2000 * KIB
            await database.run(store)
            assert await database.run(count) == 2000
        with other_program(path) as other:
            assert is_sound(other)

    async def test_free_pages_of_an_old_file_are_returned_after_a_vacuum(self, path: Path) -> None:
        """As the documentation says."""
        with other_program(path) as other:
            other.execute("PRAGMA journal_mode = WAL")
            prepare(other)
            store(other)
            other.execute("PRAGMA auto_vacuum = INCREMENTAL")
            other.execute("VACUUM")
        with opened(path) as database:
            await database.run(delete)
            await until(lambda: path.stat().st_size < 200 * KIB)

    async def test_free_pages_are_returned_beside_other_writers(self, path: Path) -> None:
        """No writer waits for long or loses data."""
        with (
            opened(path, busy_seconds=5) as first,
            opened(path, busy_seconds=5) as second,
            other_program(path) as reader,
        ):
            await first.run(store)
            await first.run(delete)
            for number in range(100):
                await second.run(lambda connection: store(connection, kib=1))
                assert count(reader) == number + 1
                await asyncio.sleep(0.001)
            await until(lambda: path.stat().st_size < 500 * KIB)
            assert await first.run(count) == 100
            assert is_sound(reader)


async def test_an_existing_file_is_opened_without_writing(path: Path) -> None:
    """Another process may have locked the store."""
    with opened(path) as database:
        await database.run(store)
    with other_program(path) as other:
        other.execute("BEGIN IMMEDIATE")
        with opened(path, busy_seconds=0) as database:
            assert await database.run(count, write=False) == 2000
        other.execute("ROLLBACK")


async def test_maintenance_does_not_create_a_deleted_file(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, tidied = threading.Event(), threading.Event()
    tidy_up = database._maintenance.run

    def once_gone() -> None:
        gone.wait()
        tidy_up()
        tidied.set()

    monkeypatch.setattr(database._maintenance, "run", once_gone)
    await database.run(store)
    for file in path.parent.iterdir():
        file.unlink()
    gone.set()
    await until(tidied.is_set)
    assert list(path.parent.iterdir()) == []
