"""Estimates are of the table that a page reads, in the schema of schema_translate_map."""

from __future__ import annotations

from typing import Any, Final

import pytest
from pydantic import BaseModel
from sqlalchemy import create_engine, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from hasten.pagination import Paginator
from tests.pagination.databases import url


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "es_Things"
    __table_args__ = {"schema": "per_tenant"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)


class ThingOut(BaseModel):
    id: int


TENANTS: Final = {"es_first": 30, 'it\'s "$quoted$"': 50}
Pages: Final = Paginator(ThingOut, model=Thing, count="estimated", advise=False)
QUERY: Final = "limit=5"


@pytest.fixture(scope="module")
def engine() -> Any:
    made = create_engine(url("postgresql", 0))
    with made.begin() as connection:
        for schema, rows in TENANTS.items():
            quoted = made.dialect.identifier_preparer.quote(schema)
            connection.execute(text(f"CREATE SCHEMA {quoted}"))
            of_tenant = connection.execution_options(schema_translate_map={"per_tenant": schema})
            Base.metadata.create_all(of_tenant)
            of_tenant.execute(Thing.__table__.insert(), [{"id": n} for n in range(rows)])  # type: ignore[attr-defined]
            connection.execute(text(f'ANALYZE {quoted}."es_Things"'))
    yield made
    with made.begin() as connection:
        for schema in TENANTS:
            quoted = made.dialect.identifier_preparer.quote(schema)
            connection.execute(text(f"DROP SCHEMA {quoted} CASCADE"))
    made.dispose()


@pytest.mark.parametrize("schema", TENANTS)
def test_an_estimate_uses_the_translated_schema(engine: Any, schema: str) -> None:
    names = {"schema_translate_map": {"per_tenant": schema}}
    with Session(engine.execution_options(**names)) as session:
        page = Pages.sync.page(session, select(Thing), Pages.parse(QUERY))
        assert (page.total, page.total_relation) == (TENANTS[schema], "estimate")
    with Session(engine) as session:
        statement = select(Thing).execution_options(**names)
        assert Pages.sync.page(session, statement, Pages.parse(QUERY)).total == TENANTS[schema]


@pytest.mark.parametrize("driver", [1, 2])
async def test_asynchronous_estimates_use_the_translated_schema(engine: Any, driver: int) -> None:
    made = create_async_engine(url("postgresql", driver), poolclass=NullPool)
    for schema, rows in TENANTS.items():
        of_tenant = made.execution_options(schema_translate_map={"per_tenant": schema})
        async with AsyncSession(of_tenant) as session:
            page = await Pages.page(session, select(Thing), Pages.parse(QUERY))
            assert (page.total, page.total_relation) == (rows, "estimate")
    await made.dispose()
