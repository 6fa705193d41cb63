"""Plans are kept, and no request gets the values of another one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy import orm
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.pool import StaticPool

from hasten._sqlalchemy.execution import wrap_blocking_session
from hasten.errors import InvalidOption, InvalidParameter
from hasten.pagination import Capped, CursorPage, Page, Paginator
from hasten.pagination._sql import offset_select
from tests.effort import effort
from tests.pagination.databases import Author, Item, Post, Tag, async_engine, engine, statements_of


class ItemOut(BaseModel):
    id: int
    dataset: int
    grade: int | None
    label: str | None
    made: datetime


class PostOut(BaseModel):
    id: int
    title: str


SECRET: Final = "a secret of more than 16 bytes"


def paginate(**options: Any) -> Any:
    sort = ("id", "grade", "label")
    return Paginator(
        ItemOut, model=Item, sort=sort, mode="both", secret=SECRET, advise=False, **options
    )


Values = dict[str, Any]
"""Whose rows a request is for, and which of them."""

values: Final = st.fixed_dictionaries(
    {
        "tenant": st.integers(0, 2),
        "low": st.integers(0, 3),
        "id": st.integers(1, 180),
        "grades": st.lists(st.integers(0, 4), max_size=5),
        "label": st.sampled_from(["", "a", "B", "b", "é", "zz"]),
    }
)

Filter = Callable[[Any, Values], Any]

other: Final = orm.aliased(Item, name="other")


def of_lambda(item: Any, v: Values) -> Any:
    tenant = v["tenant"]
    return lambda: item.dataset == tenant


FILTERS: Final[dict[str, Filter]] = {
    "tenant": lambda item, v: item.dataset == v["tenant"],
    "in": lambda item, v: item.grade.in_(v["grades"]),
    "not in": lambda item, v: item.grade.not_in(v["grades"]),
    "tuples": lambda item, v: sa.tuple_(item.dataset, item.grade).in_(
        [(v["tenant"], grade) for grade in v["grades"]]
    ),
    "between": lambda item, v: item.id.between(v["id"] // 2, v["id"]),
    "or": lambda item, v: (item.label == v["label"]) | (item.id < v["id"]) | item.grade.is_(None),
    "same value twice": lambda item, v: (item.id > v["low"]) & (item.grade >= v["low"]),
    "subquery": lambda item, v: item.id.in_(
        sa.select(other.id).where(other.dataset == v["tenant"], other.id < v["id"])
    ),
    "exists": lambda item, v: sa.exists().where(other.id == item.id, other.dataset == v["tenant"]),
    "scalar": lambda item, v: (
        item.id
        >= sa.select(sa.func.min(other.id)).where(other.dataset == v["tenant"]).scalar_subquery()
    ),
    "function": lambda item, v: sa.func.coalesce(item.grade, v["low"]) >= sa.literal(v["low"]),
    "case": lambda item, v: sa.case((item.dataset == v["tenant"], 1), else_=0) == 1,
    "named": lambda item, v: item.dataset == sa.bindparam("whose", v["tenant"]),
    "pattern": lambda item, v: item.label.like(v["label"] + "%"),
    "text": lambda item, v: sa.text("(grade >= :low OR grade IS NULL)").bindparams(low=v["low"]),
    "lambda": of_lambda,
    # SQLAlchemy has one cache key for it with and without a value.
    "called": lambda item, v: item.dataset * 1 == sa.bindparam(None, callable_=lambda: v["tenant"]),
    "in a CTE": lambda item, v: item.id.in_(
        sa.select(sa.select(other.id).where(other.dataset == v["tenant"]).cte("some").c.id)
    ),
    "union": lambda item, v: item.id.in_(
        sa.select(other.id)
        .where(other.id < v["id"])
        .union(sa.select(other.id).where(other.dataset == v["tenant"]))
    ),
    "none or a value": lambda item, v: item.label == (v["label"] or None),
}

Entity = Callable[[Values], tuple[Any, Any]]
"""What is selected, and how."""


OF_CLASS: Final = ("text", "lambda")
"""A text names a column of the table; a lambda holds on to the first alias that it sees."""


def of_class(v: Values) -> tuple[Any, Any]:
    return Item, sa.select(Item)


def of_alias(v: Values) -> tuple[Any, Any]:
    alias = orm.aliased(Item)
    return alias, sa.select(alias)


def of_subquery(v: Values) -> tuple[Any, Any]:
    some = orm.aliased(Item, sa.select(Item).where(Item.dataset == v["tenant"]).subquery())
    return some, sa.select(some)


def of_join(v: Values) -> tuple[Any, Any]:
    counted = (
        sa.select(other.dataset, sa.func.max(other.id).label("last"))
        .where(other.dataset == v["tenant"])
        .group_by(other.dataset)
        .subquery()
    )
    return Item, sa.select(Item).join(counted, counted.c.dataset == Item.dataset)


ENTITIES: Final = (of_class, of_alias, of_subquery, of_join)

OPTIONS: Final[dict[str, Callable[[Values], list[Any]]]] = {
    "none": lambda v: [],
    "criteria": lambda v: [orm.with_loader_criteria(Item, Item.dataset == v["tenant"])],
    "lambda": lambda v: [lambda_criteria(v["tenant"])],
}


def lambda_criteria(tenant: int) -> Any:
    return orm.with_loader_criteria(Item, lambda item: item.dataset == tenant, include_aliases=True)


def made(entity: Entity, filters: list[str], options: str, v: Values) -> sa.Select[Any]:
    item, statement = entity(v)
    fitting = [name for name in filters if name not in OF_CLASS or entity is of_class]
    for name in fitting:
        statement = statement.where(FILTERS[name](item, v))
    found: sa.Select[Any] = statement.options(*OPTIONS[options](v))
    return found


def everything(session: orm.Session, statement: sa.Select[Any]) -> list[int]:
    """Return the rows that SQLAlchemy finds without hasten."""
    return sorted({row.id for row in session.scalars(statement)})


KEPT: Final = {
    (mode, count): paginate(count=count)
    for mode in ("page", "deep")
    for count in ("exact", Capped(7), "none")
}
"""They keep what they plan through all examples, so that each one can meet what others left."""

requests: Final = st.lists(values, min_size=2, max_size=6)


@pytest.fixture(params=["page", "deep"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name == "deep":
        monkeypatch.setattr(offset_select, "DEFER_FROM", 0)
    return name


@effort(12)
@given(
    entity=st.sampled_from(ENTITIES),
    filters=st.lists(st.sampled_from(sorted(FILTERS)), max_size=3, unique=True),
    options=st.sampled_from(sorted(OPTIONS)),
    requests=requests,
    count=st.sampled_from(["exact", Capped(7), "none"]),
    limit=st.integers(1, 30),
    data=st.data(),
)
def test_a_page_uses_the_values_of_its_request(
    database: str,
    mode: str,
    entity: Entity,
    filters: list[str],
    options: str,
    requests: list[Values],
    count: Any,
    limit: int,
    data: st.DataObject,
) -> None:
    """Requests of several tenants alternate on one `Paginator`. The results equal SQLAlchemy's."""
    pages = KEPT[mode, count]
    with orm.Session(engine(database)) as session:
        for v in requests:
            statement = made(entity, filters, options, v)
            wanted = everything(session, statement)
            number = data.draw(st.integers(1, len(wanted) // limit + 2))
            found = pages.sync.page(session, statement, pages.parse(f"page={number}&limit={limit}"))
            assert isinstance(found, Page)
            start = (number - 1) * limit
            assert [row["id"] for row in found.data] == wanted[start : start + limit]
            if count == "exact":
                assert found.total == len(wanted)
            assert found.has_more == (start + limit < len(wanted))


@effort(12)
@given(
    entity=st.sampled_from(ENTITIES),
    filters=st.lists(st.sampled_from(sorted(FILTERS)), max_size=3, unique=True),
    options=st.sampled_from(sorted(OPTIONS)),
    requests=requests,
    sort=st.sampled_from(["id", "-id", "grade", "-grade,label", "label,-grade"]),
    limit=st.integers(1, 30),
)
def test_alternating_walks_of_tenants_do_not_mix(
    database: str,
    entity: Entity,
    filters: list[str],
    options: str,
    requests: list[Values],
    sort: str,
    limit: int,
) -> None:
    pages = KEPT["page", "none"]
    with orm.Session(engine(database)) as session:
        walks: list[Any] = []
        for v in requests:
            statement = made(entity, filters, options, v)
            walks.append((statement, everything(session, statement), [], ""))
        going = walks
        while going:
            following: list[Any] = []
            for statement, wanted, seen, token in going:
                q = pages.parse(f"sort={sort}&limit={limit}&cursor={token}")
                found = pages.sync.page(session, statement, q)
                assert isinstance(found, CursorPage)
                seen = [*seen, *(row["id"] for row in found.data)]  # noqa: PLW2901
                if found.next_cursor is None:
                    assert sorted(seen) == wanted
                else:
                    following.append((statement, wanted, seen, found.next_cursor))
            going = following


@pytest.mark.parametrize("count", ["exact", Capped(7), "none"])
@effort(8)
@given(
    entity=st.sampled_from(ENTITIES),
    filters=st.lists(st.sampled_from(sorted(FILTERS)), max_size=3, unique=True),
    options=st.sampled_from(sorted(OPTIONS)),
    requests=requests,
    limit=st.integers(1, 30),
)
def test_alternating_requests_on_asynchronous_drivers(
    database: str,
    count: Any,
    entity: Entity,
    filters: list[str],
    options: str,
    requests: list[Values],
    limit: int,
) -> None:
    pages = KEPT["page", count]

    async def ask() -> None:
        with async_engine(database) as waiting:
            async with AsyncSession(waiting) as db:
                for v in requests:
                    statement = made(entity, filters, options, v)
                    with orm.Session(engine(database)) as session:
                        wanted = everything(session, statement)
                    found = await pages.page(db, statement, pages.parse(f"page=2&limit={limit}"))
                    assert [row["id"] for row in found.data] == wanted[limit : 2 * limit]
                    first = await pages.page(db, statement, pages.parse(f"cursor=&limit={limit}"))
                    assert [row["id"] for row in first.data] == wanted[:limit]
                    if first.next_cursor:
                        query = f"cursor={first.next_cursor}&limit={limit}"
                        second = await pages.page(db, statement, pages.parse(query))
                        assert [row["id"] for row in second.data] == wanted[limit : 2 * limit]

    asyncio.run(ask())


@pytest.mark.parametrize("entity", ENTITIES)
@pytest.mark.parametrize("name", sorted(set(FILTERS) - set(OF_CLASS) - {"called"}))
def test_selects_of_a_structure_are_planned_once(database: str, entity: Entity, name: str) -> None:
    assert asked_of_three(database, entity, name) == (2, 1)


@pytest.mark.parametrize(
    ("name", "hits", "misses"), [("text", 2, 1), ("lambda", 2, 1), ("called", 0, 0)]
)
def test_hidden_values_prevent_reuse(database: str, name: str, hits: int, misses: int) -> None:
    """It is remembered that the lambda hides its values."""
    assert asked_of_three(database, of_class, name) == (hits, misses)


def asked_of_three(database: str, entity: Entity, name: str) -> tuple[int, int]:
    """Return how often a plan was found and how often it was not."""
    pages = paginate()
    v: Values = {"tenant": 1, "low": 1, "id": 90, "grades": [1, 2], "label": "a"}
    with orm.Session(engine(database)) as session:
        for tenant in (0, 1, 2):
            statement = made(entity, [name], "none", v | {"tenant": tenant})
            found = pages.sync.page(session, statement, pages.parse(""))
            assert found.total == len(everything(session, statement))
    kept = pages._planner._plans._find_or_build.cache_info()
    return kept.hits, kept.misses


class TestTexts:
    """Drivers and databases cache statements by their text, which stays the same."""

    def test_pages_have_one_statement_text(self, database: str) -> None:
        pages = paginate()
        with orm.Session(engine(database)) as session, statements_of(engine(database)) as seen:
            for tenant in (0, 1, 2):
                for number in range(1, 4):
                    for limit in (5, 7):
                        q = pages.parse(f"page={number}&limit={limit}")
                        statement = sa.select(Item).where(Item.dataset == tenant)
                        assert len(pages.sync.page(session, statement, q).data) == limit
        assert len(seen) == 18
        assert len(set(seen)) == 1

    @pytest.mark.parametrize(("sort", "texts"), [("id", 2), ("-grade", 5)])
    def test_cursor_pages_have_one_statement(self, database: str, sort: str, texts: int) -> None:
        """One for the first page, and then one, or one for each position with and without NULL."""
        pages = paginate()
        with orm.Session(engine(database)) as session, statements_of(engine(database)) as seen:
            for tenant in (0, 1, 2):
                statement = sa.select(Item).where(Item.dataset == tenant)
                token: str | None = ""
                while token is not None:
                    q = pages.parse(f"sort={sort}&limit=6&cursor={token}")
                    token = pages.sync.page(session, statement, q).next_cursor
        assert len(seen) >= 30
        assert len(set(seen)) <= texts


class TestFallbacks:
    """Unusual selects are planned for each request, with the right result."""

    def test_objects_are_compared_by_their_key_at_execution(self) -> None:
        """The session flushes first, because new objects have no ids before."""
        posts: Any = Paginator(PostOut, model=Post)
        with orm.Session(engine("sqlite")) as session:
            for name in ("x", "y"):
                author = Author(name=name, email=f"{name}@example.net")
                author.posts = [Post(title=f"by {name}")]
                session.add(author)
                statement = sa.select(Post).where(Post.author == author)
                found = posts.sync.page(session, statement, posts.parse(""))
                assert [row["title"] for row in found.data] == [f"by {name}"]
            session.rollback()

    def test_a_parameter_without_a_value_is_an_error(self, session: orm.Session) -> None:
        pages = paginate()
        one = sa.select(Item).where(Item.dataset == sa.bindparam("whose", 1))
        assert pages.sync.page(session, one, pages.parse("")).total == 60
        none = sa.select(Item).where(Item.dataset == sa.bindparam("whose"))
        with pytest.raises(StatementError, match="whose"):
            pages.sync.page(session, none, pages.parse(""))

    @pytest.mark.parametrize(
        "whose",
        [sa.bindparam("whose"), sa.bindparam("whose", 1)],
        ids=["without a value", "with one"],
    )
    @pytest.mark.parametrize("is_inside", [False, True])
    def test_values_of_params(self, session: orm.Session, whose: Any, is_inside: bool) -> None:
        pages = paginate()
        for tenant in (0, 1, 2, 0):
            if is_inside:
                some = sa.select(other.id).where(other.dataset == whose)
                statement = sa.select(Item).where(Item.id.in_(some.params(whose=tenant)))
            else:
                whole = sa.select(Item).where(Item.dataset == whose)
                statement = whole.params(whose=tenant)
            found = pages.sync.page(session, statement, pages.parse(""))
            assert {row["dataset"] for row in found.data} == {tenant}

    def test_values_in_a_relationship(self, session: orm.Session) -> None:
        posts: Any = Paginator(PostOut, model=Post)
        for name in ("n0", "n1", "n2"):
            statement = sa.select(Post).join(Post.author.and_(Author.name == name))
            wanted = sorted(post.id for post in session.scalars(statement))
            found = posts.sync.page(session, statement, posts.parse("limit=100"))
            assert [row["id"] for row in found.data] == wanted != []

    def test_values_in_loader_options(self, session: orm.Session) -> None:
        posts: Any = Paginator(PostOut, model=Post)
        for name in ("red", "green"):
            option = orm.joinedload(Post.tags.and_(Tag.name == name))
            found = posts.sync.page(session, sa.select(Post).options(option), posts.parse(""))
            assert found.total == 40

    def test_an_error_names_the_select_of_the_request(self) -> None:
        pages = paginate()
        with orm.Session(engine("sqlite")) as session:
            for _ in range(2):
                statement = sa.select(Item).where(Item.dataset == 1).group_by(Item.dataset)
                with pytest.raises(InvalidOption, match="GROUP BY"):
                    pages.sync.page(session, statement, pages.parse(""))


class OfTenant(orm.UserDefinedOption):
    """Data for listeners of the application."""


class TestWhatIsNotInTheKey:
    """Values that are not in SQLAlchemy's cache key are not cached here, either."""

    def test_options_for_listeners_are_kept(self, session: orm.Session) -> None:
        pages = paginate()

        @sa.event.listens_for(session, "do_orm_execute")
        def only_some(state: orm.ORMExecuteState) -> None:
            for option in state.user_defined_options:
                state.statement = state.statement.options(
                    orm.with_loader_criteria(Item, Item.dataset == option.payload)
                )

        for tenant in (0, 1, 2, 0):
            statement = sa.select(Item).options(OfTenant(tenant))
            for query in ("page=2", "cursor=", "sort=grade&cursor="):
                found = pages.sync.page(session, statement, pages.parse(query))
                assert {row["dataset"] for row in found.data} == {tenant}
            assert pages.sync.page(session, statement, pages.parse("")).total == 60

    def test_loader_criteria_and_listeners_both_apply(self, session: orm.Session) -> None:
        """The listener adds a filter that depends on the request."""
        pages = paginate()
        whose = 0

        @sa.event.listens_for(session, "do_orm_execute")
        def only_some(state: orm.ORMExecuteState) -> None:
            criteria = orm.with_loader_criteria(Item, Item.dataset == whose)
            state.statement = state.statement.options(criteria)

        for whose in (0, 1, 2, 0):
            for query in ("page=2", "cursor=", "sort=grade&cursor="):
                found = pages.sync.page(session, sa.select(Item), pages.parse(query))
                assert {row["dataset"] for row in found.data} == {whose}

    def test_each_tenant_has_its_schema(self) -> None:
        pages = paginate()
        made = sa.create_engine("sqlite://", poolclass=StaticPool)
        with made.connect() as connection:
            for tenant in (1, 2):
                connection.exec_driver_sql(f"ATTACH ':memory:' AS tenant{tenant}")
                mapped = connection.execution_options(
                    schema_translate_map={None: f"tenant{tenant}"}
                )
                Item.__table__.create(mapped)  # type: ignore[attr-defined]
                row = {"dataset": tenant, "state": "", "made": datetime(2026, 1, 1)}  # noqa: DTZ001
                mapped.execute(sa.insert(Item), [row] * tenant)
            connection.commit()
            plain = made.connect()
            with orm.Session(plain) as session:
                for tenant in (1, 2, 1):
                    statement = sa.select(Item).execution_options(
                        schema_translate_map={None: f"tenant{tenant}"}
                    )
                    for query in ("", "cursor="):
                        found = pages.sync.page(session, statement, pages.parse(query))
                        assert [row["dataset"] for row in found.data] == [tenant] * tenant
            plain.close()
        made.dispose()

    def test_a_cursor_belongs_to_its_loader_criteria(self, session: orm.Session) -> None:
        pages = paginate()
        one, two = (sa.select(Item).options(lambda_criteria(tenant)) for tenant in (0, 1))
        first = pages.sync.page(session, one, pages.parse("cursor=&limit=5"))
        q = pages.parse(f"cursor={first.next_cursor}&limit=5")
        assert len(pages.sync.page(session, one, q).data) == 5
        with pytest.raises(InvalidParameter, match="another query"):
            pages.sync.page(session, two, q)


def test_executed_statements_contain_no_values(database: str) -> None:
    """Every parameter gets its value at execution. A missing one is an error."""
    pages = paginate()
    executed: list[Any] = []
    with orm.Session(engine(database)) as session:

        @sa.event.listens_for(session, "do_orm_execute")
        def note(state: orm.ORMExecuteState) -> None:
            executed.append(state.statement)

        for label in ("a", "b"):
            statement = sa.select(Item).where(Item.label == label, Item.dataset.in_([0, 1]))
            for query in ("", "page=2000", "cursor=", "sort=grade,-label&cursor="):
                pages.sync.page(session, statement, pages.parse(query))
        noted = executed.copy()  # executing a statement adds it to the list
        for statement in noted:
            held = statement.compile(engine(database)).binds.values()
            assert {each.value for each in held if each.required} == {None}
            assert not {"a", "b"} & {each.value for each in held if not each.expanding}
            with pytest.raises(StatementError, match="A value is required"):
                session.execute(statement)


def test_at_most_256_plans_are_kept() -> None:
    pages = paginate()
    with orm.Session(engine("sqlite")) as session:
        for number in range(300):
            statement = sa.select(Item).where(sa.func.abs(Item.id) == sa.func.abs(Item.id))
            names = [FILTERS["tenant"], FILTERS["between"], FILTERS["in"]]
            v = {"tenant": 1, "id": 90, "grades": [1]}
            while number:
                number, place = divmod(number, 3)  # noqa: PLW2901
                statement = statement.where(names[place](Item, v))
            pages._planner.make_page_query(
                wrap_blocking_session(session), statement, pages.fields.allowed.default, ()
            )
        assert pages._planner.cached_plan_count == 256
        found = pages.sync.page(session, sa.select(Item), pages.parse(""))
        assert (found.total, pages._planner.cached_plan_count) == (180, 256)


def test_threads_share_plans(database: str) -> None:
    pages = paginate()

    def ask(tenant: int) -> set[int]:
        seen = set()
        with orm.Session(engine(database)) as session:
            for number in (1, 2, 3):
                statement = sa.select(Item).where(Item.dataset == tenant)
                q = pages.parse(f"page={number}&sort=-grade")
                seen |= {row["dataset"] for row in pages.sync.page(session, statement, q).data}
        return seen

    with ThreadPoolExecutor(8) as pool:
        tenants = [number % 3 for number in range(60)]
        assert list(pool.map(ask, tenants)) == [{tenant} for tenant in tenants]
    assert pages._planner.cached_plan_count == 1


asking: Final = ContextVar("asking", default=0)


class Base(orm.DeclarativeBase):
    pass


class Told(Base):
    """A class with a hybrid that depends on the current user."""

    __tablename__ = "t_told"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    owner: orm.Mapped[int]
    first: orm.Mapped[int]
    second: orm.Mapped[int]

    @hybrid_property
    def mine(self) -> int:
        return int(self.owner == asking.get())

    @mine.inplace.expression
    @classmethod
    def _mine(cls) -> Any:
        return sa.case((cls.owner == asking.get(), 1), else_=0)

    @hybrid_property
    def rank(self) -> int:
        return self.second if asking.get() % 2 else self.first

    @rank.inplace.expression
    @classmethod
    def _rank(cls) -> Any:
        return cls.second if asking.get() % 2 else cls.first


class ToldOut(BaseModel):
    id: int
    mine: int
    rank: int


def test_hybrids_may_depend_on_the_request() -> None:
    """Their values and expressions are those of the request: in rows, orders and fields."""
    pages: Any = Paginator(ToldOut, model=Told, sort=("mine", "rank"), advise=False)
    cursors: Any = Paginator(
        ToldOut, model=Told, sort=("mine", "rank"), mode="cursor", secret=SECRET, advise=False
    )
    made = sa.create_engine("sqlite://", poolclass=StaticPool)
    Told.__table__.create(made)  # type: ignore[attr-defined]
    rows = [{"owner": n % 3, "first": n, "second": -n} for n in range(1, 10)]
    with orm.Session(made) as session:
        session.execute(sa.insert(Told), rows)
        for who in (1, 2, 0, 1):
            token = asking.set(who)
            wanted = [
                {"id": row.id, "mine": row.mine, "rank": row.rank}
                for row in sorted(
                    session.scalars(sa.select(Told)), key=lambda row: (-row.mine, row.rank)
                )
            ]
            query = "sort=-mine,rank"
            assert pages.sync.page(session, sa.select(Told), pages.parse(query)).data == wanted
            assert cursors.sync.page(session, sa.select(Told), cursors.parse(query)).data == wanted
            one = sa.select(Told).where(Told.id == wanted[0]["id"])
            assert pages.fields.sync.one(session, one, pages.fields.parse("")) == wanted[0]
            asking.reset(token)
    made.dispose()
