"""Middlewares that get it wrong, each in ways that are common.

The tests of the middlewares must fail on them: see test_wrong.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import zlib
from typing import Any

from tests.http.client import App, Message, Receive, Scope, Send
from tests.http.codings import encode


class Idle:
    """Does not compress."""

    def __init__(self, app: App, **options: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Careless(Idle):
    """Compresses each message separately, and changes the messages in place."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        compressor = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        scope["headers"] = []

        async def code(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"content-encoding", b"gzip"))
                message["headers"].append((b"Vary", b"Accept-Encoding"))
                drop(message, b"content-length")
            else:
                data = compressor.compress(message["body"])
                more = message.get("more_body", False)
                message["body"] = data + compressor.flush(
                    zlib.Z_SYNC_FLUSH if more else zlib.Z_FINISH
                )
            await send(message)

        await self.app(scope, receive, code)


class Naive(Idle):
    """Does what it must and nothing more: a response is coded if the client names the coding.

    It keeps the whole body until the application has returned, leaves the other headers as they
    are, and knows nothing of weights.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        accept = dict(scope["headers"]).get(b"accept-encoding", b"").decode("latin-1")
        coding = next((name for name in ("zstd", "br", "gzip") if name in accept), None)
        if coding is None:
            await self.app(scope, receive, send)
            return
        parts: list[bytes] = []
        start: Message = {"type": "http.response.start", "status": 200, "headers": []}

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                start["headers"] = list(message["headers"])
            else:
                parts.append(bytes(message["body"]))

        with contextlib.suppress(Exception):
            await self.app(scope, receive, keep)
        body = encode(coding, b"".join(parts))
        drop(start, b"content-length")
        start["headers"].append((b"content-encoding", coding.encode()))
        start["headers"].append((b"content-length", str(len(body)).encode()))
        start["headers"].append((b"vary", b"accept-encoding"))
        await send(start)
        await send({"type": "http.response.body", "body": body})


class Deaf(Careless):
    """Compresses each message, and ends every response properly even after an error."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def deaf_send(message: Message) -> None:
            with contextlib.suppress(Exception):
                await send(message)

        with contextlib.suppress(Exception):
            await super().__call__(scope, receive, deaf_send)


class Shared(Idle):
    """Uses one compressor for all requests."""

    def __init__(self, app: App, **options: Any) -> None:
        super().__init__(app, **options)
        self.compressor = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def code(message: Message) -> None:
            if message["type"] == "http.response.start":
                drop(message, b"content-length")
                message["headers"] = [*message["headers"], (b"content-encoding", b"gzip")]
                await send(message)
            else:
                data = self.compressor.compress(message["body"])
                data += self.compressor.flush(zlib.Z_SYNC_FLUSH)
                await send({**message, "body": data})

        await self.app(scope, receive, code)


class Lingering(Careless):
    """Sends in background tasks that it does not await."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tasks = []
        turn = asyncio.Lock()

        async def later(message: Message) -> None:
            async with turn:
                await send(message)

        async def send_later(message: Message) -> None:
            tasks.append(asyncio.create_task(later(message)))

        await super().__call__(scope, receive, send_later)
        await asyncio.gather(*tasks)


class Trusting(Idle):
    """Decodes bodies without any limit, and takes truncated ones for complete."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        with contextlib.suppress(Exception):
            body = gzip.decompress(body)
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def plain() -> Message:
            return next(messages)

        await self.app(scope, plain, send)


class Strict(Idle):
    """Refuses every request, and suppresses exceptions."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        start = {"type": "http.response.start", "status": 500, "headers": []}
        await send(start)
        await send({"type": "http.response.body", "body": b""})


WRONG = {
    "CompressionMiddleware": (Idle, Careless, Naive, Deaf, Lingering, Shared),
    "DecompressionMiddleware": (Idle, Trusting, Strict),
}


def drop(message: Message, name: bytes) -> None:
    message["headers"] = [pair for pair in message["headers"] if pair[0].lower() != name]
