"""No spelling of a path with a root path reaches a handler without its limit."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from hasten.ratelimit import Limit, RateLimitMiddleware
from hasten.ratelimit._http.limit import LimitKey
from tests.http.client import App, Client, Receive, Response, Scope, Send
from tests.http.hosts import django_app, send_response, untyped

Install = Callable[[Any], Any]

LOGIN: Final = ("/login", "/login/")  # Litestar passes paths under mounts with a trailing slash


def starlette(install: Install) -> App:
    app = Starlette(
        routes=[Route(path, lambda request: PlainTextResponse("ran")) for path in LOGIN]
    )
    app.add_middleware(install)
    return app


def fastapi(install: Install, **options: Any) -> Any:
    from fastapi import FastAPI

    class Application(FastAPI):
        """Applications may be of a class of their own."""

    app = Application(openapi_url=None, **options)
    for path in LOGIN:
        app.get(path)(ran)
    app.add_middleware(install)
    return app


async def ran() -> str:
    return "ran"


def nothing(app: Any) -> Any:
    return app


def own_root(install: Install = nothing) -> Any:
    """FastAPI that removes /v1 by itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the option is deprecated
        return fastapi(install, root_path="/v1")


def litestar(install: Install = nothing, *, mounted: Any = None) -> Any:
    """Return an application with the middleware as documented. mounted is at /in and /deep/in."""
    import litestar
    from litestar.middleware import DefineMiddleware

    handlers: list[Any] = []
    if mounted is None:
        handlers.append(litestar.get("/login")(ran))
    else:

        async def handler(scope: Any, receive: Any, send: Any) -> None:
            await mounted(scope, receive, send)

        handler.__annotations__ = dict.fromkeys(("scope", "receive", "send"), Any)
        handler.__annotations__["return"] = None
        paths = ["/in", "/deep/in"]
        handlers.append(litestar.asgi(paths, is_mount=True, copy_scope=True)(handler))
    middleware: Any = [] if install is nothing else [DefineMiddleware(install)]
    return litestar.Litestar(
        handlers, middleware=middleware, openapi_config=None, logging_config=None
    )


def quart(install: Install) -> Any:
    import quart

    app: Any = quart.Quart(__name__)
    for path in LOGIN:
        app.add_url_rule(path, view_func=ran)
    app.asgi_app = install(app.asgi_app)
    return app


def flask() -> Any:
    app = untyped("flask").Flask(__name__)
    for path in LOGIN:
        app.add_url_rule(path, path, view_func=lambda: "ran")
    return app


def wsgi(app: Any) -> Any:
    return untyped("asgiref.wsgi").WsgiToAsgi(app)


def django() -> Any:
    http = untyped("django.http")

    async def view(request: Any) -> Any:
        return http.HttpResponse(b"ran" if request.path_info in LOGIN else b"other")

    app = django_app()

    async def with_view(scope: Scope, receive: Receive, send: Send) -> None:
        scope["tests.view"] = view
        await app(scope, receive, send)

    return with_view


def hidden(app: App) -> App:
    """Return a function around an application that hides it."""
    apps = [app]

    async def function(scope: Scope, receive: Receive, send: Send) -> None:
        await apps[0](scope, receive, send)

    return function


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    """An application without root paths."""
    body = b"ran" if scope["path"] == "/v1/login" else b"other"
    await send_response(send, 200, [], body)


APPS: Final[dict[str, Callable[[Install], App]]] = {
    "starlette": starlette,
    "starlette, wrapped": lambda install: install(starlette(nothing)),
    "fastapi": fastapi,
    "fastapi with a root path": own_root,
    "fastapi with a root path, wrapped": lambda install: install(own_root()),
    "fastapi with a root path, in a function": lambda install: install(in_function(own_root())),
    "litestar": litestar,
    "litestar, wrapped": lambda install: install(litestar()),
    "quart": quart,
    "quart, wrapped": lambda install: install(quart(nothing)),
    "django": lambda install: install(django()),
    "flask by asgiref": lambda install: install(wsgi(flask())),
    "litestar, hidden": lambda install: install(hidden(litestar())),
    "quart, hidden": lambda install: install(hidden(quart(nothing))),
    "no framework": lambda install: install(raw),
}


def in_function(app: App) -> App:
    async def function(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return function


# What a server makes of a request and its own root path: uvicorn puts it before the path, Hypercorn
# and granian tell it beside the path as it was sent.
ROOTS: Final = ("", "/v1", "/v1/", "v1")
PARTS: Final = ("/v1", "/x/v1", "/v1/v1", "/v1/x/v1", "/V1", "//v1", "/v1/", "/v1x", "v1", "")
ENDS: Final = ("/login", "login", "//login", "/login/")
PATHS: Final = tuple(map("".join, itertools.product(PARTS, ENDS)))


async def ask(app: App, path: str, root_path: str = "") -> Response:
    exchange = Client(app).open(headers=[], path=path, scheme="http")
    exchange.scope["root_path"] = root_path
    async with exchange:
        return await exchange.response()


def limited(
    app: App, path: str | None = "/login", rate: str = "1000000/h", key: LimitKey = "ip"
) -> App:
    return RateLimitMiddleware(app, limits=[Limit(rate, path=path, key=key)])


@pytest.mark.parametrize("name", APPS)
async def test_no_spelling_with_a_root_path_is_unlimited(name: str) -> None:
    path = "/v1/login" if name == "no framework" else "/login"
    found = APPS[name](lambda app: limited(app, path))
    await assert_limited(found, ((path, root) for path in PATHS for root in ROOTS))


async def assert_limited(app: App, requests: Iterator[tuple[str, str]]) -> None:
    """Every request that reaches the handler is limited."""
    reached = 0
    for path, root_path in requests:
        answer = await ask(app, path, root_path)
        if answer.body.strip(b'"') == b"ran":
            reached += 1
            assert answer.get("ratelimit"), (path, root_path)
    assert reached


async def test_force_script_name_does_not_bypass_a_limit() -> None:
    with untyped("django.test").override_settings(FORCE_SCRIPT_NAME="/v1"):
        await assert_limited(limited(django()), ((path, root) for path in PATHS for root in ROOTS))


MOUNTED: Final[dict[str, Callable[[], App]]] = {
    "starlette": lambda: starlette(nothing),
    "fastapi with a root path": own_root,
    "litestar": litestar,
    "quart": lambda: quart(nothing),
    "django": django,
    "flask": lambda: wsgi(flask()),
}


@pytest.mark.parametrize("way", ["added", "wrapped"])
@pytest.mark.parametrize("name", MOUNTED)
@pytest.mark.parametrize("path", ["/in", "/in/login"])
async def test_what_litestar_mounts_is_limited(way: str, name: str, path: str) -> None:
    def install(app: App) -> App:
        return limited(app, path)

    if way == "added":
        app = litestar(install, mounted=MOUNTED[name]())
    else:
        app = install(litestar(mounted=MOUNTED[name]()))
    mounts = ("/in/login", "/inlogin", "/in//login", "//in/login", "/in/v1/login", "/in/login/")
    paths = [*mounts, *(f"/v1{path}" for path in mounts), *(f"/x/v1{path}" for path in mounts)]
    await assert_limited(app, ((path, root) for path in paths for root in ("", "/v1")))


@pytest.mark.parametrize("path", ["/deep/in/login", "/login"])
async def test_both_paths_limit_a_mount(path: str, caplog: pytest.LogCaptureFixture) -> None:
    app = litestar(lambda app: limited(app, path, "1/h"), mounted=starlette(nothing))
    assert [(await ask(app, "/deep/in/login")).status for _ in range(2)] == [200, 429]
    assert ("MOUNT_PATH" in caplog.text) is (path == "/login")


async def test_two_mounts_are_told_apart() -> None:
    """Litestar passes the same path to both."""
    import litestar as framework
    from litestar.middleware import DefineMiddleware

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("ran")(scope, receive, send)

    handler.__annotations__ = dict.fromkeys(("scope", "receive", "send"), Any) | {"return": None}
    mounts = [
        framework.asgi(path, is_mount=True, copy_scope=True)(handler) for path in ("/a", "/b")
    ]
    limits = [Limit("1/h", path="/a")]
    kind: Any = RateLimitMiddleware
    middleware = DefineMiddleware(kind, limits=limits)
    app: Any = framework.Litestar(
        mounts, middleware=[middleware], openapi_config=None, logging_config=None
    )
    assert [(await ask(app, path)).status for path in ("/a/x", "/b/x", "/a/x", "/b/x")] == [
        200, 200, 429, 200,
    ]  # fmt: skip


async def test_a_mounted_fastapi_with_a_root_path_is_limited_from_outside() -> None:
    app = Starlette(routes=[Mount("/", own_root())])
    app.add_middleware(limited)
    await assert_limited(app, ((path, root) for path in PATHS for root in ROOTS))


@pytest.mark.parametrize("name", ["starlette", "litestar", "quart", "django"])
async def test_limits_match_application_paths(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """If the framework is known, the root path is removed before paths are compared."""
    found = APPS[name](lambda app: limited(app, "/v1"))
    assert (await ask(found, "/v1/login", "/v1")).get("ratelimit") is None
    assert caplog.text == ""


async def test_unknown_applications_are_matched_both_ways(caplog: pytest.LogCaptureFixture) -> None:
    for path in ("/v1/login", "/login"):
        caplog.clear()
        app = limited(raw, path)
        for _ in range(2):
            assert (await ask(app, "/v1/login", "/v1")).get("ratelimit")
        assert caplog.text.count("[ROOT_PATH]") == 1
        assert "'/v1/login'" in caplog.text
    caplog.clear()
    await ask(limited(raw, None), "/v1/login", "/v1")
    assert caplog.text == ""  # it makes no difference


@pytest.mark.parametrize("name", ["litestar, wrapped", "litestar, hidden", "flask by asgiref"])
async def test_spellings_share_the_count_of_their_route(name: str) -> None:
    found = APPS[name](lambda app: limited(app, None, "2/h", key="route"))
    paths = ["/v1/login", "/v1//login", "/v1/login"]
    if name.startswith("litestar"):
        paths[1] = "/x/v1/login"
    assert [(await ask(found, path, "/v1")).status for path in paths] == [200, 200, 429]
    assert (await ask(found, "/v1/other", "/v1")).status == 404
