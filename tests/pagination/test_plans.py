"""What a page costs does not depend on how deep it is.

PostgreSQL says how many buffers it touched, for SQLite see `costs`: neither depends on how busy the
machine is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import registry

from hasten._coroutines import run_without_suspending
from hasten._sqlalchemy.analysis import AnalyzedSelect, analyze_select
from hasten._sqlalchemy.selects import Selection
from hasten._sqlalchemy.sort_columns import SortColumns
from hasten.pagination._counts import Capped, Count
from hasten.pagination._order import Order, SortKey
from hasten.pagination._sql.counting import make_count_select, make_estimate_statement
from hasten.pagination._sql.fetching import fetch_count, fetch_keyset_slice, fetch_offset_slice
from hasten.pagination._sql.keyset import find_key_indexes
from hasten.pagination._sql.offset_select import (
    select_page_at_offset,
    to_limit_and_offset_from_end_if_cheaper,
)
from hasten.pagination._sql.page_statements import PageStatements
from hasten.pagination._sql.query_planner import resolve_sort_columns
from tests.pagination import costs
from tests.pagination.databases import url
from tests.pagination.slices import Fetch, T, fetch

ROWS: Final = 200_000
DEEP: Final = 100_000
NO_VALUES: Final[Mapping[str, Any]] = MappingProxyType({})

metadata: Final = sa.MetaData()
wide: Final = sa.Table(
    "wide", metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("made", sa.DateTime, nullable=False),
    sa.Column("status", sa.String(10), nullable=False),
    sa.Column("skew", sa.Integer, nullable=False),
    sa.Column("score", sa.Integer),
    sa.Column("rank", sa.Integer),
    sa.Column("name", sa.String(10)),
    sa.Column("body", sa.Text, nullable=False),
)  # fmt: skip
sa.Index("wide_made", wide.c.made, wide.c.id)
sa.Index("wide_status", wide.c.status, wide.c.id)
sa.Index("wide_mixed", wide.c.made.desc(), wide.c.id)
sa.Index("wide_score", wide.c.score, wide.c.id)
sa.Index("wide_rank", wide.c.rank.desc().nulls_last(), wide.c.id.desc()).ddl_if("postgresql")
sa.Index("wide_rank_plain", wide.c.rank, wide.c.id).ddl_if("sqlite")
sa.Index("wide_skew", wide.c.skew.desc(), wide.c.id)
sa.Index("wide_name", wide.c.name, wide.c.id)
sa.Index("wide_four", wide.c.status, wide.c.skew.desc(), wide.c.made, wide.c.id)

ORDERS: Final[dict[str, Order]] = {
    "primary key": (SortKey("id"),),
    "many values": (SortKey("made", descending=True),),
    "three values": (SortKey("status"),),
    "mixed": (SortKey("made", descending=True), SortKey("id")),
    "mixed, three values": (SortKey("status", descending=True), SortKey("id")),
    "nulls as in the index": (SortKey("score", nulls="last"),),
    "nulls on the other side": (SortKey("score", nulls="first"),),
    "nulls and descending": (SortKey("score", descending=True, nulls="last"),),
    "nulls placed by the index": (SortKey("rank", descending=True, nulls="last"),),
    "text": (SortKey("name", descending=True),),
    "four keys, mixed": (
        SortKey("status"),
        SortKey("skew", descending=True),
        SortKey("made"),
        SortKey("id"),
    ),
    # One row in a hundred has a value of its own; all others share one.
    "skewed": (SortKey("skew", descending=True), SortKey("id")),
}

COLUMNS: Final = dict(wide.c.items())

FILL: Final = """
INSERT INTO wide (id, made, status, skew, score, rank, name, body)
SELECT n, {made}, CASE n % 3 WHEN 0 THEN 'draft' WHEN 1 THEN 'live' ELSE 'old' END,
       CASE WHEN n % 100 = 0 THEN n ELSE 0 END,
       CASE WHEN n % 4 = 0 THEN NULL ELSE n * 7919 % 50000 END,
       CASE WHEN n % 4 = 0 THEN NULL ELSE n * 7919 % 50000 END,
       CASE WHEN n % 9 = 0 THEN NULL ELSE 'n' || (n * 7919 % 50000) END, {body}
FROM {numbers}
"""


class Wide:
    """A row of the table as an object."""


registry().map_imperatively(Wide, wide)

SELECTS: Final[dict[str, Selection]] = {"columns": sa.select(*wide.c), "entities": sa.select(Wide)}


@pytest.fixture(scope="module")
def postgres() -> Iterator[sa.Connection]:
    engine = sa.create_engine(url("postgresql", 0), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        metadata.drop_all(connection)
        wide.create(connection)
        fill = FILL.format(
            made="timestamp '2026-01-01' + n * 7919 % 199999 * interval '1 second'",
            body="repeat(md5(n::text), 12)",
            # In an order that helps no way of reading.
            numbers=f"generate_series(1, {ROWS}) AS n ORDER BY md5(n::text)",
        )
        connection.execute(sa.text(fill))
        connection.execute(sa.text("VACUUM ANALYZE wide"))
        yield connection
        wide.drop(connection)
    engine.dispose()


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Connection]:
    engine = costs.file_engine(tmp_path_factory.mktemp("plans"))
    with engine.connect() as connection:
        wide.create(connection)
        fill = FILL.format(
            made="datetime(1767225600 + n * 7919 % 199999, 'unixepoch') || '.000000'",
            body="hex(zeroblob(50))",
            numbers="(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s"
            f" WHERE n < {ROWS}) SELECT n FROM s)",
        )
        connection.execute(sa.text(fill))
        connection.execute(sa.text("ANALYZE"))
        connection.commit()
        yield connection
    engine.dispose()


def buffers(
    connection: sa.Connection, statement: sa.Executable, values: Mapping[str, Any] = NO_VALUES
) -> int:
    """Return how many pages of 8 kB the plan reads, when all of them are in memory."""
    compiled = statement.compile(dialect=connection.dialect)  # type: ignore[attr-defined]
    explained = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + str(compiled)
    params = compiled.construct_params(values)
    connection.exec_driver_sql(explained, params)
    found: dict[str, Any] = connection.exec_driver_sql(explained, params).scalar_one()[0]
    found = found["Plan"]
    return int(found["Shared Hit Blocks"] + found["Shared Read Blocks"])


def work(
    connection: sa.Connection, statement: sa.Executable, values: Mapping[str, Any] = NO_VALUES
) -> int:
    """Return the work of SQLite for all rows."""
    with costs.counting(connection) as spent:
        connection.execute(statement, values).all()
    return spent()


def cost(
    connection: sa.Connection,
    function: Fetch[T],
    analyzed: AnalyzedSelect,
    keys: SortColumns,
    *arguments: object,
    **options: object,
) -> tuple[int, T]:
    """Return the cost of all statements of a slice, and the slice."""
    measure = buffers if connection.dialect.name == "postgresql" else work
    total = 0

    async def execute(statement: sa.Executable, parameters: Mapping[str, Any]) -> Any:
        nonlocal total
        total += measure(connection, statement, parameters)
        return connection.execute(statement, parameters)

    statements = PageStatements(analyzed, keys)
    found = run_without_suspending(function(statements, execute, *arguments, **options))
    return total, found


@pytest.fixture(params=["sqlite", "postgresql"])
def connection(request: pytest.FixtureRequest) -> sa.Connection:
    name = "postgres" if request.param == "postgresql" else "sqlite"
    found: sa.Connection = request.getfixturevalue(name)
    return found


@pytest.mark.parametrize("kind", SELECTS)
@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_a_deep_page_costs_what_a_shallow_one_does(
    connection: sa.Connection, order: Order, backwards: bool, kind: str
) -> None:
    dialect = connection.dialect.name
    analyzed, of_columns = analyze_select(SELECTS[kind]), analyze_select(SELECTS["columns"])
    keys = resolve_sort_columns(analyzed, order, COLUMNS)
    spent = []
    for depth in (30 if backwards else 10, DEEP):
        found = select_page_at_offset(
            of_columns, keys, limit=1, offset=depth, dialect=dialect, use_deferred_join=False
        )
        row = connection.execute(found).one()
        position = [row[place] for place in find_key_indexes(of_columns, keys)]
        total, found_slice = cost(
            connection,
            fetch_keyset_slice,
            analyzed,
            keys,
            position,
            limit=20,
            dialect=dialect,
            backwards=backwards,
        )
        assert len(found_slice.rows) == 20
        spent.append(total)
    print(f"{dialect}: {kind}, {order}: {spent}")
    assert spent[1] <= 2 * max(spent[0], ALL_RANGES[dialect])


ALL_RANGES: Final = {"postgresql": 24, "sqlite": 1_200}
"""A page of a single range (in a block of NULLs) is cheap, and may become as dear as others."""


@pytest.mark.parametrize("kind", SELECTS)
@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize(
    ("order", "at"),
    [
        (ORDERS["three values"], {"status": "live", "id": 199_999}),
        (ORDERS["three values"], {"status": "old", "id": 2}),
        (ORDERS["nulls as in the index"], {"score": None, "id": 4}),
        (ORDERS["nulls as in the index"], {"score": 49_999, "id": 199_999}),
        (ORDERS["nulls on the other side"], {"score": None, "id": 199_996}),
        (ORDERS["nulls on the other side"], {"score": 0, "id": 0}),
        (ORDERS["nulls placed by the index"], {"rank": None, "id": 100_000}),
        (ORDERS["nulls placed by the index"], {"rank": 0, "id": 0}),
        (ORDERS["skewed"], {"skew": 100, "id": 100}),
        (ORDERS["skewed"], {"skew": 0, "id": 1}),
    ],
)
def test_a_page_across_the_border_of_a_block_costs_no_more(
    connection: sa.Connection, order: Order, at: dict[str, object], backwards: bool, kind: str
) -> None:
    dialect = connection.dialect.name
    analyzed = analyze_select(SELECTS[kind])
    keys = resolve_sort_columns(analyzed, order, COLUMNS)
    position = [at[key.column.name] for key in keys]
    total, found_slice = cost(
        connection,
        fetch_keyset_slice,
        analyzed,
        keys,
        position,
        limit=20,
        dialect=dialect,
        backwards=backwards,
    )
    print(f"{dialect}: border, {kind}, {backwards}, {at}: {total}")
    assert len(found_slice.rows) == 20
    assert total <= 4 * ALL_RANGES[dialect]


@pytest.mark.parametrize("descending", [True, False])
def test_uneven_rows_are_found_in_the_index(postgres: sa.Connection, descending: bool) -> None:
    """Half of the rows match: a few at the start of the table, and the others at its end."""
    uneven = sa.Table(
        "uneven", sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("status", sa.String(10)),
        sa.Column("body", sa.Text),
    )  # fmt: skip
    uneven.create(postgres)
    try:
        postgres.execute(
            sa.text(
                "INSERT INTO uneven SELECT n,"
                " CASE WHEN n <= 100 OR n > 50000 THEN 'x' ELSE 'y' END,"
                " repeat('b', 300) FROM generate_series(1, 100000) AS n"
            )
        )
        status = uneven.c.status
        sa.Index("uneven_index", status.desc() if descending else status, uneven.c.id).create(
            postgres
        )
        postgres.execute(sa.text("VACUUM ANALYZE uneven"))
        analyzed = analyze_select(sa.select(uneven))
        by_status = SortKey("status", descending=True, nulls="first")
        keys = resolve_sort_columns(analyzed, (by_status, SortKey("id")), dict(uneven.c.items()))
        total, found_slice = cost(
            postgres, fetch_keyset_slice, analyzed, keys, ["x", 90], limit=20, dialect="postgresql"
        )
        assert len(found_slice.rows) == 20
        assert total <= 20
    finally:
        uneven.drop(postgres)


@pytest.mark.parametrize("kind", SELECTS)
def test_a_deep_offset_is_skipped_in_the_index(connection: sa.Connection, kind: str) -> None:
    dialect = connection.dialect.name
    analyzed = analyze_select(SELECTS[kind])
    keys = resolve_sort_columns(analyzed, (SortKey("made", descending=True),), COLUMNS)

    def at(offset: int, *, use_deferred_join: bool) -> tuple[int, list[Any]]:
        statement = select_page_at_offset(
            analyzed,
            keys,
            limit=20,
            offset=offset,
            dialect=dialect,
            use_deferred_join=use_deferred_join,
        )
        measure = buffers if dialect == "postgresql" else work
        return measure(connection, statement), list(connection.execute(statement))

    plain, rows = at(DEEP, use_deferred_join=False)
    deferred, same = at(DEEP, use_deferred_join=True)
    print(f"{dialect}: {kind}, offset {DEEP}: {plain}, deferred {deferred}")
    assert rows == same
    assert deferred < plain / (10 if dialect == "postgresql" else 1)


@pytest.mark.parametrize("kind", SELECTS)
def test_a_page_near_the_end_is_read_from_the_end(connection: sa.Connection, kind: str) -> None:
    dialect = connection.dialect.name
    analyzed = analyze_select(SELECTS[kind])
    keys = resolve_sort_columns(analyzed, (SortKey("made", descending=True),), COLUMNS)
    offset = ROWS - 30
    assert to_limit_and_offset_from_end_if_cheaper(limit=20, offset=offset, total=ROWS) == (20, 10)
    backward = tuple(key.reverse(dialect) for key in keys)
    statement = select_page_at_offset(
        analyzed, backward, limit=20, offset=10, dialect=dialect, use_deferred_join=False
    )
    spent = (buffers if dialect == "postgresql" else work)(connection, statement)
    forward = select_page_at_offset(
        analyzed, keys, limit=20, offset=offset, dialect=dialect, use_deferred_join=True
    )
    print(f"{dialect}: {kind}, tail: {spent}")
    rows, reverse = connection.execute(forward).all(), connection.execute(statement).all()
    assert rows == reverse[::-1]
    assert spent <= 2 * ALL_RANGES[dialect]


@pytest.mark.parametrize("kind", SELECTS)
@pytest.mark.parametrize("offset", [0, 900, ROWS, ROWS + 1_000_000])
def test_no_page_past_the_end_is_sought(connection: sa.Connection, kind: str, offset: int) -> None:
    """A page and its total cost little more than the total alone."""
    dialect = connection.dialect.name
    analyzed = analyze_select(SELECTS[kind])
    keys = resolve_sort_columns(analyzed, (SortKey("made", descending=True),), COLUMNS)
    measure = buffers if dialect == "postgresql" else work
    alone = measure(connection, make_count_select(analyzed))
    total, found = cost(
        connection, fetch_offset_slice, analyzed, keys, limit=20, offset=offset, dialect=dialect
    )
    print(f"{dialect}: {kind}, page and total at {offset}: {total}, total alone {alone}")
    assert found.count == Count(ROWS)
    assert len(found.rows) == (20 if offset < ROWS else 0)
    assert total - alone <= (0 if offset >= ROWS else {"postgresql": 1000, "sqlite": 6000}[dialect])


def test_the_rows_of_a_short_list_are_not_sorted_past_the_end(postgres: sa.Connection) -> None:
    analyzed = analyze_select(sa.select(*wide.c).where(wide.c.skew > ROWS - 20_000))
    keys = resolve_sort_columns(analyzed, (SortKey("id"),), COLUMNS)
    alone = buffers(postgres, make_count_select(analyzed))
    total, found = cost(
        postgres, fetch_offset_slice, analyzed, keys, limit=20, offset=900, dialect="postgresql"
    )
    assert (found.rows, found.count) == ([], Count(200))
    assert total <= alone + 5


def test_a_capped_total_does_not_depend_on_the_size_of_the_table(connection: sa.Connection) -> None:
    """For the whole table and for some of its rows."""
    measure = buffers if connection.dialect.name == "postgresql" else work
    for statement in (sa.select(wide), sa.select(wide).where(wide.c.status == "live")):
        exact, capped, less = (
            measure(
                connection,
                make_count_select(
                    analyze_select(statement), cap=cap, dialect=connection.dialect.name
                ),
            )
            for cap in (None, 1_000, 100)
        )
        print(f"{connection.dialect.name}: exact {exact}, capped {capped} and {less}")
        assert capped < exact / 1.5
        assert less < exact / 10


def test_a_table_that_has_grown_costs_no_more(connection: sa.Connection) -> None:
    """For counting up to the cap, and for a page with such a count."""
    dialect = connection.dialect.name
    spent = {}
    for size in (20_000, ROWS):
        # Statistics of a table of this size, the rest of which is behind the index range.
        analyzed = analyze_select(sa.select(wide).where(wide.c.id <= size, wide.c.id > 0))
        keys = resolve_sort_columns(analyzed, (SortKey("id"),), COLUMNS)
        total, found = cost(
            connection,
            fetch_offset_slice,
            analyzed,
            keys,
            limit=20,
            offset=40,
            dialect=dialect,
            count=Capped(1_000),
        )
        assert (found.count, len(found.rows)) == (Count(1_000, "gte"), 20)
        spent[size] = total
    print(f"{dialect}: capped at 1,000: {spent}")
    assert spent[ROWS] <= 1.1 * spent[20_000]


def test_an_estimate_comes_from_the_catalogue_or_the_planner(postgres: sa.Connection) -> None:
    whole = fetch(
        postgres,
        fetch_count,
        analyze_select(sa.select(Wide)),
        (),
        dialect="postgresql",
        count="estimated",
    )
    assert whole == Count(ROWS, "estimate")
    filtered = analyze_select(sa.select(Wide).where(wide.c.status == "live"))
    some = fetch(postgres, fetch_count, filtered, (), dialect="postgresql", count="estimated")
    assert some.relation == "estimate"
    assert some.total == pytest.approx(ROWS / 3, rel=0.1)
    assert "pg_class" in str(make_estimate_statement(analyze_select(sa.select(Wide))))


def test_a_table_that_was_never_analyzed_is_counted(postgres: sa.Connection) -> None:
    fresh = sa.Table("Fresh", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    fresh.create(postgres)
    try:
        postgres.execute(fresh.insert(), [{"id": number} for number in range(30)])
        rows = analyze_select(sa.select(fresh))
        found = fetch(postgres, fetch_count, rows, (), dialect="postgresql", count="estimated")
        assert found == Count(30)
    finally:
        fresh.drop(postgres)


def test_a_total_in_each_row_reads_the_whole_table(postgres: sa.Connection) -> None:
    """So page and total are not one statement with `count(*) OVER ()`."""
    in_each_row = sa.select(*wide.c, sa.func.count().over()).order_by(wide.c.id).limit(20)
    alone = sa.select(sa.func.count()).select_from(wide)
    assert buffers(postgres, in_each_row) > 50 * buffers(postgres, alone)
