"""While others write, a walk returns each row that stays once and in order.

The others commit on a connection of their own: between two pages, between two statements of one
page, and, in a thread, at any moment. They insert rows, delete some, move some to other keys, and
change what is no key in those that stay. Of a row that moves nothing is promised.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import (
    REAL,
    Connection,
    Engine,
    String,
    create_engine,
    delete,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column, registry

from hasten._sqlalchemy.analysis import analyze_select
from hasten._sqlalchemy.selects import Selection
from hasten.pagination._order import Order, SortKey
from hasten.pagination._sql.query_planner import resolve_sort_columns
from tests.effort import effort
from tests.pagination.databases import url
from tests.pagination.slices import keyset_slice
from tests.pagination.test_walk import expected

# Which index an order has is not what this is about.
pytestmark = pytest.mark.filterwarnings("ignore::hasten.errors.PaginationWarning")

ROWS: Final = 30
INSERTS: Final = 40

mapped: Final = registry()


@mapped.mapped
class Row:
    __tablename__ = "written"
    id: Mapped[int] = mapped_column(primary_key=True)
    grade: Mapped[int | None]
    label: Mapped[str | None] = mapped_column(String(20))
    weight: Mapped[float | None] = mapped_column(REAL)
    state: Mapped[str] = mapped_column(String(10))
    note: Mapped[int] = mapped_column(default=0)
    """No key of any order."""


COLUMNS: Final = {name: getattr(Row, name) for name in ("id", "grade", "label", "weight", "state")}
SELECTS: Final[dict[str, Selection]] = {"entities": select(Row), "columns": select(Row.id)}

orders = st.lists(
    st.builds(
        SortKey,
        st.sampled_from(sorted(COLUMNS)),
        descending=st.booleans(),
        nulls=st.sampled_from(["first", "last"]),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda key: key.name,
).map(tuple)


@functools.cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="hasten-sqlite-")


@functools.cache
def engine(database: str) -> Engine:
    if database == "sqlite":
        made = create_engine(f"sqlite:///{Path(_folder().name) / 'written.db'}")

        @event.listens_for(made, "connect")
        def beside_readers(connection: Any, record: object) -> None:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")
    else:
        made = create_engine(url(database, 0))
    mapped.metadata.create_all(made)
    return made


class Writer:
    """Another user, who changes about half of the rows."""

    def __init__(self, connection: Connection, random: Random, nulls: float) -> None:
        self.connection = connection
        self.random = random
        self.nulls = nulls
        connection.execute(delete(Row))
        connection.execute(insert(Row), [self.row(id) for id in range(1, ROWS + 1)])
        connection.commit()
        self.staying: Final = set(random.sample(range(1, ROWS + 1), ROWS // 2))
        self.others = set(range(1, ROWS + 1)) - self.staying
        self.moved: set[int] = set()
        self.new_ids = count(1000)

    def row(self, id: int) -> dict[str, object]:
        return {"id": id, "note": 0, **self.keys()}

    def keys(self) -> dict[str, object]:
        choose = self.random.choice
        values = {
            "grade": choose(range(4)),
            "label": choose(["", "a", "B", "b", "é", "zz"]),
            "weight": choose([0.1, 0.2, 1 / 3, -5.5]),
        }
        null = {name: None for name in values if self.random.random() < self.nulls}
        return {**values, **null, "state": choose(["new", "old"])}

    def write(self) -> None:
        """Commit one change or a few."""
        for change in self.random.sample(
            [self.insert, self.delete, self.move, self.touch], self.random.randrange(1, 4)
        ):
            change()
        self.connection.commit()

    def insert(self) -> None:
        id = next(self.new_ids)
        if id < 1000 + INSERTS:  # or a walk would never end
            # Below and above all ids that there were.
            self.others.add(id := id if id % 2 else 1000 - id)
            self.connection.execute(insert(Row), [self.row(id)])

    def delete(self) -> None:
        if self.others:
            id = self.random.choice(sorted(self.others))
            self.others.remove(id)
            self.connection.execute(delete(Row).where(Row.id == id))

    def move(self) -> None:
        if self.others:
            id = self.random.choice(sorted(self.others))
            self.moved.add(id)
            self.connection.execute(update(Row).where(Row.id == id).values(self.keys()))

    def touch(self) -> None:
        id = self.random.choice(sorted(self.staying))
        self.connection.execute(update(Row).where(Row.id == id).values(note=Row.note + 1))


def staying(writer: Writer, order: Order) -> list[int]:
    rows = writer.connection.execute(
        select(*COLUMNS.values()).where(Row.id.in_(writer.staying))
    ).all()
    writer.connection.rollback()
    return expected(list(rows), order)


def walk(
    session: Session,
    statement: Selection,
    order: Order,
    *,
    limit: int,
    backwards: bool,
    between: Callable[[], None],
) -> list[int]:
    """Return the ids in the order of the walk."""
    analyzed = analyze_select(statement)
    keys = resolve_sort_columns(analyzed, order, COLUMNS)
    dialect = session.get_bind().dialect.name
    seen: list[int] = []
    position, has_more = None, True
    while has_more:
        page = keyset_slice(
            session, analyzed, keys, position, limit=limit, dialect=dialect, backwards=backwards
        )
        ids = [row if isinstance(row, int) else row.id for row in page.rows]
        session.rollback()  # each page is a request of its own
        seen += reversed(ids) if backwards else ids
        position, has_more = (page.first if backwards else page.last), page.has_more
        between()
    return seen


def check(seen: list[int], wanted: list[int], writer: Writer, *, backwards: bool) -> None:
    assert [id for id in seen if id in writer.staying] == (wanted[::-1] if backwards else wanted)
    unmoved = [id for id in seen if id not in writer.moved]
    assert len(unmoved) == len(set(unmoved))


@contextmanager
def before_statements(database: str, work: Callable[[], None], session: Session) -> Iterator[None]:
    """Do work before each statement of a session, including the first one of a page."""
    is_reading = session.connection().connection.dbapi_connection
    session.rollback()

    def note(connection: Connection, *rest: Any) -> None:
        if connection.connection.dbapi_connection is is_reading:
            work()

    event.listen(engine(database), "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(engine(database), "before_cursor_execute", note)


@pytest.mark.parametrize("kind", SELECTS)
@effort(15)
@given(
    order=orders,
    nulls=st.sampled_from([0.0, 0.3, 0.9]),
    limit=st.integers(1, 12),
    backwards=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_rows_that_stay_are_seen_once_and_in_order(
    database: str, kind: str, order: Order, nulls: float, limit: int, backwards: bool, seed: int
) -> None:
    """The writer commits before each statement, so between the ranges of one page, too."""
    with engine(database).connect() as other:
        writer = Writer(other, Random(seed), nulls)
        wanted = staying(writer, order)
        with (
            other.engine.connect() as reader,
            Session(reader) as session,
            before_statements(database, writer.write, session),
        ):
            seen = walk(
                    session, SELECTS[kind], order,
                    limit=limit, backwards=backwards, between=writer.write,
                )  # fmt: skip
        check(seen, wanted, writer, backwards=backwards)


@pytest.mark.parametrize("kind", SELECTS)
@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize(
    "order",
    [
        (SortKey("state"),),
        (SortKey("grade", nulls="first"), SortKey("label", descending=True)),
        (
            SortKey("weight", descending=True, nulls="first"),
            SortKey("state"),
            SortKey("id", descending=True),
        ),
    ],
)
def test_rows_that_stay_are_seen_once_while_a_thread_writes(
    database: str, order: Order, backwards: bool, kind: str
) -> None:
    with engine(database).connect() as other:
        writer = Writer(other, Random(7), 0.4)
        wanted = staying(writer, order)
        is_over = threading.Event()
        has_written = threading.Semaphore(0)

        def write() -> None:
            while not is_over.is_set():
                writer.write()
                has_written.release()

        def wait() -> None:
            """Let the writer begin before the reader ends."""
            assert has_written.acquire(timeout=30)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            with other.engine.connect() as reader, Session(reader) as session:
                walks = [
                    walk(
                        session, SELECTS[kind], order, limit=3, backwards=backwards,
                        between=wait,
                    )
                    for _ in range(4)
                ]  # fmt: skip
        finally:
            is_over.set()
            thread.join()
        for seen in walks:
            check(seen, wanted, writer, backwards=backwards)
