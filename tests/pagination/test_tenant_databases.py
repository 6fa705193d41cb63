"""Each tenant has a database: totals and versions belong to one database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import BaseModel
from sqlalchemy import Engine, StaticPool, create_engine, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session
from sqlalchemy.orm import sessionmaker as make_sessions

from hasten.pagination import Cached, Paginator

pytestmark = pytest.mark.filterwarnings("ignore::hasten.errors.PaginationWarning")

ROWS: Final = {"a": 3, "b": 5}


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)


class NoteOut(BaseModel):
    id: int


def fill(engine: Engine, rows: int) -> None:
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(Note), [{"id": number + 1} for number in range(rows)])


@pytest.fixture(params=["in memory", "in files"])
def engines(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Engine]]:
    """Both databases are in memory, so their URLs are equal."""
    made = {
        tenant: create_engine("sqlite://", poolclass=StaticPool)
        if request.param == "in memory"
        else create_engine(f"sqlite:///{tmp_path / tenant}.db")
        for tenant in ROWS
    }
    for tenant, rows in ROWS.items():
        fill(made[tenant], rows)
    yield made
    for engine in made.values():
        engine.dispose()


def by_session(engine: Engine, notes: Any) -> Any:
    with Session(engine) as session:
        return notes.sync.page(session, select(Note), notes.parse("limit=1"))


def by_connection(engine: Engine, notes: Any) -> Any:
    with engine.connect() as connection:
        return notes.sync.page(connection, select(Note), notes.parse("limit=1"))


def by_session_of_a_connection(engine: Engine, notes: Any) -> Any:
    with engine.connect() as connection, Session(connection) as session:
        return notes.sync.page(session, select(Note), notes.parse("limit=1"))


def by_scoped_session(engine: Engine, notes: Any) -> Any:
    session: Any = scoped_session(make_sessions(engine))
    try:
        return notes.sync.page(session, select(Note), notes.parse("limit=1"))
    finally:
        session.remove()


def by_engine_with_options(engine: Engine, notes: Any) -> Any:
    return by_session(engine.execution_options(logging_token="x"), notes)


WAYS: Final = [
    by_session,
    by_connection,
    by_session_of_a_connection,
    by_scoped_session,
    by_engine_with_options,
]


@pytest.mark.parametrize("page", WAYS)
def test_a_tenant_has_its_own_total(engines: dict[str, Engine], page: Any) -> None:
    notes: Any = Paginator(NoteOut, model=Note, count=Cached("exact", 60))
    for _ in range(2):
        assert {tenant: page(engines[tenant], notes).total for tenant in ROWS} == ROWS
    with engines["a"].begin() as connection:
        connection.execute(insert(Note), [{"id": 100}])
    assert page(engines["a"], notes).total == ROWS["a"]  # the total is still cached


def test_engines_of_one_database_share_its_total(engines: dict[str, Engine]) -> None:
    notes: Any = Paginator(NoteOut, model=Note, count=Cached("exact", 60))
    for page in WAYS:
        page(engines["a"], notes)
    assert len(notes._count_cache._entries) == 1


def test_databases_with_different_names_have_different_versions(tmp_path: Path) -> None:
    notes: Any = Paginator(NoteOut, model=Note, version=func.min(Note.id))
    tags: list[str | None] = []
    for name in ("a.db", "b.db", "a.db"):
        engine = create_engine(f"sqlite:///{tmp_path / name}")
        if not tags or name == "b.db":
            fill(engine, 3)
        tags.append(by_session(engine, notes).etag)
        engine.dispose()
    assert tags[0] == tags[2] != tags[1]


async def test_a_tenant_has_its_own_total_with_asynchronous_sessions() -> None:
    notes: Any = Paginator(NoteOut, model=Note, count=Cached("exact", 60))
    for kind in (AsyncSession, AsyncConnection):
        for rows in (2, 4):
            engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
                await connection.execute(insert(Note), [{"id": n + 1} for n in range(rows)])
            async with engine.connect() as connection:
                db = AsyncSession(engine) if kind is AsyncSession else connection
                assert (await notes.page(db, select(Note), notes.parse("limit=1"))).total == rows
                if kind is AsyncSession:
                    await db.close()
            await engine.dispose()
