"""Warnings about queries: for which queries, how often and on which line."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from itertools import permutations
from typing import Any, Final

import httpx
import pytest
from fastapi import Depends, FastAPI
from pydantic import BaseModel
from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    create_engine,
    event,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column, relationship
from sqlalchemy.pool import StaticPool
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from hasten import fastapi
from hasten.errors import PaginationWarning
from hasten.pagination import Cached, Capped, Paginator, SortKey
from hasten.pagination import _paginator as paginator
from hasten.pagination._sql import advice, query_planner
from tests.pagination.databases import url

SECRET: Final = "a secret of more than 16 bytes"


class Base(DeclarativeBase):
    pass


class Event(Base):
    __tablename__ = "a_events"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[int] = mapped_column(default=1)
    kind: Mapped[str] = mapped_column(default="x")
    code: Mapped[str] = mapped_column(unique=True)
    made: Mapped[datetime] = mapped_column("made_at")
    ended: Mapped[datetime | None]
    score: Mapped[int | None]
    size: Mapped[int] = mapped_column(default=0)
    notes: Mapped[list[Note]] = relationship()


# Read backwards, both keys descend. Behind a tenant, another key comes first.
Index("ix_made", Event.made, Event.id)
Index("ix_size", Event.size.desc())
Index("ix_tenant_ended", Event.tenant, Event.ended, Event.id)
Index("ix_score", Event.score, Event.id)


class Note(Base):
    __tablename__ = "a_notes"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    event_id: Mapped[int] = mapped_column(ForeignKey("a_events.id"), index=True)
    text: Mapped[str] = mapped_column(index=True)


class EventOut(BaseModel):
    id: int
    kind: str
    code: str
    made: datetime
    ended: datetime | None
    score: int | None
    size: int


class NoteOut(BaseModel):
    id: int
    text: str


NAMES: Final = ("id", "kind", "code", "made", "ended", "score", "size")
DECLARED: Final = tuple(SortKey(name) for name in NAMES)


@pytest.fixture(params=["sqlite", "postgresql"])
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    engine = create_engine(url(request.param, 0) if request.param == "postgresql" else "sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as opened:
        yield opened
    Base.metadata.drop_all(engine)
    engine.dispose()


@pytest.fixture
def sqlite() -> Iterator[Session]:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as opened:
        yield opened
    engine.dispose()


@contextmanager
def told() -> Iterator[list[str]]:
    """Yield the warnings of the block."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
    texts += [str(each.message) for each in caught if each.category is PaginationWarning]
    assert len(texts) == len(caught)


def events(sort: Any = DECLARED, *, advise: Any = True, **options: Any) -> Any:
    return Paginator(EventOut, model=Event, sort=sort, advise=advise, **options)


def told_of(session: Session, query: str, statement: Any = None, paginate: Any = None) -> list[str]:
    paginate = paginate or events()
    statement = select(Event) if statement is None else statement
    with told() as texts:
        for _ in range(3):
            paginate.sync.page(session, statement, paginate.parse(query))
    return texts


def name(session: Session) -> str:
    return session.get_bind().dialect.name


class TestIndexes:
    @pytest.mark.parametrize(
        "query", ["", "sort=id", "sort=-id", "sort=made", "sort=-made", "sort=code", "sort=-code"]
    )
    def test_no_warning_where_an_index_has_the_order(self, session: Session, query: str) -> None:
        """An index of the primary key, one over all keys in either direction, and a unique one."""
        assert told_of(session, query) == []

    def test_sqlite_has_the_row_id_in_every_index(self, session: Session) -> None:
        """It ascends, also after a descending column."""
        (said,) = told_of(session, "sort=-size")
        assert "only has the order of Event.size" in said
        texts = told_of(session, "sort=-size,id")
        assert len(texts) == (0 if name(session) == "sqlite" else 1)

    def test_a_bigint_is_not_the_row_id(self, sqlite: Session) -> None:
        notes = Paginator(NoteOut, model=Note, default_sort="text", advise=True)
        (said,) = told_of(sqlite, "", select(Note), notes)
        assert "only has the order of Note.text" in said
        assert said.endswith('add Index("ix_a_notes_text_id", Note.text, Note.id)')

    def test_the_warning_contains_the_index_to_add(self, session: Session) -> None:
        (said,) = told_of(session, "sort=-kind")
        assert said == (
            "Event sorted by Event.kind DESC, Event.id DESC: no index has this order, so the "
            "database sorts all rows for each page. "
            'Add Index("ix_a_events_kind_id", Event.kind, Event.id)'
        )

    def test_the_index_has_different_directions(self, session: Session) -> None:
        (said,) = told_of(session, "sort=-kind,id")
        assert said.endswith('Index("ix_a_events_kind_id", Event.kind.desc(), Event.id)')

    def test_columns_have_the_names_of_attributes(self, session: Session) -> None:
        (said,) = told_of(session, "sort=kind,-made")
        assert said.endswith(
            'Index("ix_a_events_kind_made_at_id", Event.kind, Event.made.desc(), Event.id.desc())'
        )

    def test_an_index_on_some_of_the_keys_gets_a_weaker_warning(self, session: Session) -> None:
        (said,) = told_of(session, "sort=made,kind")
        assert said.startswith(
            "Event sorted by Event.made, Event.kind, Event.id: an index only has the order of "
            "Event.made, so the database sorts the rows with equal values"
        )
        assert "If there are many of them, add" in said

    def test_columns_of_a_filter_may_precede_the_keys(self, session: Session) -> None:
        of_tenant = select(Event).where(Event.tenant == 5)
        assert told_of(session, "sort=ended", of_tenant) == []
        assert "no index has" in told_of(session, "sort=ended")[0]
        (said,) = told_of(session, "sort=kind", of_tenant)
        assert said.endswith(
            'Index("ix_a_events_tenant_kind_id", Event.tenant, Event.kind, Event.id)'
        )

    def test_nulls_are_a_part_of_the_order(self, session: Session) -> None:
        """SQLite has no index with NULLS FIRST or LAST, so no index is recommended."""
        assert told_of(session, "sort=score") == []
        texts = told_of(session, "sort=-score")
        if name(session) == "sqlite":
            assert texts == []
        else:
            assert texts[0].endswith(
                'Index("ix_a_events_score_id", Event.score.desc().nulls_last(), Event.id.desc())'
            )
        first = [SortKey("score", nulls="first")]
        assert told_of(session, "sort=-score", paginate=events(first)) == []
        texts = told_of(session, "sort=score", paginate=events(first))
        if name(session) == "sqlite":
            assert texts == []
        else:
            assert texts[0].endswith(
                'Index("ix_a_events_score_id", Event.score.nulls_first(), Event.id)'
            )

    def test_the_recommended_index_removes_the_warning(self, session: Session) -> None:
        """With the index there is no warning, and the database uses it."""
        (said,) = told_of(session, "sort=-kind,made")
        found = re.search(r"Index\(.*\)$", said)
        assert found is not None
        index = eval(found[0], {"Index": Index, "Event": Event})
        try:
            assert told_of(session, "sort=-kind,made") == []
            index.create(session.connection())
            if name(session) == "sqlite":
                plan = session.execute(
                    text(
                        "EXPLAIN QUERY PLAN SELECT id FROM a_events "
                        "ORDER BY kind DESC, made_at, id LIMIT 5"
                    )
                ).all()
                assert index.name in str(plan)
                assert "TEMP B-TREE" not in str(plan)
        finally:
            session.rollback()
            Event.__table__.indexes.discard(index)  # type: ignore[attr-defined]

    def test_orders_without_a_visible_index_are_not_checked(self, session: Session) -> None:
        """An expression may have an index, which cannot be read."""
        lower = select(Event).order_by(func.lower(Event.kind), Event.id)
        assert told_of(session, "", lower, events(())) == []


class TestNulls:
    def test_a_nullable_name_without_declared_nulls(self, session: Session) -> None:
        (said, *_) = told_of(session, "sort=score", paginate=events(("score", "made")))
        assert said == (
            "Event sorted by score: sort= does not say where NULLs are sorted, so they "
            'are sorted last. Use SortKey("score", nulls="last") in sort=, or nulls="first"'
        )
        assert told_of(session, "sort=made", paginate=events(("score", "made"))) == []

    def test_a_sort_key_declares_nulls(self, session: Session) -> None:
        assert told_of(session, "sort=score") == []

    def test_the_order_by_of_a_select_without_declared_nulls(self, session: Session) -> None:
        plain = select(Event).order_by(Event.score.desc())
        assert any(
            "Use Event.score.nulls_last()" in said
            for said in told_of(session, "", plain, events(()))
        )
        declared = select(Event).order_by(Event.score.nulls_last())
        assert told_of(session, "", declared, events(())) == []


class TestCounts:
    @pytest.fixture(autouse=True)
    def _few_are_many(self, monkeypatch: pytest.MonkeyPatch, session: Session) -> None:
        monkeypatch.setattr(advice, "MANY_ROWS", 2)
        made = datetime(2026, 1, 1)  # noqa: DTZ001
        session.execute(insert(Event), [{"code": str(n), "made": made} for n in range(3)])

    def test_many_counted_rows(self, session: Session) -> None:
        (said,) = told_of(session, "")
        assert said.startswith("Event: 3 rows were counted for one page")
        assert "count=Capped(10_000)" in said

    def test_many_counted_rows_beside_cursors(self, session: Session) -> None:
        counted = events(mode="cursor", secret=SECRET, count="exact")
        (said,) = told_of(session, "", paginate=counted)
        assert "3 rows were counted" in said

    @pytest.mark.parametrize("count", [Capped(2), "none", "estimated"])
    def test_no_warning_without_an_exact_count(self, session: Session, count: Any) -> None:
        if count == "estimated":
            if name(session) != "postgresql":
                return
            session.execute(text("ANALYZE a_events"))
        assert told_of(session, "", paginate=events(count=count)) == []

    def test_advice_takes_no_statement(self, session: Session) -> None:
        seen: list[Any] = []
        pages = events()
        event.listen(session, "do_orm_execute", seen.append)
        with told():
            pages.sync.page(session, select(Event), pages.parse(""))
        assert len(seen) == 1


class TestJoins:
    def test_a_join_to_many_is_replaced_by_a_semi_join(self, session: Session) -> None:
        joined = select(Event).join(Event.notes).where(Note.text == "x")
        (said,) = told_of(session, "", joined)
        assert said.startswith("Event: the join to a_notes repeats rows")
        assert "any(" in said

    def test_no_warning_for_a_join_to_one(self, session: Session) -> None:
        other = aliased(Event)
        notes = Paginator(NoteOut, model=Note, advise=True)
        joined = select(Note).join(other, other.id == Note.event_id).where(other.kind == "x")
        assert told_of(session, "", joined, notes) == []

    def test_no_warning_for_any(self, session: Session) -> None:
        assert told_of(session, "", select(Event).where(Event.notes.any(Note.text == "x"))) == []


NOW: Final[dict[str, Callable[[], Any]]] = {
    "now": lambda: select(Event).where(Event.made <= datetime.now()),  # noqa: DTZ005
    "in UTC": lambda: select(Event).where(Event.made <= datetime.now(UTC).replace(tzinfo=None)),
    "a zone": lambda: select(Event).where(Event.made <= datetime.now(timezone(timedelta(hours=5)))),
    "a week ago": lambda: select(Event).where(
        Event.made >= datetime.now() - timedelta(days=7)  # noqa: DTZ005
    ),
    "seconds": lambda: select(Event).where(Event.size <= time.time()),
    "whole milliseconds": lambda: select(Event).where(Event.size <= int(time.time() * 1000)),
}

NOT_NOW: Final[dict[str, Callable[[], Any]]] = {
    "of the database": lambda: select(Event).where(Event.made <= func.now()),
    "written down": lambda: select(Event).where(Event.made <= datetime(2026, 1, 1, 0, 0, 0, 7)),  # noqa: DTZ001
    "without a time": lambda: select(Event).where(Event.size <= 5),
}


class TestFilters:
    """A filter by the current time differs in each request."""

    @pytest.mark.parametrize("statement", NOW)
    def test_a_filter_by_current_time_with_cursors(self, sqlite: Session, statement: str) -> None:
        pages = events(mode="cursor", secret=SECRET)
        (said,) = told_of(sqlite, "sort=id", NOW[statement](), pages)
        assert "cursors are rejected" in said
        assert "func.now()" in said

    def test_a_filter_by_time_with_cached_totals_and_versions(self, sqlite: Session) -> None:
        for pages in (events(count=Cached("exact", 30)), events(version=func.max(Event.id))):
            (said,) = told_of(sqlite, "sort=id", NOW["now"](), pages)
            assert "totals and ETags are not reused" in said

    def test_no_warning_for_a_page_by_number(self, sqlite: Session) -> None:
        assert told_of(sqlite, "sort=id", NOW["now"]()) == []

    @pytest.mark.parametrize("statement", NOT_NOW)
    def test_no_warning_for_other_values(self, sqlite: Session, statement: str) -> None:
        pages = events(mode="cursor", secret=SECRET)
        assert told_of(sqlite, "sort=id", NOT_NOW[statement](), pages) == []


class TestWhenAndWhere:
    def test_one_warning_for_each_query(self, sqlite: Session) -> None:
        """Other pages and other values belong to the same query."""
        pages = events()
        with told() as texts:
            for tenant in (1, 2):
                for query in ("sort=kind", "sort=kind&page=2", "sort=kind&page=9&limit=3"):
                    statement = select(Event).where(Event.tenant == tenant)
                    pages.sync.page(sqlite, statement, pages.parse(query))
            pages.sync.page(sqlite, select(Event), pages.parse("sort=kind"))
        assert len(texts) == 2

    def test_no_warning_with_advise_false(self, sqlite: Session) -> None:
        assert told_of(sqlite, "sort=kind", paginate=events(NAMES, advise=False)) == []

    def test_the_warning_is_on_the_line_of_the_caller(self, sqlite: Session) -> None:
        pages = events()
        with pytest.warns(PaginationWarning) as caught:
            pages.sync.page(sqlite, select(Event), pages.parse("sort=kind"))
        assert {each.filename for each in caught} == {__file__}

    @pytest.mark.parametrize("is_development", [True, False])
    def test_by_default_warnings_are_given_in_development_only(
        self, sqlite: Session, monkeypatch: pytest.MonkeyPatch, *, is_development: bool
    ) -> None:
        """Development is ``python -X dev``."""
        monkeypatch.setattr(paginator, "is_development_mode", lambda: is_development)
        texts = told_of(sqlite, "sort=kind", paginate=events(advise="auto"))
        assert bool(texts) == is_development

    @pytest.mark.parametrize("is_debug", [True, False])
    async def test_in_fastapi_the_debug_mode_is_development(self, *, is_debug: bool) -> None:
        made = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        async with made.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        pages = fastapi.Paginate(EventOut, model=Event, sort=DECLARED)
        app = FastAPI(debug=is_debug)

        @app.get("/")
        async def handler(q: Any = Depends(pages.params)) -> Any:  # noqa: B008
            async with AsyncSession(made) as db:
                return await pages.page(db, select(Event), q)

        transport = httpx.ASGITransport(app)
        with told() as texts:
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                assert (await client.get("/?sort=kind")).status_code == 200
        await made.dispose()
        assert bool(texts) == is_debug

    @pytest.mark.parametrize("is_debug", [True, False])
    async def test_in_starlette_the_debug_mode_is_development(self, *, is_debug: bool) -> None:
        made = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        async with made.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        pages = Paginator(EventOut, model=Event, sort=DECLARED)

        async def handler(request: Request) -> Any:
            async with AsyncSession(made) as db:
                page = await pages.page(db, select(Event), pages.parse(request))
            return page.response(request)

        transport = httpx.ASGITransport(Starlette(debug=is_debug, routes=[Route("/", handler)]))
        with told() as texts:
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                assert (await client.get("/?sort=kind")).status_code == 200
        await made.dispose()
        assert bool(texts) == is_debug

    def test_the_warnings_can_be_filtered_by_their_class(self, sqlite: Session) -> None:
        with told() as texts:
            warnings.filterwarnings("ignore", category=PaginationWarning)
            pages = events()
            pages.sync.page(sqlite, select(Event), pages.parse("sort=kind"))
        assert texts == []

    async def test_the_warning_is_on_the_line_of_an_asynchronous_caller(self) -> None:
        pages = fastapi.Paginate(EventOut, model=Event, sort=DECLARED, advise=True)
        made = create_async_engine("sqlite+aiosqlite://")
        async with AsyncSession(made) as db:
            await (await db.connection()).run_sync(Base.metadata.create_all)
            with pytest.warns(PaginationWarning) as caught:
                await pages.page(db, select(Event), pages.parse("sort=kind"))
        await made.dispose()
        assert {each.filename for each in caught} == {__file__}


def test_warned_queries_are_limited(sqlite: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python keeps the text of each warning for ever, and clients can send many sort orders."""
    monkeypatch.setattr(query_planner, "MAX_ADVISED", 3)
    paginate = events()
    with told() as texts:
        for order in permutations(("kind", "score", "size", "ended"), 2):
            paginate.sync.page(sqlite, select(Event), paginate.parse(f"sort={','.join(order)}"))
    assert 0 < len({text.partition(":")[0] for text in texts}) <= 3
