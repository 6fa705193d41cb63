"""The rows of the tables: the same on each database, generated from a fixed seed.

Three tables have the first hundredth, the first tenth and all of the rows. A row has twelve columns
and about a kilobyte, most of it in `body`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final, TypeAlias

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Index
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column

SEED: Final = 20_261_125
START: Final = datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)
STATUSES: Final = ("archived", "draft", "published")
STATUS_WEIGHTS: Final = (2, 1, 7)
NULL_SHARE: Final = 0.2
SCORES: Final = 1_000
WORDS: Final = (
    "a about after an and answer as at before between by city day each early field for found from "
    "garden great house in into is island it late letter light little long many morning mountain "
    "never of often on one other over page paper quiet read river road said sea second small some "
    "stone story table that the their then there these they time to tree two under until very was "
    "water when where which while white wind winter with word work write year young"
).split()

Values: TypeAlias = tuple[Any, ...]


class Base(DeclarativeBase):
    pass


class Columns:
    """The columns of all three tables."""

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    created_at: Mapped[datetime]
    status: Mapped[str]
    score: Mapped[int | None]
    name: Mapped[str]
    email: Mapped[str]
    language: Mapped[str]
    views: Mapped[int]
    rating: Mapped[float]
    title: Mapped[str]
    summary: Mapped[str]
    body: Mapped[str]

    @declared_attr.directive
    def __table_args__(cls) -> tuple[Index, ...]:  # noqa: N805
        """Return an index for each order of the walks. The order by id uses the primary key."""
        columns: Any = cls
        table = columns.__tablename__
        return (
            Index(f"{table}_newest", "created_at", "id"),
            Index(f"{table}_status", columns.status.desc(), columns.id),
            Index(f"{table}_score", "score", "id"),
        )


class Post(Columns, Base):
    __tablename__ = "posts"


class TenthPost(Columns, Base):
    __tablename__ = "posts_tenth"


class HundredthPost(Columns, Base):
    __tablename__ = "posts_hundredth"


PostTable: TypeAlias = type[Post] | type[TenthPost] | type[HundredthPost]

TABLES: Final[dict[str, PostTable]] = {
    table.__tablename__: table for table in (HundredthPost, TenthPost, Post)
}
WHOLE: Final = Post.__tablename__
SMALL: Final = HundredthPost.__tablename__
NAMES: Final = tuple(Post.__table__.columns.keys())


class PostOut(BaseModel):
    """A row as all contestants have to return it."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    created_at: datetime
    status: str
    score: int | None
    name: str
    email: str
    language: str
    views: int
    rating: float
    title: str
    summary: str
    body: str


class MarkOut(BaseModel):
    """The columns that walks read, which are their sort keys."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    created_at: datetime
    status: str
    score: int | None


MARKS: Final = tuple(MarkOut.model_fields)


@dataclass(frozen=True, slots=True)
class Order:
    """An order of a walk: pairs of a column and whether it descends. The last column is unique."""

    title: str
    keys: tuple[tuple[str, bool], ...]

    def terms(self, table: PostTable) -> list[Any]:
        """Return the terms of ORDER BY."""
        columns = [(getattr(table, name), descends) for name, descends in self.keys]
        return [column.desc() if descends else column.asc() for column, descends in columns]

    def sql(self) -> str:
        return ", ".join(f"{name} {'DESC' if descends else 'ASC'}" for name, descends in self.keys)

    def sort(self) -> str:
        """Return the order in the form of a sort parameter."""
        return ",".join(f"-{name}" if descends else name for name, descends in self.keys)


ORDERS: Final = {
    "id": Order("id", (("id", False),)),
    "newest": Order("created_at DESC, id DESC", (("created_at", True), ("id", True))),
    "status": Order("status DESC, id ASC", (("status", True), ("id", False))),
    "score": Order("score (a fifth NULL), id", (("score", False), ("id", False))),
}
NEWEST: Final = ORDERS["newest"]


def sizes(rows: int) -> dict[str, int]:
    """Return how many rows each table has, the smallest table first."""
    return {SMALL: rows // 100, TenthPost.__tablename__: rows // 10, WHOLE: rows}


def generate(rows: int) -> Iterator[Values]:
    """Generate rows with columns in the order of `NAMES`. A row depends on its number alone."""
    random = Random(SEED)
    text = " ".join(random.choices(WORDS, k=200_000))
    created_at = START
    for number in range(1, rows + 1):
        if random.random() > 0.02:  # else this post has the same time as the one before
            created_at += timedelta(microseconds=random.randrange(1, 30_000_000))
        has_score = random.random() >= NULL_SHARE
        name = f"{random.choice(WORDS)} {random.choice(WORDS)}".title()
        yield (
            number,
            created_at,
            random.choices(STATUSES, STATUS_WEIGHTS)[0],
            random.randrange(SCORES) if has_score else None,
            name,
            f"{name.replace(' ', '.').lower()}.{number}@example.org",
            random.choice(("de", "en", "fr", "pt")),
            random.randrange(1_000_000),
            random.randrange(500) / 100,
            _random_text(random, text, 50),
            _random_text(random, text, 150),
            _random_text(random, text, 650),
        )


def _random_text(random: Random, text: str, length: int) -> str:
    start = random.randrange(len(text) - length)
    return text[start : start + length]
