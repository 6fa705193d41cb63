"""Forms whose bodies come coded, as frameworks parse them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from hasten.compression import CompressionMiddleware, DecompressionMiddleware
from hasten.errors import InvalidOption
from tests.http.client import App, Client, Headers, Message, Receive, Scope, Send
from tests.http.codings import CODINGS, encode
from tests.http.hosts import Echo, Installed, Raw, django_app, untyped

MULTIPART = b"multipart/form-data; boundary=B"
PARTS = (
    b'--B\r\nContent-Disposition: form-data; name="title"\r\n\r\nreport\r\n'
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n%s\r\n'
    b"--B--\r\n"
)
FILE = b"line of a file\n" * 20_000
FORM = PARTS % FILE
LENGTH = str(len(FORM))
READ: dict[str, object] = {"title": "report", "files": [["a.txt", len(FILE)]], "length": LENGTH}
"""What each application below answers to the form."""


def on_django() -> App:
    http = untyped("django.http")

    async def view(request: Any) -> Any:
        files = [(file.name, file.size) for file in request.FILES.values()]
        length = request.META.get("CONTENT_LENGTH")
        return http.JsonResponse({**request.POST.dict(), "files": files, "length": length})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await django_app()({**scope, "tests.view": view}, receive, send)

    return app


def on_flask_through_asgiref() -> App:
    import flask

    app = flask.Flask(__name__)

    @app.post("/")
    def form() -> dict[str, object]:
        request = flask.request
        files = [(file.filename, len(file.read())) for file in request.files.values()]
        return {**request.form, "files": files, "length": request.headers.get("content-length")}

    served: App = untyped("asgiref.wsgi").WsgiToAsgi(app)
    return served


def on_quart() -> App:
    import quart

    app = quart.Quart(__name__)

    async def form() -> dict[str, object]:
        fields = await quart.request.form
        files = [(file.filename, len(file.read())) for file in (await quart.request.files).values()]
        return {**fields, "files": files, "length": LENGTH}  # it was read before the body

    app.add_url_rule("/", "form", form, methods=["POST"])
    served: Any = app
    result: App = served.asgi_app
    return result


def on_litestar() -> App:
    import litestar

    async def form(request: litestar.Request[Any, Any, Any]) -> dict[str, object]:
        found = await request.form()
        file = found["file"]
        files = [(file.filename, len(await file.read()))]
        return {"title": found["title"], "files": files, "length": LENGTH}

    form.__annotations__ = {"request": litestar.Request, "return": dict}
    handler = litestar.post("/", status_code=200)(form)
    served: Any = litestar.Litestar([handler], openapi_config=None, logging_config=None)
    app: App = served
    return app


FRAMEWORKS = [on_django, on_flask_through_asgiref, on_quart, on_litestar]


def with_length(body: bytes) -> Headers:
    return [(b"content-length", b"%d" % len(body))]


def in_chunks(body: bytes) -> Headers:
    """Servers pass the Transfer-Encoding on, although they have decoded the chunks."""
    return [(b"transfer-encoding", b"chunked")]


@pytest.mark.parametrize("framing", [with_length, in_chunks])
@pytest.mark.parametrize("make", FRAMEWORKS)
async def test_a_coded_form_has_all_its_fields_and_files(
    make: Callable[[], App], framing: Callable[[bytes], Headers]
) -> None:
    """Django and Werkzeug do not read a form without a Content-Length."""
    client = Client(DecompressionMiddleware(make(), encodings=CODINGS))
    for coding in CODINGS:
        body = encode(coding, FORM)
        headers = [
            (b"content-type", MULTIPART),
            (b"content-encoding", coding.encode()),
            *framing(body),
        ]
        parts = [body[:100], body[100:]]
        response = await client.post(parts, headers=headers)
        assert json.loads(response.body) == READ


async def post_form(app: App, body: bytes, coding: str = "gzip") -> dict[str, object]:
    headers = [(b"content-type", MULTIPART), (b"content-encoding", coding.encode())]
    response = await Client(app).post([body[:100], body[100:]], headers=headers)
    found: dict[str, object] = json.loads(response.body)
    return found


async def test_the_length_replaces_the_framing_of_the_coded_body() -> None:
    """RFC 9112, section 7.1.3, does so where chunks are undone.

    The server's headers are as before once the application has returned.
    """
    echo = Echo()
    client = Client(DecompressionMiddleware(Raw().echo(echo, Installed(lambda app: app))))
    headers = [(b"content-encoding", b"gzip"), (b"transfer-encoding", b"chunked"), (b"x-a", b"1")]
    async with client.open(method="POST", body=[encode("gzip", FORM)], headers=headers) as exchange:
        before = [*exchange.scope["headers"]]
        await exchange.response()
    assert echo.headers == [{"host": "example.org", "x-a": "1", "content-length": str(len(FORM))}]
    assert exchange.scope["headers"] == before


async def test_a_buffered_body_has_its_length_before_the_application_begins() -> None:
    """WSGI adapters that read the body first create the environment before."""
    seen: list[bytes | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope["headers"]).get(b"content-length"))
        await on_django()(scope, receive, send)

    body = encode("gzip", FORM)
    assert await post_form(DecompressionMiddleware(app, buffered=True), body) == READ
    assert seen == [LENGTH.encode()]
    # Middlewares in between may copy the list of headers.
    renaming = CompressionMiddleware(on_django(), etag="suffix")
    assert await post_form(DecompressionMiddleware(renaming, buffered=True), body) == READ


async def test_a_buffered_body_that_is_refused_does_not_reach_the_application() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("nobody called it")

    client = Client(DecompressionMiddleware(app, buffered=True, max_size=1000))
    gzip = [(b"content-encoding", b"gzip")]
    assert (await client.post([encode("gzip", FORM)], headers=gzip)).status == 413
    assert (await client.post([encode("gzip", b"a")[:-1]], headers=gzip)).status == 400


async def test_a_disconnect_ends_the_reading_of_a_buffered_body() -> None:
    seen: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await receive())

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError("nothing is sent")

    scope = {"type": "http", "headers": [(b"content-encoding", b"gzip")]}
    await DecompressionMiddleware(app, buffered=True)(scope, receive, send)
    assert seen == [{"type": "http.disconnect"}]


def test_buffered_is_a_truth_value() -> None:
    with pytest.raises(InvalidOption, match="buffered='yes'"):
        DecompressionMiddleware(on_django(), buffered="yes")  # type: ignore[arg-type]
