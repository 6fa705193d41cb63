"""sqlakeyset, in handlers that were written for it, for walks only."""

from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel
from sqlakeyset import select_page
from sqlakeyset.asyncio import select_page as select_page_async
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from benchmarks.asgi import Application
from benchmarks.pagination.contestant import MAX_LIMIT, Contestant
from benchmarks.pagination.database import Database
from benchmarks.pagination.dataset import MARKS, ORDERS, MarkOut, Post
from benchmarks.pagination.site import Site

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]


class Pagination(BaseModel):
    next_cursor: str | None


class MarksOut(BaseModel):
    data: list[MarkOut]
    pagination: Pagination


class Sqlakeyset(Contestant):
    title = "sqlakeyset"
    remark = "select_page of columns, its bookmark as the cursor, a response_model"
    packages = ("sqlakeyset",)
    orders = frozenset(ORDERS)

    async def build(self, database: Database) -> Application:
        site = Site()
        engine = database.new_engine()
        add = _add_waiting if database.is_async else _add_plain
        for name, order in ORDERS.items():
            marks = select(*(getattr(Post, each) for each in MARKS))
            add(site, f"/walk/{name}", engine, marks.order_by(*order.terms(Post)))
        return site


def _add_waiting(site: Site, path: str, engine: Any, statement: Any) -> None:
    @site.at(path).get(path, response_model=MarksOut)
    async def walk(cursor: str | None = None, limit: Limit = 20) -> Any:
        async with AsyncSession(engine) as db:
            return _to_response(await select_page_async(db, statement, per_page=limit, page=cursor))


def _add_plain(site: Site, path: str, engine: Any, statement: Any) -> None:
    @site.at(path).get(path, response_model=MarksOut)
    def walk(cursor: str | None = None, limit: Limit = 20) -> Any:
        with Session(engine) as db:
            return _to_response(select_page(db, statement, per_page=limit, page=cursor))


def _to_response(page: Any) -> Any:
    paging = page.paging
    next_cursor = paging.bookmark_next if paging.has_next else None
    return {"data": page, "pagination": {"next_cursor": next_cursor}}


CONTESTANT = Sqlakeyset
