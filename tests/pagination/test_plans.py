"""What a page costs does not depend on how deep it is.

PostgreSQL says how many buffers it touched, SQLite how many instructions it ran: neither depends on
how busy the machine is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Executable,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    select,
    text,
)
from sqlalchemy.orm import registry

from hasten.pagination.order import Key, Order
from hasten.pagination.sql.counting import count, estimate, lateral
from hasten.pagination.sql.keyset import layout
from hasten.pagination.sql.paging import page, tail
from hasten.pagination.sql.reading import Selection, read, resolve
from hasten.pagination.sql.running import Steps, T, numbered, run, stretch
from tests.pagination.databases import url

ROWS: Final = 200_000
DEEP: Final = 100_000

metadata: Final = MetaData()
wide: Final = Table(
    "wide", metadata,
    Column("id", Integer, primary_key=True),
    Column("made", DateTime, nullable=False),
    Column("status", String(10), nullable=False),
    Column("skew", Integer, nullable=False),
    Column("score", Integer),
    Column("body", Text, nullable=False),
)  # fmt: skip
Index("wide_made", wide.c.made, wide.c.id)
Index("wide_status", wide.c.status, wide.c.id)
Index("wide_mixed", wide.c.made.desc(), wide.c.id)
Index("wide_score", wide.c.score, wide.c.id)
Index("wide_skew", wide.c.skew.desc(), wide.c.id)

ORDERS: Final[dict[str, Order]] = {
    "primary key": (Key("id"),),
    "many values": (Key("made", descending=True),),
    "three values": (Key("status"),),
    "mixed": (Key("made", descending=True), Key("id")),
    "mixed, three values": (Key("status", descending=True), Key("id")),
    "nulls as in the index": (Key("score", nulls="last"),),
    "nulls on the other side": (Key("score", nulls="first"),),
    "nulls and descending": (Key("score", descending=True, nulls="last"),),
    # One row in a hundred has a value of its own; all others share one.
    "skewed": (Key("skew", descending=True), Key("id")),
}

FILL: Final = """
INSERT INTO wide (id, made, status, skew, score, body)
SELECT n, {made}, CASE n % 3 WHEN 0 THEN 'draft' WHEN 1 THEN 'live' ELSE 'old' END,
       CASE WHEN n % 100 = 0 THEN n ELSE 0 END,
       CASE WHEN n % 4 = 0 THEN NULL ELSE n * 7919 % 50000 END, {body}
FROM {numbers}
"""


class Wide:
    """A row as an object."""


registry().map_imperatively(Wide, wide)

SELECTS: Final[dict[str, Selection]] = {
    "columns": select(*wide.c),
    "entities": select(Wide),
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[Connection]:
    engine = create_engine(url("postgresql", 0), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        metadata.drop_all(connection)
        wide.create(connection)
        fill = FILL.format(
            made="timestamp '2026-01-01' + n * 7919 % 199999 * interval '1 second'",
            body="repeat(md5(n::text), 12)",
            # Without an order in the heap that would favour some order of reading.
            numbers=f"generate_series(1, {ROWS}) AS n ORDER BY md5(n::text)",
        )
        connection.execute(text(fill))
        connection.execute(text("VACUUM ANALYZE wide"))
        yield connection
        wide.drop(connection)
    engine.dispose()


@pytest.fixture(scope="module")
def sqlite() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        wide.create(connection)
        fill = FILL.format(
            made="strftime('%Y-%m-%d %H:%M:%S.000000', 1767225600 + n * 7919 % 199999, 'unixepoch')",
            body="hex(zeroblob(50))",
            numbers="(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s"
            f" WHERE n < {ROWS}) SELECT n FROM s)",
        )
        connection.execute(text(fill))
        connection.execute(text("ANALYZE"))
        yield connection
    engine.dispose()


def buffers(connection: Connection, statement: Executable) -> int:
    """How many pages of 8 kB the plan touched, once they were all in memory."""
    compiled = statement.compile(dialect=connection.dialect)  # type: ignore[attr-defined]
    explained = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + str(compiled)
    for _ in range(2):
        (plan,) = connection.exec_driver_sql(explained, compiled.params).scalar_one()
    found: dict[str, Any] = plan["Plan"]
    return int(found["Shared Hit Blocks"] + found["Shared Read Blocks"])


def steps(connection: Connection, statement: Executable) -> int:
    """How many instructions of its machine SQLite ran."""
    driver: Any = connection.connection.driver_connection
    counted = 0

    def note() -> int:
        nonlocal counted
        counted += 1
        return 0

    compiled = statement.compile(dialect=connection.dialect)  # type: ignore[attr-defined]
    driver.set_progress_handler(note, 1)
    try:
        connection.execute(statement).all()
    finally:
        driver.set_progress_handler(None, 1)
    assert compiled is not None
    return counted


def cost(connection: Connection, work: Steps[T]) -> tuple[int, T]:
    """What all steps of a piece of work cost together, and what they come to."""
    measure = buffers if connection.dialect.name == "postgresql" else steps
    total = 0
    try:
        statement = next(work)
        while True:
            total += measure(connection, statement)
            statement = work.send(connection.execute(statement))
    except StopIteration as end:
        return total, end.value


@pytest.fixture(params=["sqlite", "postgresql"])
def connection(request: pytest.FixtureRequest) -> Connection:
    name = "postgres" if request.param == "postgresql" else "sqlite"
    found: Connection = request.getfixturevalue(name)
    return found


@pytest.mark.parametrize("kind", SELECTS)
@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_a_deep_page_costs_what_a_shallow_one_does(
    connection: Connection,
    order: Order,
    backwards: bool,
    kind: str,
) -> None:
    dialect = connection.dialect.name
    reading, of_columns = read(SELECTS[kind]), read(SELECTS["columns"])
    keys = resolve(reading, order, wide.c)
    spent = []
    for depth in (30 if backwards else 10, DEEP):
        found = page(of_columns, keys, limit=1, offset=depth, dialect=dialect, defer=False)
        row = connection.execute(found).one()
        position = [row[place] for place in layout(of_columns, keys)]
        total, stretched = cost(
            connection,
            stretch(reading, keys, position, limit=20, dialect=dialect, backwards=backwards),
        )
        assert len(stretched.rows) == 20
        spent.append(total)
    print(f"{dialect}: {kind}, {order}: {spent}")
    assert spent[1] <= 2 * spent[0]
