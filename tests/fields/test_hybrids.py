"""A hybrid with SQL is selected; one that only works on objects is rejected at start-up."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
from pydantic import BaseModel, create_model
from sqlalchemy import ForeignKey, create_engine, func, literal, select
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, synonym

from hasten.errors import InvalidOption
from hasten.fields import FieldSelector
from hasten.pagination import Paginator

asking: ContextVar[str] = ContextVar("asking")

LETTERS = {"a": 1}


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "h_people"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    boss_id: Mapped[int | None] = mapped_column(ForeignKey("h_people.id"))
    boss: Mapped[Person | None] = relationship(remote_side=[id])

    @hybrid_property
    def loud(self) -> str:
        return func.upper(self.name)  # type: ignore[return-value]

    @hybrid_property
    def own(self) -> bool:
        return literal(asking.get()) == self.name  # type: ignore[return-value]

    @hybrid_property
    def initial(self) -> str:
        return self.name[0]

    @hybrid_property
    def shout(self) -> str:
        return self.name.upper()

    @hybrid_property
    def greeting(self) -> str:
        return f"hello {self.name}"

    @hybrid_property
    def is_named(self) -> bool:
        return bool(self.name)

    @hybrid_property
    def number(self) -> int:
        return LETTERS[self.name]

    quiet: Mapped[str] = synonym("initial")
    title: Mapped[str] = synonym("name")

    @hybrid_property
    def nothing(self) -> None:
        return None


def out(name: str) -> type[BaseModel]:
    return create_model("Out", **{"id": int, name: Any})  # type: ignore[call-overload,no-any-return]


def nested(name: str) -> type[BaseModel]:
    boss: Any = out(name)
    return create_model("Outer", id=int, boss=boss | None)


PYTHON_ONLY = ["initial", "shout", "greeting", "is_named", "number", "nothing", "quiet"]


@pytest.mark.parametrize("name", PYTHON_ONLY)
@pytest.mark.parametrize("model", [out, nested])
def test_hybrid_without_sql_is_rejected(name: str, model: Callable[[str], type[BaseModel]]) -> None:
    words = (
        f"SQL expression for the hybrid property '{name}'.*add @{name}.inplace.expression.*compute="
    )
    with pytest.raises(InvalidOption, match=words):
        FieldSelector(model(name), model=Person)
    with pytest.raises(InvalidOption, match=words):
        Paginator(model(name), model=Person)


def test_a_hybrid_with_sql_is_selected() -> None:
    """Also a hybrid that needs the current user before its SQL exists."""
    of_hybrids = FieldSelector(["id", "loud", "own", "title"], model=Person)
    computed = FieldSelector(
        out("initial"),
        model=Person,
        needs={"initial": ("name",)},
        compute={"initial": lambda name: name[0]},
    )
    pages = Paginator(out("initial"), model=Person, fields=computed)
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Person(id=1, name="ada"))
        session.flush()
        asking.set("ada")
        row = of_hybrids.sync.one(session, select(Person), of_hybrids.parse(""))
        assert row == {"id": 1, "loud": "ADA", "own": True, "title": "ada"}
        page = pages.sync.page(session, select(Person), pages.parse(""))
        assert page.data == [{"id": 1, "initial": "a"}]
    engine.dispose()
