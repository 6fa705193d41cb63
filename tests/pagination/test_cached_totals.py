"""Totals that are cached, and totals that a function of the application counts."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import pytest
from pydantic import BaseModel
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from hasten import Store
from hasten.errors import InvalidOption
from hasten.pagination import Cached, Capped, Count, Paginator
from hasten.testing import ManualClock
from tests.pagination.databases import Item, async_engine, engine, statements_of

SECRET: Final = "a secret of more than 16 bytes"
EVERY: Final = select(Item)
A_ROW: Final = {
    "dataset": 0, "grade": 1, "label": "", "weight": 1.0, "made": datetime(2026, 1, 1),  # noqa: DTZ001
    "state": "new",
}  # fmt: skip


class ItemOut(BaseModel):
    id: int
    state: str


class TestCached:
    def test_a_total_is_counted_once(self, session: Session) -> None:
        items = Paginator(ItemOut, model=Item, count=Cached("exact", 60))
        with statements_of(session.get_bind().engine) as seen:
            totals = [
                items.sync.page(session, EVERY, items.parse(f"page={number}")).total
                for number in (1, 2, 3)
            ]
        assert totals == [180] * 3
        assert sum("count(" in each for each in seen) == 1

    def test_a_total_is_recounted_after_ttl_of_the_store_s_clock(self, session: Session) -> None:
        clock = ManualClock()
        store = Store("memory://", clock=clock)
        items = Paginator(ItemOut, model=Item, count=Cached("exact", "1h", clock=store.clock))
        q = items.parse("limit=1")
        with statements_of(session.get_bind().engine) as seen:
            for _ in range(2):
                items.sync.page(session, EVERY, q)
                clock.advance(3599)
            assert sum("count(" in each for each in seen) == 1
            clock.advance(1)
            items.sync.page(session, EVERY, q)
        assert sum("count(" in each for each in seen) == 2

    def test_each_filter_and_scope_has_its_own_total(self, session: Session) -> None:
        items = Paginator(ItemOut, model=Item, count=Cached("exact", 60))
        q = items.parse("")
        for _ in range(2):
            for number in range(3):
                statement = EVERY.where(Item.dataset == number, Item.id > number)
                total = session.scalar(select(func.count()).select_from(statement.subquery()))
                assert items.sync.page(session, statement, q).total == total
        with statements_of(session.get_bind().engine) as seen:
            items.sync.page(session, EVERY.where(Item.dataset == 0, Item.id > 0), q, scope="other")
        assert sum("count(" in each for each in seen) == 1

    def test_a_page_with_more_rows_corrects_the_total(self, session: Session) -> None:
        items = Paginator(ItemOut, model=Item, count=Cached("exact", 60), max_limit=1000)
        assert items.sync.page(session, EVERY, items.parse("limit=1")).total == 180
        session.execute(insert(Item), [A_ROW] * 5)
        assert items.sync.page(session, EVERY, items.parse("limit=1000")).total == 185

    def test_a_capped_total_beside_cursors(self, session: Session) -> None:
        count = Cached(Capped(50), 60)
        items = Paginator(ItemOut, model=Item, mode="cursor", secret=SECRET, count=count)
        for _ in range(2):
            found = items.sync.page(session, EVERY, items.parse(""))
            assert (found.total, found.total_relation) == (50, "gte")


class TestFunctions:
    def test_a_function_gets_the_session_and_the_select(self, session: Session) -> None:
        asked: list[Any] = []

        def count(db: Any, statement: Any) -> int:
            asked.append((db, statement))
            return 1000

        items = Paginator(ItemOut, model=Item, count=count)
        found = items.sync.page(session, EVERY, items.parse(""))
        assert (found.total, len(found.data)) == (1000, 20)
        assert asked == [(session, EVERY)]

    async def test_a_function_may_be_async(self, database: str) -> None:
        async def count(db: AsyncSession, statement: Any) -> Count:
            found = await db.scalar(select(func.count()).select_from(statement.subquery()))
            return Count(found or 0, "estimate")

        items = Paginator(ItemOut, model=Item, count=Cached(count, 60))
        with async_engine(database) as made:
            async with AsyncSession(made) as db:
                for _ in range(2):
                    found = await items.page(db, EVERY, items.parse(""))
                    assert (found.total, found.total_relation) == (180, "estimate")

    @pytest.mark.parametrize("wrong", [None, True, "many", -1, 1.5])
    def test_a_function_must_return_a_number(self, wrong: Any) -> None:
        items = Paginator(ItemOut, model=Item, count=lambda db, statement: wrong)
        with Session(engine("sqlite")) as session, pytest.raises(InvalidOption, match="count"):
            items.sync.page(session, EVERY, items.parse(""))

    def test_a_blocking_session_rejects_an_async_function(self) -> None:
        async def count(db: object, statement: object) -> int:
            return 1

        items = Paginator(ItemOut, model=Item, count=count)
        with (
            Session(engine("sqlite")) as session,
            pytest.raises(InvalidOption, match=r"sync\.page"),
        ):
            items.sync.page(session, EVERY, items.parse(""))
