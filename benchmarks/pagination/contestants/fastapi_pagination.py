"""fastapi-pagination: Page, and CursorPage, which uses sqlakeyset."""

import json
from typing import Any, Final

from fastapi import Query
from fastapi_pagination import Page, add_pagination
from fastapi_pagination.cursor import CursorPage
from fastapi_pagination.customization import (
    CustomizedPage,
    UseIncludeTotal,
    UseParamsFields,
    UseQuotedCursor,
)
from fastapi_pagination.ext.sqlalchemy import apaginate, paginate
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from benchmarks.asgi import Application
from benchmarks.pagination.contestant import MAX_LIMIT, Contestant, Rows
from benchmarks.pagination.database import Database
from benchmarks.pagination.dataset import MARKS, NEWEST, ORDERS, TABLES, MarkOut, Post, PostOut
from benchmarks.pagination.site import Site

PAGES: Final[dict[str, Any]] = {
    "exact": Page[PostOut],
    "none": CustomizedPage[Page, UseIncludeTotal(False)][PostOut],
}
WALK: Final[Any] = CustomizedPage[
    CursorPage,
    UseIncludeTotal(False),
    UseQuotedCursor(False),
    UseParamsFields(size=Query(50, ge=1, le=MAX_LIMIT)),
][MarkOut]


class FastapiPagination(Contestant):
    title = "fastapi-pagination"
    remark = (
        "Page, with subquery_count=False and unique=False; CursorPage; "
        "UseIncludeTotal(False) if there is no total, and for CursorPage, which would count, too"
    )
    packages = ("fastapi-pagination", "sqlakeyset")
    counts = frozenset(PAGES)
    orders = frozenset(ORDERS)
    limit_parameter = "size"

    async def build(self, database: Database) -> Application:
        site = Site()
        engine = database.new_engine()
        add = _add_waiting if database.is_async else _add_plain
        for name, table in TABLES.items():
            for kind, page in PAGES.items():
                statement = select(table).order_by(*NEWEST.terms(table))
                add(site, f"/{name}/{kind}", engine, statement, page)
        for name, order in ORDERS.items():
            marks = select(*(getattr(Post, each) for each in MARKS))
            add(site, f"/walk/{name}", engine, marks.order_by(*order.terms(Post)), WALK)
        for app in site:
            add_pagination(app)
        return site

    def read_page(self, body: bytes) -> tuple[Rows, int | None]:
        answer: Any = json.loads(body)
        return answer["items"], answer.get("total")

    def read_slice(self, body: bytes) -> tuple[Rows, str | None]:
        answer: Any = json.loads(body)
        return answer["items"], answer["next_page"]


def _add_waiting(site: Site, path: str, engine: Any, statement: Any, page: Any) -> None:
    @site.at(path).get(path, response_model=page)
    async def posts() -> Any:
        async with AsyncSession(engine) as db:
            return await apaginate(db, statement, subquery_count=False, unique=False)


def _add_plain(site: Site, path: str, engine: Any, statement: Any, page: Any) -> None:
    @site.at(path).get(path, response_model=page)
    def posts() -> Any:
        with Session(engine) as db:
            return paginate(db, statement, subquery_count=False, unique=False)


CONTESTANT = FastapiPagination
