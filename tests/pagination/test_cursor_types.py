"""Cursors hold column values of every type, and the next statement gets the same values."""

from __future__ import annotations

import enum

import pytest
from pydantic import BaseModel
from sqlalchemy import Dialect, Enum, String, TypeDecorator, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from hasten.errors import InvalidOption, InvalidParameter
from hasten.fields import AllowedFields, FieldSelector
from hasten.pagination import CursorPage, Paginator
from tests.fields.databases import Slot, User, engine

SORTS = ("id", "name", "email", "created", "balance", "role", "ref", "team_id")

Users = Paginator(
    object,
    model=User,
    fields=FieldSelector(AllowedFields(SORTS), model=User),
    sort=SORTS,
    mode="cursor",
    secret="a secret of more than 16 bytes",
    advise=False,
)

Slots = Paginator(
    object,
    model=Slot,
    fields=FieldSelector(AllowedFields(("day", "hour")), model=Slot),
    sort=("day", "hour"),
    mode="cursor",
    secret="a secret of more than 16 bytes",
    advise=False,
)


@pytest.mark.parametrize("sort", [*SORTS, *[f"-{name}" for name in SORTS], "role,-created"])
def test_a_walk_by_any_type_returns_all_rows_both_ways(database: str, sort: str) -> None:
    with Session(engine(database)) as session:
        seen = walk(session, Users, User, sort)
    assert len(seen) == len({row["id"] for row in seen}) == 30


@pytest.mark.parametrize("sort", ["day", "-hour", "hour,-day"])
def test_a_walk_by_a_primary_key_of_two_columns(database: str, sort: str) -> None:
    with Session(engine(database)) as session:
        seen = walk(session, Slots, Slot, sort)
    assert len(seen) == len({(row["day"], row["hour"]) for row in seen})
    assert seen


def test_a_type_that_a_cursor_cannot_hold_is_rejected_at_start_up() -> None:
    with pytest.raises(InvalidOption, match=r"not JSON\(\)"):
        Paginator(
            object,
            model=User,
            fields=FieldSelector(AllowedFields(("id", "settings")), model=User),
            sort=("settings",),
            mode="cursor",
            secret="a secret of more than 16 bytes",
        )


def walk(
    session: Session, paginate: Paginator[CursorPage[object]], model: type, sort: str
) -> list[dict[str, object]]:
    """Return all rows of a walk, after a check that it returns the same backwards."""
    pages: list[CursorPage[object]] = []
    token: str | None = ""
    while token is not None:
        q = paginate.parse(f"sort={sort}&limit=4&cursor={token}")
        pages.append(paginate.sync.page(session, select(model), q))
        token = pages[-1].next_cursor
        assert len(pages) < 50
    for before, page in zip(reversed(pages[:-1]), reversed(pages), strict=False):
        q = paginate.parse(f"sort={sort}&limit=4&cursor={page.prev_cursor}")
        assert paginate.sync.page(session, select(model), q).data == before.data
    return [dict(row) for page in pages for row in page.data]


class Reversed(TypeDecorator[str]):
    """A custom type. Its underlying type decides whether a cursor can hold it."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return value and value[::-1]

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return value and value[::-1]


def test_a_walk_by_a_type_of_the_application() -> None:
    class Own(DeclarativeBase):
        pass

    class Word(Own):
        __tablename__ = "words"
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str] = mapped_column(Reversed, unique=True)

    class WordOut(BaseModel):
        id: int
        text: str

    words = Paginator(
        WordOut, model=Word, sort=("text",), mode="cursor", secret="a secret of 16 bytes"
    )
    made = create_engine("sqlite://")
    Own.metadata.create_all(made)
    seen: list[object] = []
    with Session(made) as db:
        db.add_all([Word(text=text) for text in ("abc", "bca", "cab", "aaa", "zzb")])
        db.flush()
        token: str | None = ""
        while token is not None:
            found = words.sync.page(
                db, select(Word), words.parse(f"sort=text&limit=2&cursor={token}")
            )
            seen += [row["text"] for row in found.data]
            token = found.next_cursor
    made.dispose()
    assert seen == ["aaa", "bca", "cab", "zzb", "abc"]


class Colorful(DeclarativeBase):
    pass


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Thing(Colorful):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    color: Mapped[Color] = mapped_column(Enum(Color, native_enum=False))


class ThingOut(BaseModel):
    id: int
    color: Color


def test_a_cursor_with_a_removed_enum_member_has_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    things = Paginator(
        ThingOut,
        model=Thing,
        sort=("color",),
        mode="cursor",
        secret="a secret of 16 bytes",
        advise=False,
    )
    made = create_engine("sqlite://")
    Colorful.metadata.create_all(made)
    with Session(made) as db:
        db.add_all([Thing(color=Color.RED), Thing(color=Color.BLUE)])
        db.flush()
        token = things.sync.page(db, select(Thing), things.parse("sort=color&limit=1")).next_cursor
        q = things.parse(f"sort=color&limit=1&cursor={token}")
        monkeypatch.delitem(Color._value2member_map_, "blue")
        with pytest.raises(InvalidParameter) as caught:
            things.sync.page(db, select(Thing), q)
        assert (caught.value.status, caught.value.code) == (400, "cursor_expired")
    made.dispose()
