"""SQLAlchemy with as little work as possible: prepared selects of columns, and rows for msgspec.

The difference between this and the raw driver is the cost of SQLAlchemy, and the difference between
hasten and this is the cost of hasten.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from fastapi import Query, Response
from sqlalchemy import Integer, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from benchmarks.asgi import Application
from benchmarks.pagination.contestant import FIELDS, MAX_LIMIT, Contestant
from benchmarks.pagination.database import Database
from benchmarks.pagination.dataset import NAMES, NEWEST, TABLES, WHOLE
from benchmarks.pagination.site import Site

Number = Annotated[int, Query(ge=1)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]

ENCODER: Final = msgspec.json.Encoder()


class BareSqlalchemy(Contestant):
    title = "bare SQLAlchemy"
    remark = "selects of columns that were built once, a session, and msgspec"
    packages = ("msgspec",)
    counts = frozenset({"exact", "none"})
    has_fields = True

    async def build(self, database: Database) -> Application:
        site = Site()
        engine = database.new_engine()
        add = _add_waiting if database.is_async else _add_plain
        for name, table in TABLES.items():
            columns: Any = table.__table__
            count = select(func.count()).select_from(columns)
            page = _page(columns, NAMES)
            add(site, f"/{name}/none", engine, page, NAMES)
            add(site, f"/{name}/exact", engine, page.add_columns(count.scalar_subquery()), NAMES)
        posts: Any = TABLES[WHOLE].__table__
        add(site, "/few", engine, _page(posts, FIELDS), FIELDS)
        one = select(*(posts.c[name] for name in FIELDS)).where(posts.c.id == bindparam("id"))
        add(site, "/one/{id}", engine, one, FIELDS)
        return site


def _page(table: Any, names: Sequence[str]) -> Any:
    ordered = select(*(table.c[name] for name in names)).order_by(
        *(table.c[name].desc() if descends else table.c[name] for name, descends in NEWEST.keys)
    )
    limit = bindparam("limit", type_=Integer)
    return ordered.limit(limit).offset(bindparam("offset", type_=Integer))


def _add_waiting(site: Site, path: str, engine: Any, statement: Any, names: Sequence[str]) -> None:
    async def fetch(values: Mapping[str, int]) -> Sequence[Any]:
        async with AsyncSession(engine) as db:
            return (await db.execute(statement, values)).all()

    if path.startswith("/one"):

        @site.at(path).get(path)
        async def one(id: int) -> Response:
            return _json(dict(zip(names, (await fetch({"id": id}))[0], strict=True)))

    else:

        @site.at(path).get(path)
        async def page(page: Number = 1, limit: Limit = 20) -> Response:
            rows = await fetch({"limit": limit, "offset": (page - 1) * limit})
            return _to_response(names, rows, page, limit)


def _add_plain(site: Site, path: str, engine: Any, statement: Any, names: Sequence[str]) -> None:
    def fetch(values: Mapping[str, int]) -> Sequence[Any]:
        with Session(engine) as db:
            return db.execute(statement, values).all()

    if path.startswith("/one"):

        @site.at(path).get(path)
        def one(id: int) -> Response:
            return _json(dict(zip(names, fetch({"id": id})[0], strict=True)))

    else:

        @site.at(path).get(path)
        def page(page: Number = 1, limit: Limit = 20) -> Response:
            rows = fetch({"limit": limit, "offset": (page - 1) * limit})
            return _to_response(names, rows, page, limit)


def _to_response(names: Sequence[str], rows: Sequence[Any], number: int, limit: int) -> Response:
    total = rows[0][len(names)] if rows and len(rows[0]) > len(names) else None
    data = [
        dict(zip(names, row, strict=False)) for row in rows
    ]  # without the total, the last column
    pagination = {"page": number, "limit": limit, "total": total}
    return _json({"data": data, "pagination": pagination})


def _json(answer: object) -> Response:
    return Response(ENCODER.encode(answer), media_type="application/json")


CONTESTANT = BareSqlalchemy
