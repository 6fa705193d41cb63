"""The ASGI applications that contestants limit, and functions to call them."""

from __future__ import annotations

import asyncio
from typing import Final

from benchmarks.asgi import Answer, Application, Receive, Scope, Send, receive
from benchmarks.asgi import scope_of as asgi_scope

BODY: Final = b'{"ok":true}'

_HEADERS: Final = [
    (b"host", b"127.0.0.1:8000"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0.0.0"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"accept-language", b"en-GB,en;q=0.9"),
]


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that returns the same short response to each request."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


class Logins:
    """An application that waits for `opened`, then returns 200 for `/login?good`, else 401."""

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


async def call(app: Application, path: str, client: str, *, method: str = "GET") -> Answer:
    answer = Answer()
    await app(scope_of(path, client, method), receive, answer.send)
    return answer


def scope_of(path: str, client: str, method: str = "GET") -> Scope:
    return asgi_scope(path, _HEADERS, client=client, method=method)


def clients(count: int) -> list[str]:
    """Return different IP addresses."""
    return [
        f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}" for number in range(count)
    ]
