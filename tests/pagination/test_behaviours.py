"""Requests to a FastAPI application on a real database, and what a client gets of each.

The numbers are those of the behaviours that pages promise; what is refused before any SQL is in
`test_paginate`.
"""

from __future__ import annotations

import base64
import functools
import hmac
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel, PlainSerializer
from sqlalchemy import delete, event, func, insert, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import joinedload
from sqlalchemy.pool import NullPool

from hasten.errors import InvalidOption
from hasten.integrations.fastapi import Paginate
from hasten.pagination import CursorPage, Page, PageParams
from hasten.pagination.cursor import Cursor, Keys
from hasten.pagination.sql import paging
from tests.pagination import databases, moving
from tests.pagination.databases import DRIVERS, Author, Post
from tests.pagination.moving import SORTS, Moving, MovingOut, refill, rows_of

# Which index an order has is not what this is about.
pytestmark = pytest.mark.filterwarnings("ignore::hasten.errors.PaginationWarning")

DOCS: Final = Path(__file__).parents[2] / "docs"
SECRET: Final = "a secret of more than 16 bytes"


class TextOut(BaseModel):
    id: Annotated[int, PlainSerializer(str)]


class AuthorOut(BaseModel):
    id: int
    name: str
    email: str
    nick: str | None


class PostOut(BaseModel):
    id: int
    title: str


Numbered = Paginate(MovingOut, model=Moving, sort=SORTS, default_sort="-id")
Walked = Paginate(MovingOut, model=Moving, sort=SORTS, mode="cursor", secret=SECRET)
Both = Paginate(MovingOut, model=Moving, sort=SORTS, mode="both", secret=SECRET)
AsText = Paginate(TextOut, model=Moving, sort=("id",), mode="cursor", secret=SECRET)
Authors = Paginate(AuthorOut, model=Author, sort=("id", "name", "email", "nick"))
Posts = Paginate(PostOut, model=Post, sort=("title",))
CountedPosts = Paginate(
    PostOut, model=Post, sort=("title",), mode="cursor", secret=SECRET, count="exact"
)

app: Final = FastAPI()


@functools.cache
def _engine(database: str, driver: int) -> AsyncEngine:
    databases.engine(database)
    return create_async_engine(databases.url(database, driver), poolclass=NullPool)


def async_engine(database: str) -> AsyncEngine:
    """On what `databases` holds."""
    return _engine(database, app.state.driver)


def moving_engine(database: str) -> AsyncEngine:
    return moving.async_engine(DRIVERS[database][app.state.driver])


async def _db(request: Request) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(async_engine(request.app.state.database)) as session:
        yield session


async def _moving_db(request: Request) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(moving_engine(request.app.state.database)) as session:
        yield session


DB = Annotated[AsyncSession, Depends(_db)]
MovingDB = Annotated[AsyncSession, Depends(_moving_db)]


@app.get("/numbered")
async def numbered(
    db: MovingDB, q: Annotated[PageParams, Depends(Numbered.params)]
) -> Page[MovingOut]:
    return await Numbered.page(db, select(Moving), q)


@app.get("/walked")
async def walked(
    db: MovingDB, q: Annotated[PageParams, Depends(Walked.params)]
) -> CursorPage[MovingOut]:
    return await Walked.page(db, select(Moving), q)


@app.get("/both")
async def both(
    db: MovingDB, q: Annotated[PageParams, Depends(Both.params)]
) -> Page[MovingOut] | CursorPage[MovingOut]:
    return await Both.page(db, select(Moving), q)


@app.get("/as_text")
async def as_text(
    db: MovingDB, q: Annotated[PageParams, Depends(AsText.params)]
) -> CursorPage[TextOut]:
    return await AsText.page(db, select(Moving), q)


@app.get("/authors")
async def authors(db: DB, q: Annotated[PageParams, Depends(Authors.params)]) -> Page[AuthorOut]:
    return await Authors.page(db, select(Author), q)


union: Final = union_all(
    select(Author).where(Author.id <= 3), select(Author).where(Author.id >= 9)
).subquery()
busy: Final = select(Post.author_id).group_by(Post.author_id).having(func.count() > 4).cte("busy")

SELECTS: Final[dict[str, Any]] = {
    "group": select(Author).join(Post).group_by(Author.id),
    "having": select(Author).join(Post).group_by(Author.id).having(func.count(Post.id) > 4),
    "cte": select(Author).join(busy, busy.c.author_id == Author.id),
    "distinct": select(Author).join(Post).distinct(),
    "join": select(Author).join(Post),
    "in a union": select(Author).where(Author.id.in_(select(union.c.id))),
}
"""Selects whose total is easily wrong."""


@app.get("/selects/{name}")
async def selects(
    name: str, db: DB, q: Annotated[PageParams, Depends(Authors.params)]
) -> Page[AuthorOut]:
    return await Authors.page(db, SELECTS[name], q)


AMBIGUOUS: Final[dict[str, Any]] = {
    "group": select(Author).group_by(Author.name),
    "limit": select(Author).limit(5),
    "outer": select(Author).join(Post).group_by(Post.title),
}


@app.get("/ambiguous/{name}")
async def ambiguous(
    name: str, db: DB, q: Annotated[PageParams, Depends(Authors.params)]
) -> Page[AuthorOut]:
    return await Authors.page(db, AMBIGUOUS[name], q)


@app.get("/counted")
async def counted(
    db: DB, q: Annotated[PageParams, Depends(CountedPosts.params)]
) -> CursorPage[PostOut]:
    statement = (
        select(Post).options(joinedload(Post.author)).outerjoin(Post.author).order_by(Post.title)
    )
    return await CountedPosts.page(db, statement, q)


@pytest.fixture(params=["aiosqlite", "asyncpg", "psycopg_async"])
def database(request: pytest.FixtureRequest) -> str:
    """The application works on it by an asynchronous driver."""
    (name,) = (each for each, drivers in DRIVERS.items() if request.param in drivers)
    app.state.database, app.state.driver = name, DRIVERS[name].index(request.param)
    return name


async def get(path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path)


async def answer(path: str) -> Any:
    found = await get(path)
    assert found.status_code == 200, found.text
    return found.json()


async def walk(path: str, then: Callable[[], None] = lambda: None) -> list[Any]:
    """All rows of a walk to the end, page by page."""
    rows: list[Any] = []
    token = ""
    for _ in range(200):
        page = await answer(f"{path}&cursor={token}")
        rows += page["data"]
        then()
        token = page["pagination"]["next_cursor"]
        if token is None:
            return rows
    raise AssertionError("it has no end")


def ids(page: Any) -> list[int]:
    return [row["id"] for row in page["data"]]


@contextmanager
def statements_on(engine: AsyncEngine) -> Iterator[list[str]]:
    with databases.statements_of(engine.sync_engine) as seen:
        yield seen


class TestWhatOthersWrite:
    async def test_19_numbers_shift_and_cursors_do_not(self, database: str) -> None:
        """The newest row first: a new one moves all others to the next place."""
        refill(database, rows_of(12))
        by_number = await answer("/numbered?limit=4")
        by_cursor = await answer("/walked?limit=4&sort=-id")
        assert ids(by_number) == ids(by_cursor) == [120, 110, 100, 90]
        with moving.engine(database).begin() as connection:
            row = rows_of(13)[-1]
            connection.execute(insert(Moving), [row])
        assert ids(await answer("/numbered?limit=4&page=2")) == [90, 80, 70, 60]
        token = by_cursor["pagination"]["next_cursor"]
        assert ids(await answer(f"/walked?limit=4&sort=-id&cursor={token}")) == [80, 70, 60, 50]
        with moving.engine(database).begin() as connection:
            connection.execute(delete(Moving).where(Moving.id.in_([130, 120])))
        assert ids(await answer("/numbered?limit=4&page=2")) == [70, 60, 50, 40]
        assert ids(await answer(f"/walked?limit=4&sort=-id&cursor={token}")) == [80, 70, 60, 50]

    def test_19_is_written_down(self) -> None:
        assert "rows that are added or deleted in the\nmeantime shift them" in page_of("pages")

    @pytest.mark.parametrize("page", [1, 2, 3, 4])
    @pytest.mark.parametrize("defer_from", [0, 1_000])
    @pytest.mark.parametrize("left", [0, 5, 12])
    async def test_20_rows_deleted_between_count_and_page(
        self,
        database: str,
        page: int,
        defer_from: int,
        left: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The total is there, is no less than what was seen, and no less than nothing."""
        refill(database, rows_of(20))
        monkeypatch.setattr(paging, "DEFER_FROM", defer_from)
        numbers = count()

        def delete_most(*_: object) -> None:
            if next(numbers) == 1:
                with moving.engine(database).begin() as connection:
                    connection.execute(delete(Moving).where(Moving.id > 10 * left))

        engine = moving_engine(database).sync_engine
        event.listen(engine, "before_cursor_execute", delete_most)
        try:
            found = await answer(f"/numbered?limit=7&page={page}")
        finally:
            event.remove(engine, "before_cursor_execute", delete_most)
        total, rows = found["pagination"]["total"], len(found["data"])
        assert 0 <= total <= 20
        assert not rows or total >= 7 * (page - 1) + rows
        if defer_from and page < 4:
            # Page and total are one statement: both are of before.
            assert (total, rows) == (20, 7 if page < 3 else 6)
        if defer_from == 0 and page < 4:
            # The page is read from the nearer end, so it may be one of what is left.
            assert rows <= max(0, min(7, left))

    async def test_41_a_row_whose_key_changes_is_met_any_number_of_times(
        self, database: str
    ) -> None:
        """All others are met once, and the walk ends, though the row runs on before it."""
        refill(database, [row | {"grade": 5} for row in rows_of(20)])
        ahead = count(6)

        def run_on() -> None:
            with moving.engine(database).begin() as connection:
                moved = update(Moving).where(Moving.id == 10)
                connection.execute(moved.values(grade=min(next(ahead), 12)))

        met = [row["id"] for row in await walk("/walked?limit=3&sort=grade", run_on)]
        assert met.count(10) > 1
        assert [id for id in met if id != 10] == list(range(20, 201, 10))
        refill(database, [row | {"grade": 5} for row in rows_of(20)])

        def fall_behind() -> None:
            with moving.engine(database).begin() as connection:
                connection.execute(update(Moving).where(Moving.id == 200).values(grade=1))

        met = [row["id"] for row in await walk("/walked?limit=3&sort=grade", fall_behind)]
        assert met == list(range(10, 200, 10))

    def test_41_is_written_down(self) -> None:
        assert "*changes* meanwhile may be met again or missed" in page_of("pages")


class TestOrderAndTotals:
    @pytest.mark.parametrize(
        ("sort", "order"),
        [
            ("", "authors.id ASC"),
            ("sort=id", "authors.id ASC"),
            ("sort=-email", "authors.email DESC"),
            ("sort=email,name", "authors.email ASC, authors.name ASC"),
            # Unique, but it may be NULL; and not unique at all.
            ("sort=nick", "authors.nick ASC, authors.id ASC"),
            ("sort=-name", "authors.name DESC, authors.id DESC"),
        ],
    )
    async def test_23_24_25_the_primary_key_is_appended_where_it_is_needed(
        self, database: str, sort: str, order: str
    ) -> None:
        with statements_on(async_engine(database)) as seen:
            await answer(f"/authors?{sort}")
        (statement,) = seen
        found = re.search(r"ORDER BY (.+?)\s+LIMIT", statement, re.DOTALL)
        assert found is not None
        assert found[1].replace(" NULLS LAST", "") == order

    @pytest.mark.parametrize(
        ("name", "remedy"), [("group", "primary key"), ("outer", "primary key"), ("limit", "LIMIT")]
    )
    async def test_26_what_cannot_be_told_apart_is_an_error_with_its_remedy(
        self, database: str, name: str, remedy: str
    ) -> None:
        """At the first call, before any SQL: it is the mistake of the application."""
        engine = async_engine(database)
        with statements_on(engine) as seen, pytest.raises(InvalidOption, match=remedy):
            await get(f"/ambiguous/{name}")
        assert seen == []

    @pytest.mark.parametrize("name", SELECTS)
    @pytest.mark.parametrize("limit", [1, 2, 3, 100])
    async def test_27_29_pages_and_total_are_those_of_a_full_read(
        self, database: str, name: str, limit: int
    ) -> None:
        with databases.engine(database).connect() as connection:
            everything = connection.execute(SELECTS[name].order_by(Author.id)).all()
        wanted = list(dict.fromkeys(row.id for row in everything))
        found: list[int] = []
        for number in range(1, len(wanted) // limit + 2):
            page = await answer(f"/selects/{quote(name)}?limit={limit}&page={number}")
            assert page["pagination"]["total"] == len(wanted)
            found += ids(page)
        assert found == wanted

    async def test_30_what_does_not_count_is_left_out_of_the_count(self, database: str) -> None:
        with statements_on(async_engine(database)) as seen:
            page = await answer("/counted?limit=3")
        assert page["pagination"]["total"] == 40
        (counting,) = [statement for statement in seen if "count(" in statement]
        assert "ORDER BY" not in counting
        assert "authors.name" not in counting
        assert "posts.title" not in counting
        # Whether it repeats rows is for the database to know, by its keys.
        assert "LEFT OUTER JOIN authors" in counting


class TestCursors:
    NONE: Final = Keys("a secret that is none of theirs")

    @pytest.mark.parametrize("value", ["foo", 10**26, "\0", None, True, 1.5, "2026-99-99"])
    @pytest.mark.parametrize("sort", ["grade", "label", "made", "weight"])
    async def test_46_47_a_forged_value_is_400(
        self, database: str, sort: str, value: object
    ) -> None:
        """With another secret, with none, and with a fingerprint that was seen elsewhere."""
        refill(database, rows_of(9))
        token = (await answer(f"/walked?limit=2&sort={sort}"))["pagination"]["next_cursor"]
        mark = _raw(token)[2:18]
        forged = self.NONE.sign(Cursor((value, 20)), mark)
        unsigned = _text(_raw(forged)[:-16])
        own_mac = _text(_raw(forged)[:-16] + _raw(token)[-16:])
        for each in (forged, unsigned, own_mac):
            with statements_on(moving_engine(database)) as seen:
                found = await get(f"/walked?limit=2&sort={sort}&cursor={each}")
            assert (found.status_code, seen) == (400, [])
            assert found.json()["detail"][0]["type"] == "invalid_cursor"

    async def test_52_a_cursor_of_another_version_has_expired(self, database: str) -> None:
        refill(database, rows_of(9))
        token = (await answer("/walked?limit=2"))["pagination"]["next_cursor"]
        body = bytes([9]) + _raw(token)[1:-16]
        mac = hmac.digest(SECRET.encode(), b"hasten.pagination.cursor\0" + body, "sha256")[:16]
        found = await get(f"/walked?limit=2&cursor={_text(body + mac)}")
        assert found.status_code == 400
        (detail,) = found.json()["detail"]
        assert detail["type"] == "cursor_expired"
        assert "first page" in detail["msg"]

    @pytest.mark.parametrize("sort", ["weight", "-weight", "-weight,-id", "weight,-id"])
    @pytest.mark.parametrize("limit", [1, 3])
    async def test_57_infinities_and_nan_are_met_once_where_the_database_has_them(
        self, database: str, sort: str, limit: int
    ) -> None:
        weights = [math.nan, math.inf, 1.5, -math.inf, None, math.nan, 1.5, 0.0, -0.0, math.nan]
        rows = [row | {"weight": weight} for row, weight in zip(rows_of(10), weights, strict=True)]
        refill(database, rows)
        whole = await answer(f"/numbered?limit=100&sort={sort}")
        met = await walk(f"/walked?limit={limit}&sort={sort}")
        assert [row["id"] for row in met] == ids(whole)
        assert sorted(ids(whole)) == list(range(10, 101, 10))
        # JSON has no word for them.
        assert {row["weight"] for row in met} == {None, 1.5, 0.0}

    @pytest.mark.parametrize("path", ["walked", "both"])
    async def test_58_an_empty_cursor_is_the_first_page(self, database: str, path: str) -> None:
        refill(database, rows_of(9))
        found = await answer(f"/{path}?limit=4&cursor=")
        assert ids(found) == [10, 20, 30, 40]
        assert found["pagination"]["prev_cursor"] is None
        assert found["pagination"]["has_more"] is True
        assert found == await answer("/walked?limit=4")

    @pytest.mark.parametrize("mode", ["cursor", "both"])
    @pytest.mark.parametrize("secret", [None, "", b"short", [], ["long enough, this one is", "no"]])
    def test_60_without_a_good_secret_the_application_does_not_start(
        self, mode: str, secret: Any
    ) -> None:
        with pytest.raises(InvalidOption, match="secret"):
            Paginate(MovingOut, model=Moving, mode=mode, secret=secret)  # type: ignore[call-overload]


class TestHttp:
    def test_87_what_a_browser_of_another_origin_needs_is_written_down(self) -> None:
        assert "Access-Control-Expose-Headers: Link, ETag" in page_of("pages")

    def test_90_numbers_that_a_browser_cannot_hold_are_written_down(self) -> None:
        text = page_of("fields")
        assert "2⁵³" in text
        assert "PlainSerializer(str)" in text

    async def test_90_ids_as_text_are_paged_by_their_number(self, database: str) -> None:
        """The remedy: only the JSON is another one."""
        big = 2**31 - 5
        refill(database, [row | {"id": big + n} for n, row in enumerate(rows_of(5))] + rows_of(3))
        rows = await walk("/as_text?limit=2&sort=-id")
        numbers = [*range(big + 4, big - 1, -1), 30, 20, 10]
        assert rows == [{"id": str(number)} for number in numbers]


def page_of(name: str) -> str:
    """A page of the how-tos."""
    return (DOCS / "howto" / f"{name}.md").read_text()


def _raw(token: str) -> bytes:
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
