"""Limits behind a real server, over real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import pytest
import uvicorn

from hasten.ratelimit import Limit, RateLimitMiddleware
from tests.http.client import App, Receive, Scope, Send, until
from tests.patience import DEADLINE_SECONDS


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """/endless never ends, other paths respond "ok", and a WebSocket echoes."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    if scope["path"] == "/endless":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


@contextlib.asynccontextmanager
async def serving(app: App, **options: str) -> AsyncIterator[int]:
    """Run uvicorn on a free port. Yields the port."""
    config = uvicorn.Config(
        app, port=0, lifespan="off", log_config=None, ws="wsproto", **options  # type: ignore[arg-type]
    )  # fmt: skip
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started, "the server to be up")
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await task


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One connection of a client that can send anything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, path: str, method: str = "GET", *lines: str, body: bytes = b"") -> Answer:
        self.send(path, method, *lines, f"content-length: {len(body)}")
        self.writer.write(body)
        return await self.answer(has_body=method != "HEAD")

    def send(self, path: str, method: str, *lines: str) -> None:
        head = [f"{method} {path} HTTP/1.1", "host: x", *lines, "", ""]
        self.writer.write("\r\n".join(head).encode())

    async def answer(self, *, has_body: bool = True) -> Answer:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = b""
        if has_body and "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(int(head[0].split()[1]), headers, body)


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            yield Connection(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_encodings_and_slashes_of_a_path_share_one_count(http: str) -> None:
    paths = ["/api/x", "/api%2Fx", "/%61pi/x", "//api/x", "/api//x", "/api/x?y=1", "/api", "/api/"]
    limited = RateLimitMiddleware(app, limits=[Limit("100/m", path="/api/")])
    async with serving(limited, http=http) as port:
        for number, path in enumerate(paths):
            async with connected(port) as connection:
                answer = await connection.ask(path)
                assert answer.headers["x-ratelimit-remaining"] == str(99 - number), path


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_a_refusal_does_not_wait_for_the_body(http: str) -> None:
    """The client has not sent any of it yet."""
    limited = RateLimitMiddleware(app, limits=[Limit("0/m")])
    async with serving(limited, http=http) as port, connected(port) as connection:
        connection.send("/", "POST", "content-length: 10000000")
        answer = await connection.answer()
        assert (answer.status, answer.headers["retry-after"]) == (429, "60")
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_a_refusal_leaves_the_connection_usable(http: str) -> None:
    limited = RateLimitMiddleware(app, limits=[Limit("0/m", path="/api")])
    async with serving(limited, http=http) as port, connected(port) as connection:
        for _ in range(2):
            refused = await connection.ask("/api", "HEAD")
            assert (refused.status, refused.headers["retry-after"]) == (429, "60")
            assert int(refused.headers["content-length"]) > 100
            assert (await connection.ask("/api", "POST", body=b"x" * 1000)).status == 429
            assert (await connection.ask("/free")).status == 200


async def test_a_client_that_hangs_up_releases_its_slot() -> None:
    limited = RateLimitMiddleware(app, limits=[Limit.concurrency(1)])
    async with serving(limited) as port:
        for _ in range(3):
            async with connected(port) as connection:
                connection.send("/endless", "GET")
                await until_free(connection, port)


async def until_free(connection: Connection, port: int) -> None:
    """Wait for a response that is not a refusal: the slot of a client may be released late."""
    while (await connection.answer()).status == 429:
        connection.send("/endless", "GET")
    async with connected(port) as other:
        assert (await other.ask("/")).status == 429


KEY: Final = base64.b64encode(b"0123456789abcdef").decode()
UPGRADE: Final = (
    "connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13",
    f"sec-websocket-key: {KEY}",
)  # fmt: skip


async def test_a_handshake_over_the_limit_is_answered_with_429() -> None:
    limited = RateLimitMiddleware(app, limits=[Limit("1/m")])
    async with serving(limited) as port:
        async with connected(port) as connection:
            connection.send("/ws", "GET", *UPGRADE)
            assert (await connection.answer()).status == 101
        async with connected(port) as connection:
            connection.send("/ws", "GET", *UPGRADE)
            refused = await connection.answer(has_body=False)
            assert (refused.status, refused.headers["retry-after"]) == (429, "60")
            assert refused.headers["ratelimit"] == '"1-in-1min";r=0;t=60'


async def test_a_message_over_the_limit_closes_the_connection() -> None:
    limited = RateLimitMiddleware(app, limits=[Limit("2/m", per="message")])
    async with serving(limited) as port, connected(port) as connection:
        connection.send("/ws", "GET", *UPGRADE)
        assert (await connection.answer()).status == 101
        for _ in range(3):
            # A text frame of one character, masked by zeros. RFC 6455, section 5.2.
            connection.writer.write(b"\x81\x81\0\0\0\0a")
        assert await connection.reader.readexactly(6) == b"\x81\x01a" * 2
        opcode, size = await connection.reader.readexactly(2)
        assert opcode == 0x88
        code = struct.unpack("!H", (await connection.reader.readexactly(size))[:2])
        assert code == (1008,)
