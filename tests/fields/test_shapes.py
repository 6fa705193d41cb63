"""Statements name requested columns only, and are shared by sets of fields.

A column may be named in a statement for two reasons: a field that was asked for is made of it, or
the work needs it (keys, what leads to a relation, what is sorted by).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Mapper, Session

from hasten.fields import AllowedFields, FieldSelector, FieldSet
from hasten.pagination import Paginator
from tests.effort import effort
from tests.fields.databases import Base, Tag, User, async_engine, engine
from tests.pagination.databases import statements_of, url

# Which index an order has is not what this is about.
pytestmark = pytest.mark.filterwarnings("ignore::hasten.errors.PaginationWarning")

INITIALS: Final = {"initials": ("first", "last")}

Tags: Final = AllowedFields({"id": "id", "name": "name"})
Bosses: Final = AllowedFields(
    {"id": "id", "email": "email", "initials": "initials"}, needs=INITIALS
)
Posts: Final = AllowedFields({"id": "id", "title": "title", "tags": [Tags], "author": Bosses})
Teams: Final = AllowedFields({"id": "id", "name": "name", "members": [Bosses]})
Users: Final = AllowedFields(
    {
        "id": "id", "name": "name", "email": "email", "made": "created", "balance": "balance",
        "role": "role", "settings": "settings", "shouted": "shouted", "initials": "initials",
        "team": Teams, "boss": Bosses, "posts": [Posts], "badge": AllowedFields({"text": "text"}),
    },
    needs=INITIALS,
)  # fmt: skip
SORTS: Final = {"id": "id", "name": "name", "made": "created", "balance": "balance"}


def initials(first: str, last: str) -> str:
    return first[0] + last[0]


fields: Final = FieldSelector(
    Users,
    model=User,
    max_depth=3,
    max_related=2,
    compute=dict.fromkeys(
        ("initials", "boss.initials", "team.members.initials", "posts.author.initials"), initials
    ),
)
Pages = Paginator(
    object,
    model=User,
    fields=fields,
    sort=tuple(SORTS),
    mode="both",
    secret="a secret of more than 16 bytes",
)


def texts_of(allowed: AllowedFields) -> st.SearchStrategy[str]:
    """Return some names of fields, and of fields of relations, for a request."""
    plain = [name for name, field in allowed.fields.items() if field.relation is None]
    nested = [
        st.just(name) | texts_of(field.relation).map(lambda inner, name=name: f"{name}({inner})")  # type: ignore[misc]
        for name, field in allowed.fields.items()
        if field.relation is not None
    ]
    one = st.one_of(st.sampled_from(plain), *nested)
    return st.lists(one, min_size=1, max_size=4).map(",".join)


def wanted(chosen: FieldSet, mapper: Mapper[Any]) -> Iterator[tuple[str, str]]:
    """Return the tables and columns that a set of fields may need."""
    yield from _names(mapper.primary_key)
    for field, inner in chosen.members:
        if inner is None:
            # A hybrid is an expression of one column.
            needs = [{"shouted": "name"}.get(need, need) for need in field.needs]
            yield from _names(mapper.columns[need] for need in needs)
            continue
        relation = mapper.relationships[field.attribute]
        leading = itertools.chain(
            *relation.local_remote_pairs, *(each.get_children() for each in relation.order_by or ())
        )
        yield from _names(leading)
        yield from wanted(inner, relation.mapper)


def _names(columns: Iterable[Any]) -> Iterator[tuple[str, str]]:
    return ((column.table.name, column.name) for column in columns)


def named(statement: str) -> set[tuple[str, str]]:
    """Return the columns that a statement names, also by aliases."""
    tables = "|".join(sorted(Base.metadata.tables, key=len, reverse=True))
    found = re.findall(rf"\b({tables})(?:_\d+)?\.\"?(\w+)", statement)
    assert not re.search(r"\*(?!\))", statement), statement
    return set(found)


def ask(session: Session, how: str, chosen: FieldSet, sort: str) -> set[str]:
    """Read rows in one of several ways. Returns the attributes that are sorted by."""
    match how:
        case "one":
            fields.sync.one(session, select(User).where(User.id == 1), chosen)
            return set()
        case "many":
            fields.sync.many(session, select(User).limit(4), chosen)
            return set()
        case "page":
            q = Pages.parse(f"page=2&limit=4&sort={sort}")
            Pages.sync.page(session, select(User), q, chosen)
        case "cursor":
            token = ""
            for _ in range(3):
                q = Pages.parse(f"limit=4&sort={sort}&cursor={token}")
                found: Any = Pages.sync.page(session, select(User), q, chosen)
                token = found.next_cursor
    return {SORTS[sort.removeprefix("-")]}


@pytest.mark.parametrize("how", ["one", "many", "page", "cursor"])
@effort(10)
@given(asked=texts_of(Users), sort=st.sampled_from([*SORTS, *(f"-{name}" for name in SORTS)]))
def test_no_unselected_column_is_named(database: str, how: str, asked: str, sort: str) -> None:
    chosen = fields.parse([("fields", asked)])
    with Session(engine(database)) as session, statements_of(engine(database)) as log:
        sorted_by = ask(session, how, chosen, sort)
    assert log
    allowed = {*wanted(chosen, inspect(User)), *(("f_users", name) for name in sorted_by)}
    for statement in log:
        assert named(statement) - allowed == set()


def test_the_check_finds_columns_that_were_not_selected() -> None:
    """Selecting whole entities makes the check fail."""
    with Session(engine("sqlite")) as session, statements_of(engine("sqlite")) as log:
        session.scalars(select(User).limit(1)).all()
        session.scalars(select(Tag)).all()
    assert ("f_users", "password_hash") in named(log[0])
    assert ("f_tags", "name") in named(log[1])


PLAIN: Final = [
    name for name, field in Users.fields.items() if field.relation is None and name != "settings"
]
SETS: Final = [
    ",".join(itertools.compress(PLAIN, chosen)) or "id"
    for chosen in itertools.product([True, False], repeat=len(PLAIN))
] + [f"id,team({inner}),posts(title)" for inner in ("id", "name", "id,name", "members(email)")]


class TestShapes:
    """Many sets of fields, again and again, on one connection."""

    def test_the_caches_of_statements_stay_within_their_bounds(self, database: str) -> None:
        own = FieldSelector(Users, model=User, max_depth=3, compute=fields._compute)
        engine(database)  # fills it
        made: Engine = create_engine(url(database, 0), query_cache_size=100)
        assert len(SETS) > 256
        with Session(made) as session, statements_of(made) as log:
            for asked in [*SETS, *SETS[:10]]:
                own.sync.one(
                    session, select(User).where(User.id == 1), own.parse(f"fields={asked}")
                )
            # All statements of the second time are among those of the first.
            assert len(set(log)) <= len(SETS) + 3
            assert own._require_loaders().cached_loader_count <= 256
            assert len(made._compiled_cache or ()) <= 150
            if database == "postgresql":
                assert prepared(session.execute(PREPARED).scalar()) <= 100
        made.dispose()

    @pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
    async def test_a_server_keeps_few_prepared_statements(self, driver: str) -> None:
        with async_engine("postgresql"):
            made = create_async_engine(url("postgresql", 1).replace("asyncpg", driver))
        async with AsyncSession(made) as session:
            for asked in SETS:
                for _ in range(6 if asked == "id" else 1):
                    await fields.one(
                        session, select(User).where(User.id == 1), fields.parse(f"fields={asked}")
                    )
            found = prepared((await session.execute(PREPARED)).scalar())
        await made.dispose()
        # SQLAlchemy and asyncpg cache up to a hundred for each connection, psycopg in all.
        assert 0 < found <= (200 if driver == "asyncpg" else 100)

    def test_pages_of_one_selection_share_their_statements(self, database: str) -> None:
        """Whatever the page number, and however many rows there are."""
        chosen = fields.parse("fields=id,team(name),posts(title)")
        with Session(engine(database)) as session, statements_of(engine(database)) as log:
            for number in range(1, 9):
                q = Pages.parse(f"page={number}&limit=4&sort=name")
                Pages.sync.page(session, select(User), q, chosen)
            by_number = len(set(log))
            log.clear()
            token: str | None = ""
            while token is not None:
                q = Pages.parse(f"limit=4&sort=name&cursor={token}")
                found: Any = Pages.sync.page(session, select(User), q, chosen)
                token = found.next_cursor
        assert by_number <= 8
        assert len(set(log)) <= 8


PREPARED: Final = text("SELECT count(*) FROM pg_prepared_statements")


def prepared(count: object) -> int:
    assert isinstance(count, int)
    return count
