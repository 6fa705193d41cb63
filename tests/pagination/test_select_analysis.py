"""The key that identifies the rows of a select, and pages and totals of such selects."""

from __future__ import annotations

from typing import Any, Final

import pytest
from sqlalchemy import distinct, func, literal_column, orm, select, text, union, union_all

from hasten._sqlalchemy.analysis import analyze_select
from hasten._sqlalchemy.selects import Selection
from hasten._sqlalchemy.sort_columns import SortColumn, SortColumns
from hasten.errors import InvalidOption
from hasten.pagination._counts import NOT_COUNTED, Capped, Count
from hasten.pagination._order import SortKey
from hasten.pagination._slices import KeysetSlice
from hasten.pagination._sql.counting import make_count_select
from hasten.pagination._sql.indexes import find_index_for_order
from hasten.pagination._sql.offset_select import select_page_at_offset as page_of
from hasten.pagination._sql.page_statements import PageStatements
from hasten.pagination._sql.query_planner import resolve_sort_columns
from tests.pagination.databases import (
    Animal,
    Author,
    Cat,
    Dog,
    Item,
    Post,
    Slot,
    Tag,
    engine,
    log,
    post_tags,
)
from tests.pagination.slices import keyset_slice, offset_slice

COLUMNS: Final[dict[str, Any]] = {
    "id": Post.id,
    "title": Post.title,
    "author": Author.name,
    "email": Author.email,
    "nick": Author.nick,
    "tag": Tag.name,
    "day": Slot.day,
    "hour": Slot.hour,
}


def names(keys: SortColumns) -> list[str]:
    return [f"{'-' if key.descending else ''}{key.column}" for key in keys]


def order_of(statement: Selection, *order: SortKey) -> list[str]:
    return names(resolve_sort_columns(analyze_select(statement), order, COLUMNS))


class TestOrder:
    def test_the_default_order_is_the_primary_key(self) -> None:
        assert order_of(select(Post)) == ["posts.id"]
        assert order_of(select(Post.title)) == ["posts.id"]
        assert order_of(select(Post.__table__.c.title)) == ["posts.id"]
        assert order_of(select(Slot)) == ["slots.day", "slots.hour"]

    def test_the_primary_key_follows_the_direction_of_the_last_key(self) -> None:
        title = SortKey("title", descending=True)
        assert order_of(select(Post), title) == ["-posts.title", "-posts.id"]
        assert order_of(select(Post), SortKey("title")) == ["posts.title", "posts.id"]
        assert order_of(select(Slot), SortKey("hour", descending=True)) == [
            "-slots.hour",
            "-slots.day",
        ]

    def test_the_order_of_the_select_applies_if_none_is_given(self) -> None:
        statement = select(Post).order_by(Post.title.desc().nulls_first())
        assert order_of(statement) == ["-posts.title", "-posts.id"]
        assert order_of(statement, SortKey("id")) == ["posts.id"]
        (key, _) = resolve_sort_columns(analyze_select(statement), (), {})
        assert key.nulls == "first"

    def test_a_unique_key_that_is_never_null_needs_no_primary_key(self) -> None:
        assert order_of(select(Post), SortKey("title"), SortKey("id")) == [
            "posts.title",
            "posts.id",
        ]
        assert order_of(select(Author), SortKey("email")) == ["authors.email"]
        assert order_of(select(Author), SortKey("nick")) == ["authors.nick", "authors.id"]
        assert order_of(select(Slot), SortKey("hour"), SortKey("day")) == [
            "slots.hour",
            "slots.day",
        ]

    def test_columns_of_an_outer_join_may_be_null(self) -> None:
        statement = select(Post).outerjoin(Post.author)
        (key, _) = resolve_sort_columns(analyze_select(statement), (SortKey("email"),), COLUMNS)
        assert key.nullable
        (key, *_) = resolve_sort_columns(
            analyze_select(select(Author)), (SortKey("email"),), COLUMNS
        )
        assert not key.nullable

    def test_an_expression_may_be_null(self) -> None:
        (key, _) = resolve_sort_columns(
            analyze_select(select(Post)), (SortKey("x"),), {"x": func.length(Post.title)}
        )
        assert key.nullable

    def test_a_sort_key_without_a_column_is_refused(self) -> None:
        with pytest.raises(InvalidOption, match=r"sort='body': must be one of 'id', 'title'"):
            resolve_sort_columns(analyze_select(select(Post)), (SortKey("body"),), COLUMNS)


class TestRefusals:
    @pytest.mark.parametrize(
        ("statement", "message"),
        [
            (select(Post.title).group_by(Post.title), "GROUP BY but without the primary key"),
            (select(Post.title).distinct(), "DISTINCT but without the primary key"),
            (select(Tag.name).join(post_tags).distinct(), "DISTINCT but without the primary key"),
            (select(log), "a select without a primary key"),
            (select(func.now()), "a select without a primary key"),
            (select(select(Post).subquery()), "a select without a primary key"),
            (
                select(Author, log.c.line).join(log, log.c.line == Author.name),
                "a join to log, which repeats rows",
            ),
        ],
    )
    def test_rows_without_a_key_are_refused(self, statement: Selection, message: str) -> None:
        with pytest.raises(InvalidOption, match=f"{message}.*map a class to them"):
            analyze_select(statement)

    def test_a_select_with_a_limit_is_refused(self) -> None:
        with pytest.raises(InvalidOption, match=r"a select with LIMIT.*from statement\.subquery"):
            analyze_select(select(Post).limit(5))
        with pytest.raises(InvalidOption, match=r"a select with FETCH.*from statement\.subquery"):
            analyze_select(select(Post).fetch(5))
        with pytest.raises(InvalidOption, match=r"a select with DISTINCT ON.*subquery\(\)"):
            analyze_select(distinct_on(select(Post), Post.title))

    def test_a_union_is_refused_with_advice_to_select_from_it(self) -> None:
        whole: Any = union(select(Post.id), select(Author.id))
        with pytest.raises(InvalidOption, match=r"for a UNION, use select\(union.subquery\(\)\)"):
            analyze_select(whole)

    def test_an_order_by_a_joined_collection_is_refused(self) -> None:
        analyzed = analyze_select(select(Post).join(Post.tags))
        with pytest.raises(InvalidOption, match=r"tags.name.*one value in each row"):
            resolve_sort_columns(analyzed, (SortKey("tag"),), COLUMNS)

    def test_contains_eager_of_a_collection_is_refused(self) -> None:
        statement = select(Post).join(Post.tags).options(orm.contains_eager(Post.tags))
        with pytest.raises(InvalidOption, match=r"contains_eager\(\).*selectinload\(\)"):
            analyze_select(statement)

    def test_an_order_that_distinct_does_not_select_is_refused(self) -> None:
        analyzed = analyze_select(select(Post.title).distinct(), identifying_columns=[Post.title])
        keys = resolve_sort_columns(analyzed, (SortKey("id"),), COLUMNS)
        with pytest.raises(InvalidOption, match="a column that the select with DISTINCT"):
            PageStatements(analyzed, keys).select_after_position("sqlite", None, backwards=False)


def distinct_on(statement: Any, column: Any) -> Any:
    if not hasattr(statement, "ext"):  # as before SQLAlchemy 2.1
        return statement.distinct(column)
    from sqlalchemy.dialects.postgresql import distinct_on as extension

    return statement.ext(extension(column))


PostAlias: Final = orm.aliased(Post)
DogAlias: Final = orm.aliased(Dog)
per_author: Final = (
    select(Post.author_id, func.count().label("n")).group_by(Post.author_id).subquery()
)
both: Final = union_all(select(Post.id, Post.title), select(Author.id, Author.name)).subquery()
recent: Final = select(Post.id, Post.title).where(Post.id > 7).cte()
few: Final = select(Post).where(Post.id < 9).union_all(select(Post).where(Post.id > 35)).subquery()

SINGLE: Final[dict[str, Selection]] = {
    "entities": select(Post),
    "an alias": select(PostAlias).where(PostAlias.id > 3),
    "an alias of a union": select(orm.aliased(Post, few)),
    "columns": select(Post.id, Post.title),
    "a column": select(Post.title),
    "a table": select(Post.__table__),
    "join to one": select(Post).join(Post.author),
    "outer join to one": select(Post.title, Author.name).outerjoin(Post.author),
    "join from one to many, of the many": select(Post).select_from(Author).join(Author.posts),
    "two entities": select(Post, Author).join(Post.author),
    "pairs": select(Post.id, Tag.name).join(Post.tags),
    "pairs, some without": select(Author.name, Post.title).outerjoin(Author.posts),
    "pairs, all without": select(Post.title, Author.name).join(Post.author, full=True),
    "where it joins": select(Post).where(Post.author_id == Author.id, Author.name == "n1"),
    "a joined group": select(Author, per_author.c.n).join(
        per_author, per_author.c.author_id == Author.id
    ),
    "grouped by the primary key": select(Author.id, func.count(Post.id))
    .join(Author.posts)
    .group_by(Author.id),
    "having": select(Author, func.count(Post.id))
    .join(Author.posts)
    .group_by(Author.id)
    .having(func.count(Post.id) > 4),
    "distinct entities": select(Author).join(Author.posts).distinct(),
    "distinct with the key": select(Post.id, Post.title).distinct(),
    "criteria": select(Post).options(orm.with_loader_criteria(Post, Post.id > 11)),
    "eager one": select(Post).options(orm.joinedload(Post.author)),
    "eager many": select(Post).options(orm.joinedload(Post.tags)),
    "selectin": select(Post).options(orm.selectinload(Post.tags)),
    "eager in a join": select(Post).join(Post.author).options(orm.contains_eager(Post.author)),
    "exists": select(Post).where(Post.tags.any(Tag.name == "red")),
    "two keys": select(Slot),
    "all of a family": select(Animal),
    "with a table of its own": select(Dog),
    "without one": select(Cat),
    "of its own table alone": select(Dog.tricks),
    "an alias of two tables": select(orm.aliased(Dog)),
    "joined to a relative": select(Cat, DogAlias).join(DogAlias, DogAlias.weight == Cat.weight),
    "a constant": select(Post.id, literal_column("1").label("one")),
}

MANY: Final[dict[str, Selection]] = {
    "join": select(Post).join(Post.tags),
    "outer join": select(Post).outerjoin(Post.tags),
    "of columns": select(Author.id, Author.name).join(Author.posts),
    "of a table": select(Author.__table__).join(Post.__table__),
    "with a condition": select(Author).join(Author.posts).where(Post.title.in_(["t1", "t2"])),
    "two at once": select(Post).join(Post.author).join(Post.tags),
    "where it joins": select(Author).where(Author.id == Post.author_id),
    "from the other side": select(Author).select_from(Post).outerjoin(Post.author),
    "a family": select(Dog).join(Post, Post.id > Dog.tricks),
    "without a table": select(Cat).join(Post, Post.id > Cat.id),
    "with itself": select(Post).join(PostAlias, PostAlias.author_id == Post.author_id),
    "with options": select(Post).join(Post.tags).options(orm.joinedload(Post.tags)),
    "two keys": select(Slot).join(Post, Post.id > Slot.day),
    "distinct": select(Post).join(Post.tags).distinct(),
    "distinct columns": select(Post.id, Post.title).join(Post.tags).distinct(),
}

KEYED: Final[dict[str, tuple[Selection, list[Any]]]] = {
    "groups": (select(Post.title, func.max(Post.id)).group_by(Post.title), [Post.title]),
    "groups with NULL": (
        select(Post.author_id, func.count()).group_by(Post.author_id),
        [Post.author_id],
    ),
    "having": (select(Post.title).group_by(Post.title).having(func.count() > 5), [Post.title]),
    "distinct": (select(Post.title).distinct(), [Post.title]),
    "distinct pairs": (
        select(Author.name, Post.title).join(Author.posts).distinct(),
        [Author.name, Post.title],
    ),
    "union": (select(both), [both.c.id, both.c.title]),
    "cte": (select(recent), [recent.c.id]),
    "a table without a key": (select(log), [log.c.at]),
}


def full_read(session: orm.Session, statement: Selection, *, once: bool = False) -> list[Any]:
    result = session.execute(statement)
    rows = list(result.unique() if "eager" in str(once) or _has_entities(statement) else result)
    if once:
        rows = list(dict.fromkeys(rows))
    return [row[0] if len(row) == 1 else tuple(row) for row in rows]


def _has_entities(statement: Selection) -> bool:
    return any(isinstance(each["expr"], type) for each in statement.column_descriptions)


def check(session: orm.Session, statement: Selection, wanted: list[Any], key: Any = ()) -> None:
    """Check that pages by cursor and by number, and totals, equal a full read."""
    dialect = session.get_bind().dialect.name
    analyzed = analyze_select(statement, identifying_columns=key)
    keys = resolve_sort_columns(analyzed, (), {})
    page = KeysetSlice([], has_more=True, first=None, last=None)
    seen: list[Any] = []
    while page.has_more:
        page = keyset_slice(session, analyzed, keys, page.last, limit=3, dialect=dialect)
        assert len(page.rows) == 3 or not page.has_more
        seen += page.rows
    assert _sorted(seen) == _sorted(wanted)
    back = keyset_slice(
        session, analyzed, keys, None, limit=len(seen) + 1, dialect=dialect, backwards=True
    )
    assert back.rows == seen
    plain = page_of(analyzed, keys, limit=3, offset=1, dialect=dialect, use_deferred_join=False)
    deferred = page_of(analyzed, keys, limit=3, offset=1, dialect=dialect, use_deferred_join=True)
    assert _unique(session, deferred, statement) == _unique(session, plain, statement)
    for offset in (0, 3, len(wanted) - 2, len(wanted), 500, 5_000):
        exact = offset_slice(session, analyzed, keys, limit=3, offset=offset, dialect=dialect)
        assert exact.rows == seen[offset : offset + 3]
        assert exact.count == Count(len(wanted))
        assert exact.has_more == (offset + 3 < len(wanted))
        capped = offset_slice(
            session, analyzed, keys, limit=3, offset=offset, dialect=dialect, count=Capped(4)
        )
        assert (capped.rows, capped.has_more) == (exact.rows, exact.has_more)
        uncounted = offset_slice(
            session, analyzed, keys, limit=3, offset=offset, dialect=dialect, count="none"
        )
        assert (uncounted.rows, uncounted.has_more) == (exact.rows, exact.has_more)
        assert uncounted.count == NOT_COUNTED


def _unique(session: orm.Session, statement: Selection, of: Selection) -> list[Any]:
    result = session.execute(statement)
    return list(result.unique() if _has_entities(of) else result)


def _sorted(rows: list[Any]) -> list[str]:
    return sorted(map(repr, [tuple(row) if isinstance(row, tuple) else row for row in rows]))


@pytest.mark.parametrize("name", SINGLE)
def test_pages_and_totals_equal_a_full_read(name: str, session: orm.Session) -> None:
    check(session, SINGLE[name], full_read(session, SINGLE[name]))


@pytest.mark.parametrize("name", MANY)
def test_a_join_to_many_is_paged_and_counted_once(name: str, session: orm.Session) -> None:
    statement = MANY[name]
    wanted = [row for row in full_read(session, statement, once=True) if row is not None]
    check(session, statement, wanted)


@pytest.mark.parametrize("name", KEYED)
def test_groups_and_unions_with_a_key_are_paged(name: str, session: orm.Session) -> None:
    statement, key = KEYED[name]
    check(session, statement, full_read(session, statement), key)


def test_groups_can_be_sorted_by_an_aggregate(database: str) -> None:
    number = func.count(Post.id)
    statement = select(Author.id, number.label("n")).join(Author.posts).group_by(Author.id)
    analyzed = analyze_select(statement)
    keys = resolve_sort_columns(analyzed, (SortKey("n", descending=True),), {"n": number})
    with orm.Session(engine(database)) as session:
        wanted = sorted(full_read(session, statement), key=lambda row: (-row[1], -row[0]))
        page = KeysetSlice([], has_more=True, first=None, last=None)
        seen: list[Any] = []
        while page.has_more:
            page = keyset_slice(session, analyzed, keys, page.last, limit=2, dialect=database)
            seen += map(tuple, page.rows)
        assert seen == wanted


def test_the_limit_applies_to_parents_with_all_their_children(database: str) -> None:
    analyzed = analyze_select(select(Post).options(orm.joinedload(Post.tags)))
    keys = resolve_sort_columns(analyzed, (SortKey("title"),), COLUMNS)
    with orm.Session(engine(database)) as session:
        page = keyset_slice(session, analyzed, keys, None, limit=7, dialect=database)
        assert len(page.rows) == 7
        loaded = {post.id: sorted(tag.id for tag in post.tags) for post in page.rows}
        links = session.execute(select(post_tags).order_by(post_tags.c.tag_id)).all()
    for id, tags in loaded.items():
        assert tags == [link.tag_id for link in links if link.post_id == id]


def test_a_join_to_one_stays_a_join() -> None:
    for name in ("join to one", "outer join to one", "where it joins", "a joined group"):
        assert " IN (SELECT" not in str(analyze_select(SINGLE[name]).statement).replace("\n", "")


class TestCountStatements:
    def test_a_count_drops_the_order_and_eager_options(self) -> None:
        statement = select(Post).options(orm.joinedload(Post.tags)).order_by(Post.title)
        words = str(make_count_select(analyze_select(statement))).split()
        assert words == ["SELECT", "count(*)", "AS", "count_1", "FROM", "posts"]

    def test_a_count_keeps_loader_criteria(self) -> None:
        assert "WHERE posts.id > " in str(make_count_select(analyze_select(SINGLE["criteria"])))

    def test_a_count_selects_no_columns(self) -> None:
        statement = select(Author.id, Author.name).join(Author.posts).group_by(Author.id)
        assert "name" not in str(make_count_select(analyze_select(statement)))

    def test_postgresql_omits_an_outer_join_from_a_count(self) -> None:
        with engine("postgresql").connect() as connection:
            for statement, is_read in (
                (select(Post).outerjoin(Post.author), False),
                (select(Post).join(Post.author), True),
            ):
                plan = connection.execute(
                    text(f"EXPLAIN {make_count_select(analyze_select(statement))}")
                ).all()
                assert ("authors" in str(plan)) == is_read


class TestIndexes:
    """Whether an index has the rows in order decides how the condition is written."""

    def test_the_primary_key_is_an_index(self) -> None:
        slots = Slot.__table__.c
        keys = (SortColumn(slots.day), SortColumn(slots.hour))
        assert find_index_for_order((), keys, "postgresql") is not None
        assert find_index_for_order((), keys[::-1], "postgresql") is None
        assert (
            find_index_for_order((), (keys[0], SortColumn(slots.hour, descending=True)), "sqlite")
            is None
        )

    def test_constant_keys_may_have_any_direction(self) -> None:
        slots = Slot.__table__.c
        day, hour = SortColumn(slots.day, descending=True), SortColumn(slots.hour)
        found = find_index_for_order((day,), (hour,), "postgresql")
        assert found is not None
        assert [key.descending for key in found] == [False, False]

    def test_an_expression_has_no_index(self) -> None:
        key = SortColumn(func.lower(Item.label))
        assert find_index_for_order((), (key,), "postgresql") is None


def test_a_full_read_of_the_test_data_has_what_these_tests_are_about() -> None:
    with orm.Session(engine("sqlite")) as session:
        assert session.scalar(select(func.count(distinct(post_tags.c.post_id)))) == 30
        assert session.scalar(select(func.count()).select_from(post_tags)) == 60
