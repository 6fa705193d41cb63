"""Requests that the server cancels while a limit is enforced."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest

from hasten.ratelimit import Limit, RateLimitMiddleware

HTTP: Final = {"type": "http", "method": "GET", "headers": [], "client": ("192.0.2.1", 1)}
WEBSOCKET: Final = {"type": "websocket", "headers": [], "client": ("192.0.2.1", 1)}


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    else:
        await receive()
        await send({"type": "websocket.close", "code": 1000})


async def status_of(app: Any, path: str) -> int:
    """Return the status of a request."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({**HTTP, "path": path}, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize("hook", ["on_limited", "message"])
@pytest.mark.parametrize("scope", [HTTP, WEBSOCKET], ids=["http", "websocket"])
async def test_a_cancelled_refusal_frees_its_slots(hook: str, scope: dict[str, Any]) -> None:
    called = asyncio.Event()

    async def never_return(_: object) -> str:
        called.set()
        await asyncio.Event().wait()
        return ""

    hooks: dict[str, Any] = {hook: never_return}
    app = RateLimitMiddleware(
        application, limits=[Limit.concurrency(1), Limit("1/m", path="/a", **hooks)]
    )
    assert await status_of(app, "/a") == 200

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None: ...

    refused = asyncio.create_task(app({**scope, "path": "/a"}, receive, send))
    await asyncio.wait({refused, asyncio.create_task(called.wait())}, return_when="FIRST_COMPLETED")
    refused.cancel()
    await asyncio.gather(refused, return_exceptions=True)
    assert await status_of(app, "/b") == 200


async def test_headers_that_are_an_iterator_stay() -> None:
    """ASGI allows any iterable."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        lines = ((b"content-type", b"text/plain"), (b"set-cookie", b"a=1"))
        headers = (line for line in lines)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    limited = RateLimitMiddleware(app, limits=[Limit("1/m")])
    await limited({**HTTP, "path": "/"}, receive, send)
    names = [name for name, _ in sent[0]["headers"]]
    assert names[:2] == [b"content-type", b"set-cookie"]
    assert b"ratelimit" in names
