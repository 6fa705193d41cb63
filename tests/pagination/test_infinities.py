"""The last date of Python and the infinity of PostgreSQL, which asyncpg reads as the same value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from hasten._sqlalchemy.analysis import analyze_select
from hasten.pagination._order import Order, SortKey
from hasten.pagination._slices import KeysetSlice
from hasten.pagination._sql.query_planner import resolve_sort_columns
from tests.pagination.databases import engine, url
from tests.pagination.slices import keyset_slice_async

edges: Final = sa.Table(
    "edges",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("day", sa.Date, nullable=False),
    sa.Column("moment", sa.DateTime, nullable=False),
    sa.Column("aware", sa.DateTime(timezone=True), nullable=False),
    sa.Column("day_or_null", sa.Date),
)
COLUMNS: Final = ("day", "moment", "aware", "day_or_null")

LAST: Final = ["2026-01-01", *["9999-12-31 23:59:59.999999+00"] * 5]
FIRST: Final = ["2026-01-01", *["0001-01-01 00:00:00+00"] * 5]
ENDLESS: Final = ["2026-01-01", *["infinity"] * 5, *["-infinity"] * 4]


@pytest.fixture
def database() -> Iterator[sa.Connection]:
    with engine("postgresql").connect() as connection:
        edges.create(connection)
        yield connection
        connection.rollback()
        edges.drop(connection)
        connection.commit()


def fill(database: sa.Connection, values: list[str]) -> None:
    for value in values:
        row: dict[str, Any] = {name: sa.literal_column(f"'{value}'") for name in COLUMNS}
        # Without a zone in the text, where the type has none.
        plain: Any = sa.literal_column(f"'{value.removesuffix('+00')}'")
        database.execute(sa.insert(edges).values(row | {"moment": plain, "day": plain}))
    database.commit()


ORDERS: Final[list[Order]] = [
    order
    for name in COLUMNS
    for descending in (False, True)
    for order in (
        (SortKey(name, descending),),
        (SortKey(name, descending), SortKey("id", not descending)),
    )
]


def full(database: sa.Connection, order: Order) -> list[Any]:
    *_, key = order
    last = [] if key.name == "id" else [SortKey("id", key.descending)]
    terms = [
        edges.c[each.name].desc() if each.descending else edges.c[each.name]
        for each in (*order, *last)
    ]
    found = list(database.scalars(sa.select(edges.c.id).order_by(*terms)))
    database.rollback()
    return found


async def walk(driver: str, order: Order) -> list[int]:
    made = create_async_engine(url("postgresql", 1).replace("asyncpg", driver))
    analyzed = analyze_select(sa.select(edges.c.id))
    keys = resolve_sort_columns(analyzed, order, dict(edges.c.items()))
    seen: list[int] = []
    page = KeysetSlice([], has_more=True, first=None, last=None)
    try:
        async with made.connect() as connection:
            while page.has_more:
                page = await keyset_slice_async(
                    connection, analyzed, keys, page.last, limit=2, dialect="postgresql"
                )
                seen += page.rows
                assert len(seen) <= 20
    finally:
        await made.dispose()
    return seen


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("values", [LAST, FIRST, LAST + FIRST])
async def test_the_first_and_the_last_date_are_not_infinities(
    database: sa.Connection, values: list[str], driver: str
) -> None:
    fill(database, values)
    for order in ORDERS:
        assert await walk(driver, order) == full(database, order)


async def test_infinities_that_asyncpg_reads_as_dates_keep_order(database: sa.Connection) -> None:
    fill(database, ENDLESS)
    for order in ORDERS:
        assert await walk("asyncpg", order) == full(database, order)


@pytest.mark.parametrize("order", ORDERS)
async def test_infinities_are_refused_with_psycopg(database: sa.Connection, order: Order) -> None:
    fill(database, ENDLESS)
    with pytest.raises(DBAPIError, match=r"too (large|small)"):
        await walk("psycopg", order)


@pytest.mark.parametrize("order", ORDERS)
async def test_infinity_and_extreme_dates_fail(database: sa.Connection, order: Order) -> None:
    """An error is better than a wrong page."""
    fill(database, LAST + FIRST + ENDLESS)
    with pytest.raises(DBAPIError, match="cannot be distinguished from infinity"):
        await walk("asyncpg", order)
