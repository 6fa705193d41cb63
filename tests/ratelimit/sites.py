"""One application to test limits, in each framework.

What it answers is up to the request: ``x-status`` is the status, ``x-broken`` raises, ``x-wait``
waits until the test opens the gate, ``x-say`` is said to the current limit. Two routes carry limits
of their own, one of them without ``async``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from hasten.ratelimit import RateLimitMiddleware, current_limit, limit
from tests.http.client import App, Client, Exchange, Headers, Receive, Response, Scope, Send
from tests.http.hosts import Leaky, django_app, send_response, untyped

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "OPTIONS")
PEER: Final = "203.0.113.7"
ROUTE_RATE: Final = "2/m"


Install = Callable[..., Any]


class Broken(RuntimeError):
    """The error of an application that raises."""


@dataclass
class Site:
    """The behaviour of the application in every framework."""

    calls: list[str] = field(default_factory=list)
    """The paths of the requests that reached a handler."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    under_way: int = 0

    async def handle(self, path: str, headers: dict[str, str]) -> tuple[bytes, int]:
        self.calls.append(path)
        if "x-wait" in headers:
            self.under_way += 1
            await self.gate.wait()
            self.under_way -= 1
        if "x-broken" in headers:
            raise Broken
        if "x-say" in headers:
            name, _, word = headers["x-say"].partition(":")
            await say(name, word)
        return b"ok", int(headers.get("x-status", 200))


async def say(name: str, word: str) -> None:
    found = current_limit(name)
    match word.partition("="):
        case ("fail", _, _):
            found.count_request()
        case ("refund", _, _):
            found.refund()
        case ("reset", _, _):
            await found.reset()
        case ("charge", _, cost):
            await found.charge(int(cost))


def asgi(site: Site, middleware: Install) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        names = {name.decode(): value.decode() for name, value in scope["headers"]}

        handler = routes.get(scope["path"])
        if handler is None:
            body, status = await site.handle(scope["path"], names)
        else:
            body, status = await handler(names)
        head = scope["method"] == "HEAD"
        await send_response(send, status, [], b"" if head else body)

    @limit(ROUTE_RATE)
    async def limited(names: dict[str, str]) -> tuple[bytes, int]:
        return await site.handle("/limited", names)

    @limit(ROUTE_RATE)
    def limited_sync(names: dict[str, str]) -> tuple[bytes, int]:
        site.calls.append("/limited-sync")
        return b"ok", 200

    async def in_thread(names: dict[str, str]) -> tuple[bytes, int]:
        return await asyncio.to_thread(limited_sync, names)

    routes: dict[str, Any] = {"/limited": limited, "/limited-sync": in_thread}
    wrapped: App = middleware(app)
    return wrapped


def starlette(site: Site, middleware: Install) -> App:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def anything(request: Request) -> Response:
        return Response(*await site.handle(request.url.path, dict(request.headers)))

    @limit(ROUTE_RATE)
    async def limited(request: Request) -> Response:
        return await anything(request)

    @limit(ROUTE_RATE)
    def limited_sync(request: Request) -> Response:
        site.calls.append(request.url.path)
        return Response(b"ok")

    app = Starlette(
        routes=[
            Route("/limited", limited, methods=list(METHODS)),
            Route("/limited-sync", limited_sync, methods=list(METHODS)),
            Route("/{path:path}", anything, methods=list(METHODS)),
        ]
    )
    app.add_middleware(middleware)
    return app


def fastapi(site: Site, middleware: Install) -> App:
    from fastapi import FastAPI, Request, Response

    async def anything(request: Request) -> Response:
        return Response(*await site.handle(request.url.path, dict(request.headers)))

    async def limited(request: Request) -> Response:
        return await anything(request)

    def limited_sync() -> Response:
        site.calls.append("/limited-sync")
        return Response(b"ok")

    for handler in (anything, limited, limited_sync):
        handler.__annotations__ = {"return": Response}
        if handler is not limited_sync:
            handler.__annotations__["request"] = Request
    app = FastAPI(openapi_url=None)
    app.api_route("/limited", methods=list(METHODS))(limit(ROUTE_RATE)(limited))
    app.api_route("/limited-sync", methods=list(METHODS))(limit(ROUTE_RATE)(limited_sync))
    app.api_route("/{path:path}", methods=list(METHODS))(anything)
    app.add_middleware(middleware)
    return app


def litestar(site: Site, middleware: Install) -> App:
    import litestar
    from litestar.middleware import DefineMiddleware
    from litestar.response.base import ASGIResponse

    async def anything(request: litestar.Request[Any, Any, Any]) -> Any:
        body, status = await site.handle(request.scope["path"], dict(request.headers))
        head = request.method == "HEAD"
        return ASGIResponse(body=b"" if head else body, status_code=status, is_head_response=head)

    async def limited(request: litestar.Request[Any, Any, Any]) -> Any:
        return await anything(request)

    def limited_sync(request: litestar.Request[Any, Any, Any]) -> Any:
        site.calls.append(request.scope["path"])
        return ASGIResponse(body=b"ok", status_code=200)

    of_route, of_sync_route = limit(ROUTE_RATE)(limited), limit(ROUTE_RATE)(limited_sync)
    # From Python 3.14 on a wrapper does not take over annotations that were assigned.
    for handler in (anything, limited, limited_sync, of_route, of_sync_route):
        handler.__annotations__ = {"request": litestar.Request, "return": ASGIResponse}
    methods: Any = [method for method in METHODS if method != "OPTIONS"]

    def route(path: str | list[str], handler: Any, **options: Any) -> Any:
        return litestar.route(path, http_method=methods, status_code=200, **options)(handler)

    app: Any = litestar.Litestar(
        [
            route(["/", "/{path:path}"], anything),
            route("/limited", of_route),
            route("/limited-sync", of_sync_route, sync_to_thread=True),
        ],
        middleware=[DefineMiddleware(middleware)],
        openapi_config=None,
        logging_config=None,
    )
    served: App = app
    return served


def quart(site: Site, middleware: Install) -> App:
    import quart

    app = quart.Quart(__name__)

    async def anything(path: str = "") -> Any:
        return await site.handle(quart.request.path, dict(_lower(quart.request.headers.items())))

    @limit(ROUTE_RATE)
    async def limited() -> Any:
        return await anything()

    @limit(ROUTE_RATE)
    def limited_sync() -> Any:
        site.calls.append("/limited-sync")
        return b"ok", 200

    for rule, handler in (("/limited", limited), ("/limited-sync", limited_sync)):
        app.add_url_rule(rule, rule, handler, methods=METHODS, provide_automatic_options=False)
    for rule in ("/", "/<path:path>"):
        app.add_url_rule(rule, rule, anything, methods=METHODS, provide_automatic_options=False)
    serving: Any = app
    serving.asgi_app = middleware(serving.asgi_app)
    served: App = serving
    return served


def _lower(items: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    return ((name.lower(), value) for name, value in items)


def django(site: Site, middleware: Install) -> App:
    http = untyped("django.http")

    async def anything(request: Any) -> Any:
        body, status = await site.handle(request.path, dict(_lower(request.headers.items())))
        return http.HttpResponse(body, status=status)

    @limit(ROUTE_RATE)
    async def limited(request: Any) -> Any:
        return await anything(request)

    @limit(ROUTE_RATE)
    def limited_sync(request: Any) -> Any:
        site.calls.append(request.path)
        return http.HttpResponse(b"ok")

    async def view(request: Any) -> Any:
        if request.path == "/limited":
            return await limited(request)
        if request.path == "/limited-sync":
            return await untyped("asgiref.sync").sync_to_async(limited_sync)(request)
        return await anything(request)

    app = middleware(django_app())

    async def with_view(scope: Scope, receive: Receive, send: Send) -> None:
        scope["tests.view"] = view
        await app(scope, receive, send)

    return with_view


FRAMEWORKS: Final[dict[str, Callable[[Site, Install], App]]] = {
    "asgi": asgi,
    "starlette": starlette,
    "fastapi": fastapi,
    "litestar": litestar,
    "quart": quart,
    "django": django,
}


class Served:
    """The application under limits, and a client of it."""

    def __init__(self, framework: str, **options: Any) -> None:
        self.site = Site()
        self.middleware: list[RateLimitMiddleware] = []

        def install(app: App) -> App:
            made = RateLimitMiddleware(app, **options)
            self.middleware.append(made)
            return made

        self.app = FRAMEWORKS[framework](self.site, install)
        self._client = Client(self.app)

    def open(
        self,
        path: str = "/api/x",
        method: str = "GET",
        *,
        peer: str | None = PEER,
        root_path: str = "",
        headers: Headers = (),
        **said: str,
    ) -> Exchange:
        """Open a request. Other arguments are headers: status="401" is ``x-status: 401``."""
        lines = [(f"x-{name}".encode(), value.encode()) for name, value in said.items()]
        exchange = self._client.open(
            headers=[*headers, *lines], method=method, path=path, scheme="http"
        )
        exchange.scope["client"] = None if peer is None else (peer, 4711)
        exchange.scope["root_path"] = root_path
        return exchange

    def expect_leaks(self) -> None:
        """Expect clients to disconnect: Django does not close the files of their bodies."""
        self._client = Client(Leaky(self.app))

    async def ask(self, path: str = "/api/x", method: str = "GET", **request: Any) -> Response:
        async with self.open(path, method, **request) as exchange:
            return await exchange.response()

    async def statuses(self, count: int, *args: Any, **request: Any) -> list[int]:
        """Return the statuses of several requests, one after the other."""
        return [(await self.ask(*args, **request)).status for _ in range(count)]

    async def at_once(self, count: int, *args: Any, **request: Any) -> list[int]:
        answers = await asyncio.gather(*(self.ask(*args, **request) for _ in range(count)))
        return [answer.status for answer in answers]

    async def close(self) -> None:
        for each in self.middleware:
            with contextlib.suppress(NotImplementedError):
                await each.aclose()
