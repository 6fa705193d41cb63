"""The lower bound: rows of the driver, encoded to JSON by msgspec, in the same FastAPI.

The drivers are those that SQLAlchemy uses in the other contestants: asyncpg for PostgreSQL, and
sqlite3 in a thread for SQLite. The SQL is written out, parameters are not validated, and a page and
its total are one statement.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from fastapi import Query, Response

from benchmarks.asgi import Application
from benchmarks.pagination.contestant import FIELDS, MAX_LIMIT, Contestant
from benchmarks.pagination.database import Database
from benchmarks.pagination.dataset import MARKS, NAMES, TABLES
from benchmarks.pagination.site import Site

Number = Annotated[int, Query(ge=1)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]

NEWEST: Final = "ORDER BY created_at DESC, id DESC"
FEW: Final = ", ".join(FIELDS)
ENCODER: Final = msgspec.json.Encoder()


class Raw(Contestant):
    title = "raw driver"
    remark = "asyncpg, or sqlite3 in a thread, and msgspec; page and total in one statement"
    packages = ("msgspec",)
    counts = frozenset({"exact", "capped", "none"})
    orders = frozenset({"id"})
    has_fields = True

    async def build(self, database: Database) -> Application:
        site = Site()
        raw = await database.new_raw()
        if database.is_async:
            _add_waiting(site, raw)
        else:
            _add_plain(site, raw)
        return site


def _page_sql(table: str, kind: str) -> str:
    """Return the SQL of a page.

    The total is in the outer select, so that it is not computed for rows that OFFSET skips.
    """
    page = f"SELECT {', '.join(NAMES)} FROM {table} {NEWEST} LIMIT $1 OFFSET $2"
    match kind:
        case "exact":
            total = f"SELECT count(*) FROM {table}"
        case "capped":
            total = f"SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT 10001) AS found"
        case _:
            return page
    return f"SELECT page.*, ({total}) FROM ({page}) AS page {NEWEST}"


FEW_SQL: Final = f"SELECT {FEW} FROM posts {NEWEST} LIMIT $1 OFFSET $2"
ONE_SQL: Final = f"SELECT {FEW} FROM posts WHERE id = $1"
WALK_SQL: Final = f"SELECT {', '.join(MARKS)} FROM posts WHERE id > $1 ORDER BY id LIMIT $2"


def _add_waiting(site: Site, pool: Any) -> None:
    def add_page(path: str, sql: str, names: Sequence[str]) -> None:
        @site.at(path).get(path)
        async def page(page: Number = 1, limit: Limit = 20) -> Response:
            rows = await pool.fetch(sql, limit, (page - 1) * limit)
            return _page(names, rows, page, limit)

    for name in TABLES:
        for kind in Raw.counts:
            add_page(f"/{name}/{kind}", _page_sql(name, kind), NAMES)
    add_page("/few", FEW_SQL, FIELDS)

    @site.at("/one/{id}").get("/one/{id}")
    async def one(id: int) -> Response:
        return _json(dict(await pool.fetchrow(ONE_SQL, id)))

    @site.at("/walk/id").get("/walk/id")
    async def walk(cursor: int = 0, limit: Limit = 20) -> Response:
        return _slice(map(dict, await pool.fetch(WALK_SQL, cursor, limit)), limit)


def _add_plain(site: Site, connection: Any) -> None:
    lock = threading.Lock()

    def fetch(sql: str, *values: object) -> list[Any]:
        with lock:
            found: list[Any] = connection.execute(sql, values).fetchall()
        return found

    def add_page(path: str, sql: str, names: Sequence[str]) -> None:
        @site.at(path).get(path)
        def page(page: Number = 1, limit: Limit = 20) -> Response:
            return _page(names, fetch(sql, limit, (page - 1) * limit), page, limit)

    for name in TABLES:
        for kind in Raw.counts:
            add_page(f"/{name}/{kind}", _page_sql(name, kind), NAMES)
    add_page("/few", FEW_SQL, FIELDS)

    @site.at("/one/{id}").get("/one/{id}")
    def one(id: int) -> Response:
        return _json(dict(zip(FIELDS, fetch(ONE_SQL, id)[0], strict=True)))

    @site.at("/walk/id").get("/walk/id")
    def walk(cursor: int = 0, limit: Limit = 20) -> Response:
        return _slice(_to_dicts(MARKS, fetch(WALK_SQL, cursor, limit)), limit)


def _page(names: Sequence[str], rows: Sequence[Any], number: int, limit: int) -> Response:
    total = rows[0][len(names)] if rows and len(rows[0]) > len(names) else None
    pagination = {"page": number, "limit": limit, "total": total}
    return _json({"data": _to_dicts(names, rows), "pagination": pagination})


def _slice(rows: Iterable[Mapping[str, Any]], limit: int) -> Response:
    data = list(rows)
    next_cursor = str(data[-1]["id"]) if len(data) == limit else None
    return _json({"data": data, "pagination": {"next_cursor": next_cursor}})


def _to_dicts(names: Sequence[str], rows: Sequence[Any]) -> list[dict[str, Any]]:
    found = [
        dict(zip(names, row, strict=False)) for row in rows
    ]  # without the total, the last column
    if found and isinstance(
        found[0].get("created_at"), str
    ):  # SQLite has a text, with a space for the T
        for row in found:
            row["created_at"] = row["created_at"].replace(" ", "T")
    return found


def _json(answer: object) -> Response:
    return Response(ENCODER.encode(answer), media_type="application/json")


CONTESTANT = Raw
