"""hasten, as its documentation shows it for FastAPI."""

from typing import Annotated, Any, Final

from fastapi import Depends, Response
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from benchmarks.asgi import Application
from benchmarks.pagination.contestant import FIELDS, MAX_LIMIT, Contestant
from benchmarks.pagination.database import Database
from benchmarks.pagination.dataset import NEWEST, ORDERS, TABLES, MarkOut, Post, PostOut, PostTable
from benchmarks.pagination.site import Site
from hasten.fastapi import Fields, Paginate
from hasten.fields import FieldSet, encode
from hasten.pagination import Capped, Counting, PageParams, SortKey

COUNTS: Final[dict[str, Counting]] = {
    "exact": "exact",
    "capped": Capped(10_000),
    "estimated": "estimated",
    "none": "none",
}
SECRET: Final = "a secret of more than 16 bytes"

Posts = Fields(PostOut, model=Post, default=FIELDS)
Few = Paginate(PostOut, model=Post, default_sort=NEWEST.sort(), count="none", fields=Posts)


class Hasten(Contestant):
    title = "hasten"
    remark = "Paginate and Fields of hasten.fastapi, given a session"
    packages = ("hasten",)
    counts = frozenset(COUNTS)
    orders = frozenset(ORDERS)
    has_fields = True

    async def build(self, database: Database) -> Application:
        site = Site()
        engine = database.new_engine()
        add_pages = _add_waiting_pages if database.is_async else _add_plain_pages
        for name, table in TABLES.items():
            for kind, count in COUNTS.items():
                pages = Paginate(PostOut, model=table, default_sort=NEWEST.sort(), count=count)
                add_pages(site, f"/{name}/{kind}", engine, table, pages)
        # NULLs are where the database puts them, because the other contestants have no option.
        score = SortKey("score", nulls=database.nulls)
        for name, order in ORDERS.items():
            walk = Paginate(
                MarkOut, model=Post, sort=(score,), default_sort=order.sort(), max_limit=MAX_LIMIT,
                mode="cursor", secret=SECRET,
            )  # fmt: skip
            add_pages(site, f"/walk/{name}", engine, Post, walk)
        if database.is_async:
            _add_waiting_fields(site, engine)
        else:
            _add_plain_fields(site, engine)
        return site


def _add_waiting_pages(
    site: Site, path: str, engine: Any, table: PostTable, pages: Paginate[Any]
) -> None:
    @site.at(path).get(path)
    async def page(q: Annotated[PageParams, Depends(pages.params)]) -> Any:
        async with AsyncSession(engine) as db:
            return await pages.page(db, select(table), q)


def _add_plain_pages(
    site: Site, path: str, engine: Any, table: PostTable, pages: Paginate[Any]
) -> None:
    @site.at(path).get(path)
    def page(q: Annotated[PageParams, Depends(pages.params)]) -> Any:
        with Session(engine) as db:
            return pages.sync.page(db, select(table), q)


def _add_waiting_fields(site: Site, engine: Any) -> None:
    @site.at("/few").get("/few")
    async def few(
        q: Annotated[PageParams, Depends(Few.params)],
        fields: Annotated[FieldSet, Depends(Posts.params)],
    ) -> Any:
        async with AsyncSession(engine) as db:
            return await Few.page(db, select(Post), q, fields)

    @site.at("/one/{id}").get("/one/{id}")
    async def one(id: int, fields: Annotated[FieldSet, Depends(Posts.params)]) -> Response:
        async with AsyncSession(engine) as db:
            row = await Posts.one(db, select(Post).where(Post.id == id), fields)
        return Response(encode(row), media_type="application/json")


def _add_plain_fields(site: Site, engine: Any) -> None:
    @site.at("/few").get("/few")
    def few(
        q: Annotated[PageParams, Depends(Few.params)],
        fields: Annotated[FieldSet, Depends(Posts.params)],
    ) -> Any:
        with Session(engine) as db:
            return Few.sync.page(db, select(Post), q, fields)

    @site.at("/one/{id}").get("/one/{id}")
    def one(id: int, fields: Annotated[FieldSet, Depends(Posts.params)]) -> Response:
        with Session(engine) as db:
            row = Posts.sync.one(db, select(Post).where(Post.id == id), fields)
        return Response(encode(row), media_type="application/json")


CONTESTANT = Hasten
