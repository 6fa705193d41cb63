"""SQLite files of older versions, and files that other programs have damaged."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hasten.errors import StoreCorrupt, StoreTooNew
from hasten.jobs._engine import Engine
from hasten.jobs._engines.sqlite import SqliteEngine
from hasten.jobs._engines.sqlite.job_statements import MIGRATIONS
from hasten.jobs._record import Completed, Failed, Progress, Retry
from hasten.jobs._states import State
from tests.contract.engines import open_for_test
from tests.contract.steps import (
    NOW,
    QUEUE,
    add,
    claim,
    ids_in,
    job,
    settled,
    soon,
    start,
    started,
    take,
    taken,
)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with open_for_test("sqlite-file", tmp_path) as engine:
        yield engine


def change(place: Path, sql: str, *parameters: Any) -> None:
    """Change the file without the engine."""
    with contextlib.closing(sqlite3.connect(place / "jobs.db")) as connection, connection:
        assert connection.execute(sql, parameters).rowcount


class TestOlderFiles:
    async def test_of_the_first_schema_are_opened(self, tmp_path: Path) -> None:
        """Old leases expire as planned, and renewed ones have a length."""
        with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as connection, connection:
            connection.executescript(MIGRATIONS[0])
            connection.execute("INSERT INTO hasten_meta VALUES ('schema', 1)")
            connection.executemany(
                "INSERT INTO hasten_jobs (seq, queue, state, rank, token, lease_ms, name, data, "
                "opts, priority, delay_ms, created_ms) "
                "VALUES (?, ?, 'active', 0, 't1', ?, 'send', '{}', '{}', 0, 0, 0)",
                [(1, QUEUE, NOW + 100), (2, QUEUE, NOW + 100)],
            )
        async with open_for_test("sqlite-file", tmp_path) as engine:
            assert await engine.reclaim(QUEUE, crash_limit=3, now_ms=NOW + 99) == []
            renewed = {"1": "t1"}
            renew = engine.renew
            assert await asyncio.to_thread(renew, QUEUE, renewed, lease_ms=100, now_ms=NOW) == set()
            assert await engine.reclaim(QUEUE, crash_limit=3, now_ms=NOW - 5000) == []
            assert await engine.reclaim(QUEUE, crash_limit=3, now_ms=NOW - 4900) == ["1"]
            assert await engine.reclaim(QUEUE, crash_limit=3, now_ms=NOW + 100) == ["2"]


class TestNewerFiles:
    async def test_are_not_changed_by_a_process_that_has_opened_them_before(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        """It does not know what the newer version has to do when a job ends."""
        await start(engine, "a")
        newer = len(MIGRATIONS) + 1
        change(tmp_path, "UPDATE hasten_meta SET value = ? WHERE name = 'schema'", newer)
        expected = f"jobs.db: written by a newer version of hasten .schema {newer}, "
        with pytest.raises(StoreTooNew, match=expected):
            await settled(engine, Completed("a", "t1", "1"))
        with pytest.raises(StoreTooNew, match=expected):
            await add(engine, "b", queue="unused")
        change(tmp_path, "UPDATE hasten_meta SET value = ? WHERE name = 'schema'", newer - 1)
        assert await ids_in(engine, State.ACTIVE) == ["a"]
        await settled(engine, Completed("a", "t1", "1"))


class TestDamage:
    @pytest.mark.parametrize("stored", ["no json", "{}", "7", "null", "[1]", '[{"a":1}]', ""])
    async def test_of_traces_fails_neither_a_batch_nor_a_listing(
        self, engine: Engine, tmp_path: Path, stored: str
    ) -> None:
        await start(engine, "a", "b", "c")
        change(tmp_path, "UPDATE hasten_jobs SET stacktrace = ? WHERE custom_id = 'b'", stored)
        assert (await job(engine, "b")).tracebacks == []
        assert await ids_in(engine, State.ACTIVE) == ["a", "b", "c"]
        retries = [Retry(id, "t1", "no", "trace 1", 0) for id in "abc"]
        await settled(engine, *retries)
        await take(engine, 3, "t2")
        await settled(engine, *(Failed(id, "t2", "no", "trace 2") for id in "abc"))
        traces = [(await job(engine, id)).tracebacks for id in "abc"]
        assert traces == [["trace 1", "trace 2"]] * 3

    async def test_of_a_state_is_logged_and_skipped(
        self, engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING, "hasten")
        await add(engine, "a", "b", "c")
        change(tmp_path, "UPDATE hasten_jobs SET state = 'lost' WHERE custom_id = 'b'")
        found = await engine.get(QUEUE, ["a", "b", "c"])
        assert [record and record.id for record in found] == ["a", None, "c"]
        assert f"queue {QUEUE}: job b skipped, cannot decode it: " in caplog.text

    async def test_of_a_text_fails_no_batch(self, engine: Engine, tmp_path: Path) -> None:
        """Invalid UTF-8 is read with replacement characters."""
        await add(engine, "a", "b", "c")
        no_text = "CAST(x'22ff22' AS TEXT)"
        change(tmp_path, f"UPDATE hasten_jobs SET data = {no_text} WHERE custom_id = 'b'")
        assert await ids_in(engine, State.WAITING) == ["a", "b", "c"]
        batch = await engine.claim(QUEUE, claim(3), now_ms=NOW)
        assert taken(batch.leases) == ["a", "b", "c"]
        assert batch.leases[1].job.data == '"\ufffd"'

    async def test_of_options_fails_no_batch(self, engine: Engine, tmp_path: Path) -> None:
        await start(engine, "a", "b", "c")
        change(tmp_path, "UPDATE hasten_jobs SET opts = 'no json' WHERE custom_id = 'b'")
        await settled(engine, *(Retry(id, "t1", "no", "trace", 0) for id in "abc"))
        assert await take(engine, 3, "t2") == ["a", "b", "c"]

    async def test_of_a_priority_fails_no_batch(self, engine: Engine, tmp_path: Path) -> None:
        await add(engine, "a", "b", delay_ms=5, priority=1)
        change(tmp_path, "UPDATE hasten_jobs SET priority = 1 << 62 WHERE custom_id = 'a'")
        assert await take(engine, 2, now_ms=NOW + 5) == ["b", "a"]

    @pytest.mark.parametrize("body", ["no json", "{}", '[{"k":1}]', '["x"]', "[" * 3000])
    async def test_of_an_event_skips_it(self, engine: Engine, tmp_path: Path, body: str) -> None:
        now = await started(engine, "a")
        for progress in ("1", "2", "3"):
            await engine.update(QUEUE, [Progress("a", progress)], now_ms=NOW)
        newest = "SELECT max(seq) FROM hasten_events"
        change(tmp_path, f"UPDATE hasten_events SET body = ? WHERE seq = ({newest}) - 1", body)
        page = await soon(engine.events(QUEUE, after=now))
        assert [event.value for event in page.events] == ["1", "3"]

    async def test_of_many_events_ends(self, engine: Engine, tmp_path: Path) -> None:
        """There are more than one read returns."""
        now = await started(engine, "a")
        for progress in range(101):
            await engine.update(QUEUE, [Progress("a", str(progress))], now_ms=NOW)
        change(tmp_path, "UPDATE hasten_events SET body = 'no json'")
        await settled(engine, Completed("a", "t1", "1"))
        found: list[str] = []
        while not found:
            page = await soon(engine.events(QUEUE, after=now))
            now = page.cursor
            found += [event.kind for event in page.events]
        assert found == ["completed", "drained"]

    async def test_of_the_tables_is_named(self, engine: Engine, tmp_path: Path) -> None:
        """The error does not blame the values of the call."""
        await start(engine, "a")
        with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as connection:
            connection.execute("DROP TABLE hasten_logs")
            connection.execute("DROP TABLE hasten_jobs")
        with pytest.raises(StoreCorrupt, match="tables of hasten are missing"):
            await engine.settle(QUEUE, [Completed("a", "t1", "1")], None, now_ms=NOW)


class TestLargeTexts:
    """SQLite allows 1,000,000,000 bytes for each text. The limit is lower here."""

    @pytest.fixture
    async def engine(self, engine: Engine) -> Engine:
        assert isinstance(engine, SqliteEngine)

        def work(connection: sqlite3.Connection) -> None:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)

        await engine._database.run(work, write=False)
        return engine

    DATA = '"' + "x" * 30_000 + '"'

    async def test_are_claimed_a_few_at_a_time(self, engine: Engine) -> None:
        """A claim that exceeded the limit would fail again and again."""
        ids = [f"j{n}" for n in range(8)]
        await add(engine, *ids, data=self.DATA)
        found: list[str] = []
        while len(found) < 8:
            batch = await engine.claim(QUEUE, claim(8, f"t{len(found)}"), now_ms=NOW)
            assert batch.leases
            found += taken(batch.leases)
        assert found == ids

    async def test_are_listed_together(self, engine: Engine) -> None:
        ids = [f"j{n}" for n in range(8)]
        await add(engine, *ids, data=self.DATA)
        assert await ids_in(engine, State.WAITING) == ids
        assert all(await engine.get(QUEUE, ids))

    async def test_are_returned_one_after_the_other(self, engine: Engine) -> None:
        ids = [f"j{n}" for n in range(8)]
        now = await started(engine, *ids)
        for id in ids:
            await settled(engine, Completed(id, "t1", self.DATA))
        found: list[str] = []
        while "drained" not in found:
            page = await soon(engine.events(QUEUE, after=now))
            now = page.cursor
            found += [event.job_id or event.kind for event in page.events]
        assert found == [*ids, "drained"]
