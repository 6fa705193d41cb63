"""How SQLite finds the rows of our statements: the same in every version, whatever it counted.

A planner that believes a queue or a table to be short walks all of it. So each statement says in
its text by what its rows are found, and nothing of the file may change that.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from hasten._sqlite import Database
from hasten.jobs._engines.sqlite.job_statements import MIGRATIONS, SQL, sql_for_rows
from hasten.ratelimit._stores.sqlite import store as limits

WHOLE_QUEUE: Final = {"count_jobs", "queues"}
"""They are about all jobs of a queue."""

FILL: Final = """
WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 20000)
INSERT INTO hasten_jobs
    (seq, queue, state, rank, token, custom_id, name, data, opts, priority, delay_ms, created_ms)
SELECT n, 'q', CASE n % 1000 WHEN 0 THEN 'active' WHEN 1 THEN 'waiting' ELSE 'completed' END, n,
       't', CASE WHEN n % 500 = 0 THEN 'c' || n END, 'a', '{}', '{}', 0, 0, 0 FROM s
"""


@pytest.fixture(scope="module", params=["as it is", "analyzed"])
def connection(request: pytest.FixtureRequest) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for migration in MIGRATIONS:
            connection.executescript(migration)
        for migration in limits.MIGRATIONS:
            connection.executescript(migration)
        if request.param == "analyzed":
            connection.execute(FILL)
            connection.execute("ANALYZE")
        yield connection


def test_jobs_are_found_by_number_or_by_their_place(connection: sqlite3.Connection) -> None:
    """Operations on job numbers read only those rows of the queue."""
    assert wrong_steps(connection) == {}


def test_children_are_found_by_number_or_by_their_parent(connection: sqlite3.Connection) -> None:
    for name, text in SQL.items():
        for line in plan(connection, sql_for_rows(name, 50) if "{" in text else text):
            if re.match(r"(SCAN|SEARCH) hasten_children\b", line):
                assert re.search(r"\((rowid|parent)=\?\)", line), (name, line)


def test_deduplication_keys_are_found_by_queue_and_key(connection: sqlite3.Connection) -> None:
    """Or by their end, which has an index, to delete those that have expired."""
    wrong = {
        name: line
        for name, text in SQL.items()
        for line in plan(connection, sql_for_rows(name, 2) if "{" in text else text)
        if re.match(r"(SCAN|SEARCH) (hasten_deduplication|taken)\b", line)
        and not re.search(
            r"\((queue=\? AND (key=\?|expires_ms>\? AND expires_ms<\?)|rowid=\?)\)$", line
        )
    }
    assert wrong.keys() == {"obliterate_keys"}  # which deletes all of a queue


def test_limits_are_found_by_name(connection: sqlite3.Connection) -> None:
    for sql in (limits.SQL[name] for name in ("read", "write", "delete", "sweep")):
        assert not any(line.startswith("SCAN hasten") for line in plan(connection, sql))


async def test_statistics_of_our_tables_are_dropped_when_a_file_is_opened(tmp_path: Path) -> None:
    """Another program has analyzed the file while the tables were small.

    Its own tables keep theirs.
    """
    path = tmp_path / "jobs.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for migration in MIGRATIONS:
            connection.executescript(migration)
        connection.execute(FILL.replace("20000", "2"))
        connection.execute("CREATE TABLE theirs (id INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO theirs VALUES (1)")
        connection.execute("ANALYZE")
        connection.commit()
        assert analyzed(connection) > {"hasten_jobs", "theirs"}
    database = Database(path, name="jobs", prepare=lambda _: None, synchronous="NORMAL")
    try:
        assert await database.run(analyzed, durable=False) == {"theirs"}
        assert await database.run(wrong_steps, durable=False) == {}
    finally:
        await asyncio.to_thread(database.close)


def wrong_steps(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """Return the plan steps that read more jobs than needed, by statement."""
    found = {}
    for name, text in SQL.items():
        for sql in (sql_for_rows(name, 1), sql_for_rows(name, 50)) if "{" in text else (text,):
            lines = [line for line in plan(connection, sql) if _JOBS.match(line)]
            if ":seqs" in sql or "VALUES" in sql or "seq = :seq" in sql:
                wrong = [line for line in lines if "USING INTEGER PRIMARY KEY" not in line]
            else:
                limited = "SEARCH" if name in WHOLE_QUEUE else "SEARCH .*(rowid=|queue=. AND)"
                wrong = [line for line in lines if not re.match(limited, line)]
            if wrong:
                found[name] = wrong
    return found


_JOBS: Final = re.compile(r"(SCAN|SEARCH) (hasten_jobs|job)\b")


def plan(connection: sqlite3.Connection, sql: str) -> list[str]:
    named = set(re.findall(r"(?<!\w):([a-z_]+)", sql))
    values: Any = {name: "[]" if name in ("seqs", "ids", "keys", "owners") else 1 for name in named}
    if not named:
        values = [1] * re.sub("--.*", "", sql).count("?")
    return [line for *_, line in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]


def analyzed(connection: sqlite3.Connection) -> set[str]:
    return {table for (table,) in connection.execute("SELECT tbl FROM sqlite_stat1")}
