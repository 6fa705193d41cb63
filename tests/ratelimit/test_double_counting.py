"""Of two middlewares around one request, only equal limits count it once."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from hasten.ratelimit import Limit, RateLimitMiddleware
from hasten.ratelimit._stores.memory import MemoryStore
from tests.http.client import App, Client, Message, Scope


async def statuses(app: App, path: str, count: int) -> list[int]:
    found = []
    for _ in range(count):
        async with Client(app).open(headers=[], path=path, scheme="http") as exchange:
            found.append((await exchange.response()).status)
    return found


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


def mounted(outer: list[Limit], inner: list[Limit], **options: Any) -> Starlette:
    routes = [
        Route("/login", lambda request: PlainTextResponse("ran")),
        WebSocketRoute("/ws", echo),
    ]
    sub = Starlette(routes=routes)
    sub.add_middleware(RateLimitMiddleware, limits=inner, **options)
    app = Starlette(routes=[Mount("/auth", sub)])
    app.add_middleware(RateLimitMiddleware, limits=outer, **options)
    return app


async def test_a_stricter_limit_of_a_mounted_app_holds(caplog: pytest.LogCaptureFixture) -> None:
    """Both middlewares have the default name."""
    app = mounted([Limit("1000/h")], [Limit("2/h", path="/login")])
    assert await statuses(app, "/auth/login", 3) == [200, 200, 429]
    assert caplog.text == ""


async def test_an_equal_limit_counts_once_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The limits are other objects, and count in one store."""
    app = mounted([Limit("3/h")], [Limit("3/h"), Limit("9/h")], store=MemoryStore())
    assert await statuses(app, "/auth/login", 4) == [200, 200, 200, 429]
    assert caplog.text.count("[DOUBLE_COUNT]") == 1
    assert "3-in-1hr" in caplog.text
    assert "9-in-1hr" not in caplog.text


async def test_an_equal_limit_that_did_not_apply_outside_is_counted_inside() -> None:
    """The outer one is for /login, which is another path than /auth/login."""
    limits = [Limit("2/h", path="/login")]
    assert await statuses(mounted(limits, limits), "/auth/login", 3) == [200, 200, 429]


async def test_limits_that_count_differently_are_not_equal() -> None:
    """A limit that watches (`shadow`) outside does not replace one that refuses inside."""
    app = mounted([Limit("1/h", shadow=True)], [Limit("1/h")])
    assert await statuses(app, "/auth/login", 2) == [200, 429]
    app = mounted([Limit("1/h", skip_failed=True)], [Limit("1/h", message="no")])
    assert await statuses(app, "/auth/none", 2) == [404, 429]
    assert Limit("1/h", message={"a": "b"}).identifying_options == Limit("1/h").identifying_options


@pytest.mark.parametrize(("outer", "inner"), [("3/h", "3/h"), ("9/h", "3/h"), ("3/h", "9/h")])
async def test_only_equal_limits_count_a_websocket_message_once(outer: str, inner: str) -> None:
    store = MemoryStore()
    both = [[Limit(rate, per="message"), Limit("1/h", name="all")] for rate in (outer, inner)]
    app = mounted(both[0], both[1], store=store)
    incoming = iter(["websocket.connect", *["websocket.receive"] * 9])
    sent: list[str] = []

    async def receive() -> Message:
        return {"type": next(incoming), "text": "x"}

    async def send(message: Message) -> None:
        sent.append(message["type"])

    scope: Scope = {
        "type": "websocket", "path": "/auth/ws", "root_path": "", "headers": [],
        "query_string": b"", "client": ("203.0.113.7", 4711), "extensions": {}, "subprotocols": [],
    }  # fmt: skip
    await app(scope, receive, send)
    assert sent == ["websocket.accept", *["websocket.send"] * 3, "websocket.close"]
