"""No statement names a column that was not requested, whatever is requested.

Each column has a name that stands in no other, so that a log of SQL tells which ones left. Here
requests go through FastAPI; `test_shapes` looks at the statements of each database.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Annotated, Any, Final
from urllib.parse import quote

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, computed_field, field_serializer
from sqlalchemy import Engine, ForeignKey, create_engine, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import NullPool

from hasten.fastapi import Fields, Paginate
from hasten.fields import FieldSet, Partial
from hasten.pagination import CursorPage, Page, PageParams
from tests.effort import effort
from tests.pagination.databases import statements_of, url

# Which index an order has is not what this is about.
pytestmark = pytest.mark.filterwarnings("ignore::hasten.errors.PaginationWarning")

SECRET: Final = "a secret of more than 16 bytes"

TOYS: Final = 30


class Base(DeclarativeBase):
    pass


class Maker(Base):
    __tablename__ = "u_makers"
    id: Mapped[int] = mapped_column("mk_key", primary_key=True)
    name: Mapped[str] = mapped_column("mk_name")
    town: Mapped[str] = mapped_column("mk_town")
    secret: Mapped[str] = mapped_column("mk_secret")


class Toy(Base):
    __tablename__ = "u_toys"
    id: Mapped[int] = mapped_column("ty_key", primary_key=True)
    name: Mapped[str] = mapped_column("ty_name")
    price: Mapped[int | None] = mapped_column("ty_price")
    height: Mapped[int] = mapped_column("ty_height")
    width: Mapped[int] = mapped_column("ty_width")
    colour: Mapped[str] = mapped_column("ty_colour")
    secret: Mapped[str] = mapped_column("ty_secret")
    maker_id: Mapped[int | None] = mapped_column("ty_maker", ForeignKey("u_makers.mk_key"))
    maker: Mapped[Maker | None] = relationship()
    parts: Mapped[list[Part]] = relationship(order_by="Part.id")


class Part(Base):
    __tablename__ = "u_parts"
    id: Mapped[int] = mapped_column("pt_key", primary_key=True)
    label: Mapped[str] = mapped_column("pt_label")
    weight: Mapped[int] = mapped_column("pt_weight")
    secret: Mapped[str] = mapped_column("pt_secret")
    toy_id: Mapped[int] = mapped_column("pt_toy", ForeignKey("u_toys.ty_key"))
    maker_id: Mapped[int | None] = mapped_column("pt_maker", ForeignKey("u_makers.mk_key"))
    maker: Mapped[Maker | None] = relationship()


class MakerOut(BaseModel):
    id: int
    name: str
    town: str


class PartOut(BaseModel):
    id: int
    label: str
    weight: int
    maker: MakerOut | None = None


class ToyOut(BaseModel):
    id: int
    name: str
    price: int | None
    colour: str
    height: int = Field(exclude=True)
    width: int = Field(exclude=True)
    maker: MakerOut | None = None
    parts: list[PartOut] = []

    @field_serializer("colour")
    def loud(self, colour: str) -> str:
        return colour.upper()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.height * self.width


COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "id": ("ty_key",),
    "name": ("ty_name",),
    "price": ("ty_price",),
    "colour": ("ty_colour",),
    "area": ("ty_height", "ty_width"),
    "maker": ("ty_maker", "mk_key"),
    "maker.id": ("mk_key",),
    "maker.name": ("mk_name",),
    "maker.town": ("mk_town",),
    "parts": ("ty_key", "pt_key", "pt_toy"),
    "parts.id": ("pt_key",),
    "parts.label": ("pt_label",),
    "parts.weight": ("pt_weight",),
    "parts.maker": ("pt_maker", "mk_key"),
    "parts.maker.id": ("mk_key",),
    "parts.maker.name": ("mk_name",),
    "parts.maker.town": ("mk_town",),
}
"""What each path is made of; of a relation, what leads there and what its rows are sorted by."""

ALL: Final = frozenset(
    column.name for table in Base.metadata.tables.values() for column in table.columns
)

SORTS: Final = ("id", "name", "price")

Toys = Fields(ToyOut, model=Toy, needs={"area": ("height", "width")}, default=("id",), max_depth=3)
ToyPages = Paginate(Partial[ToyOut], model=Toy, sort=SORTS, fields=Toys)
ToyWalk = Paginate(
    Partial[ToyOut], model=Toy, sort=SORTS, fields=Toys, mode="cursor", secret=SECRET
)

app: Final = FastAPI()


@functools.cache
def engine(database: str) -> Engine:
    """Return a synchronous engine on a filled database."""
    made = create_engine(url(database, 0))
    Base.metadata.create_all(made)
    with Session(made) as session:
        session.add_all(Maker(id=n, name=f"m{n}", town="T", secret="s") for n in range(1, 6))
        session.flush()
        session.add_all(
            Toy(
                id=n, name=f"t{n % 7}", price=None if n % 3 == 0 else n % 5, height=n, width=2,
                colour="red", secret="s", maker_id=None if n % 4 == 0 else n % 5 + 1,
            )
            for n in range(1, TOYS + 1)
        )  # fmt: skip
        session.flush()
        session.add_all(
            Part(
                id=n, label=f"p{n}", weight=n, secret="s", toy_id=n % 9 + 1,
                maker_id=None if n % 2 else n % 5 + 1,
            )
            for n in range(1, 200)
        )  # fmt: skip
        session.commit()
    return made


@functools.cache
def async_engine(database: str) -> AsyncEngine:
    """Return an engine for any event loop. Connections are closed when they are returned."""
    engine(database)
    return create_async_engine(url(database, 1), poolclass=NullPool)


async def _db(request: Request) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(async_engine(request.app.state.database)) as session:
        yield session


DB = Annotated[AsyncSession, Depends(_db)]


@app.get("/toys/{id}")
async def toy(
    id: int, db: DB, fields: Annotated[FieldSet, Depends(Toys.params)]
) -> Partial[ToyOut]:
    return await Toys.one(db, select(Toy).where(Toy.id == id), fields)


@app.get("/toys")
async def toys(db: DB, q: Annotated[PageParams, Depends(ToyPages.params)]) -> Page[Partial[ToyOut]]:
    return await ToyPages.page(db, select(Toy), q)


@app.get("/walk")
async def walk(
    db: DB, q: Annotated[PageParams, Depends(ToyWalk.params)]
) -> CursorPage[Partial[ToyOut]]:
    return await ToyWalk.page(db, select(Toy), q)


# What is asked for ------------------------------------------------------------------------------

masks: Final = st.sets(
    st.sampled_from([path for path in COLUMNS if path not in ("maker", "parts", "parts.maker")]),
    min_size=1,
    max_size=6,
).flatmap(lambda paths: st.permutations(sorted(paths)))

sorts: Final = st.lists(
    st.tuples(st.sampled_from(SORTS), st.booleans()), max_size=2, unique_by=lambda each: each[0]
)


def columns_of(paths: Iterable[str]) -> set[str]:
    """Return the columns that these paths may use, including keys of relations."""
    found: set[str] = set()
    for path in paths:
        steps = path.split(".")
        for end in range(1, len(steps) + 1):
            found.update(COLUMNS[".".join(steps[:end])])
    return found


def keys_of(paths: Iterable[str]) -> dict[str, Any]:
    """Return the keys of the response, as a tree."""
    tree: dict[str, Any] = {}
    for path in paths:
        node = tree
        for step in path.split("."):
            node = node.setdefault(step, {})
    return tree


def shown(value: Any, keys: dict[str, Any]) -> bool:
    """Return whether a part of the response has exactly these keys."""
    if isinstance(value, list):
        return all(shown(each, keys) for each in value)
    if not keys:
        return not isinstance(value, dict)
    if value is None:
        return True
    rest = {name for name in value if not name.endswith("_has_more")}
    return rest == set(keys) and all(shown(value[name], keys[name]) for name in keys)


def named_in(log: Sequence[str]) -> set[str]:
    return {column for column in ALL for statement in log if column in statement}


def check(paths: Sequence[str], sort: Sequence[tuple[str, bool]], log: Sequence[str]) -> None:
    allowed = columns_of([*paths, *(name for name, _ in sort)]) | {"ty_key"}
    assert log
    asked = columns_of(path for path in paths if "." not in path)
    assert asked <= named_in(log) <= allowed
    assert not any("*" in statement.replace("count(*)", "") for statement in log)


async def ask(database: str, path: str) -> tuple[Any, list[str]]:
    app.state.database = database
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        with statements_of(async_engine(database).sync_engine) as log:
            found = await client.get(path)
    assert found.status_code == 200, found.text
    return found.json(), log


def query(paths: Sequence[str], sort: Sequence[tuple[str, bool]] = ()) -> str:
    names = ",".join("-" * descends + name for name, descends in sort)
    return f"fields={quote(','.join(paths))}" + (f"&sort={names}" if names else "")


@pytest.mark.parametrize("database", ["sqlite"])
@effort(12)
@given(paths=masks)
def test_one_row_reads_no_unselected_column(database: str, paths: list[str]) -> None:
    found, log = asyncio.run(ask(database, f"/toys/7?{query(paths)}"))
    check(paths, (), log)
    assert shown(found, keys_of(paths))


@effort(12)
@given(paths=masks, sort=sorts, page=st.integers(1, 4))
def test_a_page_reads_no_unselected_column(
    database: str, paths: list[str], sort: list[tuple[str, bool]], page: int
) -> None:
    found, log = asyncio.run(ask(database, f"/toys?limit=9&page={page}&{query(paths, sort)}"))
    check(paths, sort, log)
    assert len(found["data"]) == (9 if page < 4 else 3)
    assert shown(found["data"], keys_of(paths))


@pytest.mark.parametrize("database", ["sqlite"])
@effort(10)
@given(paths=masks, sort=sorts)
def test_a_walk_by_cursor_reads_no_unselected_column(
    database: str, paths: list[str], sort: list[tuple[str, bool]]
) -> None:
    async def there_and_back() -> None:
        pages = 0
        token: str | None = ""
        while token is not None:
            url = f"/walk?limit=11&{query(paths, sort)}&cursor={token}"
            found, log = await ask(database, url)
            check(paths, sort, log)
            assert shown(found["data"], keys_of(paths))
            pages += 1
            moved = found["pagination"]
            token = moved["next_cursor"] if pages < 3 else moved["prev_cursor"]
        assert pages == 5

    asyncio.run(there_and_back())
