"""A table that other clients write to while a test reads it: what they write is committed."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Final

from pydantic import BaseModel
from sqlalchemy import DateTime, Engine, Index, String, create_engine, delete, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from tests.pagination.databases import item as row_of_item
from tests.servers.postgres import shared_postgres

DRIVERS: Final = {
    "pysqlite": "sqlite",
    "aiosqlite": "sqlite",
    "psycopg": "postgresql",
    "asyncpg": "postgresql",
    "psycopg_async": "postgresql",
}
"""Each with its database."""

ASYNCHRONOUS: Final = ("aiosqlite", "asyncpg", "psycopg_async")


class Base(DeclarativeBase):
    pass


class Moving(Base):
    __tablename__ = "moving"
    __table_args__ = (Index("moving_grade", "grade", "id"), Index("moving_made", "made", "id"))
    id: Mapped[int] = mapped_column(primary_key=True)
    dataset: Mapped[int]
    grade: Mapped[int | None]
    label: Mapped[str | None] = mapped_column(String(20))
    weight: Mapped[float | None]
    state: Mapped[str] = mapped_column(String(10))
    made: Mapped[datetime] = mapped_column(DateTime)


class MovingOut(BaseModel):
    id: int
    grade: int | None
    label: str | None
    weight: float | None
    state: str
    made: datetime


SORTS: Final = ("id", "grade", "label", "weight", "state", "made")

Row = dict[str, Any]


@functools.cache
def engine(database: str) -> Engine:
    """Each of its connections writes and commits beside all others."""
    made = create_engine(url("psycopg" if database == "postgresql" else "pysqlite"))
    if database == "sqlite":
        event.listen(made, "connect", _write_ahead)
    Base.metadata.create_all(made)
    return made


@functools.cache
def async_engine(driver: str) -> AsyncEngine:
    """For any event loop: its connections are closed when they are given back."""
    engine(DRIVERS[driver])
    return create_async_engine(url(driver), poolclass=NullPool)


def refill(database: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """These rows and no other."""
    with engine(database).begin() as connection:
        connection.execute(delete(Moving))
        if rows:
            connection.execute(Moving.__table__.insert(), [dict(row) for row in rows])  # type: ignore[attr-defined]


def rows_of(number: int, *, seed: int = 0, dataset: int = 1) -> list[Row]:
    """Rows with the ids 10, 20, …, full of ties and of the NULLs that the dataset has."""
    random = Random(seed)
    return [new_row(random, dataset, 10 * (place + 1)) for place in range(number)]


def new_row(random: Random, dataset: int, id: int) -> Row:
    return row_of_item(random, dataset, id=id)


def _write_ahead(connection: Any, _: object) -> None:
    # Readers and a writer at once, and nothing has to reach the disk.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA busy_timeout=20000")


def url(driver: str) -> str:
    if DRIVERS[driver] == "postgresql":
        return shared_postgres().url(driver)
    return f"sqlite+{driver}:///{Path(_folder().name) / 'moving.db'}"


@functools.cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="hasten-sqlite-")
