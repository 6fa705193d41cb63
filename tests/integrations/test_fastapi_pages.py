"""Pages and fields in FastAPI: OpenAPI, responses and refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Query, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import APIKeyQuery
from pydantic import BaseModel, Field, TypeAdapter, computed_field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from hasten.fastapi import Fields, Paginate
from hasten.fields import FieldSet, Partial
from hasten.pagination import CursorPage, Envelope, Page, PageParams
from hasten.pagination._counts import Count
from tests.pagination.databases import Author, Item, Post, async_engine


class AuthorOut(BaseModel):
    id: int
    name: str


class PostOut(BaseModel):
    id: int
    title: str
    author: AuthorOut | None


class ItemOut(BaseModel):
    id: int
    grade: int | None
    made: datetime


SECRET: Final = "a secret of more than 16 bytes"

Posts = Paginate(PostOut, model=Post, sort=("id", "title"), default_sort="-id")
Items = Paginate(
    ItemOut, model=Item, sort=("grade",), mode="cursor", secret=SECRET, etag=True, advise=False
)
Chosen = Paginate(Partial[PostOut], model=Post, sort=("id", "title"), advise=False)
Renamed = Paginate(PostOut, model=Post, envelope=Envelope(data="items", names={"total": "count"}))
Listed = Paginate(AuthorOut)
Authors = Fields(AuthorOut, model=Author, default=("id",))


async def session() -> AsyncIterator[AsyncSession]:
    with async_engine("sqlite") as made:
        async with AsyncSession(made) as opened:
            yield opened


DB = Annotated[AsyncSession, Depends(session)]

app: Final = FastAPI()


@app.get("/api/posts")
async def posts(db: DB, q: Annotated[PageParams, Depends(Posts.params)]) -> Page[PostOut]:
    return await Posts.page(db, select(Post), q)


@app.get("/api/items", responses=Items.responses)
async def items(db: DB, q: Annotated[PageParams, Depends(Items.params)]) -> CursorPage[ItemOut]:
    return await Items.page(db, select(Item), q)


@app.get("/api/authors/{id}", responses=Authors.responses)
async def author(
    id: int, db: DB, fields: Annotated[FieldSet, Depends(Authors.params)]
) -> Partial[AuthorOut]:
    return await Authors.one(db, select(Author).where(Author.id == id), fields)


@app.get("/api/chosen")
async def chosen(
    db: DB, q: Annotated[PageParams, Depends(Chosen.params)]
) -> Page[Partial[PostOut]]:
    return await Chosen.page(db, select(Post), q)


@app.get("/api/renamed", response_model=Renamed.response_model)
async def renamed(db: DB, q: Annotated[PageParams, Depends(Renamed.params)]) -> Page[PostOut]:
    return await Renamed.page(db, select(Post), q)


@app.get("/api/listed")
async def listed(q: Annotated[PageParams, Depends(Listed.params)]) -> Page[AuthorOut]:
    return Listed.from_items([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}], q)


async def get(
    path: str, headers: dict[str, str] | None = None, *, app: FastAPI = app
) -> httpx.Response:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path, headers=headers)


async def test_the_answer_is_exactly_that() -> None:
    answer = await get("/api/posts?page=2&limit=2")
    assert answer.json() == {
        "data": [
            {"id": 38, "title": "t2", "author": None},
            {"id": 37, "title": "t1", "author": None},
        ],
        "pagination": {"page": 2, "limit": 2, "total": 40},
    }
    assert answer.headers["content-type"] == "application/json"
    assert '<?limit=2&page=3>; rel="next"' in answer.headers["link"]


async def test_a_handler_can_look_at_its_page() -> None:
    with async_engine("sqlite") as made:
        async with AsyncSession(made) as db:
            found = await posts(db, Posts.parse("limit=1"))
    assert isinstance(found, Page)
    assert (found.data, found.total, found.has_more) == (
        [{"id": 40, "title": "t4", "author": None}], 40, True,
    )  # fmt: skip


async def test_cursors_walk_to_the_end() -> None:
    seen: list[int] = []
    token: str | None = ""
    while token is not None:
        answer = (await get(f"/api/items?sort=-grade&limit=50&cursor={token}")).json()
        seen += [row["id"] for row in answer["data"]]
        token = answer["pagination"]["next_cursor"]
    assert sorted(seen) == list(range(1, 181))


@pytest.mark.parametrize(
    ("query", "parameter", "code", "bounds"),
    [
        ("page=0", "page", "out_of_range", {"ge": 1, "le": (2**63 - 22) // 20 + 1}),
        ("page=1_0", "page", "not_a_number", {"ge": 1, "le": (2**63 - 22) // 20 + 1}),
        ("page=1&page=2", "page", "duplicate", None),
        ("limit=101", "limit", "out_of_range", {"ge": 1, "le": 100}),
        ("sort=password_hash", "sort", "unknown_name", {"expected": "'id' or 'title'"}),
        (f"sort={'id,' * 9}", "sort", "too_many", {"max_length": 8}),
    ],
)
async def test_refused_in_the_shape_of_fastapi(
    query: str, parameter: str, code: str, bounds: dict[str, Any] | None
) -> None:
    answer = await get(f"/api/posts?{query}")
    assert answer.status_code == 422
    (detail,) = answer.json()["detail"]
    assert detail.keys() - {"ctx"} == {"type", "loc", "msg", "input"}
    assert (detail["type"], detail["loc"]) == (code, ["query", parameter])
    assert detail.get("ctx") == bounds


class Filter(BaseModel):
    min_price: int = 0
    kind: str = Field("", alias="type")


def search(q: str = "") -> str:
    return q


def locale(lang: str = "") -> str:
    return lang


Strict = Paginate(AuthorOut, unknown="refuse")
StrictFields = Fields(AuthorOut, unknown="refuse")


class TestUnknownParameters:
    app = FastAPI()
    router = APIRouter(dependencies=[Depends(search)])

    @router.get("/routed")
    @staticmethod
    async def routed(q: Annotated[PageParams, Depends(Strict.params)]) -> Page[AuthorOut]:
        return Strict.from_items([], q)

    app.include_router(router, prefix="/v1", dependencies=[Depends(locale)])

    @app.get("/strict")
    @staticmethod
    async def strict(
        q: Annotated[PageParams, Depends(Strict.params)],
        author: Annotated[int, Query(alias="authorId")] = 0,
        _search: Annotated[str, Depends(search)] = "",
        _internal: Annotated[str, Query(alias="internal", include_in_schema=False)] = "",
        _key: Annotated[str | None, Depends(APIKeyQuery(name="token", auto_error=False))] = None,
    ) -> Page[AuthorOut]:
        return Strict.from_items([{"id": author, "name": "a"}], q)

    @app.get("/filtered")
    @staticmethod
    async def filtered(
        where: Annotated[Filter, Query()], q: Annotated[PageParams, Depends(Strict.params)]
    ) -> Page[AuthorOut]:
        return Strict.from_items([{"id": where.min_price, "name": where.kind}], q)

    @app.get("/row")
    @staticmethod
    async def row(
        fields: Annotated[FieldSet, Depends(StrictFields.params)], lang: str = ""
    ) -> Partial[AuthorOut]:
        return StrictFields.from_item({"id": 1, "name": lang}, fields)

    @pytest.mark.parametrize(
        ("path", "parameter", "nearest"),
        [
            ("/strict?pgae=2", "pgae", "page"),
            ("/strict?authorid=2", "authorid", "authorId"),
            ("/filtered?typ=a&min_price=3", "typ", "type"),
            ("/row?field=id", "field", "fields"),
            ("/v1/routed?lagn=de", "lagn", "lang"),
        ],
    )
    async def test_are_422_with_the_nearest(self, path: str, parameter: str, nearest: str) -> None:
        answer = await get(path, app=self.app)
        assert answer.status_code == 422
        (detail,) = answer.json()["detail"]
        assert (detail["type"], detail["loc"]) == ("unknown_parameter", ["query", parameter])
        assert f"did you mean {nearest}?" in detail["msg"]

    async def test_those_that_openapi_does_not_show_are_not_shown(self) -> None:
        (detail,) = (await get("/strict?intern=1", app=self.app)).json()["detail"]
        assert detail["msg"] == (
            "intern='1': no such parameter; expected page, limit, sort, authorId, q, token"
        )

    @pytest.mark.parametrize(
        "path",
        [
            "/strict?page=1&limit=2&authorId=3&q=x&token=y&internal=1",
            "/filtered?type=a&min_price=3&page=1",
            "/row?fields=id&lang=de",
            "/v1/routed?q=x&lang=de",
        ],
    )
    async def test_those_of_the_route_are_known(self, path: str) -> None:
        assert (await get(path, app=self.app)).status_code == 200


async def test_a_cursor_of_another_query_is_refused_with_400() -> None:
    for query in ("cursor=junk", f"sort=-grade&cursor={await a_token()}"):
        answer = await get(f"/api/items?{query}")
        assert answer.status_code == 400
        assert answer.json()["detail"][0]["loc"] == ["query", "cursor"]


async def a_token() -> str:
    token: str = (await get("/api/items?sort=grade")).json()["pagination"]["next_cursor"]
    return token


async def test_fields_of_one_row() -> None:
    assert (await get("/api/authors/1")).json() == {"id": 1}
    assert (await get("/api/authors/1?fields=name")).json() == {"name": "n0"}
    assert (await get("/api/authors/99")).status_code == 404
    assert (await get("/api/authors/99?fields=email")).status_code == 422


def test_openapi_describes_parameters_and_responses() -> None:
    schema = app.openapi()
    described = parameters(schema, "/api/posts")
    assert list(described) == ["page", "limit", "sort"]
    assert described["limit"]["required"] is False
    assert described["limit"]["schema"] | {"title": ""} == {
        "type": "integer", "minimum": 1, "maximum": 100, "title": "", "default": 20,
    }  # fmt: skip
    assert described["page"]["schema"]["default"] == 1
    assert described["sort"]["schema"]["items"]["enum"] == ["id", "-id", "title", "-title"]
    assert list(parameters(schema, "/api/items")) == ["limit", "sort", "cursor"]
    answer = answered(schema, "/api/posts")
    assert answer["required"] == ["data", "pagination"]
    assert answer["properties"]["data"]["items"] == {"$ref": "#/components/schemas/PostOut"}
    assert set(answer["properties"]["pagination"]["properties"]) == {
        "page", "limit", "total", "total_relation", "has_more",
    }  # fmt: skip
    assert statuses(schema, "/api/posts") == {"200", "422"}
    assert statuses(schema, "/api/items") == {"200", "304", "400", "422"}
    assert statuses(schema, "/api/authors/{id}") == {"200", "404", "422"}


def test_a_client_that_fills_in_defaults_may_move_by_cursor() -> None:
    """A page with a cursor is refused, so `page` has no default if both are supported."""
    both = Paginate(
        AuthorOut, unique=("id",), mode="both", secret="a secret of 16 bytes", default_limit=7
    )
    other = FastAPI()

    other.get("/authors")(lambda q=Depends(both.params): q)  # noqa: B008
    described = parameters(other.openapi(), "/authors")
    assert described["limit"]["schema"]["default"] == 7
    assert "default" not in described["page"]["schema"]


def test_openapi_requires_no_field_that_may_be_missing() -> None:
    schema = app.openapi()
    author = answered(schema, "/api/authors/{id}")
    assert "required" not in author
    assert set(author["properties"]) == {"id", "name"}
    assert parameters(schema, "/api/authors/{id}")["fields"]["schema"]["items"]["enum"] == [
        "id",
        "name",
    ]
    components = schema["components"]["schemas"]
    assert answered(schema, "/api/chosen") == components["Page_Partial_PostOut__"]
    chosen = components["Partial_PostOut_"]
    assert set(chosen["properties"]) == {"id", "title", "author"}
    assert "required" not in chosen
    names = parameters(schema, "/api/chosen")["fields"]["schema"]["items"]["enum"]
    assert names == ["id", "title", "author", "author.id", "author.name"]


def parameters(schema: dict[str, Any], path: str) -> dict[str, Any]:
    return {each["name"]: each for each in schema["paths"][path]["get"]["parameters"]}


def answered(schema: dict[str, Any], path: str) -> dict[str, Any]:
    answer = schema["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
    found: dict[str, Any] = answer["schema"]
    if "$ref" in found:
        found = schema["components"]["schemas"][found["$ref"].rpartition("/")[2]]
    return found


def statuses(schema: dict[str, Any], path: str) -> set[str]:
    return set(schema["paths"][path]["get"]["responses"])


def test_an_envelope_of_ones_own_is_described() -> None:
    answer = answered(app.openapi(), "/api/renamed")
    assert set(answer["properties"]) == {"items", "pagination"}
    assert "count" in answer["properties"]["pagination"]["properties"]


async def test_an_envelope_of_ones_own_is_answered() -> None:
    answer = (await get("/api/renamed?limit=1")).json()
    assert (set(answer), answer["pagination"]["count"]) == ({"items", "pagination"}, 40)


async def test_the_client_chooses_fields_of_pages() -> None:
    answer = await get("/api/chosen?fields=author.name&fields=id&limit=1&sort=title&sort=-id")
    assert answer.json()["data"] == [{"id": 36, "author": {"name": "n0"}}]
    assert (await get("/api/chosen?fields=email")).status_code == 422


async def test_a_matching_etag_gets_304() -> None:
    first = await get("/api/items?limit=2")
    again = await get("/api/items?limit=2", {"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (again.headers["etag"], again.headers["link"]) == (
        first.headers["etag"],
        first.headers["link"],
    )


async def test_tasks_of_the_background_run_behind_a_page() -> None:
    done: list[str] = []
    other = FastAPI()

    @other.get("/")
    async def page(
        db: DB, q: Annotated[PageParams, Depends(Posts.params)], tasks: BackgroundTasks
    ) -> Page[PostOut]:
        tasks.add_task(done.append, "ran")
        return await Posts.page(db, select(Post), q)

    page.__annotations__["tasks"] = BackgroundTasks
    assert (await get("/", app=other)).status_code == 200
    assert done == ["ran"]


async def test_lists_and_sources_are_answers_too() -> None:
    assert (await get("/api/listed?page=2&limit=1")).json() == {
        "data": [{"id": 2, "name": "b"}],
        "pagination": {"page": 2, "limit": 1, "total": 2},
    }


class Priced(BaseModel):
    id: int
    price: Decimal
    note: str | None = None


PRICED: Final = [{"id": 1, "price": Decimal("1.10"), "note": "secret"}]
Prices = Paginate(Priced, unique=("id",), mode="both", secret=SECRET, etag=True)
PriceFields = Fields(Priced, etag=True)


async def ask(handler: Any, query: str = "", **options: Any) -> httpx.Response:
    """Return the response of an application with this one handler."""
    other = FastAPI()
    headers = options.pop("headers", {})
    other.get("/", **options)(handler)
    return await get(f"/{query}", headers, app=other)


Asked = Annotated[PageParams, Depends(Prices.params)]
AskedFields = Annotated[FieldSet, Depends(PriceFields.params)]


def priced_page(q: Asked) -> Any:
    return Prices.from_items(PRICED, q)


def priced_row(fields: AskedFields) -> Any:
    return PriceFields.from_item(PRICED[0], fields)


class TestWhatAHandlerChanges:
    """Responses are sent as the handler changed them, as without FastAPI."""

    @pytest.mark.parametrize("query", ["", "?cursor="])
    async def test_in_the_rows_of_a_page(self, query: str) -> None:
        def handler(q: Asked) -> Any:
            page: Any = Prices.from_items(PRICED, q)
            for row in page.data:
                row["note"] = "***"
            page.data.append({"id": 2})
            return page

        assert (await ask(handler, query)).json()["data"] == [
            {"id": 1, "price": "1.10", "note": "***"}, {"id": 2},
        ]  # fmt: skip

    async def test_in_a_page(self) -> None:
        def handler(q: Asked) -> Any:
            page: Any = Prices.from_items(PRICED, q)
            page.data = []
            page.count = Count(7)
            page.headers["x-more"] = "1"
            page.status_code = 206
            return page

        answer = await ask(handler)
        assert answer.json() == {
            "data": [], "pagination": {"page": 1, "limit": 20, "total": 7},
        }  # fmt: skip
        assert (answer.status_code, answer.headers["x-more"]) == (206, "1")

    async def test_in_a_row(self) -> None:
        async def handler(fields: AskedFields) -> Any:
            row = PriceFields.from_item(PRICED[0], fields)
            del row["note"]
            row["extra"] = True
            return row

        answer = await ask(handler)
        assert answer.json() == {"id": 1, "price": "1.10", "extra": True}

    async def test_is_what_an_etag_is_of(self) -> None:
        def handler(q: Asked) -> Any:
            page: Any = Prices.from_items([dict(row) for row in PRICED], q)
            page.data[0]["note"] = note
            return page

        tags = []
        for note in ("a", "b", "b"):  # noqa: B007  # the handler reads it
            answer = await ask(handler)
            assert answer.headers["content-length"] == str(len(answer.content))
            tags.append(answer.headers["etag"])
        assert tags[0] != tags[1] == tags[2]
        again = await ask(handler, headers={"if-none-match": tags[1]})
        assert (again.status_code, again.content) == (304, b"")

    async def test_can_be_seen_by_a_route_of_ones_own(self) -> None:
        """A custom APIRoute that logs or changes responses."""
        seen = []

        class Logging(APIRoute):
            def get_route_handler(self) -> Any:
                original = super().get_route_handler()

                async def handle(request: Request) -> Response:
                    response: Response = await original(request)
                    seen.append((bytes(response.body), response.headers["content-type"]))
                    response.body = b"[]"
                    return response

                return handle

        other = FastAPI()
        other.router.route_class = Logging

        other.get("/")(priced_page)
        assert (await get("/", app=other)).content == b"[]"
        assert [kind for _, kind in seen] == ["application/json"]
        assert seen[0][0].startswith(b'{"data":[{"id":1')


class TestWhatDependenciesSet:
    @staticmethod
    def told(response: Response) -> None:
        response.set_cookie("session", "new")
        response.headers["Cache-Control"] = "private"

    @pytest.mark.parametrize("kind", ["page", "cursor", "row"])
    async def test_headers_and_cookies_are_sent(self, kind: str) -> None:
        answer = await ask(
            priced_row if kind == "row" else priced_page,
            "?cursor=" if kind == "cursor" else "",
            dependencies=[Depends(self.told)],
            status_code=203,
        )
        assert (answer.status_code, answer.headers["cache-control"]) == (203, "private")
        assert answer.cookies["session"] == "new"
        assert answer.headers["content-type"] == "application/json"

    async def test_headers_are_sent_with_304_too(self) -> None:
        tag = (await ask(priced_page)).headers["etag"]
        again = await ask(
            priced_page, dependencies=[Depends(self.told)], headers={"if-none-match": tag}
        )
        assert (again.status_code, again.cookies["session"]) == (304, "new")

    async def test_a_status_and_an_etag_win(self) -> None:
        def told(response: Response) -> None:
            response.status_code = 202
            response.headers["ETag"] = '"mine"'

        answer = await ask(priced_page, dependencies=[Depends(told)], status_code=203)
        assert (answer.status_code, answer.headers["etag"]) == (202, '"mine"')

    async def test_of_another_request_is_not_sent(self) -> None:
        """Headers are kept with the request, because tests and servers may share a task."""

        def handler(request: Request) -> Any:
            return Prices.from_items(PRICED, Prices.parse(request.query_params))

        assert "session" in (await ask(priced_page, dependencies=[Depends(self.told)])).cookies
        assert "session" not in (await ask(handler)).cookies


class Both(BaseModel):
    page: Page[Priced]
    total: int


class TestInsideOfAnotherAnswer:
    expected: Final = {
        "data": [{"id": 1, "price": "1.10", "note": "secret"}],
        "pagination": {"page": 1, "limit": 20, "total": 1},
    }

    @pytest.mark.parametrize("annotation", [None, Any, dict[str, Any], Both])
    async def test_a_page_is_what_it_is_alone(self, annotation: Any) -> None:
        def handler(q: Asked):  # type: ignore[no-untyped-def]
            return {"page": Prices.from_items(PRICED, q), "total": 1}

        if annotation is not None:
            handler.__annotations__["return"] = annotation
        answer = await ask(handler)
        assert answer.json() == {"page": self.expected, "total": 1}

    async def test_a_page_has_its_own_envelope(self) -> None:
        items = Paginate(Priced, envelope=Envelope(data="items"))

        def handler(q: Asked) -> Any:
            return [Listed.from_items([], q), items.from_items(PRICED, q)]

        one, other = (await ask(handler, response_model=None)).json()
        assert (one["data"], other["items"][0]["price"]) == ([], "1.10")


def test_openapi_describes_a_computed_field() -> None:
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


def test_the_how_to_tells_what_browsers_need() -> None:
    docs = Path(__file__).parents[2] / "docs" / "howto"
    assert "Access-Control-Expose-Headers: Link, ETag" in (docs / "pages.md").read_text()
    assert "2⁵³" in (docs / "fields.md").read_text()
