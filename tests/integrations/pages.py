"""An application with pages and fields on every driver; a second connection changes its rows."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import httpx
from fastapi import APIRouter, Depends, FastAPI, Request
from pydantic import BaseModel, Field
from sqlalchemy import BigInteger, Double, ForeignKey, delete, event, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.pool import NullPool

from hasten.fastapi import Fields, Paginate, http_errors
from hasten.fields import FieldSet
from hasten.pagination import Capped, CursorPage, Page, PageParams
from tests.pagination import databases

DRIVERS: Final = {"aiosqlite": "sqlite", "asyncpg": "postgresql", "psycopg": "postgresql"}
"""Asynchronous ones, and their databases. The second connection is a synchronous one."""

SECRET: Final = "a secret of more than 16 bytes"
NOTES: Final = 40
OWNERS: Final = 4


class Base(DeclarativeBase):
    pass


class Owner(Base):
    __tablename__ = "e_owners"
    id: Mapped[int] = mapped_column(primary_key=True)
    first: Mapped[str]
    last: Mapped[str]
    email: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    notes: Mapped[list[Note]] = relationship(back_populates="owner", order_by="Note.id")


class Note(Base):
    __tablename__ = "e_notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    rank: Mapped[int | None]
    ratio: Mapped[float | None] = mapped_column(Double)
    size: Mapped[int] = mapped_column(BigInteger)
    made: Mapped[datetime]
    password_hash: Mapped[str]
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("e_owners.id"))
    owner: Mapped[Owner | None] = relationship(back_populates="notes")


class OwnerOut(BaseModel):
    id: int
    email: str
    notes: list[NoteOut] = []


class NoteOut(BaseModel):
    id: int
    title: str
    rank: int | None
    ratio: float | None
    size: int
    made: datetime = Field(alias="madeAt")
    owner: OwnerOut | None = None


def rows() -> Iterator[dict[str, object]]:
    """Rows with many ties and NULLs. Every fourth note has no owner, the last owner no notes."""
    for number in range(1, NOTES + 1):
        yield {
            "id": number,
            "title": f"t{number % 3}",
            "rank": None if number % 5 == 0 else number % 4,
            "ratio": number / 7,
            "size": 2**53 + number,
            "made": datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)
            + timedelta(microseconds=number),
            "password_hash": "hidden",
            "owner_id": None if number % 4 == 0 else number % 4,
        }


_filled: Final[set[str]] = set()
"""The databases that nothing has changed since they were filled."""


class Application:
    """Requests to the application, and changes by another connection, in one database."""

    def __init__(self, driver: str) -> None:
        self.driver = driver
        self.database = DRIVERS[driver]
        self.engine = engine(driver)
        self.app = application(driver)
        self.statements: list[str] = []
        """That the application has executed, so far."""

    async def get(self, path: str, **options: Any) -> httpx.Response:
        # An error of the application is raised here, not answered with 500.
        transport = httpx.ASGITransport(app=self.app, root_path=options.pop("root_path", ""))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path, **options)

    async def json(self, path: str, status: int = 200) -> Any:
        answer = await self.get(path)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def refused(self, path: str, status: int = 422) -> Any:
        """Return the error of one parameter. No statement is executed."""
        before = len(self.statements)
        detail = (await self.json(path, status))["detail"]
        assert len(self.statements) == before
        (found,) = detail
        return found

    async def walk(self, path: str, token: str | None = "", key: str = "next_cursor") -> list[Any]:
        """Return the pages from a token on. key is the cursor to follow."""
        pages: list[Any] = []
        while token is not None:
            pages.append(await self.json(f"{path}&cursor={token}"))
            token = pages[-1]["pagination"][key]
            assert len(pages) < 200
        return pages

    def write(self, *statements: Any) -> None:
        """Commit on another connection."""
        _filled.discard(self.database)
        with databases.engine(self.database).begin() as connection:
            for statement in statements:
                connection.execute(statement)

    def read(self, statement: Any) -> list[Any]:
        with databases.engine(self.database).connect() as connection:
            return list(connection.execute(statement))

    def fill(self) -> None:
        """Fill the tables with `rows` only, unless they are unchanged."""
        if self.database in _filled:
            return
        self.write(
            delete(Note),
            delete(Owner),
            insert(Owner).values(
                [
                    {
                        "id": n, "first": f"f{n}", "last": f"l{n}",
                        "email": f"{n}@example.org", "password_hash": "hidden",
                    }
                    for n in range(1, OWNERS + 1)
                ]
            ),
            insert(Note).values(list(rows())),
        )  # fmt: skip
        _filled.add(self.database)

    @contextmanager
    def logging(self) -> Iterator[None]:
        def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
            self.statements.append(statement)

        event.listen(self.engine.sync_engine, "before_cursor_execute", note)
        try:
            yield
        finally:
            event.remove(self.engine.sync_engine, "before_cursor_execute", note)


@functools.cache
def engine(driver: str) -> AsyncEngine:
    """Each test has its own event loop, so connections are closed after each request."""
    database = DRIVERS[driver]
    Base.metadata.create_all(databases.engine(database))
    url = databases.url(database, 1).replace("+asyncpg", f"+{driver}")
    return create_async_engine(url, poolclass=NullPool)


NoteFields = Fields(NoteOut, model=Note, default=("id", "title"), max_depth=3)
EditorFields = Fields(NoteOut, model=Note)
ReaderFields = EditorFields.without("size", "owner.email")
SORTS: Final = ("id", "title", "rank", "ratio", "madeAt")

Notes = Paginate(NoteOut, model=Note, fields=EditorFields, sort=SORTS, max_offset=10_000)
Walk = Paginate(NoteOut, model=Note, fields=EditorFields, sort=SORTS, mode="cursor", secret=SECRET)
Some = Paginate(NoteOut, model=Note, sort=SORTS, count=Capped(10))


def application(driver: str) -> FastAPI:
    async def session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine(driver)) as opened:
            yield opened

    app = FastAPI()
    app.include_router(router)
    app.dependency_overrides[_session] = session
    return app


async def _session() -> AsyncSession:
    raise NotImplementedError("of one driver or another")


DB = Annotated[AsyncSession, Depends(_session)]
Chosen = Annotated[FieldSet, Depends(EditorFields.params)]
router: Final = APIRouter()


@router.get("/notes")
async def notes(
    db: DB, q: Annotated[PageParams, Depends(Notes.params)], fields: Chosen
) -> Page[NoteOut]:
    return await Notes.page(db, select(Note), q, fields)


@router.get("/walk")
async def walk(
    db: DB, q: Annotated[PageParams, Depends(Walk.params)], fields: Chosen
) -> CursorPage[NoteOut]:
    return await Walk.page(db, select(Note), q, fields)


@router.get("/some")
async def some(db: DB, q: Annotated[PageParams, Depends(Some.params)]) -> Page[NoteOut]:
    return await Some.page(db, select(Note), q)


@router.get("/grouped")
async def grouped(db: DB, q: Annotated[PageParams, Depends(Notes.params)]) -> Page[NoteOut]:
    return await Notes.page(db, select(Note.title).group_by(Note.title), q)


@router.get("/notes/{id}", response_model=None)
async def note(
    id: int, db: DB, fields: Annotated[FieldSet, Depends(NoteFields.params)]
) -> dict[str, object]:
    return await NoteFields.one(db, select(Note).where(Note.id == id), fields)


@router.get("/read/{id}", response_model=None)
async def read(id: int, db: DB, request: Request) -> dict[str, object]:
    """Return what the role of the request may see."""
    fields = ReaderFields if request.headers.get("role") != "editor" else EditorFields
    with http_errors():
        chosen = fields.parse(request.query_params)
    return await fields.one(db, select(Note).where(Note.id == id), chosen)
