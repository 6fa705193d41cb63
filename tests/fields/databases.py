"""The databases of the tests of fields, and their content."""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import NullPool

from tests.pagination.databases import url

USERS: Final = 30
POSTS_OF_FIRST: Final = 25
"""More than are shown; user n has n % 4 posts, and the last one none."""


class Role(enum.Enum):
    ADMIN = "admin"
    READER = "reader"


class Base(DeclarativeBase):
    pass


class Team(Base):
    __tablename__ = "f_teams"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    secret: Mapped[str]
    leader_id: Mapped[int | None]
    members: Mapped[list[User]] = relationship(back_populates="team", order_by="User.name.desc()")


class User(Base):
    __tablename__ = "f_users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str | None]
    password_hash: Mapped[str]
    first: Mapped[str]
    last: Mapped[str]
    created: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    balance: Mapped[Decimal] = mapped_column(sa.Numeric(12, 2))
    role: Mapped[Role]
    ref: Mapped[UUID]
    settings: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    team_id: Mapped[int | None] = mapped_column(sa.ForeignKey("f_teams.id"))
    boss_id: Mapped[int | None] = mapped_column(sa.ForeignKey("f_users.id"))
    team: Mapped[Team | None] = relationship(back_populates="members")
    boss: Mapped[User | None] = relationship(remote_side=[id])
    posts: Mapped[list[Post]] = relationship(back_populates="author")
    badge: Mapped[Badge | None] = relationship(back_populates="user")
    cars: Mapped[list[Car]] = relationship(overlaps="owner")
    bikes: Mapped[list[Bike]] = relationship(overlaps="owner,cars")
    first_tags: AssociationProxy[list[Any]] = association_proxy("posts", "title")

    @hybrid_property
    def shouted(self) -> str:
        return self.name + "!"


class Badge(Base):
    """At most one for each user by the mapping. No key of the database enforces that."""

    __tablename__ = "f_badges"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("f_users.id"))
    user: Mapped[User] = relationship(back_populates="badge")


post_tags: Final = sa.Table(
    "f_post_tags",
    Base.metadata,
    sa.Column("post_id", sa.ForeignKey("f_posts.id"), primary_key=True),
    sa.Column("tag_id", sa.ForeignKey("f_tags.id"), primary_key=True),
)


class Post(Base):
    __tablename__ = "f_posts"
    __table_args__ = (sa.Index("f_posts_of_author", "author_id", "id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    draft: Mapped[str]
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("f_users.id"))
    author: Mapped[User] = relationship(back_populates="posts")
    tags: Mapped[list[Tag]] = relationship(secondary=post_tags)


class Tag(Base):
    __tablename__ = "f_tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Slot(Base):
    """Its primary key has two columns."""

    __tablename__ = "f_slots"
    day: Mapped[int] = mapped_column(primary_key=True)
    hour: Mapped[int] = mapped_column(primary_key=True)
    visits: Mapped[list[Visit]] = relationship(back_populates="slot")


class Visit(Base):
    __tablename__ = "f_visits"
    __table_args__ = (sa.ForeignKeyConstraint(["day", "hour"], ["f_slots.day", "f_slots.hour"]),)
    id: Mapped[int] = mapped_column(primary_key=True)
    day: Mapped[int | None]
    hour: Mapped[int | None]
    slot: Mapped[Slot | None] = relationship(back_populates="visits")


class Vehicle(Base):
    __tablename__ = "f_vehicles"
    __mapper_args__ = {  # noqa: RUF012 - as its base declares it
        "polymorphic_on": "kind",
        "polymorphic_identity": "vehicle",
    }
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    owner_id: Mapped[int] = mapped_column(sa.ForeignKey("f_users.id"))
    owner: Mapped[User] = relationship()


class Car(Vehicle):
    """In a table of its own, joined to that of all vehicles."""

    __tablename__ = "f_cars"
    __mapper_args__ = {  # noqa: RUF012 - as its base declares it
        "polymorphic_identity": "car"
    }
    id: Mapped[int] = mapped_column(sa.ForeignKey("f_vehicles.id"), primary_key=True)
    own: Mapped[str]


class Bike(Vehicle):
    """In the table of all vehicles."""

    __mapper_args__ = {  # noqa: RUF012 - as its base declares it
        "polymorphic_identity": "bike"
    }
    own: Mapped[str | None] = mapped_column("bike_own")


class Thing(Base):
    """A column of each type."""

    __tablename__ = "f_things"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str | None]
    number: Mapped[int | None]
    real: Mapped[float | None]
    flag: Mapped[bool | None]
    moment: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    local: Mapped[datetime | None] = mapped_column(sa.DateTime)
    day: Mapped[date | None]
    clock: Mapped[time | None]
    span: Mapped[timedelta | None]
    amount: Mapped[Decimal | None] = mapped_column(sa.Numeric(20, 4))
    ref: Mapped[UUID | None]
    role: Mapped[Role | None]
    blob: Mapped[bytes | None]
    document: Mapped[Any | None] = mapped_column(sa.JSON)


@functools.cache
def engine(database: str) -> sa.Engine:
    """Return a synchronous engine on a filled database."""
    made = sa.create_engine(url(database, 0))
    Base.metadata.create_all(made)
    with Session(made) as session:
        _fill(session)
        session.commit()
    return made


@contextmanager
def async_engine(database: str) -> Iterator[AsyncEngine]:
    """Yield an engine for one event loop. Connections are closed when they are returned."""
    engine(database)
    yield create_async_engine(url(database, 1), poolclass=NullPool)


def _fill(session: Session) -> None:
    session.add_all(Team(id=n, name=f"team{n}", secret=f"s{n}", leader_id=n) for n in (1, 2, 3))
    session.flush()
    session.add_all(_user(number) for number in range(1, USERS + 1))
    session.flush()
    tags = [Tag(id=n, name=name) for n, name in enumerate(("red", "green", "blue"), 1)]
    session.add_all(tags)
    number = 0
    for owner in range(1, USERS):
        for _ in range(POSTS_OF_FIRST if owner == 1 else owner % 4):
            number += 1
            session.add(
                Post(
                    id=number,
                    title=f"post {number}",
                    draft=f"d{number}",
                    author_id=owner,
                    tags=tags[: number % 4],
                )
            )
    # The second user has two badges. Only the first is returned, and the user once.
    session.add_all(Badge(id=n, text=f"badge{n}", user_id=of) for n, of in ((1, 1), (2, 2), (3, 2)))
    session.add_all(Slot(day=day, hour=hour) for day in (1, 2) for hour in (1, 2))
    session.flush()
    session.add_all(
        Visit(id=n, day=n % 2 + 1 if n < 7 else None, hour=2 if n < 7 else None)
        for n in range(1, 9)
    )
    session.add_all([Car(id=1, owner_id=3, own="Car"), Bike(id=2, owner_id=3, own="Bike")])
    session.add_all(_things())


def _user(number: int) -> User:
    return User(
        id=number,
        name=f"user{number:02}",
        email=None if number % 5 == 0 else f"{number}@example.org",
        password_hash="x",
        first=f"first{number}",
        last=f"last{number}",
        created=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number),
        balance=Decimal(number) / 4,
        role=Role.ADMIN if number == 1 else Role.READER,
        ref=UUID(int=number),
        settings={"n": number, "list": [1.5, None, "é"]},
        team_id=None if number % 4 == 0 else number % 3 + 1,
        boss_id=None if number < 3 else number // 3,
    )


def _things() -> Iterator[Thing]:
    yield Thing(id=1)
    yield Thing(
        id=2,
        text='quote " back \\ é \u2028 \x7f \t \x1f 😀',
        number=2**31 - 1,
        real=0.1 + 0.2,
        flag=True,
        moment=datetime(2026, 1, 2, 3, 4, 5, 120000, tzinfo=UTC),
        local=datetime(2026, 1, 2, 3, 4, 5),  # noqa: DTZ001 - without a zone on purpose
        day=date(1, 2, 3),
        clock=time(3, 4, 5, 1),
        span=timedelta(days=1, seconds=2, microseconds=3),
        amount=Decimal("1.5000"),
        ref=UUID(int=7),
        role=Role.ADMIN,
        blob=b"bytes",
        document={"a": [1, 2.5, None, {"b": "c"}]},
    )
    yield Thing(
        id=3,
        text="",
        number=-1,
        real=-1e-7,
        flag=False,
        moment=datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        amount=Decimal("-12345678.9"),
        role=Role.READER,
        blob=b"",
        document=[],
    )
