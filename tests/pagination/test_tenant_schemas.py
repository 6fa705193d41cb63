"""Each tenant has a schema: one mapped class, and a schema_translate_map."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import pytest
import sqlalchemy
from pydantic import BaseModel
from sqlalchemy import Engine, StaticPool, create_engine, event, func, orm, select, text
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)

from hasten._sqlalchemy.execution import wrap_blocking_session
from hasten.errors import InvalidParameter
from hasten.pagination import Cached, Paginator

pytestmark = pytest.mark.filterwarnings("ignore::hasten.errors.PaginationWarning")

ROWS: Final = {"a": 3, "b": 5}


class Base(orm.DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    __table_args__ = {"schema": "tenant"}  # noqa: RUF012
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)


class NoteOut(BaseModel):
    id: int


def of(tenant: str) -> dict[str, Any]:
    return {"schema_translate_map": {"tenant": tenant}}


def fill(connection: Any, _: object) -> None:
    """In SQLite, an attached database is a schema."""
    for tenant, rows in ROWS.items():
        connection.execute(f"ATTACH ':memory:' AS {tenant}")
        connection.execute(f"CREATE TABLE {tenant}.notes (id INTEGER PRIMARY KEY)")
        for number in range(rows):
            connection.execute(f"INSERT INTO {tenant}.notes VALUES ({number + 1})")
        connection.commit()


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = create_engine("sqlite://", poolclass=StaticPool)
    event.listen(made, "connect", fill)
    yield made
    made.dispose()


def by_engine(engine: Engine, notes: Any, tenant: str, query: str) -> Any:
    with orm.Session(engine.execution_options(**of(tenant))) as session:
        return notes.sync.page(session, select(Note), notes.parse(query))


def by_connection(engine: Engine, notes: Any, tenant: str, query: str) -> Any:
    with engine.connect().execution_options(**of(tenant)) as connection:
        return notes.sync.page(connection, select(Note), notes.parse(query))


def by_connection_of_session(engine: Engine, notes: Any, tenant: str, query: str) -> Any:
    with orm.Session(engine) as session:
        session.connection(execution_options=of(tenant))
        return notes.sync.page(session, select(Note), notes.parse(query))


def by_savepoint(engine: Engine, notes: Any, tenant: str, query: str) -> Any:
    with orm.Session(engine) as session:
        session.connection(execution_options=of(tenant))
        with session.begin_nested():
            return notes.sync.page(session, select(Note), notes.parse(query))


def by_statement(engine: Engine, notes: Any, tenant: str, query: str) -> Any:
    with orm.Session(engine) as session:
        statement = select(Note).execution_options(**of(tenant))
        return notes.sync.page(session, statement, notes.parse(query))


def by_connection_before_statement(engine: Engine, notes: Any, tenant: str, query: str) -> Any:
    with engine.connect().execution_options(**of(tenant)) as connection:
        statement = select(Note).execution_options(**of("a"))
        return notes.sync.page(connection, statement, notes.parse(query))


def by_session(engine: Engine, notes: Any, tenant: str, query: str) -> Any:
    options: Any = {"execution_options": of(tenant)}
    with orm.Session(engine.execution_options(**of("a")), **options) as session:
        return notes.sync.page(session, select(Note), notes.parse(query))


def by_scoped_session(engine: Engine, notes: Any, tenant: str, query: str) -> Any:
    session: Any = orm.scoped_session(orm.sessionmaker(engine.execution_options(**of(tenant))))
    try:
        return notes.sync.page(session, select(Note), notes.parse(query))
    finally:
        session.remove()


WAYS: Final = [
    by_scoped_session, by_engine, by_connection, by_connection_of_session, by_savepoint,
    by_statement, by_connection_before_statement,
]  # fmt: skip
if not sqlalchemy.__version__.startswith("2.0"):
    WAYS.append(by_session)


def notes_of(mode: Any, **options: Any) -> Any:
    return Paginator(NoteOut, model=Note, mode=mode, secret="a secret of 16 bytes", **options)


@pytest.mark.parametrize("page", WAYS)
class TestOfOneTenant:
    def test_a_total_is_cached(self, engine: Engine, page: Any) -> None:
        notes = notes_of("page", count=Cached("exact", 60))
        for _ in range(2):
            assert {tenant: page(engine, notes, tenant, "limit=1").total for tenant in ROWS} == ROWS

    def test_a_cursor_is_accepted(self, engine: Engine, page: Any) -> None:
        notes = notes_of("cursor")
        token = page(engine, notes, "a", "limit=1").next_cursor
        assert page(engine, notes, "a", f"limit=1&cursor={token}").data == [{"id": 2}]
        with pytest.raises(InvalidParameter, match="another query"):
            page(engine, notes, "b", f"limit=1&cursor={token}")

    def test_a_version_is_not_modified(self, engine: Engine, page: Any) -> None:
        notes = notes_of("page", version=func.min(Note.id))
        tags = {page(engine, notes, tenant, "").etag for tenant in ROWS}
        assert len(tags) == 2


async def test_tenants_of_asynchronous_sessions_are_distinguished() -> None:
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    async with engine.connect() as connection:
        for tenant in ROWS:
            await connection.execute(text(f"ATTACH ':memory:' AS {tenant}"))
            await connection.execute(text(f"CREATE TABLE {tenant}.notes (id INTEGER PRIMARY KEY)"))
    notes = notes_of("cursor")

    async def by_engine(tenant: str) -> Any:
        async with AsyncSession(engine.execution_options(**of(tenant))) as session:
            return mark(session)

    async def by_connection_of_session(tenant: str) -> Any:
        async with AsyncSession(engine) as session:
            await session.connection(execution_options=of(tenant))
            return mark(session)

    async def by_scoped_session(tenant: str) -> Any:
        made = async_sessionmaker(engine.execution_options(**of(tenant)))
        session: Any = async_scoped_session(made, scopefunc=lambda: tenant)
        try:
            return mark(session)
        finally:
            await session.remove()

    async def by_connection(tenant: str) -> Any:
        async with engine.connect() as connection:
            await connection.execution_options(**of(tenant))
            return mark(connection)

    def mark(executor: Any) -> Any:
        """Return the fingerprint that cursors are signed for."""
        default = notes.fields.allowed.default
        return notes._planner.make_page_query(
            wrap_blocking_session(executor), select(Note), default, ()
        ).find_schema_translation_pairs()

    ways: list[Callable[[str], Awaitable[Any]]] = [
        by_engine, by_connection_of_session, by_scoped_session, by_connection,
    ]  # fmt: skip
    for way in ways:
        assert [await way(tenant) for tenant in ROWS] == [[["tenant", "a"]], [["tenant", "b"]]]
    await engine.dispose()
