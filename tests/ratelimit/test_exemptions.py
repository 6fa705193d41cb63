"""Exempt routes and paths, which must not be ways to bypass limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.websockets import WebSocket

from hasten.errors import InvalidOption
from hasten.ratelimit import Limit, RateLimitMiddleware, exempt, limit
from tests.http.client import App, Client
from tests.http.hosts import django_app, untyped
from tests.ratelimit.sites import Served


async def statuses(
    app: App, path: str, count: int = 2, *, method: str = "GET", root_path: str = ""
) -> list[int]:
    found = []
    for _ in range(count):
        exchange = Client(app).open(headers=[], path=path, method=method, scheme="http")
        exchange.scope["root_path"] = root_path
        async with exchange:
            found.append((await exchange.response()).status)
    return found


COUNTED = [200, 429]
FREE = [200, 200]

ONE = [Limit("1/h", name="one", key="route")]
"""One request for each path."""


def ok(request: Any = None) -> Response:
    return PlainTextResponse("ok")


@exempt
def free(request: Any = None) -> Response:
    return PlainTextResponse("ok")


@exempt
@limit("1/h")
def with_its_own(request: Request) -> Response:
    return PlainTextResponse("ok")


@exempt
class Endpoint:
    """Like starlette.endpoints.HTTPEndpoint: a class is a handler."""


def starlette(routes: list[BaseRoute]) -> App:
    app = Starlette(routes=routes)
    app.add_middleware(RateLimitMiddleware, limits=ONE)
    return app


class TestPaths:
    @pytest.mark.parametrize("given", ["/health", ["/health"], ("/health/", "/metrics")])
    async def test_excluded_paths_include_all_paths_below(self, given: Any) -> None:
        site = Served("asgi", limits=[Limit("1/h")], exclude_paths=given)
        assert await site.statuses(3, "/health") == [200] * 3
        assert await site.statuses(3, "/health/live") == [200] * 3
        assert await site.statuses(2, "/healthy") == [200, 429]

    @pytest.mark.parametrize(
        "path", ["/health/../api/x", "/health/./x", "/api/health", "/HEALTH", "/healthx"]
    )
    async def test_excluded_paths_cannot_bypass_a_limit(self, path: str) -> None:
        site = Served("asgi", limits=[Limit("1/h")], exclude_paths="/health")
        assert await site.statuses(2, path) == [200, 429]

    async def test_every_path_that_a_router_may_see_has_to_be_excluded(self) -> None:
        """Behind an unknown application, with and without the root path."""
        site = Served("asgi", limits=[Limit("1/h")], exclude_paths=["/api/health"])
        assert await site.statuses(2, "/api/health", root_path="/api") == [200, 429]

    async def test_limits_of_routes_apply_to_excluded_paths(self) -> None:
        site = Served("asgi", limits=[Limit("1/h")], exclude_paths=["/limited"])
        assert await site.statuses(3, "/limited") == [200, 200, 429]

    @pytest.mark.parametrize("wrong", ["health", [], [""], ["/a", 5], "/a/*", 5, None])
    def test_invalid_excluded_paths_are_refused(self, wrong: Any) -> None:
        with pytest.raises(InvalidOption, match=r"^exclude_paths="):
            Served("asgi", exclude_paths=wrong)


class TestRoutes:
    async def test_of_starlette(self) -> None:
        app = starlette(
            [
                Route("/free/{name}", free),
                Route("/own", with_its_own),
                Route("/ok", ok),
                Mount("/sub", routes=[Route("/free", free), Route("/ok", ok)]),
                Mount("/app", Starlette(routes=[Route("/free", free), Route("/ok", ok)])),
            ]
        )
        for path in ("/free/ada", "/sub/free", "/app/free"):
            assert await statuses(app, path) == FREE
        for path in ("/own", "/ok", "/sub/ok", "/app/ok"):
            assert await statuses(app, path) == COUNTED, path
        for path in ("/free/ada/", "/free", "/none", "/sub/none"):
            assert await statuses(app, path) in ([404, 429], [307, 429]), path
        assert await statuses(app, "/free/bob", method="DELETE") == [405, 429]

    async def test_under_a_root_path(self) -> None:
        app = starlette([Route("/free", free), Route("/ok", ok)])
        assert await statuses(app, "/api/free", root_path="/api") == FREE
        assert await statuses(app, "/api/ok", root_path="/api") == COUNTED

    async def test_the_first_route_that_matches_decides(self) -> None:
        app = starlette([Route("/{name}", ok), Route("/free", free)])
        assert await statuses(app, "/free") == COUNTED

    async def test_a_route_that_does_not_match_by_path_alone_is_counted(self) -> None:
        """Clients choose the headers."""

        class ByHeader(Route):
            def matches(self, scope: Any) -> Any:
                return (Match.NONE, {}) if scope["headers"] else super().matches(scope)

        for routes in (
            [Host("a.example", Router([Route("/free", free)])), Route("/free", ok)],
            [ByHeader("/free", free), Route("/free", ok)],
            [ByHeader("/none", ok), Route("/free", free)],
        ):
            assert await statuses(starlette(list(routes)), "/free") == COUNTED

    async def test_around_other_middlewares(self) -> None:
        inner: Any = Starlette(routes=[Route("/free", free), Route("/ok", ok)])

        async def between(scope: Any, receive: Any, send: Any) -> None:
            await inner(scope, receive, send)

        app = RateLimitMiddleware(between, limits=ONE)
        assert await statuses(app, "/free") == FREE
        assert await statuses(app, "/ok") == COUNTED

    async def test_of_websockets(self) -> None:
        async def counted(socket: WebSocket) -> None:
            await socket.accept()
            await socket.close()

        @exempt
        async def not_counted(socket: WebSocket) -> None:
            await counted(socket)

        app = starlette([WebSocketRoute("/free", not_counted), WebSocketRoute("/ok", counted)])
        for path, count in (("/free", 2), ("/ok", 1)):
            sent: list[str] = []

            async def receive() -> Any:
                return {"type": "websocket.connect"}

            async def send(message: Any, sent: list[str] = sent) -> None:
                sent.append(message["type"])

            for _ in range(2):
                scope = {
                    "type": "websocket", "path": path, "root_path": "", "headers": [],
                    "query_string": b"", "client": ("203.0.113.7", 1), "subprotocols": [],
                }  # fmt: skip
                await app(scope, receive, send)
            assert sent.count("websocket.accept") == count

    async def test_of_fastapi(self) -> None:
        from fastapi import APIRouter, Depends, FastAPI

        from hasten.fastapi import RateLimited

        router = APIRouter(prefix="/items", dependencies=[RateLimited("1/h", key="route")])

        @router.get("/free/{number}")
        @exempt
        async def free_item(number: int) -> str:
            return "ok"

        @router.get("/ok")
        async def item() -> str:
            return "ok"

        app = FastAPI(dependencies=[Depends(lambda: None)])
        app.include_router(router)
        app.include_router(router, prefix="/v2")
        app.add_middleware(RateLimitMiddleware, limits=ONE)
        for path in ("/items/free/1", "/v2/items/free/2"):
            assert await statuses(app, path) == FREE, path
        for path in ("/items/ok", "/v2/items/ok"):
            assert await statuses(app, path) == COUNTED, path
        assert await statuses(app, "/items/free/x") == [422, 422]

    async def test_of_litestar(self) -> None:
        from litestar import Litestar, get
        from litestar.middleware import DefineMiddleware

        @get("/free", sync_to_thread=False)
        @exempt
        def free_one() -> str:
            return "ok"

        @get("/ok", sync_to_thread=False)
        def counted() -> str:
            return "ok"

        middleware: Any = RateLimitMiddleware
        app: Any = Litestar(
            [free_one, counted],
            middleware=[DefineMiddleware(middleware, limits=ONE)],
            logging_config=None,
        )
        assert await statuses(app, "/free") == FREE
        assert await statuses(app, "/ok") == COUNTED

    async def test_of_quart(self) -> None:
        import quart

        app = quart.Quart(__name__)

        @app.get("/free/<name>")
        @exempt
        async def free_one(name: str) -> str:
            return "ok"

        @app.get("/ok")
        async def counted() -> str:
            return "ok"

        serving: Any = app
        serving.asgi_app = RateLimitMiddleware(serving.asgi_app, limits=ONE)
        assert await statuses(serving, "/free/ada") == FREE
        assert await statuses(serving, "/api/free/ada", root_path="/api") == FREE
        assert await statuses(serving, "/ok") == COUNTED
        assert await statuses(serving, "/free/ada", method="POST") == [405, 429]

    async def test_of_django(self, monkeypatch: pytest.MonkeyPatch) -> None:
        served = django_app()
        urls, http = untyped("django.urls"), untyped("django.http")
        base: Any = untyped("django.views").View

        def view(request: Any) -> Any:
            return http.HttpResponse("ok")

        @exempt
        def free_view(request: Any) -> Any:
            return http.HttpResponse("ok")

        @exempt
        class Free(base):  # type: ignore[misc]
            def get(self, request: Any) -> Any:
                return http.HttpResponse("ok")

        patterns = [urls.path("free", free_view)]
        patterns += [urls.path("class", Free.as_view()), urls.path("ok", view)]
        monkeypatch.setattr(urls, "resolve", partial_resolve(urls, patterns))
        app = RateLimitMiddleware(served, limits=ONE)
        planner: Any = app._planner
        for path, is_free in (("/free", True), ("/class", True), ("/ok", False), ("/no", False)):
            scope = {
                "type": "http", "path": path, "root_path": "", "method": "GET", "headers": [],
            }  # fmt: skip
            assert (planner.find_http_plan(scope) is None) is is_free, path


def partial_resolve(urls: Any, patterns: list[Any]) -> Callable[[str], Any]:
    """django.urls.resolve for these patterns, whatever settings.ROOT_URLCONF says."""
    resolver = urls.URLResolver(urls.resolvers.RegexPattern(r"^/"), patterns)
    found: Callable[[str], Any] = resolver.resolve
    return found


def test_exempt_returns_the_handler() -> None:
    """A class is a handler, too; the decorator changes nothing else."""
    assert exempt(ok_again) is ok_again
    assert Endpoint.__name__ == "Endpoint"


def ok_again() -> None: ...


@pytest.mark.parametrize("wrong", ["/health", 5, len])
def test_exempt_refuses_what_cannot_be_marked(wrong: Any) -> None:
    with pytest.raises(InvalidOption, match=r"^handler="):
        exempt(wrong)
