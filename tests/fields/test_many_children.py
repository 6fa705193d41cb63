"""The cost of a relation to many in SQLite depends on the rows shown, not on all related rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import BaseModel
from sqlalchemy import Column, Engine, ForeignKey, Index, Table, event, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from hasten.fields import FieldSelector
from tests.pagination.costs import counting, file_engine

FEW, MANY = 50, 2_000
"""How many rows each owner leads to: one owner of either kind."""


class Base(DeclarativeBase):
    pass


labelled = Table(
    "labelled",
    Base.metadata,
    Column("owner", ForeignKey("owners.id"), primary_key=True),
    Column("label", ForeignKey("labels.id"), primary_key=True),
)

labelled_twice = Table(
    "labelled_twice",
    Base.metadata,
    Column("id", ForeignKey("labels.id")),
    Column("owner", ForeignKey("owners.id"), index=True),
)


class Owner(Base):
    __tablename__ = "owners"

    id: Mapped[int] = mapped_column(primary_key=True)
    leaves: Mapped[list[Leaf]] = relationship(order_by=lambda: Leaf.id)
    loose: Mapped[list[Loose]] = relationship()
    partly: Mapped[list[Partly]] = relationship()
    pairs: Mapped[list[Pair]] = relationship()
    labels: Mapped[list[Label]] = relationship(secondary=labelled)
    repeated: Mapped[list[Label]] = relationship(secondary=labelled_twice)


class Leaf(Base):
    __tablename__ = "leaves"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[int] = mapped_column(ForeignKey("owners.id"), index=True)


class Loose(Base):
    """Its foreign key has no index."""

    __tablename__ = "loose"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[int] = mapped_column(ForeignKey("owners.id"))


class Partly(Base):
    """Its index has some rows only."""

    __tablename__ = "partly"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[int] = mapped_column(ForeignKey("owners.id"))
    __table_args__ = (Index("ix_partly", "owner", sqlite_where=text("id > 10")),)


class Pair(Base):
    __tablename__ = "pairs"

    owner: Mapped[int] = mapped_column(ForeignKey("owners.id"), primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True)


class Label(Base):
    __tablename__ = "labels"

    id: Mapped[int] = mapped_column(primary_key=True)


class Row(BaseModel):
    id: int


class OwnerOut(BaseModel):
    id: int
    leaves: list[Row]
    loose: list[Row]
    partly: list[Row]
    pairs: list[Row]
    labels: list[Row]
    repeated: list[Row]


FIELDS = FieldSelector(OwnerOut, model=Owner, max_related=3)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = file_engine(tmp_path_factory.mktemp("many"))
    Base.metadata.create_all(engine)
    owned = [
        {"id": number, "owner": 1 if number <= FEW else 2} for number in range(1, FEW + MANY + 1)
    ]
    linked = [{"owner": row["owner"], "label": row["id"]} for row in owned]
    with engine.begin() as connection:
        connection.execute(insert(Owner), [{"id": 1}, {"id": 2}, {"id": 3}])
        connection.execute(insert(Label), [{"id": row["id"]} for row in owned])
        for table in (Leaf, Loose, Partly, Pair):
            connection.execute(insert(table), owned)
        connection.execute(insert(labelled), linked)
        connection.execute(insert(labelled_twice), owned[:2] * 2)
    yield engine
    engine.dispose()


def read(engine: Engine, wanted: str, owner: int) -> tuple[object, int]:
    """Return the rows and the cost of the second read."""
    with Session(engine) as session:
        of_one = select(Owner).where(Owner.id == owner)
        answer = FIELDS.sync.one(session, of_one, FIELDS.parse(f"fields={wanted}"))
        with counting(session.connection()) as cost:
            FIELDS.sync.one(session, of_one, FIELDS.parse(f"fields={wanted}"))
        return answer, cost()


@pytest.mark.parametrize("relation", ["leaves", "pairs"])
def test_an_owner_of_many_costs_no_more_than_an_owner_of_few(engine: Engine, relation: str) -> None:
    few, cost_of_few = read(engine, f"{relation}(id)", 1)
    many, cost_of_many = read(engine, f"{relation}(id)", 2)
    assert few == {relation: [{"id": 1}, {"id": 2}, {"id": 3}], f"{relation}_has_more": True}
    first = [{"id": FEW + number} for number in (1, 2, 3)]
    assert many == {relation: first, f"{relation}_has_more": True}
    assert cost_of_many <= cost_of_few * 1.5


def test_many_to_many_rows_are_not_all_numbered(engine: Engine) -> None:
    few, cost_of_few = read(engine, "labels(id)", 1)
    many, cost_of_many = read(engine, "labels(id)", 2)
    assert few == {"labels": [{"id": 1}, {"id": 2}, {"id": 3}], "labels_has_more": True}
    first = [{"id": FEW + number} for number in (1, 2, 3)]
    assert many == {"labels": first, "labels_has_more": True}
    assert cost_of_many / cost_of_few < 0.75 * MANY / FEW


def test_a_duplicate_link_is_shown_twice(engine: Engine) -> None:
    shown, _ = read(engine, "repeated(id)", 1)
    assert shown == {"repeated": [{"id": 1}, {"id": 1}, {"id": 2}], "repeated_has_more": True}


@pytest.mark.parametrize(
    ("relation", "is_picked"),
    [
        ("leaves", True),
        ("pairs", True),
        ("labels", True),
        ("loose", False),
        ("partly", False),
        ("repeated", False),
    ],
)
def test_picking_per_owner_needs_an_index(engine: Engine, relation: str, is_picked: bool) -> None:
    statements: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        read(engine, f"{relation}(id)", 1)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert ("LIMIT" in statements[1]) is is_picked
