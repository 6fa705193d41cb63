"""Only requested columns are read, in few statements."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pytest
from sqlalchemy import Select, event, func, orm, select, text, union_all

from hasten._coroutines import run_without_suspending
from hasten._sqlalchemy.execution import Database, wrap_blocking_session
from hasten.errors import InvalidOption, InvalidParameter, RowNotFound
from hasten.fields import AllowedFields, FieldSelector
from tests.fields.databases import (
    POSTS_OF_FIRST,
    USERS,
    Bike,
    Car,
    Post,
    Role,
    Slot,
    Team,
    User,
    Vehicle,
    Visit,
    async_engine,
    engine,
)
from tests.fields.models import PostOut, TagOut, TeamOut, UserOut
from tests.pagination.databases import statements_of

Users = FieldSelector(UserOut, model=User, default=("id", "name", "email"), max_depth=4)
Slots = FieldSelector({"day": "day", "visits": [AllowedFields(["id"])]}, model=Slot)

Rows = list[dict[str, object]]

SECRETS = re.compile(r"password_hash|secret|draft|\*")


def ask(
    database: str, text: str | None, statement: Any, fields: FieldSelector[Any] = Users
) -> Rows:
    rows, _ = ask_and_log(database, text, statement, fields)
    return rows


def ask_and_log(
    database: str, text: str | None, statement: Any, fields: FieldSelector[Any] = Users
) -> tuple[Rows, list[str]]:
    query = [("fields", text)] if text is not None else []
    with orm.Session(engine(database)) as session, statements_of(engine(database)) as log:
        return fields.sync.many(session, statement, fields.parse(query)), log


def by_id(*ids: int) -> Select[Any]:
    return select(User).where(User.id.in_(ids)).order_by(User.id)


class TestColumns:
    def test_no_parameter_selects_the_default_fields(self, database: str) -> None:
        rows, log = ask_and_log(database, None, by_id(1))
        assert rows == [{"id": 1, "name": "user01", "email": "1@example.org"}]
        assert len(log) == 1
        assert selected(log[0]) == ["f_users.id", "f_users.name", "f_users.email"]

    @pytest.mark.parametrize(
        "text",
        [
            "name",
            "id,team,boss,posts,badge",
            "team(members(team(name)))",
            "posts(title,tags,author(name,posts(id)))",
        ],
    )
    @pytest.mark.parametrize("limit", [None, 3])
    def test_reads_no_unselected_column(self, database: str, text: str, limit: int | None) -> None:
        _, log = ask_and_log(database, text, select(User).order_by(User.id).limit(limit))
        assert log
        assert [statement for statement in log if SECRETS.search(statement)] == []
        assert [statement for statement in log if "settings" in statement] == []

    @pytest.mark.parametrize("text", ["password_hash", "nothing", "team(secret)", "posts.draft"])
    def test_a_refused_selection_sends_no_statement(self, database: str, text: str) -> None:
        with statements_of(engine(database)) as log, pytest.raises(InvalidParameter) as caught:
            ask(database, text, by_id(10**6))
        assert (caught.value.status, log) == (422, [])

    def test_the_fields_are_in_the_order_of_the_model(self, database: str) -> None:
        (row,), log = ask_and_log(database, "email,name,id", by_id(1))
        assert list(row) == ["id", "name", "email"]
        assert ([row], log) == ask_and_log(database, "id,email,name", by_id(1))

    def test_a_hybrid_is_selected_like_a_column(self, database: str) -> None:
        assert ask(database, "shouted", by_id(1)) == [{"shouted": "user01!"}]

    def test_a_column_that_only_the_join_needs_is_not_shown(self, database: str) -> None:
        (row,), log = ask_and_log(database, "team(name)", by_id(1))
        assert row == {"team": {"name": "team2"}}
        assert "f_users.team_id" in log[0]

    def test_a_null_is_shown_and_an_unselected_field_is_not(self, database: str) -> None:
        assert ask(database, "email,team(name)", by_id(20)) == [{"email": None, "team": None}]

    @pytest.mark.parametrize("text", ["id", "name,team(name)", "posts(id),boss(boss(name))"])
    def test_fields_do_not_change_which_rows_are_returned(self, database: str, text: str) -> None:
        statement = (
            select(User)
            .join(User.team)
            .where(Team.name != "team1", User.role == Role.READER)
            .order_by(User.created.desc())
        )
        with orm.Session(engine(database)) as session:
            expected = [user.id for user in session.scalars(statement)]
        rows = ask(database, f"id,{text}", statement)
        assert [row["id"] for row in rows] == expected
        rows = ask(database, f"id,{text}", statement.limit(5).offset(2))
        assert [row["id"] for row in rows] == expected[2:7]

    def test_fields_do_not_change_the_number_of_distinct_rows(self, database: str) -> None:
        joined = select(User).join(User.posts).distinct().order_by(User.id)
        with orm.Session(engine(database)) as session:
            expected = len(session.scalars(_without_json(joined)).all())
        assert len(ask(database, "role", joined)) == expected
        assert len(ask(database, "role,team(name)", joined)) == expected

    def test_an_alias_can_be_selected(self, database: str) -> None:
        other = orm.aliased(User)
        statement = select(other).where(other.id == 4)
        assert ask(database, "name,boss(name)", statement) == [
            {"name": "user04", "boss": {"name": "user01"}}
        ]

    def test_loader_options_are_removed(self, database: str) -> None:
        statement = by_id(1).options(orm.joinedload(User.team), orm.selectinload(User.posts))
        _, log = ask_and_log(database, "name", statement)
        assert len(log) == 1
        assert "f_teams" not in log[0]

    @pytest.mark.parametrize("also_aliases", [False, True])
    @pytest.mark.parametrize("limit", [None, 4])
    def test_criteria_added_to_every_select_apply(
        self, database: str, also_aliases: bool, limit: int | None
    ) -> None:
        """A filter for tenants must apply to selects of columns, too."""
        with orm.Session(engine(database)) as session:

            def only_some(state: orm.ORMExecuteState) -> None:
                state.statement = state.statement.options(
                    orm.with_loader_criteria(
                        Team, lambda of: of.secret != "s3", include_aliases=also_aliases
                    ),
                    orm.with_loader_criteria(
                        Post, lambda of: of.draft != "d3", include_aliases=also_aliases
                    ),
                    orm.with_loader_criteria(
                        User, lambda of: of.last != "last5", include_aliases=also_aliases
                    ),
                )

            event.listen(session, "do_orm_execute", only_some)
            fields = Users.parse("fields=id,team(id),posts(id)")
            statement = select(User).where(User.id.in_([1, 2, 5, 6])).order_by(User.id)
            rows = Users.sync.many(session, statement.limit(limit), fields)
        assert [row["id"] for row in rows] == [1, 2, 6]
        assert [row["team"] for row in rows] == [{"id": 2}, None, {"id": 1}]
        posts: Any = rows[0]["posts"]
        assert [post["id"] for post in posts[:3]] == [1, 2, 4]

    def test_a_name_in_order_by_need_not_be_selected(self, database: str) -> None:
        rows = ask(database, "id,team(id)", select(User).order_by("name").limit(2))
        assert [row["id"] for row in rows] == [1, 2]

    @pytest.mark.parametrize(
        "order",
        [
            (User.email.desc().nulls_last(), User.id),
            (User.email.nulls_first(), User.id.desc()),
            (func.length(User.email).desc().nulls_first(), User.id),
            (User.role.label("r"), User.id),
        ],
    )
    def test_a_limited_select_keeps_its_order(self, database: str, order: Sequence[Any]) -> None:
        statement = select(User).order_by(*order).limit(9).offset(2)
        with orm.Session(engine(database)) as session:
            expected = [user.id for user in session.scalars(statement)]
        rows, log = ask_and_log(database, "id,team(name)", statement)
        assert [row["id"] for row in rows] == expected
        assert len(log) == 1

    @pytest.mark.parametrize("order", [text("f_users.name"), "nothing"])
    def test_a_text_to_sort_by_is_refused(self, order: Any) -> None:
        with pytest.raises(InvalidOption, match=r"ordered by columns, such as"):
            ask("sqlite", "id", select(User).order_by(order))

    def test_listeners_see_a_select_of_the_orm(self) -> None:
        """Handlers of do_orm_execute check for that before they add their criteria."""
        seen = []
        with orm.Session(engine("sqlite")) as session:
            event.listen(
                session,
                "do_orm_execute",
                lambda state: seen.append((state.is_orm_statement, state.is_select)),
            )
            fields = Users.parse("fields=id,team(id),posts(id,author(id)),badge")
            Users.sync.many(session, select(User).limit(2), fields)
            Users.sync.many(session, select(User), fields)
        assert seen == [(True, True)] * 6

    @pytest.mark.parametrize(
        "statement",
        [select(User.id), select(User, Post), select(Post), union_all(select(User), select(User))],
    )
    def test_another_statement_is_refused(self, statement: Any) -> None:
        with pytest.raises(
            InvalidOption, match=r"a select of User and nothing else: select\(User\)"
        ):
            ask("sqlite", "id", statement)


def _without_json(statement: Select[Any]) -> Select[Any]:
    """Return the columns without JSON, which PostgreSQL cannot compare."""
    return statement.with_only_columns(User.id)


def selected(statement: str) -> list[str]:
    found = re.search(r"SELECT (.*?)\s+FROM", statement, re.DOTALL)
    assert found
    return found[1].split(", ")


class TestToOne:
    def test_a_relation_named_alone_has_its_default_fields(self, database: str) -> None:
        fields = FieldSelector(
            UserOut, model=User, expand={"team": AllowedFields(TeamOut, default=["name"])}
        )
        assert ask(database, "team", by_id(1), fields) == [{"team": {"name": "team2"}}]

    def test_dots_and_parentheses_make_the_same_statement(self, database: str) -> None:
        rows, log = ask_and_log(database, "team(name)", by_id(1, 2))
        assert len(log) == 1
        assert (rows, log) == ask_and_log(database, "team.name", by_id(1, 2))

    def test_nested_relations_to_one_take_one_statement(self, database: str) -> None:
        rows, log = ask_and_log(database, "id,boss(boss(name,team(name)),team(id))", by_id(9, 10))
        first = {"name": "user01", "team": {"name": "team2"}}
        assert len(log) == 1
        assert rows == [
            {"id": 9, "boss": {"team": {"id": 1}, "boss": first}},
            {"id": 10, "boss": {"team": {"id": 1}, "boss": first}},
        ]

    def test_a_page_is_limited_before_it_is_joined(self, database: str) -> None:
        _, log = ask_and_log(database, "team(name)", select(User).order_by(User.name).limit(3))
        assert re.search(r"LIMIT.*LEFT OUTER JOIN", log[0], re.DOTALL)
        assert len(log) == 1

    def test_a_relation_without_a_unique_key_repeats_no_row(self, database: str) -> None:
        rows, log = ask_and_log(database, "id,badge(text)", by_id(1, 2, 3))
        assert [row["badge"] for row in rows] == [{"text": "badge1"}, {"text": "badge2"}, None]
        assert len(log) == 2

    def test_a_relation_to_one_by_a_key_of_two_columns(self, database: str) -> None:
        fields = FieldSelector({"id": "id", "slot": AllowedFields(["day", "hour"])}, model=Visit)
        rows = ask(database, "id,slot", select(Visit).order_by(Visit.id), fields)
        assert rows[0] == {"id": 1, "slot": {"day": 2, "hour": 2}}
        assert rows[-1] == {"id": 8, "slot": None}


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


class TestToMany:
    def test_a_relation_to_many_is_capped_for_each_row_and_marked(self, database: str) -> None:
        (first, second), log = ask_and_log(database, "id,posts(id)", by_id(1, 2))
        assert first == {
            "id": 1,
            "posts": [{"id": number} for number in range(1, 21)],
            "posts_has_more": True,
        }
        assert second == {"id": 2, "posts": [{"id": 26}, {"id": 27}]}
        assert len(log) == 2

    @pytest.mark.parametrize("cap", [POSTS_OF_FIRST - 1, POSTS_OF_FIRST, POSTS_OF_FIRST + 1])
    def test_a_relation_with_exactly_the_cap_is_not_marked(self, database: str, cap: int) -> None:
        fields = FieldSelector(UserOut, model=User, max_related={"posts": cap}, more_suffix="More")
        (row,) = ask(database, "posts(id)", by_id(1), fields)
        posts: Any = row["posts"]
        assert len(posts) == min(cap, POSTS_OF_FIRST)
        assert row.get("postsMore") == (True if cap < POSTS_OF_FIRST else None)

    def test_the_database_caps_a_relation_to_many(self, database: str) -> None:
        fields = FieldSelector(UserOut, model=User, max_related=2)
        _, log = ask_and_log(database, "posts(id)", by_id(1, 2), fields)
        assert "row_number() OVER" in log[1]
        assert ("LATERAL" in log[1]) == (database == "postgresql")

    def test_postgresql_stops_reading_at_the_cap(self) -> None:
        """It reads two rows to return, one to know whether there are more, and one ahead."""
        fields = FieldSelector(UserOut, model=User, max_related=2)
        chosen = fields.parse("fields=posts(title)")
        made = engine("postgresql")
        executed: list[Any] = []
        with made.connect() as connection:

            async def execute(statement: Any, parameters: Any) -> Any:
                executed.append(statement)
                return connection.execute(statement, parameters)

            database = Database(connection, execute, is_async=False)
            run_without_suspending(fields._require_loaders().fetch(database, select(User), chosen))
        related = executed[1]
        with made.begin() as connection:
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            connection.execute(text("SET LOCAL enable_bitmapscan = off"))
            written = related.params(hasten_keys=[1]).compile(
                made, compile_kwargs={"literal_binds": True}
            )
            explained = connection.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {written}"))
            (plan,) = explained.scalar_one()
        scans = [node for node in nodes(plan["Plan"]) if node.get("Relation Name") == "f_posts"]
        assert [(scan["Actual Rows"], scan["Actual Loops"]) for scan in scans] == [(4, 1)]

    @pytest.mark.parametrize(
        ("text", "count"),
        [
            ("id,team(name),boss(name)", 1),
            ("id,posts(id)", 2),
            ("id,posts(id,tags(name),author(name))", 3),
            ("id,posts(id,tags(name)),team(members(posts(id)))", 5),
            ("id,badge(text),posts(author(badge(text)))", 4),
        ],
    )
    def test_statements_do_not_grow_with_rows(self, database: str, text: str, count: int) -> None:
        for limit in (1, 2, 10, USERS):
            _, log = ask_and_log(database, text, select(User).order_by(User.id).limit(limit))
            assert len(log) == count

    def test_no_rows_cause_no_further_statement(self, database: str) -> None:
        rows, log = ask_and_log(database, "posts(id)", by_id(10**6))
        assert (rows, len(log)) == ([], 1)

    def test_a_many_to_many_relation_is_read(self, database: str) -> None:
        (row,) = ask(database, "posts(id,tags(name))", by_id(2))
        red, green, blue = ({"name": name} for name in ("red", "green", "blue"))
        assert row == {
            "posts": [{"id": 26, "tags": [red, green]}, {"id": 27, "tags": [red, green, blue]}]
        }

    def test_the_order_of_the_relationship_is_kept(self, database: str) -> None:
        (row,) = ask(database, "team(members(name))", by_id(1))
        team: Any = row["team"]
        names = [each["name"] for each in team["members"]]
        assert names == sorted(names, reverse=True)

    def test_a_relation_to_many_by_a_key_of_two_columns(self, database: str) -> None:
        statement = select(Slot).order_by(Slot.day, Slot.hour)
        assert ask(database, "day,visits(id)", statement, Slots) == [
            {"day": 1, "visits": []},
            {"day": 1, "visits": [{"id": 2}, {"id": 4}, {"id": 6}]},
            {"day": 2, "visits": []},
            {"day": 2, "visits": [{"id": 1}, {"id": 3}, {"id": 5}]},
        ]

    def test_too_many_owners_to_name(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        everybody = select(User).order_by(User.id)
        expected = ask(database, "id,posts(id)", everybody)
        monkeypatch.setattr("hasten.fields._sql.field_loader.MAX_KEYS", 7)
        assert ask(database, "id,posts(id)", everybody) == expected

    def test_any_number_of_owners_makes_few_statement_texts(self, database: str) -> None:
        texts = set()
        for limit in range(1, USERS + 1):
            _, log = ask_and_log(database, "posts(id)", select(User).order_by(User.id).limit(limit))
            texts.add(log[1])
        assert len(texts) == 6  # 1, 2, 4, 8, 16, 32


def _is(number: int) -> Any:
    """Return a filter whose value is hidden in a lambda."""
    return lambda: User.id == number


class TestWhatIsKept:
    """Equal selects share a statement. Values belong to the request."""

    @pytest.mark.parametrize("text", ["id", "id,team(id)", "id,posts(id)", "id,posts(id,tags(id))"])
    def test_alternating_requests_get_their_own_rows(self, database: str, text: str) -> None:
        fields = FieldSelector(UserOut, model=User, max_depth=3)
        chosen = fields.parse([("fields", text)])
        with orm.Session(engine(database)) as session:
            for n in (1, 2, 7, 1, 30, 2):
                one = select(User).where(User.id == n)
                assert fields.sync.one(session, one, chosen)["id"] == n
                some = select(User).where(User.id.in_(range(n, n + 3)), User.name != f"user{n:02}")
                statement = some.order_by(User.id).limit(n).offset(n % 2)
                wanted = [user.id for user in session.scalars(statement)]
                found = fields.sync.many(session, statement, chosen)
                assert [row["id"] for row in found] == wanted
                hidden = select(User).where(_is(n))
                assert [row["id"] for row in fields.sync.many(session, hidden, chosen)] == [n]
        assert fields._require_loaders()._selects.cached_result_count == 3

    def test_all_rows_have_one_statement_text(self, database: str) -> None:
        fields = FieldSelector(UserOut, model=User)
        chosen = fields.parse("fields=id,team(name)")
        with orm.Session(engine(database)) as session, statements_of(engine(database)) as log:
            for n in range(1, 9):
                fields.sync.one(session, select(User).where(User.id == n), chosen)
        assert len(set(log)) == 1

    def test_criteria_of_the_select_apply_to_its_relations(self, database: str) -> None:
        """They belong to one request, and the next one has others."""
        fields = Users.parse("fields=id,team(id),posts(id)")
        with orm.Session(engine(database)) as session:
            for secret, draft in (("s3", "d3"), ("s2", "d4"), ("s3", "d3")):
                statement = by_id(1, 2, 6).options(
                    orm.with_loader_criteria(Team, Team.secret != secret),
                    orm.with_loader_criteria(Post, Post.draft != draft),
                )
                rows = Users.sync.many(session, statement, fields)
                teams = [{"id": 2}, {"id": 3}, {"id": 1}]
                wanted: list[Any] = [None if f"s{team['id']}" == secret else team for team in teams]
                assert [row["team"] for row in rows] == wanted
                posts: Any = rows[0]["posts"]
                wanted = [n for n in (1, 2, 3, 4, 5) if f"d{n}" != draft]
                assert [post["id"] for post in posts[:4]] == wanted

    def test_execution_options_are_for_every_statement(self, database: str) -> None:
        seen = []
        with orm.Session(engine(database)) as session:
            event.listen(
                session,
                "do_orm_execute",
                lambda state: seen.append(state.execution_options.get("tenant")),
            )
            for tenant in ("a", "b"):
                statement = by_id(1).execution_options(tenant=tenant)
                Users.sync.many(session, statement, Users.parse("fields=id,posts(id,tags(id))"))
        assert seen == ["a"] * 3 + ["b"] * 3


class TestShapes:
    def test_a_bounded_number_of_sets_is_kept(self) -> None:
        names = [name for name, field in Users.allowed.fields.items() if not field.relation]
        fields = FieldSelector(UserOut, model=User)
        statement = select(User)
        for choice in itertools.product([True, False], repeat=len(names)):
            asked = ",".join(itertools.compress(names, choice)) or "id"
            fields._require_loaders().get(statement, fields.parse([("fields", asked)])).make_select(
                statement
            )
        assert fields._require_loaders().cached_loader_count == 256

    def test_equal_selections_share_one_shape(self) -> None:
        fields = FieldSelector(UserOut, model=User)
        field_loader = {
            fields._require_loaders().get(select(User), fields.parse([("fields", text)]))
            for text in ("id,name", "name,id", " id, name,id")
        }
        assert len(field_loader) == 1

    def test_a_shape_without_joins_returns_the_same_rows(self, database: str) -> None:
        statement = select(User).order_by(User.id)
        fields = Users.parse("fields=id,team(name),boss(team(id)),posts(id)")
        shape = Users._require_loaders().get(statement, fields, without_joins=True)
        with orm.Session(engine(database)) as session, statements_of(engine(database)) as log:
            found = session.execute(shape.make_select(statement)).all()
            execute = wrap_blocking_session(session).execute
            rows = run_without_suspending(
                shape.read_nested_dicts(found, execute, session.get_bind().dialect.name)
            )
        assert "JOIN" not in log[0]
        assert len(log) == 4
        assert rows == ask(database, str(fields), statement)

    def test_a_shape_has_one_statement_text(self) -> None:
        fields = FieldSelector(UserOut, model=User)
        chosen = fields.parse("fields=id,team(name)")
        texts = {
            str(fields._require_loaders().get(statement, chosen).make_select(statement))
            for statement in (select(User).limit(number) for number in (5, 10))
        }
        assert len(texts) == 1


class TestExecutors:
    """Sessions and connections, asynchronous and not."""

    chosen: Final = Users.parse("fields=id,team(name),posts(id)")
    expected: Final = {"id": 2, "team": {"name": "team3"}, "posts": [{"id": 26}, {"id": 27}]}

    def test_session_and_connection(self, database: str) -> None:
        with orm.Session(engine(database)) as session:
            assert Users.sync.one(session, by_id(2), self.chosen) == self.expected
        with engine(database).connect() as connection:
            assert Users.sync.one(connection, by_id(2), self.chosen) == self.expected
            assert Users.sync.many(connection, by_id(2), self.chosen) == [self.expected]

    async def test_asynchronous_sessions_and_connections(self, database: str) -> None:
        from sqlalchemy.ext.asyncio import AsyncSession

        with async_engine(database) as made:
            async with AsyncSession(made) as session:
                assert await Users.one(session, by_id(2), self.chosen) == self.expected
                assert await Users.many(session, by_id(2), self.chosen) == [self.expected]
            async with made.connect() as connection:
                assert await Users.one(connection, by_id(2), self.chosen) == self.expected

    async def test_a_missing_row_is_a_404_problem(self, database: str) -> None:
        with async_engine(database) as made:
            async with made.connect() as connection:
                with pytest.raises(RowNotFound) as caught:
                    await Users.one(connection, by_id(10**6), self.chosen)
        assert caught.value.status == 404
        assert caught.value.problem() == {
            "type": "about:blank",
            "title": "Not Found",
            "status": 404,
            "detail": "there is no such user",
            "code": "not_found",
        }

    def test_one_rejects_several_rows_and_reads_two_at_most(self, database: str) -> None:
        with (
            engine(database).connect() as connection,
            statements_of(engine(database)) as log,
            pytest.raises(InvalidOption, match="a select that finds one row"),
        ):
            Users.sync.one(connection, select(User), Users.parse(""))
        assert "LIMIT" in log[0]

    def test_a_scoped_session_is_accepted(self, database: str) -> None:
        session: Any = orm.scoped_session(orm.sessionmaker(engine(database)))
        assert Users.sync.one(session, by_id(2), self.chosen) == self.expected
        session.remove()


class TestInheritance:
    """Joined-table and single-table inheritance."""

    @pytest.mark.parametrize("kind", [Car, Bike])
    def test_columns_of_both_classes_of_an_inheritance(self, database: str, kind: Any) -> None:
        fields = FieldSelector(
            {"id": "id", "own": kind.own.key, "owner": AllowedFields(["name"])}, model=kind
        )
        rows = ask(database, "own,owner", select(kind), fields)
        assert rows == [{"own": kind.__name__, "owner": {"name": "user03"}}]
        rows = ask(database, "owner", select(kind).limit(1), fields)
        assert rows == [{"owner": {"name": "user03"}}]

    def test_a_relation_to_a_subclass_returns_its_rows_only(self, database: str) -> None:
        garage = FieldSelector({"cars": [AllowedFields(["id", "own"])]}, model=User)
        bikes = FieldSelector({"bikes": [AllowedFields(["id", "own"])]}, model=User)
        assert ask(database, "cars", by_id(3), garage) == [{"cars": [{"id": 1, "own": "Car"}]}]
        assert ask(database, "bikes", by_id(3), bikes) == [{"bikes": [{"id": 2, "own": "Bike"}]}]

    def test_a_select_of_a_subclass_is_accepted(self, database: str) -> None:
        fields = FieldSelector({"id": "id", "owner": AllowedFields(["id"])}, model=Vehicle)
        assert ask(database, "id", select(Bike), fields) == [{"id": 2}]
        statement = select(Car).order_by(Car.own).limit(3)
        assert ask(database, "id,owner", statement, fields) == [{"id": 1, "owner": {"id": 3}}]


class TestRoles:
    def test_a_removed_field_is_unknown(self, database: str) -> None:
        public = Users.without("email", "team.members")
        assert ask(database, None, by_id(1), public) == [{"id": 1, "name": "user01"}]
        with pytest.raises(InvalidParameter) as caught:
            public.parse("fields=email")
        with pytest.raises(InvalidParameter) as other:
            public.parse("fields=liame")
        assert str(caught.value).replace("email", "liame") == str(other.value)
        assert ask(database, "email", by_id(1)) == [{"email": "1@example.org"}]

    def test_a_removed_field_may_have_options(self) -> None:
        fields = FieldSelector(UserOut, model=User, max_related={"posts": 3})
        assert "posts" not in fields.without("posts").allowed.fields


class TestStartUp:
    """Options that no request could satisfy are refused when the application starts."""

    @pytest.mark.parametrize(
        ("schema", "remedy"),
        [
            (["id", "nickname"], r"'nickname'.* 'nickname', but there is none: .*needs"),
            (["id", "posts"], r"'posts' for the field 'posts', but it is another kind"),
            (["id", "metadata"], r"'metadata'.* there is none"),
            (["id", "__table__"], "there is none"),
            (["id", "first_tags"], "it is another kind"),
            ({"x": AllowedFields(["id"])}, r"a relationship 'x' for the field 'x'"),
            ({"name": AllowedFields(["id"])}, r"a relationship 'name'.*opaque"),
            ({"team": [AllowedFields(["id"])]}, r"'team' is a collection, .* 'team' is a list"),
            ({"posts": AllowedFields(["id"])}, r"'posts' is a single object, .* is not a list"),
            ({"team": AllowedFields(["nickname"])}, r"model=<class '.*Team'>: .*'nickname'"),
        ],
    )  # fmt: skip
    def test_a_name_that_is_not_mapped_is_refused(self, schema: Any, remedy: str) -> None:
        with pytest.raises(InvalidOption, match=remedy):
            FieldSelector(schema, model=User)

    def test_a_class_that_is_not_mapped(self) -> None:
        with pytest.raises(InvalidOption, match="a class that is mapped to a table"):
            FieldSelector(UserOut, model=UserOut)

    @pytest.mark.parametrize(
        "options",
        [
            {"max_related": 0},
            {"max_related": {"posts": True}},
            {"max_related": {"nothing": 3}},
            {"max_depth": 0},
            {"max_names": "9"},
            {"compute": {"nothing": len}},
            {"expand": {"team": 3}},
        ],
    )
    def test_wrong_options_are_rejected(self, options: dict[str, Any]) -> None:
        with pytest.raises(InvalidOption):
            FieldSelector(UserOut, model=User, **options)

    def test_options_of_allowed_fields_cannot_be_passed_twice(self) -> None:
        with pytest.raises(InvalidOption, match="pass them to AllowedFields"):
            FieldSelector(AllowedFields(UserOut), model=User, default=["id"])

    def test_a_marker_that_is_the_name_of_a_field_is_refused(self) -> None:
        with pytest.raises(InvalidOption, match="there is a field 'posts_id'"):
            FieldSelector({"posts": [TagOut], "posts_id": "id"}, model=User, more_suffix="_id")


class TestQueries:
    def test_a_query_can_be_text_pairs_or_parameters_of_a_framework(self) -> None:
        from starlette.datastructures import QueryParams

        text = "?fields=name,team(id)&page=2&fields=id"
        pairs = [("fields", "name,team(id)"), ("page", "2"), ("fields", "id")]
        expected = Users.parse(text)
        assert str(expected) == "id,name,team(id)"
        assert Users.parse(pairs) == expected
        assert Users.parse(QueryParams(text.removeprefix("?"))) == expected

    def test_an_empty_parameter_is_refused(self) -> None:
        with pytest.raises(InvalidParameter, match="empty"):
            Users.parse("fields=")

    def test_the_parameter_may_have_another_name(self) -> None:
        fields = FieldSelector(PostOut, model=Post, parameter="only")
        assert fields.parse("only=title&fields=x").names == ("title",)
