"""FastAPI without a library, as in its tutorial: LIMIT, OFFSET, count(*), entities, pydantic."""

from typing import Annotated, Any

from fastapi import HTTPException, Query
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from benchmarks.asgi import Application
from benchmarks.pagination.contestant import Contestant
from benchmarks.pagination.database import Database
from benchmarks.pagination.dataset import NEWEST, TABLES, Post, PostOut, PostTable
from benchmarks.pagination.site import Site

Number = Annotated[int, Query(ge=1)]
Limit = Annotated[int, Query(ge=1, le=100)]
Names = Annotated[str, Query()]


class Pagination(BaseModel):
    page: int
    limit: int
    total: int | None


class PostsOut(BaseModel):
    data: list[PostOut]
    pagination: Pagination


class SomeOfPostOut(BaseModel):
    id: int | None = None
    name: str | None = None
    email: str | None = None
    title: str | None = None
    summary: str | None = None
    body: str | None = None


class SomeOfPostsOut(BaseModel):
    data: list[SomeOfPostOut]
    pagination: Pagination


class Handwritten(Contestant):
    title = "by hand"
    remark = "select of entities and count(*), a response_model; fields: columns, exclude_unset"
    counts = frozenset({"exact", "none"})
    has_fields = True

    async def build(self, database: Database) -> Application:
        site = Site()
        engine = database.new_engine()
        add_pages = _add_waiting_pages if database.is_async else _add_plain_pages
        for name, table in TABLES.items():
            for kind in self.counts:
                add_pages(site, f"/{name}/{kind}", engine, table, kind == "exact")
        if database.is_async:
            _add_waiting_fields(site, engine)
        else:
            _add_plain_fields(site, engine)
        return site


def _add_waiting_pages(
    site: Site, path: str, engine: Any, table: PostTable, is_counted: bool
) -> None:
    @site.at(path).get(path, response_model=PostsOut)
    async def page(page: Number = 1, limit: Limit = 20) -> Any:
        async with AsyncSession(engine) as db:
            total = await db.scalar(_count(table)) if is_counted else None
            found = (await db.scalars(_page(table, page, limit))).all()
        return {"data": found, "pagination": {"page": page, "limit": limit, "total": total}}


def _add_plain_pages(
    site: Site, path: str, engine: Any, table: PostTable, is_counted: bool
) -> None:
    @site.at(path).get(path, response_model=PostsOut)
    def page(page: Number = 1, limit: Limit = 20) -> Any:
        with Session(engine) as db:
            total = db.scalar(_count(table)) if is_counted else None
            found = db.scalars(_page(table, page, limit)).all()
        return {"data": found, "pagination": {"page": page, "limit": limit, "total": total}}


def _count(table: PostTable) -> Any:
    return select(func.count()).select_from(table)


def _page(table: PostTable, number: int, limit: int) -> Any:
    ordered = select(table).order_by(*NEWEST.terms(table))
    return ordered.limit(limit).offset((number - 1) * limit)


def _add_waiting_fields(site: Site, engine: Any) -> None:
    @site.at("/few").get("/few", response_model=SomeOfPostsOut, response_model_exclude_unset=True)
    async def few(fields: Names, page: Number = 1, limit: Limit = 20) -> Any:
        async with AsyncSession(engine) as db:
            found = (await db.execute(_select_few(fields, page, limit))).mappings().all()
        return {"data": found, "pagination": {"page": page, "limit": limit, "total": None}}

    @site.at("/one/{id}").get(
        "/one/{id}", response_model=SomeOfPostOut, response_model_exclude_unset=True
    )
    async def one(id: int, fields: Names) -> Any:
        async with AsyncSession(engine) as db:
            found = (await db.execute(_select_one(fields, id))).mappings().first()
        return _or_404(found)


def _add_plain_fields(site: Site, engine: Any) -> None:
    @site.at("/few").get("/few", response_model=SomeOfPostsOut, response_model_exclude_unset=True)
    def few(fields: Names, page: Number = 1, limit: Limit = 20) -> Any:
        with Session(engine) as db:
            found = db.execute(_select_few(fields, page, limit)).mappings().all()
        return {"data": found, "pagination": {"page": page, "limit": limit, "total": None}}

    @site.at("/one/{id}").get(
        "/one/{id}", response_model=SomeOfPostOut, response_model_exclude_unset=True
    )
    def one(id: int, fields: Names) -> Any:
        with Session(engine) as db:
            found = db.execute(_select_one(fields, id)).mappings().first()
        return _or_404(found)


def _select_few(fields: str, number: int, limit: int) -> Any:
    ordered = select(*_columns(fields)).order_by(*NEWEST.terms(Post))
    return ordered.limit(limit).offset((number - 1) * limit)


def _select_one(fields: str, id_: int) -> Any:
    return select(*_columns(fields)).where(Post.id == id_)


def _columns(fields: str) -> list[Any]:
    names = fields.split(",")
    if not set(names) <= set(SomeOfPostOut.model_fields):
        raise HTTPException(422, "unknown field")
    return [getattr(Post, name) for name in names]


def _or_404(found: Any) -> Any:
    if found is None:
        raise HTTPException(404, "no such post")
    return found


CONTESTANT = Handwritten
