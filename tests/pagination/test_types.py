"""The next statement gets the values of a row unchanged, for every sortable type."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from hasten._sqlalchemy.analysis import analyze_select
from hasten.pagination._order import SortKey
from hasten.pagination._slices import KeysetSlice
from hasten.pagination._sql.query_planner import resolve_sort_columns
from tests.pagination.databases import DATABASES, async_engine, engine
from tests.pagination.slices import keyset_slice, keyset_slice_async


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


NOON: Final = datetime(2026, 3, 29, 12, 0, 0, 123456, tzinfo=UTC)

VALUES: Final[dict[str, tuple[TypeEngine[Any], list[object]]]] = {
    "small": (sa.SmallInteger(), [-1, 0, 32767]),
    "big": (sa.BigInteger(), [-(2**63), 2**53 + 1, 2**63 - 1]),
    "boolean": (sa.Boolean(), [False, True]),
    "real": (sa.REAL(), [0.1, 1 / 3, -2.5]),
    "float": (sa.Float(24), [0.1, 1 / 3, -2.5]),
    "double": (sa.Double(), [0.1, 1 / 3, 1e300]),
    "decimal": (sa.Numeric(20, 6), [Decimal("0.1"), Decimal("12345.678901"), Decimal(-1)]),
    # The first and last date of all are infinities to asyncpg.
    "date": (sa.Date(), [date(1, 1, 2), date(2026, 2, 28), date(9998, 12, 31)]),
    "time": (sa.Time(), [time(0), time(23, 59, 59, 999999)]),
    "naive": (sa.DateTime(), [NOON.replace(tzinfo=None), datetime(1970, 1, 1)]),  # noqa: DTZ001
    "aware": (sa.DateTime(timezone=True), [NOON, NOON + timedelta(microseconds=1)]),
    "interval": (sa.Interval(), [timedelta(0), timedelta(days=400, microseconds=1)]),
    "uuid": (sa.Uuid(), [UUID(int=0), UUID(int=2**127 + 5)]),
    "enum": (sa.Enum(Colour, name="colour"), [Colour.RED, Colour.BLUE]),
    "bytes": (sa.LargeBinary(), [b"", b"\x00\xff", b"a"]),
    "string": (sa.String(30), ["", "it's", "ÄÖ \U0001f600", "%s :x"]),
    "text": (sa.Text(), ["", "a\nb", "é"]),
}

table: Final = sa.Table(
    "typed",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    *(sa.Column(name, kind, nullable=False) for name, (kind, _) in VALUES.items()),
    *(sa.Column(f"{name}_or_null", kind) for name, (kind, _) in VALUES.items()),
)
ROWS: Final = 13

pytestmark = pytest.mark.filterwarnings("ignore:Dialect sqlite.*does .not. support Decimal")


@pytest.fixture(scope="module", params=DATABASES)
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    made = engine(request.param)
    table.metadata.create_all(made)
    with made.begin() as connection:
        connection.execute(
            table.insert(),
            [
                {name: values[number % len(values)] for name, (_, values) in VALUES.items()}
                | {
                    f"{name}_or_null": ([*values, None])[number % (len(values) + 1)]
                    for name, (_, values) in VALUES.items()
                }
                for number in range(ROWS)
            ],
        )
    yield request.param
    table.metadata.drop_all(made)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("column", list(table.c.keys())[1:])
async def test_walks_continue_after_any_type(database: str, column: str, descending: bool) -> None:
    """With row values and with ranges, on both drivers."""
    analyzed = analyze_select(sa.select(table.c.id))
    columns = dict(table.c.items())
    for order in (
        (SortKey(column, descending),),
        (SortKey(column, descending), SortKey("id", not descending)),
    ):
        keys = resolve_sort_columns(analyzed, order, columns)
        with engine(database).connect() as connection:
            whole = keyset_slice(connection, analyzed, keys, None, limit=99, dialect=database).rows
            page = KeysetSlice([], has_more=True, first=None, last=None)
            seen: list[int] = []
            while page.has_more:
                page = keyset_slice(
                    connection, analyzed, keys, page.last, limit=1, dialect=database
                )
                seen += page.rows
        assert len(whole) == ROWS
        assert seen == whole
        with async_engine(database) as made:
            async with made.connect() as awaited:
                page = KeysetSlice([], has_more=True, first=None, last=None)
                seen = []
                while page.has_more:
                    page = await keyset_slice_async(
                        awaited, analyzed, keys, page.last, limit=4, dialect=database
                    )
                    seen += page.rows
        assert seen == whole
