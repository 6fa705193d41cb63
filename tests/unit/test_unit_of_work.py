"""A unit of work of the SQLite engine: changes to several queues in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from hasten.jobs._engines.sqlite.event_rows import EventGroup, newest_cursor, read_events_after
from hasten.jobs._engines.sqlite.jobs_schema import migrate
from hasten.jobs._engines.sqlite.queue_ledger import UnitOfWork
from hasten.jobs._states import State


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate("memory://", connection)
        yield connection


def test_writes_the_ledger_of_each_queue_once(connection: sqlite3.Connection) -> None:
    with UnitOfWork(connection) as unit:
        unit.get_ledger("child").adjust_count(State.COMPLETED, 1)
        unit.get_ledger("parent").emit(EventGroup("waiting", ["p"]))
        unit.get_ledger("child").emit(EventGroup("completed", ["a"]))
        unit.get_ledger("child").adjust_count(State.COMPLETED, 1)
        assert newest_cursor(connection, "child") == "0-0"
    with UnitOfWork(connection) as unit:
        assert unit.get_ledger("child").finished[State.COMPLETED] == 2
        assert unit.get_ledger("parent").finished[State.COMPLETED] == 0
    for queue, kind in {"child": "completed", "parent": "waiting"}.items():
        page = read_events_after(connection, queue, "0-0")
        assert page is not None
        assert [event.kind for event in page.events] == [kind]


def test_writes_nothing_after_an_error(connection: sqlite3.Connection) -> None:
    def work() -> None:
        with UnitOfWork(connection) as unit:
            unit.get_ledger("child").paused = True
            unit.get_ledger("parent").emit(EventGroup("waiting", ["p"]))
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        work()
    with UnitOfWork(connection) as unit:
        assert not unit.get_ledger("child").paused
    assert newest_cursor(connection, "parent") == "0-0"


def test_gives_each_queue_its_own_sequence(connection: sqlite3.Connection) -> None:
    with UnitOfWork(connection) as unit:
        assert list(unit.get_ledger("child").next_sequences(3)) == [1, 2, 3]
        assert unit.get_ledger("parent").next_sequence() == 1
        assert unit.get_ledger("child").next_sequence() == 4
