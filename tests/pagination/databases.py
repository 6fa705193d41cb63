"""The databases of the tests of pages, and their content."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.pool import NullPool

from tests.servers.postgres import shared_postgres

DATABASES: Final = ("sqlite", "postgresql")
DRIVERS: Final = {
    "sqlite": ("pysqlite", "aiosqlite"),
    "postgresql": ("psycopg", "asyncpg", "psycopg_async"),
}
"""Of each database: one that does not wait, and those that do."""

ROWS: Final = 60


class Base(DeclarativeBase):
    pass


class Item(Base):
    """Rows with many ties and NULLs, in three sets with different numbers of NULLs."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    dataset: Mapped[int]
    grade: Mapped[int | None]
    label: Mapped[str | None] = mapped_column(sa.String(20))
    weight: Mapped[float | None] = mapped_column(sa.REAL)
    state: Mapped[str] = mapped_column(sa.String(10))
    made: Mapped[datetime] = mapped_column(sa.DateTime)


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str] = mapped_column(unique=True)
    nick: Mapped[str | None] = mapped_column(unique=True)
    posts: Mapped[list[Post]] = relationship(back_populates="author")


class Post(Base):
    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int | None] = mapped_column(sa.ForeignKey("authors.id"))
    title: Mapped[str]
    author: Mapped[Author | None] = relationship(back_populates="posts")
    tags: Mapped[list[Tag]] = relationship(secondary="post_tags")


class Tag(Base):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Slot(Base):
    """Its primary key has two columns."""

    __tablename__ = "slots"
    day: Mapped[int] = mapped_column(primary_key=True)
    hour: Mapped[int] = mapped_column(primary_key=True)
    room: Mapped[str | None]


class Animal(Base):
    """The root of an inheritance: dogs have a table of their own, and cats have none."""

    __tablename__ = "animals"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    weight: Mapped[int | None]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012


class Dog(Animal):
    __tablename__ = "dogs"
    id: Mapped[int] = mapped_column(sa.ForeignKey("animals.id"), primary_key=True)
    tricks: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012


class Cat(Animal):
    __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012


post_tags: Final = sa.Table(
    "post_tags",
    Base.metadata,
    sa.Column("post_id", sa.ForeignKey("posts.id"), primary_key=True),
    sa.Column("tag_id", sa.ForeignKey("tags.id"), primary_key=True),
)

log: Final = sa.Table(
    "log",
    Base.metadata,
    sa.Column("line", sa.String),
    sa.Column("at", sa.Integer),
    sa.UniqueConstraint("at"),
)
"""A table without a primary key."""


@functools.cache
def engine(database: str) -> sa.Engine:
    """Return a synchronous engine on a filled database."""
    made = sa.create_engine(url(database, 0))
    Base.metadata.create_all(made)
    with made.begin() as connection:
        for table, rows in _content():
            connection.execute(table.insert(), rows)
        connection.execute(sa.text("ANALYZE"))
    return made


@contextmanager
def async_engine(database: str) -> Iterator[AsyncEngine]:
    """Yield an engine for one event loop. Connections are closed when they are returned."""
    engine(database)
    yield create_async_engine(url(database, 1), poolclass=NullPool)


def url(database: str, driver_number: int) -> str:
    driver = DRIVERS[database][driver_number]
    if database == "postgresql":
        return shared_postgres().url(driver)
    return f"sqlite+{driver}:///{Path(_folder().name) / 'test.db'}"


@functools.cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="hasten-sqlite-")


@contextmanager
def statements_of(engine: sa.Engine) -> Iterator[list[str]]:
    """Yield the list of statements that an engine executes within the block."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


def item(random: Random, dataset: int, **fixed: object) -> dict[str, object]:
    nulls = (0.0, 0.3, 0.9)[dataset]

    def maybe(value: object) -> object:
        return None if random.random() < nulls else value

    return {
        "dataset": dataset,
        "grade": maybe(random.randrange(4)),
        "label": maybe(random.choice(["", "a", "B", "b", "é", "zz"])),
        "weight": maybe(random.choice([0.1, 0.2, 1 / 3, -5.5])),
        "state": random.choice(["new", "old"]),
        "made": datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)
        + timedelta(microseconds=random.randrange(5)),
        **fixed,
    }


def _content() -> Iterator[tuple[Any, list[dict[str, Any]]]]:
    random = Random(0)
    yield Item.__table__, [item(random, number % 3) for number in range(3 * ROWS)]
    yield (
        Author.__table__,
        [
            {"name": f"n{number % 3}", "email": f"{number}@example.org", "nick": None}
            for number in range(10)
        ],
    )
    # The last two authors have no posts, and the last posts have no author.
    yield (
        Post.__table__,
        [
            {"title": f"t{number % 7}", "author_id": number % 8 + 1 if number < 36 else None}
            for number in range(40)
        ],
    )
    yield Tag.__table__, [{"name": name} for name in ("red", "green", "blue", "unused")]
    yield (
        post_tags,
        [
            {"post_id": post, "tag_id": tag}
            for post in range(1, 31)
            for tag in range(1, post % 3 + 2)
        ],
    )
    kinds = ("animal", "dog", "cat")
    yield (
        Animal.__table__,
        [
            {"kind": kinds[number % 3], "weight": random.choice([None, 1, 2])}
            for number in range(30)
        ],
    )
    yield Dog.__table__, [{"id": number + 1, "tricks": number % 4} for number in range(1, 30, 3)]
    yield log, [{"line": "x", "at": number} for number in range(7)]
    yield (
        Slot.__table__,
        [
            {"day": day, "hour": hour, "room": random.choice([None, "x", "y"])}
            for day in range(6)
            for hour in range(4)
        ],
    )
