"""The frameworks that the middlewares are tested under.

A host makes its framework serve an `Answer`, with the middleware installed as that framework's
users install it. What a framework cannot express is missing from what the host `can` do: the tests
that need it are not generated for that host.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import gc
import importlib
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import Any, Protocol, TypeAlias

from tests.http.bodies import JSON, ORDERS
from tests.http.client import App, Headers, Message, Receive, Scope, Send

Stream: TypeAlias = Callable[[], AsyncIterator[bytes]]
Endpoint: TypeAlias = Callable[..., Any]

METHODS = ["GET", "HEAD", "POST", "PUT"]


class Can(enum.Flag):
    """What a host supports."""

    NOTHING = 0
    RAW = enum.auto()  # send any message: the test has an ASGI application
    UNTYPED = enum.auto()  # answer without a Content-Type
    REPEAT = enum.auto()  # send several lines of one header
    ENDPOINT = enum.auto()  # show the function that handles the request
    LATE_ERRORS = enum.auto()  # pass on errors after the start of the response
    CANCEL = enum.auto()  # end its tasks when it is cancelled
    EARLY_ERRORS = enum.auto()  # answer 500 if a stream raises before its first chunk


@dataclass
class Answer:
    """The response of the application to every request. A stream function is called each time."""

    body: bytes | Stream = ORDERS
    headers: Headers = JSON
    status: int = 200
    decorate: Callable[[Endpoint], Endpoint] = lambda endpoint: endpoint
    calls: int = 0

    @property
    def texts(self) -> list[tuple[str, str]]:
        return [(name.decode(), value.decode("latin-1")) for name, value in self.headers]

    def has(self, name: bytes) -> bool:
        return any(key.lower() == name for key, _ in self.headers)


@dataclass
class Echo:
    """An endpoint that returns the body of the request."""

    seen: list[bytes] = field(default_factory=list)  # the bodies
    headers: list[dict[str, str]] = field(default_factory=list)  # of the requests, in lower case
    scopes: list[Any] = field(default_factory=list)

    def note(self, body: bytes, headers: Sequence[tuple[str, str]], scope: Any) -> bytes:
        self.seen.append(body)
        self.headers.append({name.lower(): value for name, value in headers})
        self.scopes.append(dict(scope))  # the headers at this moment
        return body


MiddlewareFactory: TypeAlias = Callable[..., Any]  # called with app, and options by name


def no_middleware(app: App, **options: Any) -> App:
    return app


@dataclass(frozen=True)
class Installed:
    factory: MiddlewareFactory
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, app: App) -> App:
        wrapped: App = self.factory(app, **self.options)
        return wrapped


class Host(Protocol):
    name: str
    can: Can

    def serve(self, answer: Answer, middleware: Installed) -> App: ...

    def echo(self, echo: Echo, middleware: Installed) -> App: ...


async def read_body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client is gone")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


class Raw:
    """An ASGI application without a framework."""

    name = "asgi"
    can = ~Can.NOTHING & ~Can.EARLY_ERRORS

    def serve(self, answer: Answer, middleware: Installed) -> App:
        async def endpoint() -> None:
            """Stands for the function that a router would find."""

        found = answer.decorate(endpoint)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            answer.calls += 1
            scope["endpoint"] = found
            body = answer.body
            headers = list(answer.headers)
            if isinstance(body, bytes):
                if not answer.has(b"content-length"):
                    headers.append((b"content-length", str(len(body)).encode()))
                await send(start_message(answer.status, headers))
                await send({"type": "http.response.body", "body": body})
                return
            await send(start_message(answer.status, headers))
            async for chunk in body():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        return middleware(app)

    def echo(self, echo: Echo, middleware: Installed) -> App:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            body = await read_body(receive)
            headers = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
            echo.note(body, headers, scope)
            length = str(len(body)).encode()
            await send(start_message(200, [(b"content-length", length)]))
            await send({"type": "http.response.body", "body": body})

        return middleware(app)


def start_message(status: int, headers: Headers) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


async def send_response(send: Send, status: int, headers: Headers, body: bytes = b"") -> None:
    await send(start_message(status, headers))
    await send({"type": "http.response.body", "body": body})


class Starlette:
    name = "starlette"
    can = Can.UNTYPED | Can.REPEAT | Can.ENDPOINT | Can.LATE_ERRORS | Can.EARLY_ERRORS | Can.CANCEL

    def serve(self, answer: Answer, middleware: Installed) -> App:
        async def endpoint(request: Any) -> Any:
            return starlette_response(answer)

        return self._app(answer.decorate(endpoint), middleware)

    def echo(self, echo: Echo, middleware: Installed) -> App:
        from starlette.requests import Request
        from starlette.responses import Response

        async def endpoint(request: Request) -> Response:
            body = await request.body()
            return Response(echo.note(body, request.headers.items(), request.scope))

        return self._app(endpoint, middleware)

    def _app(self, endpoint: Endpoint, middleware: Installed) -> App:
        from starlette.applications import Starlette
        from starlette.routing import Route

        app = Starlette(routes=[Route("/{path:path}", endpoint, methods=METHODS)])
        app.add_middleware(middleware.factory, **middleware.options)
        return app


def starlette_response(answer: Answer) -> Any:
    from starlette.responses import Response, StreamingResponse

    answer.calls += 1
    if isinstance(answer.body, bytes):
        response = Response(answer.body, answer.status)
    else:
        response = StreamingResponse(answer.body(), answer.status)
    own = [] if answer.has(b"content-length") else response.raw_headers
    response.raw_headers = [*answer.headers, *own]
    return response


class FastAPI:
    name = "fastapi"
    can = Starlette.can

    def serve(self, answer: Answer, middleware: Installed) -> App:
        async def endpoint() -> Any:
            return starlette_response(answer)

        return self._app(answer.decorate(endpoint), middleware)

    def echo(self, echo: Echo, middleware: Installed) -> App:
        from fastapi import Body, Request, Response

        async def endpoint(request: Request, body: bytes = Body()) -> Response:
            return Response(echo.note(body, request.headers.items(), request.scope))

        # FastAPI reads the annotations of this module, where these names do not exist.
        endpoint.__annotations__ = {"request": Request, "body": bytes, "return": Response}
        return self._app(endpoint, middleware)

    def _app(self, endpoint: Endpoint, middleware: Installed) -> App:
        import fastapi

        app = fastapi.FastAPI(openapi_url=None)
        app.api_route("/{path:path}", methods=METHODS, response_model=None)(endpoint)
        app.add_middleware(middleware.factory, **middleware.options)
        return app


class Litestar:
    name = "litestar"
    can = Can.REPEAT | Can.ENDPOINT | Can.CANCEL

    def serve(self, answer: Answer, middleware: Installed) -> App:
        from litestar import Request
        from litestar.response.base import ASGIResponse
        from litestar.response.streaming import ASGIStreamingResponse

        async def endpoint(request: Request[Any, Any, Any]) -> Any:
            answer.calls += 1
            is_head = request.method == "HEAD"
            if isinstance(answer.body, bytes):
                headers = answer.texts
                if is_head and not answer.has(b"content-length"):
                    headers.append(("content-length", str(len(answer.body))))
                return ASGIResponse(
                    body=b"" if is_head else answer.body,
                    headers=headers,
                    status_code=answer.status,
                    is_head_response=is_head,
                )
            response = ASGIStreamingResponse(
                iterator=answer.body(), status_code=answer.status, is_head_response=is_head
            )
            for name, _ in answer.texts:
                if name in response.headers:
                    del response.headers[name]
            for name, value in answer.texts:
                response.headers.add(name, value)
            return response

        endpoint.__annotations__ = {"request": Request, "return": ASGIResponse}
        return self._app(answer.decorate(endpoint), middleware)

    def echo(self, echo: Echo, middleware: Installed) -> App:
        from litestar import Request
        from litestar.response.base import ASGIResponse

        async def endpoint(request: Request[Any, Any, Any]) -> Any:
            body = await request.body()
            seen = echo.note(body, list(request.headers.items()), request.scope)
            return ASGIResponse(body=seen, media_type="application/octet-stream")

        endpoint.__annotations__ = {"request": Request, "return": ASGIResponse}
        return self._app(endpoint, middleware)

    def _app(self, endpoint: Endpoint, middleware: Installed) -> App:
        import litestar
        from litestar.middleware import DefineMiddleware

        handler = litestar.route(
            ["/", "/{path:path}"], http_method=["GET", "HEAD", "POST", "PUT"], status_code=200
        )(endpoint)
        app: Any = litestar.Litestar(
            [handler],
            middleware=[DefineMiddleware(middleware.factory, **middleware.options)],
            openapi_config=None,
            request_max_body_size=None,
            logging_config=None,
        )
        served: App = app
        return served


class Quart:
    name = "quart"
    can = Can.UNTYPED | Can.REPEAT

    def serve(self, answer: Answer, middleware: Installed) -> App:
        import quart

        async def endpoint(path: str) -> Any:
            answer.calls += 1
            body: Any = answer.body if isinstance(answer.body, bytes) else answer.body()
            response = quart.Response(body, answer.status)
            response.headers.pop("content-type")
            for name in {name for name, _ in answer.texts}:
                response.headers.pop(name, None)
            for name, value in answer.texts:
                response.headers.add(name, value)
            return response

        return self._app(endpoint, middleware)

    def echo(self, echo: Echo, middleware: Installed) -> App:
        import quart

        async def endpoint(path: str) -> Any:
            body: Any = await quart.request.get_data()
            seen = echo.note(body, list(quart.request.headers.items()), quart.request.scope)
            return quart.Response(seen, content_type="application/octet-stream")

        return self._app(endpoint, middleware)

    def _app(self, endpoint: Endpoint, middleware: Installed) -> App:
        import quart

        app = quart.Quart(__name__)
        app.config["MAX_CONTENT_LENGTH"] = None
        for rule in ("/", "/<path:path>"):
            app.add_url_rule(
                rule,
                rule,
                endpoint,
                defaults={"path": ""} if rule == "/" else None,
                methods=METHODS,
                provide_automatic_options=False,
            )
        serving: Any = app
        serving.asgi_app = middleware(serving.asgi_app)
        result: App = serving
        return result


class Django:
    name = "django"
    can = Can.UNTYPED

    def serve(self, answer: Answer, middleware: Installed) -> App:
        http = untyped("django.http")

        async def view(request: Any) -> Any:
            answer.calls += 1
            if isinstance(answer.body, bytes):
                response = http.HttpResponse(answer.body, status=answer.status)
                response["Content-Length"] = str(len(answer.body))
            else:
                response = http.StreamingHttpResponse(answer.body(), status=answer.status)
            del response["Content-Type"]
            for name, value in answer.texts:
                response[name] = value
            return response

        return self._app(view, middleware)

    def echo(self, echo: Echo, middleware: Installed) -> App:
        http = untyped("django.http")

        async def view(request: Any) -> Any:
            body = echo.note(request.body, list(request.headers.items()), request.scope)
            return http.HttpResponse(body, content_type="application/octet-stream")

        return Leaky(self._app(view, middleware))

    def _app(self, view: Endpoint, middleware: Installed) -> App:
        app = middleware(django_app())

        async def with_view(scope: Scope, receive: Receive, send: Send) -> None:
            """Django has one URL configuration for each process, so the scope carries the view."""
            scope["tests.view"] = view
            await app(scope, receive, send)

        return with_view


class Leaky:
    """Django leaves the file for a body open, to be collected, where reading the body fails.

    The error refers to it, and so does the thread that raised it, until it is given the turn.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        """The context in which an exchange runs."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                yield
            finally:
                for found in gc.get_objects():
                    if type(found) is SpooledTemporaryFile:
                        found.close()


def untyped(module: str) -> Any:
    """Import a module without types, such as those of Django."""
    return importlib.import_module(module)


@functools.cache
def django_app() -> App:
    conf, asgi, urls = (untyped(f"django.{name}") for name in ("conf", "core.asgi", "urls"))

    async def view(request: Any) -> Any:
        return await request.scope["tests.view"](request)

    conf.settings.configure(
        ALLOWED_HOSTS=["*"],
        DATA_UPLOAD_MAX_MEMORY_SIZE=None,
        LOGGING_CONFIG=None,
        MIDDLEWARE=[],
        ROOT_URLCONF=(urls.re_path(r"", view),),
        SECRET_KEY="not secret",
        USE_TZ=True,
    )
    app: App = asgi.get_asgi_application()
    return app


HOSTS: tuple[Host, ...] = (Raw(), Starlette(), FastAPI(), Litestar(), Quart(), Django())
