"""An HTTP client that uses little processor time, because servers run on the same machine.

It counts and discards the bytes of bodies. Only bodies that are checked are kept and decoded.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Final, TypeVar, cast

import uvloop

from benchmarks.contestants import Failed

T = TypeVar("T")

TIMEOUT_SECONDS: Final = 120


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a measurement on a new event loop. Raises `Failed` if it hangs or loses a connection."""
    result: T = uvloop.run(_within_time(work))
    return result


async def _within_time(work: Coroutine[Any, Any, T]) -> T:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await work
    except TimeoutError as error:
        raise Failed(f"took longer than {TIMEOUT_SECONDS} s") from error
    except OSError as error:
        raise Failed(f"connection broken: {error!r}") from error


class Response:
    """Parses an HTTP/1.1 response. size is the size of the body before decoding."""

    def __init__(self, *, keep: bool = False) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.size = 0
        self.done = False
        self.ended_at = 0.0
        self.pieces: list[bytes] = []
        self._keep = keep
        self._rest = b""  # the part of the head, or of the line of a chunk, that has arrived
        self._left = 0  # the bytes of the body or the chunk that are still missing
        self._chunked = False
        self._last_chunk = False

    @property
    def coding(self) -> str:
        return self.headers.get("content-encoding", "identity")

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def feed(self, data: bytes) -> bool:
        """Parse the bytes that have arrived. Return whether the response is complete."""
        if not self.status:
            head, end, data = (self._rest + data).partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return False
            self._rest = b""
            self._read_head(head)
        if self._chunked:
            self._read_chunks(data)
        else:
            self._take_body(data)
            self.done = self._left <= 0
        if self.done:
            self.ended_at = time.perf_counter()
        return self.done

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        pairs = (line.partition(":") for line in lines)
        self.headers = {name.lower(): value.strip() for name, _, value in pairs}
        self._chunked = self.headers.get("transfer-encoding") == "chunked"
        self._left = int(self.headers.get("content-length", 0))

    def _read_chunks(self, data: bytes) -> None:
        data, self._rest = self._rest + data, b""
        position = 0
        while position < len(data):
            if self._left:
                piece = data[position : position + self._left]
                position += len(piece)
                self._take_body(piece)
                continue
            end = data.find(b"\r\n", position)
            if end < 0:
                self._rest = data[position:]
                return
            line, position = data[position:end], end + 2
            if line:
                self._left = int(line, 16)
                self._last_chunk = not self._left
            elif self._last_chunk:  # if not, the empty line ends a chunk
                self.done = True
                return

    def _take_body(self, piece: bytes) -> None:
        self._left -= len(piece)
        self.size += len(piece)
        if self._keep and piece:
            self.pieces.append(piece)


class Connection(asyncio.Protocol):
    """A connection that is kept alive, with one request at a time."""

    def __init__(self) -> None:
        self._response = Response()
        self._waiter: asyncio.Future[Response] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, port: int) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, "127.0.0.1", port)
        return connection

    async def get(self, request: bytes, *, keep: bool = False) -> Response:
        assert self._transport is not None
        self._response = Response(keep=keep)
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter

    def close(self) -> None:
        assert self._transport is not None
        self._waiter = None
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # the class in uvloop has another base

    def data_received(self, data: bytes) -> None:
        if self._response.feed(data) and self._waiter is not None:
            self._waiter.set_result(self._response)
            self._waiter = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(exc or ConnectionResetError("closed by the server"))


async def ask(connection: Connection, path: str) -> Any:
    """Request a path of the application, such as "go", and return the value of its JSON."""
    request = b"GET /%s HTTP/1.1\r\nhost: x\r\n\r\n" % path.encode()
    response = await connection.get(request, keep=True)
    return json.loads(response.body)
