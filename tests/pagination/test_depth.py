"""The cost of a page does not depend on its depth, nor that of a capped total on the table's size.

All statements of a request are measured: PostgreSQL says how many buffers it touched, for SQLite
see `costs`. `test_plans` looks at single statements.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import BaseModel
from sqlalchemy import Connection, DateTime, Index, String, Text, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from hasten.pagination import Capped, CursorPage, Page, Paginator
from hasten.pagination._cursor import Cursor, SigningKeys
from hasten.pagination._sql import offset_select
from tests.pagination import costs
from tests.pagination.databases import DATABASES, statements_of, url

# Which index an order has is not what this is about.
pytestmark = pytest.mark.filterwarnings("ignore::hasten.errors.PaginationWarning")

DEEP: Final = 100_000
BIG: Final = 120_000
SMALL: Final = 15_000

RARE: Final = 60
"""So many rows of the big table have the rare kind; all others share one."""

SECRET: Final = "a secret of more than 16 bytes"


class Base(DeclarativeBase):
    pass


class Big(Base):
    __tablename__ = "deep_big"
    id: Mapped[int] = mapped_column(primary_key=True)
    created: Mapped[datetime] = mapped_column(DateTime)
    score: Mapped[int | None]
    kind: Mapped[str] = mapped_column(String(10))
    body: Mapped[str] = mapped_column(Text)


class Small(Base):
    """The same table with fewer rows."""

    __tablename__ = "deep_small"
    id: Mapped[int] = mapped_column(primary_key=True)
    created: Mapped[datetime] = mapped_column(DateTime)
    score: Mapped[int | None]
    kind: Mapped[str] = mapped_column(String(10))
    body: Mapped[str] = mapped_column(Text)


for _model in (Big, Small):
    _name = _model.__tablename__
    Index(f"{_name}_created", _model.created, _model.id)
    Index(f"{_name}_mixed", _model.created.desc(), _model.id)
    Index(f"{_name}_score", _model.score, _model.id)
    Index(f"{_name}_kind", _model.kind, _model.id)


class RowOut(BaseModel):
    id: int
    created: datetime
    score: int | None
    kind: str
    body: str


SORTS: Final = ("id", "created", "score", "kind")

Walk: Final = Paginator(RowOut, model=Big, sort=SORTS, mode="cursor", secret=SECRET)
ByNumber: Final = Paginator(RowOut, model=Big, sort=SORTS)
CAPPED: Final = {
    model: Paginator(RowOut, model=model, sort=SORTS, count=Capped(5_000)) for model in (Big, Small)
}

FILL: Final = """
INSERT INTO {table} (id, created, score, kind, body)
SELECT n, {created},
       CASE WHEN n % 4 = 0 THEN NULL ELSE n * 7919 % 50000 END,
       CASE WHEN n % {apart} = 0 THEN 'rare' ELSE 'common' END, {body}
FROM {numbers}
"""


def _fill_postgresql(connection: Connection, table: str, rows: int) -> None:
    fill = FILL.format(
        table=table,
        # Ties, in an order that helps no way of reading.
        created="timestamp '2026-01-01' + n * 7919 % 49999 * interval '1 second'",
        apart=rows // RARE,
        body="repeat(md5(n::text), 10)",
        numbers=f"generate_series(1, {rows}) AS n ORDER BY md5(n::text)",
    )
    connection.execute(text(fill))
    connection.execute(text(f"VACUUM ANALYZE {table}"))


def _fill_sqlite(connection: Connection, table: str, rows: int) -> None:
    fill = FILL.format(
        table=table,
        created="datetime(1767225600 + n * 7919 % 49999, 'unixepoch') || '.000000'",
        apart=rows // RARE,
        body="hex(zeroblob(50))",
        numbers="(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s"
        f" WHERE n < {rows}) SELECT n FROM s)",
    )
    connection.execute(text(fill))
    connection.execute(text("ANALYZE"))


@contextmanager
def filled(database: str, folder: Path) -> Iterator[Connection]:
    if database == "postgresql":
        engine = create_engine(url(database, 0), isolation_level="AUTOCOMMIT")
    else:
        engine = costs.file_engine(folder)
    with engine.connect() as connection:
        Base.metadata.drop_all(connection)
        Base.metadata.create_all(connection)
        fill = _fill_postgresql if database == "postgresql" else _fill_sqlite
        fill(connection, Big.__tablename__, BIG)
        fill(connection, Small.__tablename__, SMALL)
        connection.commit()
        yield connection
        Base.metadata.drop_all(connection)
    engine.dispose()


@pytest.fixture(scope="module", params=DATABASES)
def connection(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Connection]:
    with filled(request.param, tmp_path_factory.mktemp("deep")) as connection:
        yield connection


class Spent:
    """The statements of a request, and their cost in the database."""

    def __init__(self) -> None:
        self.cost = 0
        self.statements: list[str] = []


@contextmanager
def measured(connection: Connection) -> Iterator[Spent]:
    """Measure all statements of the block. The result is complete after the block."""
    measure = _buffers if connection.dialect.name == "postgresql" else _work
    spent = Spent()
    with statements_of(connection.engine) as seen, measure(connection, spent):
        yield spent
        spent.statements = list(seen)


@contextmanager
def _work(connection: Connection, spent: Spent) -> Iterator[None]:
    with costs.counting(connection) as cost:
        yield
    spent.cost = cost()


@contextmanager
def _buffers(connection: Connection, spent: Spent) -> Iterator[None]:
    """Explain each statement again, when all its pages are in memory."""
    executed: list[tuple[str, Any]] = []
    real = connection.dialect.do_execute

    def note(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        executed.append((statement, parameters))
        real(cursor, statement, parameters, context)

    connection.dialect.do_execute = note  # type: ignore[method-assign]
    try:
        yield
    finally:
        connection.dialect.do_execute = real  # type: ignore[method-assign]
    for statement, parameters in executed:
        explained = connection.exec_driver_sql(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement, parameters
        )
        plan = explained.scalar_one()[0]["Plan"]
        spent.cost += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


# Cursors ----------------------------------------------------------------------------------------

# By each key, and by the primary key in the direction of the last one.
ORDERS: Final = {
    "id": [("id", False)],
    "-id": [("id", True)],
    "-created": [("created", True), ("id", True)],
    "-created,id": [("created", True), ("id", False)],
    "score": [("score", False), ("id", False)],
    "-score": [("score", True), ("id", True)],
    "kind": [("kind", False), ("id", False)],
    "-kind": [("kind", True), ("id", True)],
}


def token_at(connection: Connection, sort: str, depth: int, *, backwards: bool) -> str:
    """Return the cursor of the row at a depth, as a walk would."""
    order = [
        getattr(Big, name).desc().nulls_last() if descends else getattr(Big, name).nulls_last()
        for name, descends in ORDERS[sort]
    ]
    columns = [getattr(Big, name) for name, _ in ORDERS[sort]]
    row = connection.execute(select(*columns).order_by(*order).offset(depth).limit(1)).one()
    first = Walk.sync.page(connection, select(Big), Walk.parse(f"sort={sort}&limit=1"))
    assert isinstance(first, CursorPage)
    assert first.next_cursor is not None
    mark = base64.urlsafe_b64decode(first.next_cursor + "==")[2:18]
    return SigningKeys(SECRET).sign(Cursor(tuple(row), backwards), mark)


def cost_at(connection: Connection, sort: str, depth: int, *, backwards: bool = False) -> int:
    token = token_at(connection, sort, depth, backwards=backwards)
    q = Walk.parse(f"sort={sort}&limit=20&cursor={token}")
    with measured(connection) as spent:
        found = Walk.sync.page(connection, select(Big), q)
    assert len(found.data) == 20
    return spent.cost


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("sort", ORDERS)
def test_a_page_at_100_000_costs_what_one_at_10_does(
    connection: Connection, sort: str, backwards: bool
) -> None:
    start = 30 if backwards else 10
    near = cost_at(connection, sort, start, backwards=backwards)
    far = cost_at(connection, sort, DEEP, backwards=backwards)
    print(f"{connection.dialect.name}: {sort}: {near} at {start}, {far} at {DEEP}")
    assert far <= 2 * near


@pytest.mark.parametrize(
    ("sort", "depth", "backwards"),
    [
        # Within the rare kind, across its border, and at the border itself.
        ("kind", BIG - RARE + 5, False),
        ("kind", BIG - RARE - 5, False),
        ("kind", BIG - RARE, False),
        ("kind", BIG - RARE + 30, True),
        ("kind", BIG - RARE + 5, True),
        ("-kind", RARE - 30, False),
        ("-kind", RARE - 5, False),
        ("-kind", RARE + 5, True),
        # The last rows with a score, and the first without one.
        ("score", BIG * 3 // 4 - 5, False),
        ("score", BIG * 3 // 4 + 5, True),
        ("-score", BIG * 3 // 4 - 5, False),
        ("-score", BIG * 3 // 4 + 5, True),
    ],
)
def test_a_page_of_rare_values_costs_what_others_do(
    connection: Connection, sort: str, depth: int, backwards: bool
) -> None:
    near = cost_at(connection, sort, 30 if backwards else 10, backwards=backwards)
    far = cost_at(connection, sort, depth, backwards=backwards)
    print(f"{connection.dialect.name}: {sort}: {near}, {far} at {depth}")
    # In SQLite rare rows lie on pages of their own, where its common ones share some.
    apart = 20 * costs.STEPS_OF_A_PAGE if connection.dialect.name == "sqlite" else 0
    assert far <= 2 * near + apart


# Numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 200])
@pytest.mark.parametrize("is_filtered", [False, True])
def test_a_capped_total_costs_the_same_on_a_table_of_any_size(
    connection: Connection, is_filtered: bool, number: int
) -> None:
    """One table has eight times as many rows."""
    spent = {}
    for model, paginate in CAPPED.items():
        statement = select(model).where(model.kind == "common") if is_filtered else select(model)
        q = paginate.parse(f"limit=20&page={number}")
        with measured(connection) as measuring:
            found = paginate.sync.page(connection, statement, q)
        assert isinstance(found, Page)
        assert found.total_relation == "gte"
        assert len(found.data) == 20
        spent[model] = measuring.cost
    print(f"{connection.dialect.name}: page {number}: {list(spent.values())}")
    assert spent[Big] <= 1.2 * spent[Small] + 10


@pytest.mark.parametrize("offset", [BIG, 10 * BIG])
def test_a_page_past_the_end_costs_only_the_count(connection: Connection, offset: int) -> None:
    with measured(connection) as counting:
        connection.execute(select(text("count(*)")).select_from(Big))
    q = ByNumber.parse(f"limit=20&page={offset // 20 + 1}&sort=-created")
    with measured(connection) as spent:
        found = ByNumber.sync.page(connection, select(Big), q)
    assert (found.data, found.total) == ([], BIG)
    (statement,) = spent.statements
    assert "count(*)" in statement
    assert "ORDER BY" not in statement
    assert spent.cost <= counting.cost + 10


def test_deep_pages_skip_by_index(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """They fetch only the rows that they return."""
    none = Paginator(RowOut, model=Big, sort=SORTS, count="none")
    q = none.parse(f"limit=20&page={DEEP // 20 + 1}&sort=-created")
    with measured(connection) as deferred:
        found = none.sync.page(connection, select(Big), q)
    monkeypatch.setattr(offset_select, "DEFER_FROM", BIG)
    with measured(connection) as plain:
        same = none.sync.page(connection, select(Big), q)
    assert found.data == same.data
    assert len(found.data) == 20
    print(f"{connection.dialect.name}: {plain.cost}, deferred {deferred.cost}")
    # SQLite reads as many pages, but runs fewer instructions.
    assert deferred.cost <= plain.cost / (10 if connection.dialect.name == "postgresql" else 1)


def test_the_last_pages_are_read_from_the_end(connection: Connection) -> None:
    q = ByNumber.parse(f"limit=20&page={BIG // 20}&sort=-created")
    with measured(connection) as counting:
        connection.execute(select(text("count(*)")).select_from(Big))
    with measured(connection) as spent:
        found = ByNumber.sync.page(connection, select(Big), q)
    near = cost_at(connection, "-created", 10)
    assert (len(found.data), found.total) == (20, BIG)
    print(f"{connection.dialect.name}: last page {spent.cost}, count {counting.cost}")
    assert spent.cost - counting.cost <= 3 * near
