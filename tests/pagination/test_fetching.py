"""Slices are fetched in few statements, on every kind of session and connection."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from hasten._sqlalchemy.analysis import analyze_select
from hasten._sqlalchemy.execution import wrap_async_session, wrap_blocking_session
from hasten.errors import MissingExtra
from hasten.pagination._counts import Capped, Count, UncachedCounting
from hasten.pagination._order import Order, SortKey
from hasten.pagination._slices import OffsetSlice
from hasten.pagination._sql.counting import parse_estimated_count, to_capped_count
from hasten.pagination._sql.fetching import fetch_keyset_slice, fetch_offset_slice
from hasten.pagination._sql.offset_select import (
    can_use_deferred_join,
    select_page_at_offset,
    to_limit_and_offset_from_end_if_cheaper,
)
from hasten.pagination._sql.query_planner import resolve_sort_columns
from tests.effort import effort
from tests.pagination.databases import Author, Item, Post, async_engine, engine, statements_of
from tests.pagination.slices import (
    fetch,
    fetch_async,
    keyset_slice,
    offset_slice,
    offset_slice_async,
)
from tests.pagination.test_walk import (
    COLUMNS,
    datasets,
    everything,
    expected,
    of_columns,
    of_entities,
    orders,
    plan,
)


@effort(15)
@given(order=orders, dataset=datasets, limit=st.integers(1, 25), offset=st.integers(0, 70))
def test_deferred_and_reversed_pages_are_the_same_pages(
    database: str, order: Order, dataset: int, limit: int, offset: int
) -> None:
    with engine(database).connect() as connection:
        wanted = expected(everything(connection, dataset), order)[offset : offset + limit]
        for statement in (of_columns(dataset), of_entities(dataset)):
            analyzed, keys = plan(statement, order)
            for use_deferred_join in (False, True):
                found = select_page_at_offset(
                    analyzed,
                    keys,
                    limit=limit,
                    offset=offset,
                    dialect=database,
                    use_deferred_join=use_deferred_join,
                )
                with Session(connection) as session:
                    ids = [getattr(row[0], "id", row[0]) for row in session.execute(found)]
                assert ids == wanted
            turned = to_limit_and_offset_from_end_if_cheaper(limit=limit, offset=offset, total=60)
            assert (turned is not None) == (bool(wanted) and 60 - offset - len(wanted) < offset)
            if turned is not None:
                backward = tuple(key.reverse(database) for key in keys)
                size, skipped = turned
                reverse = select_page_at_offset(
                    analyzed,
                    backward,
                    limit=size,
                    offset=skipped,
                    dialect=database,
                    use_deferred_join=False,
                )
                with Session(connection) as session:
                    ids = [getattr(row[0], "id", row[0]) for row in session.execute(reverse)]
                assert ids == wanted[::-1]


@pytest.mark.parametrize("kind", ["session", "connection"])
class TestEveryExecutor:
    """The same code runs with and without await."""

    @pytest.mark.parametrize("count", ["exact", Capped(9), "estimated", "none"])
    async def test_at_an_offset(self, database: str, kind: str, count: UncachedCounting) -> None:
        select_and_keys = plan(of_columns(1), (SortKey("made"),))
        how = {"limit": 7, "offset": 14, "dialect": database, "count": count}
        one, other = await self.both(database, kind, fetch_offset_slice, *select_and_keys, **how)
        assert one == other
        assert len(one.rows) == 7

    async def test_at_a_position(self, database: str, kind: str) -> None:
        select_and_keys = plan(of_columns(1), (SortKey("grade"),))
        how = {"limit": 7, "dialect": database}
        one, other = await self.both(
            database, kind, fetch_keyset_slice, *select_and_keys, [1, 20], **how
        )
        assert one == other
        assert len(one.rows) == 7

    async def both(self, database: str, kind: str, *arguments: Any, **how: Any) -> tuple[Any, Any]:
        made = engine(database)
        with Session(made) if kind == "session" else made.connect() as executor:
            assert wrap_blocking_session(executor).find_dialect(None) == database
            one = fetch(executor, *arguments, **how)
        with async_engine(database) as awaited:
            if kind == "session":
                async with AsyncSession(awaited) as session:
                    return one, await fetch_async(session, *arguments, **how)
            async with awaited.connect() as connection:
                assert wrap_async_session(connection).find_dialect(None) == database
                return one, await fetch_async(connection, *arguments, **how)


async def test_entities_come_from_an_asynchronous_session_too() -> None:
    analyzed = analyze_select(select(Post).join(Post.tags))
    keys = resolve_sort_columns(analyzed, (), {})
    with async_engine("postgresql") as made:
        async with AsyncSession(made) as session:
            found = await offset_slice_async(
                session, analyzed, keys, limit=3, offset=27, dialect="postgresql"
            )
    assert [post.id for post in found.rows] == [28, 29, 30]
    assert (found.count, found.has_more) == (Count(30), False)


class TestStatements:
    """The number of statements, each of which is a round trip."""

    @pytest.mark.parametrize(
        ("database", "is_entity", "offset", "count", "statements"),
        [
            ("postgresql", False, 0, "exact", 1),
            ("postgresql", False, 59, "exact", 1),
            ("postgresql", False, 900, "exact", 1),  # past the end
            ("postgresql", False, 900, Capped(50), 1),
            ("postgresql", True, 0, "exact", 1),
            ("postgresql", True, 900, "exact", 2),
            ("sqlite", False, 0, "exact", 1),
            ("sqlite", False, 900, "exact", 2),
            ("sqlite", True, 0, Capped(50), 1),
            ("postgresql", False, 1_000_000, "exact", 1),  # the count alone
            ("sqlite", True, 1_000_000, "exact", 1),
            ("postgresql", False, 0, "none", 1),
            ("sqlite", True, 1_000_000, "none", 1),
            ("postgresql", True, 0, "estimated", 2),
            ("sqlite", True, 0, "estimated", 2),
        ],
    )
    def test_a_page_by_number_takes_few_statements(
        self, database: str, is_entity: bool, offset: int, count: UncachedCounting, statements: int
    ) -> None:
        analyzed, keys = plan(of_entities(0) if is_entity else of_columns(0), ())
        with Session(engine(database)) as session, statements_of(engine(database)) as seen:
            found = offset_slice(
                session, analyzed, keys, limit=5, offset=offset, dialect=database, count=count
            )
        assert len(seen) == statements
        assert len(found.rows) == max(0, min(5, 60 - offset))

    def test_a_page_by_position_takes_few_statements(self, database: str) -> None:
        with Session(engine(database)) as session, statements_of(engine(database)) as seen:
            in_one = 1 if database == "postgresql" else 3
            for statement, most in ((of_columns(0), in_one), (of_entities(0), 3)):
                analyzed, keys = plan(
                    statement, (SortKey("state"), SortKey("made", descending=True))
                )
                page = keyset_slice(session, analyzed, keys, None, limit=5, dialect=database)
                assert len(seen) == 1
                seen.clear()
                keyset_slice(session, analyzed, keys, page.last, limit=5, dialect=database)
                assert 1 <= len(seen) <= most
                seen.clear()


@pytest.mark.parametrize("is_entity", [True, False])
def test_a_page_past_the_end_or_of_no_rows_has_a_total(database: str, is_entity: bool) -> None:
    analyzed, keys = plan(of_entities(0) if is_entity else of_columns(0), ())
    nothing, its_keys = plan(of_entities(77) if is_entity else of_columns(77), ())
    with Session(engine(database)) as session:
        for offset in (60, 600, 6_000):
            past = offset_slice(session, analyzed, keys, limit=5, offset=offset, dialect=database)
            assert past == OffsetSlice([], has_more=False, count=Count(60))
        for offset in (0, 5_000):
            empty = offset_slice(
                session, nothing, its_keys, limit=5, offset=offset, dialect=database
            )
            assert empty == OffsetSlice([], has_more=False, count=Count(0))


@pytest.mark.parametrize("is_entity", [True, False])
def test_a_page_beyond_the_cap_has_its_rows(database: str, is_entity: bool) -> None:
    analyzed, keys = plan(of_entities(0) if is_entity else of_columns(0), ())
    with Session(engine(database)) as session:
        for cap, count in ((59, Count(59, "gte")), (60, Count(60)), (7, Count(7, "gte"))):
            found = offset_slice(
                session, analyzed, keys, limit=5, offset=40, dialect=database, count=Capped(cap)
            )
            assert (len(found.rows), found.has_more) == (5, True)
            assert found.count == count


def test_the_rows_are_those_that_were_selected(database: str) -> None:
    """Columns that were added for keys and totals are removed."""
    order = (SortKey("made"), SortKey("grade"))
    with Session(engine(database)) as session:
        several = (Row, tuple)
        for statement, kind in (
            (select(Item), Item),
            (select(Item.label), str),
            (select(Author, Post).join(Author.posts), several),
            (select(Item.id, Item.label), several),
            (select(Item.grade, Item.made, Item.id), several),
        ):
            analyzed = analyze_select(statement)
            keys = resolve_sort_columns(
                analyzed, order if "items" in str(statement) else (), COLUMNS
            )
            pages: list[Any] = [
                offset_slice(session, analyzed, keys, limit=3, offset=1, dialect=database).rows,
                keyset_slice(session, analyzed, keys, None, limit=3, dialect=database).rows,
            ]
            position = keyset_slice(session, analyzed, keys, None, limit=1, dialect=database).last
            pages.append(
                keyset_slice(session, analyzed, keys, position, limit=3, dialect=database).rows
            )
            assert pages[0] == pages[2]
            for rows in pages:
                assert len(rows) == 3
                assert all(isinstance(row, kind) or row is None for row in rows)
                if isinstance(kind, tuple):
                    assert len(rows[0]) == len(statement.column_descriptions)


def test_what_is_grouped_or_keyed_is_not_deferred() -> None:
    assert can_use_deferred_join(analyze_select(select(Post)))
    assert not can_use_deferred_join(
        analyze_select(select(Post.title).distinct(), identifying_columns=[Post.title])
    )
    assert not can_use_deferred_join(analyze_select(select(Post.id).group_by(Post.id)))


def test_a_total_has_a_relation() -> None:
    assert to_capped_count(5, None) == Count(5)
    assert to_capped_count(5, 5) == Count(5)
    assert to_capped_count(6, 5) == Count(5, "gte")
    assert parse_estimated_count(7) == Count(7, "estimate")
    assert parse_estimated_count(-1) is None
    assert parse_estimated_count('[{"Plan": {"Plan Rows": 3}}]') == Count(3, "estimate")


def test_without_sqlalchemy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    import hasten._sqlalchemy

    def absent(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr("hasten._extras.importlib.import_module", absent)
    reload = importlib.reload
    with pytest.raises(MissingExtra, match="'sqlalchemy'"):
        reload(hasten._sqlalchemy)
