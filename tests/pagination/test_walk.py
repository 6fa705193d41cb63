"""Pages by position return the same rows as a full read, in any order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, Final

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from hasten._sqlalchemy.analysis import AnalyzedSelect, analyze_select
from hasten._sqlalchemy.selects import Selection
from hasten._sqlalchemy.sort_columns import SortColumns
from hasten.errors import InvalidOption
from hasten.pagination._order import Order, SortKey
from hasten.pagination._slices import KeysetSlice
from hasten.pagination._sql.keyset import select_rows_after
from hasten.pagination._sql.query_planner import resolve_sort_columns
from tests.effort import effort
from tests.pagination.databases import Item, async_engine, engine, item
from tests.pagination.slices import keyset_slice, keyset_slice_async

COLUMNS: Final = {
    name: getattr(Item, name) for name in ("id", "grade", "label", "weight", "state", "made")
}
NULLABLE: Final = ("grade", "label", "weight")

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
datasets = st.integers(0, 2)
limits = st.integers(1, 25)


def expected(rows: list[Any], order: Order) -> list[int]:
    """Return the ids in the order of Python."""
    rows = sorted(rows, key=lambda row: row.id, reverse=order[-1].descending)
    for key in reversed(order):
        rows.sort(key=_by(key), reverse=key.descending)
        if key.name in NULLABLE:
            rows.sort(
                key=lambda row, key=key: (  # type: ignore[misc]
                    (getattr(row, key.name) is None) != (key.nulls == "first")
                )
            )
    return [row.id for row in rows]


def _by(key: SortKey) -> Callable[[Any], Any]:
    nothing = "" if key.name == "label" else 0
    return lambda row: nothing if getattr(row, key.name) is None else getattr(row, key.name)


def everything(connection: sa.Connection, dataset: int) -> list[Any]:
    return list(connection.execute(sa.select(*COLUMNS.values()).where(Item.dataset == dataset)))


def plan(statement: Selection, order: Order) -> tuple[AnalyzedSelect, SortColumns]:
    analyzed = analyze_select(statement)
    return analyzed, resolve_sort_columns(analyzed, order, COLUMNS)


def ids(rows: list[Any]) -> list[int]:
    """Return the ids of entities or of rows whose first column is the id."""
    return [row.id if isinstance(row, Item) else row[0] for row in rows]


def of_entities(dataset: int) -> Selection:
    return sa.select(Item).where(Item.dataset == dataset)


def of_columns(dataset: int) -> Selection:
    return sa.select(Item.id, Item.label).where(Item.dataset == dataset)


@pytest.mark.parametrize(
    ("database", "select_items"),
    [("sqlite", of_entities), ("sqlite", of_columns), ("postgresql", of_columns)],
)
@effort(15)
@given(order=orders, dataset=datasets, limit=limits)
def test_a_walk_equals_a_full_read_in_both_directions(
    database: str, select_items: Callable[[int], Selection], order: Order, dataset: int, limit: int
) -> None:
    analyzed, keys = plan(select_items(dataset), order)
    with Session(engine(database)) as session:
        wanted = expected(everything(session.connection(), dataset), order)
        for backwards in (False, True):
            pages = []
            position, has_more = None, True
            while has_more:
                page = keyset_slice(
                    session,
                    analyzed,
                    keys,
                    position,
                    limit=limit,
                    dialect=database,
                    backwards=backwards,
                )
                assert len(page.rows) == limit or not page.has_more
                pages.append(ids(page.rows))
                position, has_more = (page.first if backwards else page.last), page.has_more
            if backwards:
                pages.reverse()
            assert [id for page in pages for id in page] == wanted


@effort(10)
@given(order=orders, dataset=datasets, limit=limits)
def test_a_walk_with_an_asynchronous_driver_equals_a_full_read(
    database: str, order: Order, dataset: int, limit: int
) -> None:
    async def walk() -> None:
        analyzed, keys = plan(of_columns(dataset), order)
        with async_engine(database) as made:
            async with AsyncSession(made) as session:
                seen: list[int] = []
                page = KeysetSlice([], has_more=True, first=None, last=None)
                while page.has_more:
                    page = await keyset_slice_async(
                        session, analyzed, keys, page.last, limit=limit, dialect=database
                    )
                    seen += ids(page.rows)
        with engine(database).connect() as connection:
            assert seen == expected(everything(connection, dataset), order)

    asyncio.run(walk())


@effort(15)
@given(order=orders, dataset=datasets, limit=limits, data=st.data())
def test_the_previous_page_of_the_next_page_is_the_page(
    database: str, order: Order, dataset: int, limit: int, data: st.DataObject
) -> None:
    analyzed, keys = plan(of_columns(dataset), order)
    with engine(database).connect() as connection:
        page = keyset_slice(connection, analyzed, keys, None, limit=limit, dialect=database)
        for _ in range(data.draw(st.integers(0, 3))):
            if not page.has_more:
                break
            following = keyset_slice(
                connection, analyzed, keys, page.last, limit=limit, dialect=database
            )
            back = keyset_slice(
                connection,
                analyzed,
                keys,
                following.first,
                limit=limit,
                dialect=database,
                backwards=True,
            )
            assert back.rows == page.rows
            assert (back.first, back.last) == (page.first, page.last)
            page = following


def test_there_is_no_page_before_the_first_or_after_the_last(database: str) -> None:
    analyzed, keys = plan(of_columns(0), (SortKey("made"),))
    with engine(database).connect() as connection:
        first = keyset_slice(connection, analyzed, keys, None, limit=10, dialect=database)
        last = keyset_slice(
            connection, analyzed, keys, None, limit=10, dialect=database, backwards=True
        )
        for position, backwards in ((first.first, True), (last.last, False)):
            beyond = keyset_slice(
                connection,
                analyzed,
                keys,
                position,
                limit=10,
                dialect=database,
                backwards=backwards,
            )
            assert beyond == KeysetSlice([], has_more=False, first=None, last=None)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_full_last_page_has_no_next_page(database: str, backwards: bool) -> None:
    analyzed, keys = plan(of_columns(0), (SortKey("made"),))
    with engine(database).connect() as connection:
        for limit, has_more in ((59, True), (60, False), (61, False)):
            page = keyset_slice(
                connection, analyzed, keys, None, limit=limit, dialect=database, backwards=backwards
            )
            assert (len(page.rows), page.has_more) == (min(limit, 60), has_more)


def test_infinities_and_nan_are_sorted_as_in_postgresql() -> None:
    """SQLite stores NaN as NULL."""
    with Session(engine("postgresql")) as session:
        session.execute(
            sa.insert(Item),
            [
                item(Random(1), 0, weight=float(weight)) | {"dataset": 9}
                for weight in ("nan", "inf", "-inf", "nan", "1e30", "0.1", "nan")
            ],
        )
        statement = sa.select(Item.id, Item.weight).where(Item.dataset == 9)
        analyzed, keys = plan(statement, (SortKey("weight", descending=True), SortKey("id")))
        seen: list[str] = []
        page = KeysetSlice([], has_more=True, first=None, last=None)
        while page.has_more:
            page = keyset_slice(session, analyzed, keys, page.last, limit=1, dialect="postgresql")
            seen += [f"{row.weight:g}" for row in page.rows]
        assert seen == ["nan", "nan", "nan", "inf", "1e+30", "0.1", "-inf"]
        session.rollback()


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "mysql"])
@effort(15)
@given(order=orders, data=st.data())
def test_no_statement_has_an_or_nor_more_than_two_ranges_per_key(
    dialect: str, order: Order, data: st.DataObject
) -> None:
    analyzed, keys = plan(of_columns(0), order)
    values: list[object] = [
        data.draw(st.none()) if key.nullable and data.draw(st.booleans()) else 1 for key in keys
    ]
    for in_turn in (True, False):
        statements = select_rows_after(
            analyzed, keys, values, limit=5, dialect=dialect, allow_several_statements=in_turn
        )
        assert len(statements) <= (2 * len(keys) if in_turn else 1)
        for statement in statements:
            text = str(statement.compile())
            assert " OR " not in text
            assert text.count("LIMIT") <= 2 * len(keys) + 1


def test_row_values_are_for_postgresql_one_direction_and_no_nulls() -> None:
    def text(dialect: str, *order: SortKey) -> str:
        analyzed, keys = plan(of_columns(0), order)
        values = [1] * len(keys)
        return " ".join(
            map(str, select_rows_after(analyzed, keys, values, limit=5, dialect=dialect))
        )

    made = SortKey("made", descending=True)
    assert "(items.made, items.id) < (" in text("postgresql", made)
    assert "(items.made, items.id) < (" not in text("sqlite", made)
    assert "UNION ALL" in text("postgresql", made, SortKey("id"))
    assert "UNION ALL" in text("postgresql", SortKey("grade"))


def test_a_null_key_orders_nulls_where_the_dialect_has_no_keywords() -> None:
    def text(dialect: str, nulls: Any, *, descending: bool) -> str:
        analyzed, keys = plan(
            of_columns(0), (SortKey("grade", descending, nulls=nulls), SortKey("id"))
        )
        # Behind a range of another key, so that the database sorts by this key.
        statement = select_rows_after(
            analyzed,
            (*keys[1:], keys[0]),
            [1, 1],
            limit=5,
            dialect=dialect,
            allow_several_statements=True,
        )[-1]
        return str(statement).rpartition("ORDER BY ")[2].partition("\n")[0].replace("items.", "")

    assert text("mysql", "last", descending=False) == "id ASC, grade IS NULL ASC, grade ASC"
    assert text("mysql", "first", descending=True) == "id ASC, grade IS NULL DESC, grade DESC"
    assert text("mysql", "first", descending=False) == "id ASC, grade ASC"
    assert text("sqlite", "first", descending=False) == "id ASC, grade ASC"
    assert text("sqlite", "last", descending=False) == "id ASC, grade ASC NULLS LAST"
    assert text("postgresql", "last", descending=False) == "id ASC, grade ASC"
    assert text("postgresql", "last", descending=True) == "id ASC, grade DESC NULLS LAST"


@effort(15)
@given(order=orders, dataset=datasets, limit=limits)
def test_the_null_key_sorts_as_the_keywords_do(order: Order, dataset: int, limit: int) -> None:
    """SQLite sorts NULLs as MySQL does, and supports the emulation as well."""
    analyzed, keys = plan(of_columns(dataset), order)
    with engine("sqlite").connect() as connection:
        page = KeysetSlice([], has_more=True, first=None, last=None)
        seen: list[int] = []
        while page.has_more:
            page = keyset_slice(connection, analyzed, keys, page.last, limit=limit, dialect="mysql")
            seen += ids(page.rows)
        assert seen == expected(everything(connection, dataset), order)


class TestPositions:
    def test_a_position_has_one_value_per_key(self) -> None:
        analyzed, keys = plan(of_columns(0), (SortKey("made"),))
        with pytest.raises(ValueError, match=r"position=\[1\]: must be 2 values, one per sort key"):
            select_rows_after(analyzed, keys, [1], limit=5, dialect="sqlite")

    def test_a_key_that_is_never_null_needs_a_value(self) -> None:
        analyzed, keys = plan(of_columns(0), (SortKey("made"),))
        with pytest.raises(
            ValueError, match=r"must be a list without NULL for items.made, which is not nullable"
        ):
            select_rows_after(analyzed, keys, [None, 1], limit=5, dialect="sqlite")


def test_a_walk_by_an_expression_leaves_the_comparison_to_the_database(database: str) -> None:
    """The expression ignores case, which only the database can compare."""
    analyzed = analyze_select(of_columns(0))
    columns = {"label": sa.func.lower(Item.label), "id": Item.id}
    keys = resolve_sort_columns(
        analyzed, (SortKey("label"), SortKey("id", descending=True)), columns
    )
    with engine(database).connect() as connection:
        seen: list[int] = []
        page = KeysetSlice([], has_more=True, first=None, last=None)
        while page.has_more:
            page = keyset_slice(connection, analyzed, keys, page.last, limit=4, dialect=database)
            seen += ids(page.rows)
        rows = everything(connection, 0)
    fold = {row.id: (row.label.lower(), -row.id) for row in rows}
    assert seen == sorted(fold, key=lambda id: fold[id])


@pytest.mark.parametrize("kind", [sa.Enum("z", "a", name="letters"), sa.Float(), sa.Float(24)])
def test_types_that_mysql_compares_and_sorts_differently_are_refused(kind: TypeEngine[Any]) -> None:
    """MySQL sorts an ENUM by position and compares it as text, and shows six digits of a FLOAT."""
    analyzed, keys = of_kind(kind)
    for dialect in ("mysql", "mariadb"):
        for position in (None, ["a", 1]):
            with pytest.raises(InvalidOption, match=r"kinds\.key.*MySQL"):
                select_rows_after(analyzed, keys, position, limit=5, dialect=dialect)
    assert select_rows_after(analyzed, keys, None, limit=5, dialect="postgresql")


@pytest.mark.parametrize(
    "kind",
    [sa.Enum("z", "a", native_enum=False), sa.Double(), sa.REAL(), sa.Float(53), sa.Numeric(5, 2)],
)
def test_types_that_mysql_compares_as_it_sorts_are_accepted(kind: TypeEngine[Any]) -> None:
    assert select_rows_after(*of_kind(kind), None, limit=5, dialect="mysql")


def of_kind(kind: TypeEngine[Any]) -> tuple[AnalyzedSelect, SortColumns]:
    kinds = sa.Table(
        "kinds",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("key", kind),
    )
    analyzed = analyze_select(sa.select(kinds.c.id))
    return analyzed, resolve_sort_columns(analyzed, (SortKey("key"),), dict(kinds.c.items()))
