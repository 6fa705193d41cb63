"""A client walks by cursor while others write and commit: what stays is seen once, in order.

Half of the rows stay, with the values that they are sorted by. All others are deleted, inserted,
and moved by updates of their sort keys, forwards and back: those may be seen any number of times.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from random import Random
from threading import Event
from typing import Any, Final, TypeAlias

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from hasten.pagination import CursorPage, PageParams, Paginate
from hasten.pagination.order import Order
from tests.pagination.moving import (
    ASYNCHRONOUS,
    DRIVERS,
    Moving,
    MovingOut,
    async_engine,
    engine,
    new_row,
    refill,
    rows_of,
)
from tests.pagination.test_walk import QUICK, datasets, expected, orders

# Which index an order has is not what this is about.
pytestmark = pytest.mark.filterwarnings("ignore::hasten.errors.PaginationWarning")

SECRET: Final = "a secret of more than 16 bytes"
ROWS: Final = 40
SECONDS: Final = 20.0
"""After so many something is wrong that was waited for."""

EVERY: Final = select(Moving)

Read: TypeAlias = Callable[[PageParams], CursorPage[Any]]
AfterPage: TypeAlias = Callable[[], None]

# An example takes long, and is not the same twice where threads race: not to be made smaller.
FEW: Final = settings(QUICK, max_examples=10, phases=[Phase.generate])

limits: Final = st.integers(4, 17)
seeds: Final = st.integers(0, 2**32)


@pytest.mark.parametrize("driver", DRIVERS)
@FEW
@given(order=orders, dataset=datasets, limit=limits, seed=seeds)
def test_19_39_40_41_others_commit_between_pages(
    driver: str, order: Order, dataset: int, limit: int, seed: int
) -> None:
    database = DRIVERS[driver]
    others = Others(Random(seed), dataset, [key.name for key in order])
    others.begin(database)
    items = paginate(order)

    def write() -> None:
        with engine(database).begin() as connection:
            others.write(connection)

    forwards, backwards = there_and_back(items, order, limit, reader(items, driver), write)
    wanted = others.staying(database, order)
    assert [id for id in forwards if id in others.stay] == wanted
    assert [id for id in backwards if id in others.stay] == wanted


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg", "psycopg_async"])
@FEW
@given(order=orders, dataset=datasets, limit=limits, seed=seeds)
def test_19_39_40_41_others_commit_at_any_time(
    driver: str, order: Order, dataset: int, limit: int, seed: int
) -> None:
    """Also while a page is read: a writer on a thread of its own never stops for long."""
    others = Others(Random(seed), dataset, [key.name for key in order])
    others.begin("postgresql")
    items = paginate(order)
    with writing_all_the_time(others):
        forwards, backwards = there_and_back(items, order, limit, reader(items, driver))
    wanted = others.staying("postgresql", order)
    assert [id for id in forwards if id in others.stay] == wanted
    assert [id for id in backwards if id in others.stay] == wanted


LOCK: Final = 4711

LATCHED: Final = EVERY.where(func.pg_advisory_xact_lock_shared(LOCK).is_not(None))
"""The same rows, of which none can be read while somebody holds the lock."""


@FEW
@given(order=orders, dataset=datasets, limit=limits, seed=seeds)
def test_19_39_40_41_others_commit_in_the_middle_of_each_read(
    order: Order, dataset: int, limit: int, seed: int
) -> None:
    """A statement stands at its first row, somebody writes and commits, and it goes on."""
    others = Others(Random(seed), dataset, [key.name for key in order])
    others.begin("postgresql")
    items = paginate(order)
    plain = reader(items, "psycopg", LATCHED)
    were_met: list[bool] = []

    def read(q: PageParams) -> CursorPage[Any]:
        with engine("postgresql").connect() as writer:
            writer.execute(select(func.pg_advisory_lock(LOCK)))
            writer.commit()
            with ThreadPoolExecutor(1) as threads:
                reading = threads.submit(plain, q)
                # A page without rows meets no lock.
                until(lambda: is_waiting(writer) or reading.done())
                were_met.append(not reading.done())
                others.write(writer)
                writer.commit()
                writer.execute(select(func.pg_advisory_unlock(LOCK)))
                writer.commit()
                return reading.result(SECONDS)

    forwards, backwards = there_and_back(items, order, limit, read)
    assert were_met[0]
    wanted = others.staying("postgresql", order)
    assert [id for id in forwards if id in others.stay] == wanted
    assert [id for id in backwards if id in others.stay] == wanted


# The client -------------------------------------------------------------------------------------


def paginate(order: Order) -> Paginate[Any]:
    return Paginate(MovingOut, model=Moving, sort=order, mode="cursor", secret=SECRET)


def reader(items: Paginate[Any], driver: str, statement: Any = EVERY) -> Read:
    """Reads each page in a transaction of its own."""

    def read(q: PageParams) -> CursorPage[Any]:
        with Session(engine(DRIVERS[driver])) as session:
            found: CursorPage[Any] = items.page_sync(session, statement, q)
            return found

    async def read_async(q: PageParams) -> CursorPage[Any]:
        async with AsyncSession(async_engine(driver)) as session:
            found: CursorPage[Any] = await items.page(session, statement, q)
            return found

    return (lambda q: asyncio.run(read_async(q))) if driver in ASYNCHRONOUS else read


def there_and_back(
    items: Paginate[Any], order: Order, limit: int, read: Read, then: AfterPage = lambda: None
) -> tuple[list[int], list[int]]:
    """The ids of a walk to the last page, and those of the walk back from there, both in order."""
    sort = ",".join("-" * key.descending + key.name for key in order)

    def page(token: str) -> CursorPage[Any]:
        found = read(items.parse(f"sort={sort}&limit={limit}&cursor={token}"))
        then()
        return found

    forwards = [page("")]
    while (token := forwards[-1].next_cursor) is not None:
        forwards.append(page(token))
        assert len(forwards) < 200
    backwards = forwards[-1:]
    while (token := backwards[0].prev_cursor) is not None:
        backwards.insert(0, page(token))
        assert len(backwards) < 200
    return _ids(forwards), _ids(backwards)


def _ids(pages: list[CursorPage[Any]]) -> list[Any]:
    return [row["id"] for page in pages for row in page.data]


# The others -------------------------------------------------------------------------------------


class Others:
    """Clients that write, but leave half of the rows where they stand."""

    def __init__(self, random: Random, dataset: int, keys: list[str]) -> None:
        """keys are the columns that rows are sorted by."""
        self._random = random
        self._dataset = dataset
        self._keys = keys
        self._rows = rows_of(ROWS, seed=random.randrange(2**32), dataset=dataset)
        ids = [row["id"] for row in self._rows]
        self.stay: frozenset[int] = frozenset(random.sample(ids, ROWS // 2))
        self._moving = [id for id in ids if id not in self.stay]
        # Between, before and behind those that are there, and never one that was given before.
        self._new_ids = (id for id in count(-20, 3) if id % 10)
        self._inserts_left = ROWS

    def begin(self, database: str) -> None:
        refill(database, self._rows)

    def write(self, connection: Connection) -> None:
        """One of each: a delete, an insert, a move, and an update that moves nothing."""
        random = self._random
        if self._moving and random.random() < 0.7:
            gone = self._moving.pop(random.randrange(len(self._moving)))
            connection.execute(delete(Moving).where(Moving.id == gone))
        if self._inserts_left:
            self._inserts_left -= 1
            row = new_row(random, self._dataset, next(self._new_ids))
            connection.execute(insert(Moving), [row])
            self._moving.append(row["id"])
        if self._moving:
            values = new_row(random, self._dataset, 0)
            del values["id"]
            moved = update(Moving).where(Moving.id == random.choice(self._moving)).values(values)
            connection.execute(moved)
        stays = random.choice(sorted(self.stay))
        elsewhere = {
            name: value
            for name, value in new_row(random, self._dataset, 0).items()
            if name not in ("id", "dataset", *self._keys)
        }
        if elsewhere:
            connection.execute(update(Moving).where(Moving.id == stays).values(elsewhere))

    def staying(self, database: str, order: Order) -> list[int]:
        """The ids of the rows that stay, in the order that Python puts them in."""
        with engine(database).connect() as connection:
            stayed = connection.execute(
                select(Moving.__table__).where(Moving.id.in_(self.stay))
            ).all()
        assert len(stayed) == len(self.stay)
        return expected(list(stayed), order)


@contextmanager
def writing_all_the_time(others: Others) -> Iterator[None]:
    """On a thread, one commit after the other; the first one is there when this begins."""
    done, begun = Event(), Event()

    def work() -> None:
        with engine("postgresql").connect() as connection:
            while not done.is_set():
                others.write(connection)
                connection.commit()
                begun.set()

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(work)
        try:
            until(lambda: begun.is_set() or writing.done())
            yield
        finally:
            done.set()
        writing.result(SECONDS)


def is_waiting(connection: Connection) -> bool:
    """Whether a reader stands before the lock."""
    waiting = text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = :lock"
        " AND NOT granted"
    )
    found = connection.scalar(waiting, {"lock": LOCK})
    connection.commit()
    return bool(found)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not happen"
