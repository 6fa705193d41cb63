"""Requests for fields to a FastAPI application on a real database, and what a client gets.

The numbers are those of the behaviours that fields promise.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import quote

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, Request
from pydantic import BaseModel, Field, TypeAdapter, computed_field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

from hasten.fields import FieldSet, Partial
from hasten.integrations.fastapi import Fields, Paginate, answering
from hasten.pagination import CursorPage, Page, PageParams
from tests.fields import databases
from tests.fields.databases import DRIVERS, USERS, Role, User, statements_of
from tests.fields.models import FussyOut, UserOut

# Which index an order has is not what this is about.
pytestmark = pytest.mark.filterwarnings("ignore::hasten.errors.PaginationWarning")

SECRET: Final = "a secret of more than 16 bytes"

Users = Fields(UserOut, model=User, default=("id", "name", "email"), max_depth=3)
ForReaders = Users.without("balance", "boss", "team.members")
Starred = Fields(UserOut, model=User, wildcard=True, opaque=("settings",))
Fussy = Fields(FussyOut, model=User, needs={"fullName": ("first", "last")}, default=("id",))
UserPages = Paginate(Partial[UserOut], model=User, sort=("id", "name", "created"), fields=Users)
UserWalk = Paginate(
    Partial[UserOut],
    model=User,
    sort=("id", "name", "created"),
    fields=Users,
    mode="cursor",
    secret=SECRET,
)

app: Final = FastAPI()


@functools.cache
def _engine(database: str, driver: int) -> AsyncEngine:
    databases.engine(database)
    return create_async_engine(databases.url(database, driver), poolclass=NullPool)


def async_engine(database: str) -> AsyncEngine:
    """For any event loop: its connections are closed when they are given back."""
    return _engine(database, app.state.driver)


async def _db(request: Request) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(async_engine(request.app.state.database)) as session:
        yield session


DB = Annotated[AsyncSession, Depends(_db)]


@app.get("/users/{id}")
async def user(
    id: int, db: DB, fields: Annotated[FieldSet, Depends(Users.params)]
) -> Partial[UserOut]:
    return await Users.one(db, select(User).where(User.id == id), fields)


@app.get("/by_role/{id}")
async def by_role(
    id: int, db: DB, request: Request, role: Annotated[str, Header()] = "reader"
) -> Partial[UserOut]:
    allowed = Users if role == "admin" else ForReaders
    with answering():
        fields = allowed.parse(request.query_params)
    return await allowed.one(db, select(User).where(User.id == id), fields)


@app.get("/starred/{id}")
async def starred(
    id: int, db: DB, fields: Annotated[FieldSet, Depends(Starred.params)]
) -> Partial[UserOut]:
    return await Starred.one(db, select(User).where(User.id == id), fields)


@app.get("/fussy/{id}")
async def fussy(
    id: int, db: DB, fields: Annotated[FieldSet, Depends(Fussy.params)]
) -> Partial[FussyOut]:
    return await Fussy.one(db, select(User).where(User.id == id), fields)


@app.get("/users")
async def users(
    db: DB, q: Annotated[PageParams, Depends(UserPages.params)]
) -> Page[Partial[UserOut]]:
    return await UserPages.page(db, select(User).where(User.role == Role.READER), q)


@app.get("/walk")
async def walk(
    db: DB, q: Annotated[PageParams, Depends(UserWalk.params)]
) -> CursorPage[Partial[UserOut]]:
    return await UserWalk.page(db, select(User), q)


class Got(NamedTuple):
    status: int
    json: Any
    body: bytes
    log: list[str]


@pytest.fixture(autouse=True, params=["aiosqlite", "asyncpg", "psycopg_async"])
def database(request: pytest.FixtureRequest) -> str:
    """The application works on it by an asynchronous driver."""
    (name,) = (each for each, drivers in DRIVERS.items() if request.param in drivers)
    app.state.database, app.state.driver = name, DRIVERS[name].index(request.param)
    return name


async def get(path: str, *fields: str, role: str = "reader") -> Got:
    """Ask with these values of the parameter."""
    query = "&".join(f"fields={quote(each, safe='')}" for each in fields)
    url = path + ("&" if "?" in path else "?") + query
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        with statements_of(async_engine(app.state.database).sync_engine) as log:
            found = await client.get(url, headers={"role": role})
    return Got(found.status_code, found.json(), found.content, log)


async def got(path: str, *fields: str, role: str = "reader") -> Any:
    found = await get(path, *fields, role=role)
    assert found.status == 200, found.json
    return found.json


async def refused(path: str, *fields: str, role: str = "reader") -> Any:
    """The one detail of a refusal, which asked the database nothing."""
    found = await get(path, *fields, role=role)
    assert (found.status, found.log) == (422, []), found.json
    (detail,) = found.json["detail"]
    assert detail["loc"] == ["query", "fields"]
    return detail


ADA: Final = {"id": 1, "name": "user01", "email": "1@example.org"}


class TestNames:
    async def test_61_absent_is_the_default(self) -> None:
        found = await get("/users/1")
        assert found.json == ADA
        assert "settings" not in found.log[0]

    @pytest.mark.parametrize("text", ["", " ", ",", "id,,name", "id,", ",id", "team()", "team."])
    async def test_62_an_empty_name_is_refused(self, text: str) -> None:
        assert (await refused("/users/1", text))["type"] == "empty_name"

    async def test_63_an_unknown_name_is_refused_with_those_there_are(self) -> None:
        detail = await refused("/users/1", "id,nothing,nor_this")
        assert "nothing" in detail["msg"]
        assert "nor_this" in detail["msg"]
        assert "id, name, email" in detail["msg"]

    @pytest.mark.parametrize(
        ("hidden", "unknown"),
        [
            ("password_hash", "passwort_hash"),
            ("team_id", "temm_id"),
            ("team(secret)", "team(sekret)"),
            ("posts.draft", "posts.drift"),
        ],
    )
    async def test_64_71_a_hidden_name_is_refused_as_one_that_is_not(
        self, hidden: str, unknown: str
    ) -> None:
        """Byte for byte, but for the name itself."""
        one, other = await get("/users/1", hidden), await get("/users/1", unknown)
        name, made_up = (text.strip(")").replace("(", ".").encode() for text in (hidden, unknown))
        assert (one.status, one.log) == (other.status, other.log) == (422, [])
        assert one.body.replace(name, made_up) == other.body

    async def test_65_66_67_how_it_is_written_is_nothing(self) -> None:
        one = await get("/users/1", "id,name,email")
        for values in (
            ["email, name ,id,name"],
            ["email", "name", "id"],
            ["name,id", " email,id"],
        ):
            other = await get("/users/1", *values)
            assert (other.body, other.log) == (one.body, one.log)

    async def test_68_a_star_is_refused_unless_it_is_allowed(self) -> None:
        assert (await refused("/users/1", "*"))["type"] == "unknown_name"
        found = await get("/starred/1", "*")
        assert set(found.json) == {
            "id", "name", "email", "created", "balance", "role", "ref", "settings", "shouted",
        }  # fmt: skip
        assert "password_hash" not in found.log[0]
        assert "*" not in found.log[0]

    @pytest.mark.parametrize("text", ["name(first)", "id.x", "team(name(x))"])
    async def test_72_a_plain_value_has_no_fields(self, text: str) -> None:
        assert (await refused("/users/1", text))["type"] == "not_expandable"

    @pytest.mark.parametrize(
        "text",
        [
            "team(members(team(members(name))))",
            "posts.author.posts.author",
            "boss.boss.boss.boss.id",
            "boss.boss.boss",
        ],
    )
    async def test_73_deeper_than_allowed_is_refused(self, text: str) -> None:
        assert (await refused("/users/1", text))["type"] == "too_deep"

    @pytest.mark.parametrize(
        "text",
        [
            ",".join(["id"] * 101),
            "id," * 700 + "id",
            "(" * 2_000,
            ")" * 2_000,
            "team(" * 400,
            "team(name",
            "team)name",
            "team((name))",
            "team(name)x",
        ],
    )
    async def test_74_too_much_and_what_is_not_balanced_is_refused(self, text: str) -> None:
        await refused("/users/1", text)

    @pytest.mark.parametrize(
        "text",
        [
            "id;drop table f_users", "id--", "'", '"', "id\0", "\0", "__class__", "metadata",
            "_sa_instance_state", "__table__", "registry", "id/**/", "%00", "😀", "id\u2028",
        ],
    )  # fmt: skip
    async def test_75_a_name_is_a_key_and_never_a_text_of_sql(self, text: str) -> None:
        assert (await refused("/users/1", text))["type"] == "unknown_name"


class TestRows:
    @pytest.mark.parametrize("path", ["/users/6", "/users?sort=id&limit=5"])
    @pytest.mark.parametrize(
        ("alone", "written_out"),
        [
            ("team", "team(id,name)"),
            # Of the same model: the default is that of the model.
            ("boss", "boss(id,name,email)"),
            ("posts", "posts(id,title)"),
        ],
    )
    async def test_69_a_relation_alone_is_its_default(
        self, path: str, alone: str, written_out: str
    ) -> None:
        one, other = await get(path, alone), await get(path, written_out)
        assert (one.status, one.body, one.log) == (200, other.body, other.log)

    async def test_70_two_ways_of_asking_are_one_statement(self) -> None:
        one, other = await get("/users/1", "id,team(name)"), await get("/users/1", "team.name,id")
        assert one.json == {"id": 1, "team": {"name": "team2"}}
        assert (one.body, one.log) == (other.body, other.log)
        assert len(one.log) == 1

    @pytest.mark.parametrize("text", ["id,team(name),boss(team(name))", "id,posts(tags(name))"])
    async def test_70_the_number_of_statements_does_not_depend_on_rows(self, text: str) -> None:
        few, many = await get("/users?limit=2", text), await get("/users?limit=25", text)
        assert len(few.log) == len(many.log) <= 3

    @pytest.mark.parametrize("text", ["Team", "TEAM(name)", "full_name"])
    async def test_76_names_are_the_public_ones(self, text: str) -> None:
        assert (await refused("/users/1", text))["type"] == "unknown_name"
        assert (await refused("/fussy/1", text))["type"] == "unknown_name"

    async def test_76_77_what_is_computed_selects_its_needs_and_does_not_show_them(self) -> None:
        found = await get("/fussy/3", "fullName")
        assert found.json == {"fullName": "first3 last3"}
        assert "f_users.first" in found.log[0]
        assert "f_users.name" not in found.log[0]
        assert (await refused("/fussy/3", "first"))["type"] == "unknown_name"

    async def test_78_keys_for_the_work_are_not_shown(self) -> None:
        """The sort key of a cursor, and the foreign key of a relation."""
        found = await get("/walk?sort=-created&limit=3", "team(name)")
        assert [set(row) for row in found.json["data"]] == [{"team"}] * 3
        assert "f_users.created" in found.log[0]
        token = found.json["pagination"]["next_cursor"]
        further = await got(f"/walk?sort=-created&limit=3&cursor={token}", "id")
        assert further["data"] == [{"id": USERS - 3}, {"id": USERS - 4}, {"id": USERS - 5}]

    async def test_79_null_is_there_and_what_was_not_asked_for_is_not(self) -> None:
        assert await got("/users/20", "email,team(name)") == {"email": None, "team": None}
        assert await got("/users/20", "id") == {"id": 20}

    async def test_80_a_field_that_a_role_lacks_is_unknown(self) -> None:
        asked = ("id,balance,boss(id),team(members(id))",)
        assert set(await got("/by_role/6", *asked, role="admin")) == {
            "id", "balance", "boss", "team",
        }  # fmt: skip
        for text in ("balance", "boss", "boss(id)", "team(members(id))", "team.members"):
            assert (await refused("/by_role/6", text))["type"] == "unknown_name"
        one, other = await get("/by_role/6", "balance"), await get("/by_role/6", "balanse")
        assert one.body.replace(b"balance", b"balanse") == other.body

    @pytest.mark.parametrize("text", ["id", "id,name", "id,team(name)", "id,posts(id),boss(id)"])
    async def test_81_which_rows_come_does_not_depend_on_fields(self, text: str) -> None:
        found = await got("/users?limit=100&sort=id", text)
        assert [row["id"] for row in found["data"]] == list(range(2, USERS + 1))
        assert found["pagination"]["total"] == USERS - 1

    async def test_82_a_refusal_comes_before_404(self) -> None:
        assert (await get("/users/4711", "id")).status == 404
        for text in ("password_hash", "nothing", ""):
            here, nowhere = await get("/users/1", text), await get("/users/4711", text)
            assert (here.status, here.body) == (422, nowhere.body)

    async def test_83_a_relation_to_many_is_capped_and_says_so(self) -> None:
        found = await get("/users/1", "posts(id)")
        assert len(found.json["posts"]) == 20
        assert found.json["posts_has_more"] is True
        assert "LIMIT" in found.log[1] or "row_number" in found.log[1]
        assert "posts_has_more" not in await got("/users/2", "posts(id)")


class TestDescriptions:
    def test_84_openapi_has_the_names_and_requires_none(self) -> None:
        described = app.openapi()
        (parameter,) = [
            each
            for each in described["paths"]["/users/{id}"]["get"]["parameters"]
            if each["name"] == "fields"
        ]
        assert parameter["required"] is False
        assert parameter["schema"]["type"] == "array"
        assert {"id", "team", "team.name", "posts.tags.name"} <= set(
            parameter["schema"]["items"]["enum"]
        )
        assert "password" not in str(described)

    def test_84_a_computed_field_is_described_as_any_other(self) -> None:
        class Inner(BaseModel):
            side: int

            @computed_field(alias="theArea")  # type: ignore[prop-decorator]
            @property
            def area(self) -> int:
                return self.side**2

        class Outer(BaseModel):
            id: int
            hidden: str = Field(exclude=True)
            inner: list[Inner]

            @computed_field  # type: ignore[prop-decorator]
            @property
            def shouted(self) -> str:
                return self.hidden + "!"

        schema = TypeAdapter(Partial[Outer]).json_schema(mode="serialization")
        outer, inner = schema["properties"], str(schema)
        assert set(outer) == {"id", "inner", "shouted"}
        assert outer["shouted"]["type"] == "string"
        assert "theArea" in inner
        assert "required" not in schema
