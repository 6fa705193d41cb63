"""Pages and fields in frameworks that hasten knows nothing of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import flask
import httpx
import litestar
import pytest
import quart
from asgiref.wsgi import WsgiToAsgi
from litestar.types import ASGIApp
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from hasten._responses import EncodedResponse
from hasten.errors import InvalidParameter, RowNotFound
from hasten.fields import FieldSelector, Partial
from hasten.pagination import Paginator
from tests.http.hosts import django_app, untyped
from tests.pagination.databases import Item, async_engine


class ItemOut(BaseModel):
    id: int
    grade: int | None
    made: datetime


Items = Paginator(
    Partial[ItemOut],
    model=Item,
    sort=("grade",),
    mode="both",
    secret="a secret of more than 16 bytes",
    etag=True,
    advise=False,
)
Item1 = FieldSelector(ItemOut, model=Item, default=("id",))


async def items(query: Any, request: Any = None) -> EncodedResponse:
    q = Items.parse(query)
    with async_engine("sqlite") as made:
        async with AsyncSession(made) as db:
            found = await Items.page(db, select(Item), q)
    if ("redact", "1") in q.query:
        for row in found.data:
            dict.update(row, grade="***")
    return found.response(request)


async def item(query: Any, id: int) -> EncodedResponse:
    with async_engine("sqlite") as made:
        async with AsyncSession(made) as db:
            row = await Item1.one(db, select(Item).where(Item.id == id), Item1.parse(query))
    if "grade" in row:
        row["grade"] = "***"
    return row.response()


async def refuse(_: object, error: Any) -> EncodedResponse:
    return EncodedResponse.for_error(error)


def starlette_app() -> Any:
    async def list_items(request: Request) -> Any:
        return await items(request)

    async def one_item(request: Request) -> Any:
        return await item(request.query_params, request.path_params["id"])

    app = Starlette(routes=[Route("/items", list_items), Route("/items/{id:int}", one_item)])
    app.add_exception_handler(InvalidParameter, refuse)  # type: ignore[arg-type]
    app.add_exception_handler(RowNotFound, refuse)  # type: ignore[arg-type]
    return app


def litestar_app() -> Any:
    async def list_items(request: litestar.Request[Any, Any, Any]) -> Any:
        return await items(request.query_params, request)

    async def one_item(request: litestar.Request[Any, Any, Any]) -> Any:
        return await item(request.query_params, request.path_params["id"])

    def refused(_: object, error: Any) -> Any:
        answer = EncodedResponse.for_error(error)
        return litestar.Response(
            answer.body, status_code=answer.status, headers=answer.headers, media_type="x/y"
        )

    list_items.__annotations__ = {"request": litestar.Request, "return": ASGIApp}
    one_item.__annotations__ = {"request": litestar.Request, "return": ASGIApp}
    return litestar.Litestar(
        [
            litestar.route("/items", http_method=["GET", "HEAD"], status_code=200)(list_items),
            litestar.get("/items/{id:int}")(one_item),
        ],
        exception_handlers={InvalidParameter: refused, RowNotFound: refused},
        openapi_config=None,
        logging_config=None,
    )


def quart_app() -> Any:
    app = quart.Quart(__name__)

    @app.get("/items")
    async def list_items() -> Any:
        return await items(quart.request.args, quart.request)

    @app.get("/items/<int:id>")
    async def one_item(id: int) -> Any:
        return await item(quart.request.query_string.decode(), id)

    @app.errorhandler(InvalidParameter)
    @app.errorhandler(RowNotFound)
    async def refused(error: Any) -> Any:
        return EncodedResponse.for_error(error)

    return app


def flask_app() -> Any:
    app = flask.Flask(__name__)

    @app.get("/items")
    async def list_items() -> Any:
        return await items(flask.request.args, flask.request)

    @app.get("/items/<int:id>")
    async def one_item(id: int) -> Any:
        return await item(flask.request.query_string.decode(), id)

    @app.errorhandler(InvalidParameter)
    @app.errorhandler(RowNotFound)
    def refused(error: Any) -> Any:
        return EncodedResponse.for_error(error)

    wrapped: Any = WsgiToAsgi(app)  # type: ignore[no-untyped-call]
    return wrapped


def django() -> Any:
    http = untyped("django.http")

    async def view(request: Any) -> Any:
        id = request.path.removeprefix("/items").strip("/")
        try:
            answer = await (item(request.GET, int(id)) if id else items(request.GET, request))
        except (InvalidParameter, RowNotFound) as error:
            answer = EncodedResponse.for_error(error)
        return http.HttpResponse(answer.body, status=answer.status, headers=answer.headers)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["tests.view"] = view
        await django_app()(scope, receive, send)

    return app


APPS: Final[dict[str, Callable[[], Any]]] = {
    "starlette": starlette_app,
    "litestar": litestar_app,
    "quart": quart_app,
    "django": django,
}


@pytest.fixture(params=APPS)
def app(request: pytest.FixtureRequest) -> Any:
    return APPS[request.param]()


async def ask(app: Any, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.request(method, path, headers=sent)


async def test_pages(app: Any) -> None:
    answer = await ask(app, "/items?limit=2&fields=id&sort=-grade&q=a%26b")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert [set(row) for row in answer.json()["data"]] == [{"id"}] * 2
    # Litestar changes the order of parameters.
    following = answer.links["next"]["url"]
    assert sorted(following.removeprefix("?").split("&")) == [
        "fields=id", "limit=2", "page=2", "q=a%26b", "sort=-grade",
    ]  # fmt: skip


async def test_head_gets_the_same_headers_without_a_body(app: Any) -> None:
    whole = await ask(app, "/items?limit=2")
    head = await ask(app, "/items?limit=2", "HEAD")
    assert head.content == b""
    assert head.headers["content-length"] == str(len(whole.content))
    for name in ("link", "etag", "content-type"):
        assert head.headers[name] == whole.headers[name]


async def test_a_matching_etag_gets_304(app: Any) -> None:
    whole = await ask(app, "/items?limit=2")
    again = await ask(app, "/items?limit=2", if_none_match=whole.headers["etag"])
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["link"] == whole.headers["link"]
    assert (
        await ask(app, "/items?limit=3", if_none_match=whole.headers["etag"])
    ).status_code == 200


@pytest.mark.parametrize(
    ("query", "status", "parameter"),
    [
        ("page=0", 422, "page"),
        ("page=1&page=2", 422, "page"),
        ("fields=state", 422, "fields"),
        ("cursor=junk", 400, "cursor"),
        ("sort=%00%ff", 422, "sort"),
    ],
)
async def test_a_refusal_is_a_problem(app: Any, query: str, status: int, parameter: str) -> None:
    answer = await ask(app, f"/items?{query}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["parameter"]) == (status, parameter)


async def test_a_missing_row_is_404_and_an_unknown_field_422(app: Any) -> None:
    assert (await ask(app, "/items/7")).json() == {"id": 7}
    assert (await ask(app, "/items/999")).status_code == 404
    assert (await ask(app, "/items/999?fields=state")).status_code == 422


@pytest.mark.parametrize("make", [*APPS.values(), flask_app])
async def test_what_a_handler_changes_is_what_is_sent(make: Callable[[], Any]) -> None:
    app = make()
    answer = await ask(app, "/items?limit=2&redact=1")
    assert [row["grade"] for row in answer.json()["data"]] == ["***"] * 2
    assert (await ask(app, "/items/7?fields=id,grade")).json() == {"id": 7, "grade": "***"}
