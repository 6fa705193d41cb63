"""Limits of routes in FastAPI, and their description in OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel

from hasten import EncodedResponse
from hasten.errors import InvalidOption, LimitExceeded, MissingMiddleware
from hasten.fastapi import RateLimited, document_rate_limits
from hasten.ratelimit import Limit, Limiter, RateLimitMiddleware, exempt, limit


def make() -> FastAPI:
    app = FastAPI()
    router = APIRouter(prefix="/books", dependencies=[RateLimited("2/m")])

    @router.get("/{id}")
    async def book(id: int) -> int:
        return id

    @router.get("/")
    def books() -> list[int]:
        return []

    app.include_router(router)

    @app.get("/search", dependencies=[RateLimited("5/m", cost=2, message="slow down")])
    async def search(q: str = "") -> str:
        return q

    @app.get("/shared", dependencies=[RateLimited("1/m", name="one")])
    @app.get("/shared-too", dependencies=[RateLimited("1/m", name="one")])
    async def shared() -> None: ...

    @app.get("/decorated")
    @limit("1/m")
    async def decorated() -> None: ...

    @app.get("/api/covered")
    @app.post("/api/covered")
    async def covered() -> None: ...

    @app.get("/free")
    async def free() -> None: ...

    app.add_middleware(
        RateLimitMiddleware,
        limits=[
            Limit("100/15m", path="/api/"),
            Limit("5/h", path="/api/covered", methods=["POST"], message={"error": "wait"}),
        ],
    )
    document_rate_limits(app)
    return app


@pytest.fixture
def app() -> FastAPI:
    return make()


async def get(app: FastAPI, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path)


async def test_a_route_has_a_count_whatever_its_parameters(app: FastAPI) -> None:
    answers = [await get(app, f"/books/{number}") for number in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["retry-after"] == "60"
    assert answers[2].json()["violated-policies"] == ["2-in-1min"]
    assert (await get(app, "/books/")).status_code == 200


async def test_routers_that_are_included_twice_have_two_counts() -> None:
    app = FastAPI()
    router = APIRouter(dependencies=[RateLimited("1/m")])

    @router.get("/{id}")
    async def book(id: int) -> int:
        return id

    outer = APIRouter(prefix="/outer")
    outer.include_router(router, prefix="/a")
    for each in (router, outer):
        app.include_router(each, prefix="/b")
    mounted = FastAPI()
    mounted.include_router(router)
    app.mount("/mounted", mounted)
    app.add_middleware(RateLimitMiddleware)
    for prefix in ("/b", "/b/outer/a", "/mounted"):
        statuses = [(await get(app, f"{prefix}/{number}")).status_code for number in (1, 2)]
        assert statuses == [200, 429], prefix


async def test_a_route_with_several_methods_has_one_count() -> None:
    app = FastAPI()
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]

    @app.api_route("/all", methods=methods, dependencies=[RateLimited("3/m")])
    async def everything() -> None: ...

    app.add_middleware(RateLimitMiddleware)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        statuses = [(await client.request(method, "/all")).status_code for method in methods]
    assert statuses == [200, 200, 200, 429, 429]


IS_JSON = {"content-type": "application/json"}


class Item(BaseModel):
    name: str


async def test_a_body_that_cannot_be_read_is_counted_by_the_limit_of_its_route() -> None:
    app = FastAPI()
    router = APIRouter(prefix="/api")

    @router.post("/dependency", dependencies=[RateLimited("3/m")])
    async def by_dependency(item: Item) -> None: ...

    @router.post("/parameter")
    async def by_parameter(item: Item, _: Annotated[None, RateLimited("3/m")]) -> None: ...

    @router.post("/decorated")
    @limit("3/m")
    async def by_decorator(item: Item) -> None: ...

    app.include_router(router)
    outer = FastAPI()
    outer.add_middleware(RateLimitMiddleware, limits=[Limit("100/m", name="all")])
    outer.mount("/mounted", app)
    app.add_middleware(RateLimitMiddleware, namespace="inner")
    bodies = [b"{", b'{"name": 1}', b'{"name": "ada"}', b"{", b'{"name": "ada"}']
    transport = httpx.ASGITransport(app=outer)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path in ("/dependency", "/parameter", "/decorated"):
            statuses = [
                (
                    await client.post(f"/mounted/api{path}", content=body, headers=IS_JSON)
                ).status_code
                for body in bodies
            ]
            assert statuses == [422, 422, 200, 429, 429], path


async def test_costs_and_messages(app: FastAPI) -> None:
    answers = [await get(app, "/search?q=x") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["ratelimit"] == '"5-in-1min";r=3;t=60'
    assert answers[2].text == "slow down"


async def test_a_name_is_one_count(app: FastAPI) -> None:
    assert (await get(app, "/shared")).status_code == 200
    assert (await get(app, "/shared-too")).status_code == 429


async def test_without_the_middleware_it_says_so() -> None:
    app = FastAPI()

    @app.get("/", dependencies=[RateLimited("1/m")])
    async def root() -> None: ...

    with pytest.raises(MissingMiddleware, match="needs RateLimitMiddleware"):
        await get(app, "/")


@pytest.mark.parametrize("option", ["path", "methods", "per"])
def test_an_option_that_the_route_determines_is_refused(option: str) -> None:
    with pytest.raises(InvalidOption, match=f"^{option}=.*where the route determines it"):
        RateLimited("1/m", **{option: ["/"]})  # type: ignore[arg-type]


def test_openapi_describes_the_refusals_of_every_limited_route(app: FastAPI) -> None:
    paths: dict[str, Any] = app.openapi()["paths"]
    refusal = paths["/api/covered"]["get"]["responses"]["429"]
    assert refusal["description"] == "Too many requests: 100-in-15min."
    legacy = {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}
    assert set(refusal["headers"]) == {"Retry-After", "RateLimit", "RateLimit-Policy"} | legacy
    assert set(refusal["content"]) == {"application/problem+json"}
    both = paths["/api/covered"]["post"]["responses"]["429"]
    assert both["description"] == "Too many requests: 100-in-15min; 5-in-1hr."
    assert set(both["content"]) == {"application/problem+json", "application/json"}
    assert set(paths["/search"]["get"]["responses"]["429"]["content"]) == {"text/plain"}
    for path in ("/books/{id}", "/books/", "/decorated", "/shared"):
        assert "429" in paths[path]["get"]["responses"], path
    assert "429" not in paths["/free"]["get"]["responses"]
    assert app.openapi() is app.openapi()


def documented(app: FastAPI, path: str, method: str = "get") -> dict[str, Any]:
    """Return the refusals of a route in OpenAPI; {} if there are none."""
    document_rate_limits(app)
    found: dict[str, Any] = app.openapi()["paths"][path][method]["responses"].get("429", {})
    return found


@pytest.mark.parametrize("headers", [None, ("standard",), ("draft-7", "legacy"), ("legacy",), ()])
async def test_openapi_has_the_headers_that_a_refusal_has(headers: Any) -> None:
    app = FastAPI()

    @app.get("/a")
    async def a() -> None: ...

    options = {} if headers is None else {"headers": headers}
    app.add_middleware(RateLimitMiddleware, limits=[Limit("1/m")], **options)
    names = {name.lower() for name in documented(app, "/a")["headers"]}
    refused = [await get(app, "/a") for _ in range(2)][1]
    told = {name for name in refused.headers if "ratelimit" in name or name == "retry-after"}
    assert refused.status_code == 429
    assert names == told


def test_openapi_has_no_headers_of_a_limit_that_tells_of_none() -> None:
    app = FastAPI()

    @app.get("/a")
    async def a() -> None: ...

    app.add_middleware(RateLimitMiddleware, limits=[Limit("1/m", headers=False)])
    assert list(documented(app, "/a")["headers"]) == ["Retry-After"]


def test_openapi_has_nothing_of_what_is_exempt() -> None:
    app = FastAPI()
    router = APIRouter(dependencies=[RateLimited("2/m")])

    @router.get("/free")
    @exempt
    async def free() -> None: ...

    @router.get("/own")
    @exempt
    @limit("3/m")
    async def own() -> None: ...

    @app.get("/health/live")
    async def live() -> None: ...

    app.include_router(router)
    app.add_middleware(RateLimitMiddleware, limits=[Limit("1/m")], exclude_paths="/health")
    assert documented(app, "/free") == documented(app, "/health/live") == {}
    assert documented(app, "/own")["description"] == "Too many requests: 3-in-1min."


async def test_a_limiter_that_raises_can_be_answered_as_the_middleware_does() -> None:
    app = FastAPI()
    limiter = Limiter("1/m", name="reports")

    @app.exception_handler(LimitExceeded)
    async def refused(request: Any, error: LimitExceeded) -> Any:
        return EncodedResponse.for_error(error)

    @app.get("/report")
    async def report() -> str:
        await limiter.check("everybody")
        return "ok"

    answers = [await get(app, "/report") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].json()["violated-policies"] == ["reports"]
    assert answers[1].headers["retry-after"] == "60"
