"""The application that is limited, and how it is called: in process, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY: Final = b'{"ok":true}'

_HEADERS: Final = [
    (b"host", b"127.0.0.1:8000"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0.0.0"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"accept-language", b"en-GB,en;q=0.9"),
]


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers everything with the same few bytes."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


class Logins:
    """Answers `/login?good` with 200 and `/login?bad` with 401, all at once: when it is opened."""

    def __init__(self) -> None:
        self.reached = 0
        self.arrivals = asyncio.Semaphore(0)
        self.opened = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached += 1
        self.arrivals.release()
        await self.opened.wait()
        status = 200 if scope["query_string"] == b"good" else 401
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Answer:
    """What was sent."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {
                name.decode().lower(): value.decode() for name, value in message["headers"]
            }


async def call(app: Application, path: str, client: str, *, method: str = "GET") -> Answer:
    answer = Answer()
    await app(scope_of(path, client, method), receive, answer.send)
    return answer


def scope_of(path: str, client: str, method: str = "GET") -> Scope:
    path, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": (client, 50_000),
        "scheme": "http",
        "method": method,
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": list(_HEADERS),
        "state": {},
    }


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def discard(message: Message) -> None:
    """What a server would do takes no time here."""


def clients(count: int) -> list[str]:
    """Addresses, all different."""
    return [
        f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}" for number in range(count)
    ]
