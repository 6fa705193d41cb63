"""The application that all Python contestants compress: plain ASGI, which takes little time.

- `/NAME`: a corpus
- `/empty`: a 204
- `/stream?NUMBER`: a stream of events
- `/streams`: the numbers of open streams and of sent events
- `/go`, `/end`: start and end all streams
- `/ticker`: the longest gap of the event loop since the last call; the first call starts to measure

express.mjs has the same paths.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Final

from benchmarks.asgi import Receive, Scope, Send
from benchmarks.compression.corpora import EVENTS, MEDIA_TYPES

TICK_SECONDS: Final = 0.001


class BareApplication:
    """The settings of streams: how many there are, and how many events each of them sends."""

    def __init__(
        self, folder: Path, *, streams: int = 0, events: int = 0, interval_seconds: float = 0.0
    ) -> None:
        self._bodies = {
            f"/{file.name}": (MEDIA_TYPES[file.name.partition("-")[0]].encode(), file.read_bytes())
            for file in folder.iterdir()
            if file.name != EVENTS
        }
        self._ticker = Ticker()
        self._streams = Streams(
            json.loads((folder / EVENTS).read_text("utf-8")), streams, events, interval_seconds
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        found = self._bodies.get(path)
        if found is not None:
            await _answer(send, *found)
        elif path == "/stream":
            await self._streams.stream(int(scope["query_string"]), send)
        elif path == "/empty":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await _answer(send, b"application/json", json.dumps(self._control(path)).encode())

    def _control(self, path: str) -> object:
        match path:
            case "/ticker":
                return {"longest_ms": self._ticker.longest_ms()}
            case "/go":
                self._streams.go.set()
            case "/end":
                self._streams.end.set()
        return {"open": self._streams.open, "sent": self._streams.sent}


async def _answer(send: Send, media_type: bytes, body: bytes) -> None:
    headers = [(b"content-type", media_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Ticker:
    """Measures the longest delay of a timer in the event loop."""

    def __init__(self) -> None:
        self._due: float | None = None
        self._longest = 0.0

    def longest_ms(self) -> float:
        """Return the longest delay since the last call. The first call starts the ticker."""
        if self._due is None:
            self._tick()
        longest, self._longest = self._longest, 0.0
        return longest * 1e3

    def _tick(self) -> None:
        now = time.perf_counter()
        if self._due is not None:
            self._longest = max(self._longest, now - self._due)
        self._due = now + TICK_SECONDS
        asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)


class Streams:
    """The open streams. Each sends its events at different times, and stays open until `end`."""

    def __init__(self, texts: list[str], streams: int, events: int, interval: float) -> None:
        self.go = asyncio.Event()
        self.end = asyncio.Event()
        self.open = 0
        self.sent = 0
        self._texts = texts
        self._streams = streams
        self._events = events
        self._interval = interval

    async def stream(self, number: int, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        self.open += 1
        await self.go.wait()
        loop = asyncio.get_running_loop()
        start = loop.time() + number / self._streams * self._interval
        for event in range(self._events):
            await asyncio.sleep(start + event * self._interval - loop.time())
            text = self._texts[(number * 7 + event) % len(self._texts)]
            body = f'data: {{"at":{time.monotonic_ns()}{text}'.encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})
            self.sent += 1
        await self.end.wait()
        await send({"type": "http.response.body", "body": b""})
