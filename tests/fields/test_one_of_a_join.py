"""A row is read once, however often a join repeats it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Select, select
from sqlalchemy.orm import Session, aliased, contains_eager, with_loader_criteria

from hasten.errors import InvalidOption, RowNotFound
from hasten.fields import AllowedFields, FieldSelector
from tests.fields.databases import Post, Slot, Tag, User, Visit, async_engine, engine
from tests.fields.models import UserOut

Users = FieldSelector(UserOut, model=User, default=("id", "name"))
Slots = FieldSelector({"day": "day", "visits": [AllowedFields(["id"])]}, model=Slot)
Second: Any = aliased(User)

ROWS: dict[str, Callable[[], Select[Any]]] = {
    "inner": lambda: select(User).join(User.posts),
    "outer": lambda: select(User).outerjoin(User.posts),
    "sorted": lambda: select(User).join(User.posts).order_by(Post.id.desc()),
    "two joins": lambda: select(User).join(User.posts).outerjoin(Post.tags),
    "no join": lambda: select(User).where(User.id == Post.author_id),
    "from": lambda: select(User).select_from(Post).join(Post.author),
    "loading": lambda: select(User).join(User.posts).options(contains_eager(User.posts)),
    "criteria": lambda: (
        select(User).join(User.posts).options(with_loader_criteria(Post, Post.id > 0))
    ),
}


@pytest.mark.parametrize("rows", ROWS)
def test_a_join_to_many_repeats_no_row(database: str, rows: str) -> None:
    statement = ROWS[rows]().where(User.id == 1)
    fields = Users.parse("fields=id,team(id),posts(id)")
    with Session(engine(database)) as session:
        assert len(session.execute(statement).unique().all()) == 1
        expected = Users.sync.one(session, select(User).where(User.id == 1), fields)
        assert Users.sync.one(session, statement, fields) == expected
        with pytest.raises(InvalidOption, match="a select that finds one row"):
            Users.sync.one(session, ROWS[rows]().where(User.id < 4), fields)
        with pytest.raises(RowNotFound):
            Users.sync.one(session, ROWS[rows]().where(User.id > 4000), fields)


def test_criteria_apply_to_joined_classes(database: str) -> None:
    none = with_loader_criteria(Post, Post.id < 0)
    statement = select(User).join(User.posts).where(User.id == 1).options(none)
    with Session(engine(database)) as session, pytest.raises(RowNotFound):
        Users.sync.one(session, statement, Users.parse(""))


def test_an_alias_and_a_key_of_two_columns(database: str) -> None:
    with Session(engine(database)) as session:
        statement = select(Second).join(Second.posts).where(Second.id == 1)
        assert Users.sync.one(session, statement, Users.parse("fields=id")) == {"id": 1}
        day, hour = session.execute(select(Visit.day, Visit.hour).limit(1)).one()
        slot = select(Slot).join(Slot.visits).where(Slot.day == day, Slot.hour == hour)
        found = Slots.sync.one(session, slot, Slots.parse("fields=day"))
        assert found == {"day": day}


def test_a_select_with_a_limit_is_not_changed(database: str) -> None:
    statement = select(User).join(User.posts).order_by(User.id.desc()).limit(1)
    with Session(engine(database)) as session:
        newest = session.scalars(statement).one()
        assert Users.sync.one(session, statement, Users.parse("fields=id")) == {"id": newest.id}


async def test_one_row_of_a_join_with_an_asynchronous_session(database: str) -> None:
    statement = select(User).join(User.posts).join(Post.tags).where(Tag.id > 0, User.id == 1)
    with async_engine(database) as made:
        async with made.connect() as connection:
            assert await Users.one(connection, statement, Users.parse("fields=id")) == {"id": 1}


@pytest.mark.parametrize("query", ["fields=id", "fields=id,team(id)"])
def test_a_select_that_locks_rows_is_rejected(query: str) -> None:
    with Session(engine("sqlite")) as session:
        for read in (Users.sync.one, Users.sync.many):
            with pytest.raises(InvalidOption, match=r"a select without with_for_update\(\)"):
                read(session, select(User).with_for_update(), Users.parse(query))
