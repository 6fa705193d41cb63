"""Pages of requests: what the client gets, and which statements are executed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl

import pytest
from pydantic import BaseModel
from sqlalchemy import delete, event, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ORMExecuteState, Session, aliased, joinedload, with_loader_criteria

from hasten.errors import InvalidOption, InvalidParameter
from hasten.fields import FieldSelector
from hasten.pagination import Capped, CursorPage, Page, PageParams, Paginator, SortKey
from hasten.pagination._sql import offset_select
from hasten.pagination._sql.page_query import PageQuery
from tests.pagination.databases import Author, Item, Post, Tag, async_engine, engine, statements_of

SECRET: Final = "a secret of more than 16 bytes"
OTHER: Final = "another secret of as many bytes"


class ItemOut(BaseModel):
    id: int
    grade: int | None
    label: str | None
    state: str
    made: datetime


class AuthorOut(BaseModel):
    name: str


class PostOut(BaseModel):
    id: int
    title: str
    author: AuthorOut | None


class TitleOut(BaseModel):
    title: str


SORTS: Final = ("id", "grade", "label", "state", "made")

Items = Paginator(ItemOut, model=Item, sort=SORTS, default_limit=20, max_limit=100, advise=False)
Posts = Paginator(PostOut, model=Post, sort=("title",), default_sort="-title", advise=False)
Walk = Paginator(ItemOut, model=Item, sort=SORTS, mode="cursor", secret=SECRET, advise=False)
Both = Paginator(ItemOut, model=Item, sort=SORTS, mode="both", secret=SECRET, advise=False)

EVERY: Final = select(Item)
FIRST: Final = select(Item).where(Item.dataset == 0)


@pytest.fixture
def sqlite() -> Iterator[Session]:
    with Session(engine("sqlite")) as session:
        yield session


@contextmanager
def asked(session: Session) -> Iterator[list[str]]:
    with statements_of(session.get_bind().engine) as seen:
        yield seen


def page(session: Session, query: str, paginate: Any = Items, statement: Any = EVERY) -> Page[Any]:
    found = paginate.sync.page(session, statement, paginate.parse(query))
    assert isinstance(found, Page)
    return found


def cursor_page(
    session: Session, query: str, paginate: Any = Walk, statement: Any = FIRST
) -> CursorPage[Any]:
    found = paginate.sync.page(session, statement, paginate.parse(query))
    assert isinstance(found, CursorPage)
    return found


def walk(
    session: Session, query: str, paginate: Any = Walk, statement: Any = FIRST
) -> list[CursorPage[Any]]:
    """Return all pages, from the first to the last."""
    pages = [cursor_page(session, query, paginate, statement)]
    while (token := pages[-1].next_cursor) is not None:
        pages.append(cursor_page(session, f"{query}&cursor={token}", paginate, statement))
        assert len(pages) < 500
    return pages


def ids(found: Page[Any] | CursorPage[Any]) -> list[Any]:
    return [row["id"] for row in found.data]


def refused(paginate: Any, query: str, status: int = 422) -> InvalidParameter:
    with pytest.raises(InvalidParameter) as caught:
        paginate.parse(query)
    assert caught.value.status == status
    return caught.value


class TestPages:
    def test_the_json_of_a_page(self, session: Session) -> None:
        found = page(session, "page=2&limit=2", Posts, select(Post))
        answer = json.loads(Posts.encode(found))
        rows = session.execute(select(Post).order_by(Post.title.desc(), Post.id.desc())).scalars()
        wanted = [
            {"id": row.id, "title": row.title, "author": row.author and {"name": row.author.name}}
            for row in list(rows)[2:4]
        ]
        assert answer == {"data": wanted, "pagination": {"page": 2, "limit": 2, "total": 40}}
        assert list(answer) == ["data", "pagination"]

    @pytest.mark.parametrize("kind", ["session", "connection"])
    async def test_asynchronous_sessions_read_the_same_page(self, database: str, kind: str) -> None:
        q = Items.parse("page=3&sort=-grade,label")
        with Session(engine(database)) as session:
            expected = Items.sync.page(session, EVERY, q)
        with async_engine(database) as made:
            async with AsyncSession(made) if kind == "session" else made.connect() as db:
                assert await Items.page(db, EVERY, q) == expected

    def test_no_parameters_return_the_first_page_of_20(self, session: Session) -> None:
        found = page(session, "")
        assert (found.page, found.limit, found.total) == (1, 20, 180)
        assert ids(found) == list(range(1, 21))

    @pytest.mark.parametrize(
        "query",
        [
            "page=0", "page=-1", "page=abc", "page=1.5", "page=1e3", "page=", "page=1_0",
            "page=%201", "page=%2B1", "page=%D9%A1", "page=99999999999999999999999",
            "page=922337203685477580&limit=100", "limit=0", "limit=-5", "limit=abc", "limit=101",
            "page=1&page=2", "sort=password_hash", "sort=metadata", "sort=__table__",
            "sort=dataset", "sort=id,id", "sort=id,(case when 1 then 1 end)", "cursor=abc",
        ],
    )  # fmt: skip
    def test_an_invalid_parameter_executes_no_statement(self, sqlite: Session, query: str) -> None:
        with asked(sqlite) as seen, pytest.raises(InvalidParameter) as caught:
            page(sqlite, query)
        assert caught.value.status == 422
        assert seen == []

    def test_a_page_past_the_end_is_empty_and_has_the_total(self, session: Session) -> None:
        with asked(session) as seen:
            found = page(session, "page=999")
        assert (list(found.data), found.total, found.has_more) == ([], 180, False)
        assert len(seen) == 1

    def test_an_offset_over_the_maximum_is_refused(self) -> None:
        shallow = Paginator(ItemOut, model=Item, max_offset=100)
        assert "page" in str(refused(shallow, "page=7&limit=20"))
        assert shallow.parse("page=6&limit=20").offset == 100

    def test_a_full_last_page_has_no_next_page(self, session: Session) -> None:
        query = "page=2&limit=20"
        found = page(session, query, Posts, select(Post))
        assert (len(found.data), found.has_more) == (20, False)
        assert "next" not in (Posts.link(found, Posts.parse(query)) or "")

    def test_an_empty_table_has_an_empty_page(self, session: Session) -> None:
        found = page(session, "", statement=EVERY.where(Item.id < 0))
        assert json.loads(Items.encode(found)) == {
            "data": [],
            "pagination": {"page": 1, "limit": 20, "total": 0},
        }

    def test_page_and_total_take_one_statement(self, session: Session) -> None:
        with asked(session) as seen:
            page(session, "page=2")
        assert len(seen) == 1

    def test_relations_to_one_take_one_more_statement(self, session: Session) -> None:
        with asked(session) as seen:
            page(session, "", Posts, select(Post))
        assert len(seen) == 2

    def test_columns_that_are_not_in_the_model_are_not_selected(self, session: Session) -> None:
        with asked(session) as seen:
            found = page(session, "sort=label")
        assert set(found.data[0]) == set(ItemOut.model_fields)
        assert "weight" not in seen[0]
        assert "dataset" not in seen[0]

    def test_a_model_of_one_column(self, session: Session) -> None:
        titles = Paginator(TitleOut, model=Post)
        found = page(session, "limit=3", titles, select(Post))
        assert found.data == [{"title": "t0"}, {"title": "t1"}, {"title": "t2"}]

    def test_fields_choose_columns(self, session: Session) -> None:
        chosen = Items.fields.parse("fields=id,state")
        with asked(session) as seen:
            found = Items.sync.page(session, EVERY, Items.parse("sort=-label&limit=3"), chosen)
        assert [set(row) for row in found.data] == [{"id", "state"}] * 3
        assert "made" not in seen[0]

    def test_the_default_order_is_the_primary_key(self, session: Session) -> None:
        assert ids(page(session, "page=2&limit=3")) == [4, 5, 6]

    def test_the_primary_key_breaks_ties(self, session: Session) -> None:
        rows = session.scalars(EVERY.order_by(Item.state.desc(), Item.id.desc())).all()
        pages = [ids(page(session, f"sort=-state&limit=50&page={n}")) for n in range(1, 5)]
        assert [each for some in pages for each in some] == [row.id for row in rows]

    def test_the_order_of_the_select_is_the_default(self, session: Session) -> None:
        statement = EVERY.order_by(Item.id.desc())
        assert ids(page(session, "limit=2", statement=statement)) == [180, 179]
        assert ids(page(session, "limit=2&sort=id", statement=statement)) == [1, 2]

    def test_a_join_to_many_repeats_no_row(self, session: Session) -> None:
        statement = select(Post).join(Post.tags).where(Tag.name.in_(["red", "green"]))
        found = page(session, "limit=100", Posts, statement)
        assert found.total == len(found.data) == len(set(ids(found))) == 30

    def test_joined_loading_does_not_change_the_page(self, session: Session) -> None:
        statement = select(Post).options(joinedload(Post.tags))
        found = page(session, "limit=7", Posts, statement)
        assert (len(found.data), found.total) == (7, 40)

    def test_an_alias_can_be_selected(self, session: Session) -> None:
        other = aliased(Post)
        found = page(session, "sort=title&limit=2", Posts, select(other).where(other.id > 5))
        assert [row["title"] for row in found.data] == ["t0", "t0"]

    def test_a_capped_total_is_marked_and_links_no_last_page(self, session: Session) -> None:
        capped = Paginator(ItemOut, model=Item, count=Capped(50))
        found = page(session, "", capped)
        assert found.pagination() == {
            "page": 1, "limit": 20, "total": 50, "total_relation": "gte",
        }  # fmt: skip
        assert 'rel="last"' not in (capped.link(found, capped.parse("")) or "")

    def test_a_page_without_a_count(self, session: Session) -> None:
        plain = Paginator(ItemOut, model=Item, count="none")
        with asked(session) as seen:
            found = page(session, "", plain)
        assert found.pagination() == {"page": 1, "limit": 20, "has_more": True}
        assert "count(" not in seen[0]

    def test_an_estimated_total_never_contradicts_the_page(self, session: Session) -> None:
        guess = Paginator(ItemOut, model=Item, count="estimated")
        found = page(session, "limit=100&page=2", guess)
        assert (len(found.data), found.total) == (80, 180)


class TestCursors:
    @pytest.mark.parametrize("sort", ["", "state", "-grade", "grade,-label", "-label,made", "-id"])
    @pytest.mark.parametrize("dataset", [0, 1, 2])
    def test_a_walk_returns_every_row_once(self, session: Session, sort: str, dataset: int) -> None:
        statement = EVERY.where(Item.dataset == dataset)
        query = f"limit=7&sort={sort}" if sort else "limit=7"
        pages = walk(session, query, statement=statement)
        whole = page(session, query.replace("limit=7", "limit=100"), statement=statement)
        assert [row for each in pages for row in each.data] == whole.data
        assert [len(each.data) for each in pages] == [7] * 8 + [4]
        assert pages[0].prev_cursor is None
        assert pages[-1].next_cursor is None

    @pytest.mark.parametrize("paging", ["exact", Capped(9)])
    def test_a_total_beside_cursors(self, session: Session, paging: Any) -> None:
        counted = Paginator(ItemOut, model=Item, mode="cursor", secret=SECRET, count=paging)
        found = cursor_page(session, "limit=7", counted)
        assert found.total == (60 if paging == "exact" else 9)
        assert cursor_page(session, "limit=7").total is None

    async def test_walks_on_asynchronous_sessions(self, database: str) -> None:
        with async_engine(database) as made:
            async with AsyncSession(made) as db:
                seen: list[Any] = []
                token: str | None = ""
                while token is not None:
                    q = Walk.parse(f"sort=-made,grade&limit=11&cursor={token}")
                    found = await Walk.page(db, FIRST, q)
                    assert isinstance(found, CursorPage)
                    seen += found.data
                    token = found.next_cursor
        assert len(seen) == len({row["id"] for row in seen}) == 60

    def test_a_walk_returns_the_rows_that_stay_while_others_change(self, session: Session) -> None:
        """Rows are added before and after the position, and the row at it is deleted."""
        before = [row["id"] for each in walk(session, "sort=state&limit=9") for row in each.data]
        first = cursor_page(session, "sort=state&limit=9")
        session.execute(delete(Item).where(Item.id == ids(first)[-1]))
        row = {"dataset": 0, "grade": 1, "label": "", "weight": 1.0, "made": datetime(2026, 1, 1)}  # noqa: DTZ001
        session.execute(insert(Item), [row | {"state": state} for state in ("aaa", "zzz")])
        seen = ids(first)
        token = first.next_cursor
        while token:
            found = cursor_page(session, f"sort=state&limit=9&cursor={token}")
            seen += ids(found)
            token = found.next_cursor
        assert [each for each in seen if each in before] == before
        assert len(seen) == len(before) + 1

    @pytest.mark.parametrize("sort", ["id", "-grade,label", "state"])
    def test_a_walk_both_ways_returns_every_row_once(self, session: Session, sort: str) -> None:
        query = f"limit=7&sort={sort}"
        forward = walk(session, query)
        back = [forward[-1]]
        while (token := back[-1].prev_cursor) is not None:
            back.append(cursor_page(session, f"{query}&cursor={token}"))
        rows = [row for each in reversed(back) for row in each.data]
        assert rows == [row for each in forward for row in each.data]
        assert back[-1].next_cursor is not None
        again = cursor_page(session, f"{query}&cursor={back[-1].next_cursor}")
        assert again.data == back[-2].data

    def test_an_empty_page_links_to_the_previous_page(self, session: Session) -> None:
        """All rows after the position were deleted meanwhile."""
        first = cursor_page(session, "limit=50&sort=id")
        session.execute(delete(Item).where(Item.dataset == 0, Item.id > ids(first)[-1]))
        empty = cursor_page(session, f"limit=50&sort=id&cursor={first.next_cursor}")
        assert (list(empty.data), empty.next_cursor) == ([], None)
        back = cursor_page(session, f"limit=50&sort=id&cursor={empty.prev_cursor}")
        assert back.data == first.data

    @pytest.mark.parametrize(
        ("query", "statement"),
        [
            ("sort=-grade", FIRST),
            ("sort=grade,id", FIRST),
            ("", FIRST),
            ("sort=grade", EVERY),
            ("sort=grade", EVERY.where(Item.dataset == 1)),
            ("sort=grade", EVERY.where(Item.dataset.in_([0]))),
            ("sort=grade", FIRST.where(Item.state == "new")),
        ],
    )
    def test_a_cursor_of_another_query_is_refused_before_any_statement(
        self, session: Session, query: str, statement: Any
    ) -> None:
        token = cursor_page(session, "sort=grade&limit=5").next_cursor
        with asked(session) as seen, pytest.raises(InvalidParameter) as caught:
            cursor_page(session, f"{query}&limit=5&cursor={token}", statement=statement)
        assert (caught.value.status, caught.value.code) == (400, "cursor_mismatch")
        assert seen == []

    def test_a_cursor_of_another_model_or_scope_is_refused(self, sqlite: Session) -> None:
        token = cursor_page(sqlite, "limit=5", statement=EVERY).next_cursor
        authors = Paginator(AuthorId, model=Author, mode="cursor", secret=SECRET)
        with pytest.raises(InvalidParameter, match="another query"):
            cursor_page(sqlite, f"cursor={token}", authors, select(Author))
        first = Walk.sync.page(sqlite, EVERY, Walk.parse("limit=5"), scope="tenant 1")
        assert isinstance(first, CursorPage)
        q = Walk.parse(f"limit=5&cursor={first.next_cursor}")
        assert len(Walk.sync.page(sqlite, EVERY, q, scope="tenant 1").data) == 5
        with pytest.raises(InvalidParameter, match="another query"):
            Walk.sync.page(sqlite, EVERY, q, scope="tenant 2")

    def test_a_cursor_accepts_another_limit_and_other_fields(self, session: Session) -> None:
        first = cursor_page(session, "sort=grade&limit=5")
        q = Walk.parse(f"sort=grade&limit=9&cursor={first.next_cursor}")
        found = Walk.sync.page(session, FIRST, q, Walk.fields.parse("fields=state"))
        assert [set(row) for row in found.data] == [{"state"}] * 9

    def test_secrets_can_be_rotated(self, sqlite: Session) -> None:
        token = cursor_page(sqlite, "limit=5").next_cursor
        new = Paginator(ItemOut, model=Item, mode="cursor", secret=[OTHER, SECRET])
        assert len(cursor_page(sqlite, f"limit=5&cursor={token}", new).data) == 5
        gone = Paginator(ItemOut, model=Item, mode="cursor", secret=OTHER)
        refused(gone, f"cursor={token}", 400)

    def test_a_cursor_contains_only_public_fields(self, sqlite: Session) -> None:
        titles = Paginator(TitleOut, model=Post, mode="cursor", secret=SECRET)
        with asked(sqlite) as seen, pytest.raises(InvalidOption, match=r"posts\.id"):
            cursor_page(sqlite, "", titles, select(Post))
        assert seen == []

    def test_an_empty_cursor_selects_the_first_page(self, session: Session) -> None:
        assert cursor_page(session, "cursor=&limit=5") == cursor_page(session, "limit=5")

    def test_cursors_need_a_secret(self) -> None:
        for mode in ("cursor", "both"):
            with pytest.raises(InvalidOption, match=r"secret=None: .*python -c 'import secrets; "):
                Paginator(ItemOut, model=Item, mode=mode)  # type: ignore[call-overload]

    def test_mode_both_uses_what_the_client_sends(self, session: Session) -> None:
        assert page(session, "page=2", Both).page == 2
        first = cursor_page(session, "cursor=&limit=5", Both)
        assert first.pagination() == {
            "limit": 5, "next_cursor": first.next_cursor, "prev_cursor": None, "has_more": True,
        }  # fmt: skip

    def test_links_to_the_next_and_previous_page(self, sqlite: Session) -> None:
        query = "sort=grade&limit=5"
        first = cursor_page(sqlite, query)
        link = Walk.link(first, Walk.parse(query), path="/items")
        assert link is not None
        first_page, following_page = link.split(", ")
        assert first_page == '</items?sort=grade&limit=5&cursor=>; rel="first"'
        assert following_page.endswith('>; rel="next"')
        following = dict(parse_qsl(following_page.partition("?")[2].partition(">")[0]))
        assert following == {"sort": "grade", "limit": "5", "cursor": first.next_cursor}

    def test_a_stuck_walk_fails(self, sqlite: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        """Otherwise a client would follow the cursor for ever."""
        token = cursor_page(sqlite, "limit=5").next_cursor
        real = PageQuery.read_keyset_slice

        def stuck(query: PageQuery, position: Any, **options: Any) -> Any:
            return real(query, None, **options)

        monkeypatch.setattr(PageQuery, "read_keyset_slice", stuck)
        with pytest.raises(InvalidOption, match="the row that it should begin after"):
            cursor_page(sqlite, f"limit=5&cursor={token}")


class TestFiltersOfTheOrm:
    """Filters that the ORM adds to every select also apply within the generated statements."""

    COUNTS: Final = ("exact", "none", Capped(7), Capped(1000))

    @pytest.fixture(params=["option", "lambda", "listener"])
    def statement(self, request: pytest.FixtureRequest, session: Session) -> Any:
        if request.param == "option":
            return EVERY.options(with_loader_criteria(Item, Item.dataset == 0))
        if request.param == "lambda":
            return EVERY.options(with_loader_criteria(Item, lambda item: item.dataset == 0))

        @event.listens_for(session, "do_orm_execute")
        def only_some(state: ORMExecuteState) -> None:
            if state.is_select:
                option = with_loader_criteria(Item, Item.dataset == 0)
                state.statement = state.statement.options(option)

        return EVERY

    @pytest.mark.parametrize("counting", COUNTS)
    def test_apply_to_numbered_pages(self, session: Session, statement: Any, counting: Any) -> None:
        paginate = Paginator(ItemOut, model=Item, sort=SORTS, count=counting, advise=False)
        found = page(session, "page=2&limit=45&sort=-grade", paginate, statement)
        assert len(found.data) == 15
        assert found.total in (60, 7, None)
        assert (found.total == 60) == (counting in ("exact", Capped(1000), Capped(7)))

    @pytest.mark.parametrize("sort", ["id", "grade", "-label,made"])
    def test_apply_to_pages_by_cursor(self, session: Session, statement: Any, sort: str) -> None:
        assert (
            sum(len(p.data) for p in walk(session, f"limit=7&sort={sort}", Walk, statement)) == 60
        )

    def test_filters_apply_to_deep_pages(
        self, session: Session, statement: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(offset_select, "DEFER_FROM", 0)
        for number, rows in ((1, 25), (3, 10), (4, 0)):
            found = page(session, f"page={number}&limit=25&sort=-grade", statement=statement)
            assert (len(found.data), found.total) == (rows, 60)

    def test_filters_apply_to_distinct_rows(self, session: Session, statement: Any) -> None:
        assert page(session, "", statement=statement.distinct()).total == 60


class AuthorId(BaseModel):
    id: int


class TestInMemory:
    ROWS: Final = [
        {"id": n, "grade": n % 3 or None, "label": None, "state": "x", "made": None, "secret": 1}
        for n in range(1, 26)
    ]

    def test_pages_of_a_list(self) -> None:
        found = Items.from_items(self.ROWS, Items.parse("page=2&limit=10"))
        assert (ids(found), found.total, found.has_more) == (list(range(11, 21)), 25, True)
        assert set(found.data[0]) == set(ItemOut.model_fields)

    def test_items_without_a_value_come_last(self) -> None:
        found = Items.from_items(self.ROWS, Items.parse("sort=-grade,id&limit=100"))
        assert [row["grade"] for row in found.data] == [2] * 8 + [1] * 9 + [None] * 8
        assert ids(found)[:3] == [2, 5, 8]

    def test_rows_of_a_database_are_refused_as_a_list(self, sqlite: Session) -> None:
        for items in (
            sqlite.execute(EVERY),
            sqlite.scalars(EVERY).all(),
            sqlite.execute(select(Item.id)).all(),
            (row for row in self.ROWS),
            "text",
        ):
            with pytest.raises(InvalidOption, match="items"):
                Items.from_items(items, PageParams(1, 20, (), None, ()))  # type: ignore[arg-type]

    def test_cursors_of_lists_require_unique_fields(self) -> None:
        with pytest.raises(InvalidOption, match="identify an item"):
            Walk.from_items(self.ROWS, Walk.parse(""))


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"sort": "id"}, "sort"),
            ({"sort": ("dataset",)}, "sort"),
            ({"default_sort": "-weight"}, "default_sort"),
            ({"count": "roughly"}, "count"),
            ({"default_limit": 0}, "default_limit"),
            ({"mode": "endless"}, "mode"),
            ({"secret": "short"}, "secret"),
            ({"fields": FieldSelector(TitleOut, model=Post)}, "fields"),
            ({"model": ItemOut}, "model"),
        ],
    )
    def test_a_wrong_option_fails_at_start_up(self, options: dict[str, Any], named: str) -> None:
        with pytest.raises(InvalidOption) as caught:
            Paginator(ItemOut, **{"model": Item, **options})
        assert caught.value.option == named

    def test_a_relation_is_refused_as_a_sort_key(self) -> None:
        with pytest.raises(InvalidOption, match="neither nested nor computed"):
            Paginator(PostOut, model=Post, sort=("author",))

    def test_a_sort_key_with_a_direction_is_rejected(self) -> None:
        with pytest.raises(InvalidOption, match="without descending=, because the client chooses"):
            Paginator(ItemOut, model=Item, sort=(SortKey("grade", descending=True),))

    @pytest.mark.parametrize("count", [False, None])
    def test_count_false_is_rejected(self, count: Any) -> None:
        with pytest.raises(InvalidOption, match=f"count={count}: must be 'exact', 'estimated'"):
            Paginator(ItemOut, model=Item, count=count)

    def test_a_sort_key_declares_where_nulls_are_sorted(self, session: Session) -> None:
        first = Paginator(
            ItemOut, model=Item, sort=(SortKey("grade", nulls="first"),), advise=False
        )
        statement = EVERY.where(Item.dataset == 2)
        nulls = session.scalar(select(func.count()).where(Item.dataset == 2, Item.grade.is_(None)))
        assert nulls
        found = page(session, "sort=-grade&limit=100", first, statement)
        assert [row["grade"] for row in found.data[:nulls]] == [None] * nulls

    def test_a_select_of_another_class_is_rejected(self, sqlite: Session) -> None:
        with pytest.raises(InvalidOption, match="a select of Item and nothing else"):
            page(sqlite, "", statement=select(Post))

    def test_a_select_with_a_limit_is_rejected(self, sqlite: Session) -> None:
        with pytest.raises(InvalidOption, match="LIMIT"):
            page(sqlite, "", statement=EVERY.limit(5))

    def test_a_filter_may_be_text(self, sqlite: Session) -> None:
        one = EVERY.where(text("dataset = :n").bindparams(n=0))
        two = EVERY.where(text("dataset = :n").bindparams(n=1))
        token = cursor_page(sqlite, "limit=5", statement=one).next_cursor
        assert len(cursor_page(sqlite, f"limit=5&cursor={token}", statement=one).data) == 5
        with pytest.raises(InvalidParameter, match="another query"):
            cursor_page(sqlite, f"limit=5&cursor={token}", statement=two)
