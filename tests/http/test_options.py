"""What each option of CompressionMiddleware does."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, get_args

import pytest

from hasten.compression import (
    DEFAULT_MEDIA_TYPES,
    Compressed,
    CompressionEvent,
    CompressionMiddleware,
    CompressionStats,
    DecompressionMiddleware,
    EncodingStats,
    Skipped,
    SkipReason,
    no_compression,
)
from hasten.compression._codecs import Zlib, _BrotliEncoder, _ZlibEncoder, make_codecs
from hasten.compression._level_policy import ZLIB
from hasten.compression._negotiation import Coding
from hasten.compression._pool import CompressionThreads
from hasten.errors import InvalidOption
from tests.http import expect
from tests.http.bodies import HTML, JSON, NDJSON, ORDERS, SMALL, SSE, TEXT, noise, of_type, tokens
from tests.http.client import App, Client, Exchange, Receive, Response, Scope, Send, stays, until
from tests.http.codings import encode
from tests.http.hosts import Answer, Installed, Raw, send_response, start_message
from tests.http.test_streaming import leftovers

EVENTS = tokens(5)
LEVEL_6 = {"gzip": 6}


def serve(answer: Answer, **options: Any) -> Client:
    return Client(Raw().serve(answer, Installed(CompressionMiddleware, options)))


def wrap(app: App, **options: Any) -> Client:
    return Client(CompressionMiddleware(app, **options))


async def ask(accept: str = "gzip", answer: Answer | None = None, **options: Any) -> Response:
    return await serve(answer or Answer(), **options).get(accept)


class TestFilter:
    @pytest.mark.parametrize("body", [ORDERS, SMALL])
    async def test_a_filter_that_returns_false_prevents_compression(self, body: bytes) -> None:
        response = expect.plain(await ask(answer=Answer(body), filter=lambda *_: False), body)
        assert response.get("vary") is None

    async def test_a_filter_that_returns_true_compresses_any_type(self) -> None:
        for headers in (of_type("image/png"), of_type("application/x-tiles"), ()):
            response = await ask(answer=Answer(ORDERS, headers), filter=lambda *_: True)
            expect.coded(response, "gzip", ORDERS)

    async def test_a_filter_cannot_override_encoded_or_forbidden_responses(self) -> None:
        for line in ((b"content-encoding", b"br"), (b"cache-control", b"no-transform")):
            answer = Answer(ORDERS, (*JSON, line))
            response = await ask(answer=answer, filter=lambda *_: True)
            assert response.body == ORDERS

    async def test_a_filter_that_returns_none_decides_nothing(self) -> None:
        expect.coded(await ask(filter=lambda *_: None), "gzip", ORDERS)
        png = Answer(ORDERS, of_type("image/png"))
        expect.plain(await ask(answer=png, filter=lambda *_: None), ORDERS)

    async def test_a_filter_gets_a_copy_of_the_headers(self) -> None:
        seen: list[tuple[str, int, list[tuple[bytes, bytes]]]] = []

        def look(scope: Scope, status: int, headers: list[tuple[bytes, bytes]]) -> None:
            seen.append((scope["path"], status, list(headers)))
            headers.clear()

        response = expect.coded(await ask(answer=Answer(status=404), filter=look), "gzip", ORDERS)
        length = (b"content-length", str(len(ORDERS)).encode())
        assert seen == [("/", 404, [*JSON, length])]
        assert response.get("content-type") == "application/json"


class TestMediaTypes:
    @pytest.mark.parametrize(
        "media_types",
        [
            {"application/x-tiles"},
            ["Application/X-Tiles; v=1"],
            lambda name: name == "application/x-tiles",
            DEFAULT_MEDIA_TYPES | {"application/x-tiles"},
        ],
    )
    async def test_a_function_of_the_media_type_decides(self, media_types: Any) -> None:
        tiles = Answer(ORDERS, of_type("Application/X-Tiles; v=2"))
        expect.coded(await ask(answer=tiles, media_types=media_types), "gzip", ORDERS)
        png = Answer(ORDERS, of_type("image/png"))
        expect.plain(await ask(answer=png, media_types=media_types), ORDERS)

    async def test_a_collection_of_media_types_replaces_the_default(self) -> None:
        expect.plain(await ask(media_types={"text/html"}), ORDERS)
        expect.plain(await ask(media_types=DEFAULT_MEDIA_TYPES - {"application/json"}), ORDERS)
        expect.plain(await ask(media_types=()), ORDERS)


class TestMinimumSize:
    @pytest.mark.parametrize("minimum_size", [2048, "2kb", "2 KB", "2048b", "2048"])
    async def test_a_body_of_the_minimum_size_is_compressed(self, minimum_size: Any) -> None:
        below, at = ORDERS[:2047], ORDERS[:2048]
        expect.plain(await ask(answer=Answer(below), minimum_size=minimum_size), below)
        expect.coded(await ask(answer=Answer(at), minimum_size=minimum_size), "gzip", at)

    async def test_a_minimum_size_of_0_compresses_all_that_shrinks(self) -> None:
        expect.coded(await ask(answer=Answer(SMALL), minimum_size=0), "gzip", SMALL)
        expect.plain(await ask(answer=Answer(b""), minimum_size=0), b"")
        expect.plain(await ask(answer=Answer(b"{}"), minimum_size=0), b"{}")


class TestLevel:
    @pytest.mark.parametrize(
        ("coding", "level"),
        [
            ("zstd", -7),
            ("zstd", 12),
            ("br", 0),
            ("br", 9),
            ("gzip", 1),
            ("gzip", 9),
            ("deflate", 3),
        ],
    )
    async def test_the_level_is_used(self, coding: str, level: int) -> None:
        response = await ask(coding, encodings=(coding,), level={coding: level})
        codec = make_codecs([Coding(coding)], {Coding(coding): level})[Coding(coding)]
        assert response.body == codec.compress(ORDERS, level)
        expect.coded(response, coding, ORDERS)

    @pytest.mark.parametrize("coding", ["zstd", "br", "gzip", "deflate"])
    async def test_a_level_may_be_one_number_for_all_encodings(self, coding: str) -> None:
        response = await ask(coding, encodings=("zstd", "br", "gzip", "deflate"), level=6)
        codec = make_codecs([Coding(coding)], {Coding(coding): 6})[Coding(coding)]
        assert response.body == codec.compress(ORDERS, 6)

    async def test_a_level_of_one_encoding_does_not_change_others(self) -> None:
        fixed, usual = await ask("br", level=LEVEL_6), await ask("br")
        assert fixed.body == usual.body


class Steps:
    """An application that sends a part when the test says so."""

    def __init__(self, headers: Any = JSON) -> None:
        self.headers = headers
        self.parts: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.sent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(start_message(200, self.headers))
        while (part := await self.parts.get()) is not None:
            await send({"type": "http.response.body", "body": part, "more_body": True})
            self.sent += 1
        await send({"type": "http.response.body", "body": b""})

    async def send(self, part: bytes) -> None:
        before = self.sent
        self.parts.put_nowait(part)
        await until(lambda: self.sent > before, "the part to be sent")


class TestFlush:
    @pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
    async def test_flush_message_sends_each_message_at_once(self, coding: str) -> None:
        app = Steps()
        async with wrap(app, flush="message").open(coding) as exchange:
            for number, part in enumerate((b"{", ORDERS, b"x", b"}")):
                await app.send(part)
                assert exchange.decoded() == b"".join((b"{", ORDERS, b"x", b"}")[: number + 1])
            app.parts.put_nowait(None)
            response = await exchange.response()
        assert response.coding == coding

    @pytest.mark.parametrize(("headers", "part"), [(JSON, ORDERS), (SSE, b"".join(EVENTS))])
    async def test_flush_never_leaves_it_to_the_compressor(self, headers: Any, part: bytes) -> None:
        app = Steps(headers)
        async with wrap(app, flush="never").open("zstd") as exchange:
            await app.send(part)
            await stays(lambda: not exchange.decoded(), "it was flushed", seconds=0.03)
            app.parts.put_nowait(None)
            expect.coded(await exchange.response(), "zstd", part)

    async def test_flush_never_still_flushes_for_an_empty_message(self) -> None:
        app = Steps()
        async with wrap(app, flush="never").open("zstd") as exchange:
            await app.send(ORDERS)
            await app.send(b"")
            assert exchange.decoded() == ORDERS
            app.parts.put_nowait(None)
            await exchange.response()

    @pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
    async def test_an_empty_message_flushes_a_small_start(self, coding: str) -> None:
        app = Steps()
        async with wrap(app, flush="never").open(coding) as exchange:
            await app.send(b"<p>one</p>")
            await app.send(b"")
            assert exchange.decoded() == b"<p>one</p>"
            app.parts.put_nowait(None)
            response = await exchange.response()
        assert response.decoded() == b"<p>one</p>"

    @pytest.mark.parametrize("flush", [0.001, timedelta(milliseconds=2), 0, "2ms", "auto"])
    async def test_a_pause_of_the_given_length_flushes(self, flush: Any) -> None:
        app = Steps()
        async with wrap(app, flush=flush).open("zstd") as exchange:
            for part, so_far in ((ORDERS, ORDERS), (b"tail", ORDERS + b"tail")):
                await app.send(part)
                await exchange.until_read(so_far)
            app.parts.put_nowait(None)
            expect.coded(await exchange.response(), "zstd", ORDERS + b"tail")

    async def test_a_long_pause_delays_the_flush(self) -> None:
        app = Steps()
        async with wrap(app, flush=3600).open("zstd") as exchange:
            await app.send(ORDERS)
            await stays(lambda: not exchange.messages[1:], "it was flushed", seconds=0.03)
            app.parts.put_nowait(None)
            expect.coded(await exchange.response(), "zstd", ORDERS)


async def events() -> AsyncIterator[bytes]:
    for event in EVENTS:
        yield event


class TestStreamEncodings:
    @pytest.mark.parametrize(
        ("order", "coding"),
        [
            (("gzip", "zstd", "br"), "gzip"),
            (("br", "gzip"), "br"),
            (("zstd",), "zstd"),
            (("deflate",), "br"),  # not offered, so the default order applies
        ],
    )
    async def test_order_live_streams(self, order: tuple[str, ...], coding: str) -> None:
        encodings = ("br", "gzip", "zstd")
        for headers in (SSE, NDJSON):
            client = serve(Answer(events, headers), encodings=encodings, stream_encodings=order)
            response = await client.get("gzip, br, zstd")
            assert response.coding == coding
            assert response.decoded() == b"".join(EVENTS)
        for answer in (Answer(ORDERS, NDJSON), Answer(ORDERS)):  # of known length; another type
            client = serve(answer, encodings=encodings, stream_encodings=order)
            expect.coded(await client.get("gzip, br, zstd"), "br", ORDERS)

    async def test_weights_come_before_stream_encodings(self) -> None:
        client = serve(Answer(events, SSE))
        assert (await client.get("gzip;q=0.5, br")).coding == "br"


FIRST, SECOND, THIRD = b"first,", b"second,", b"third"


class Hesitant:
    """A server whose send takes some time before it takes a message."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.is_asked = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def hesitate(message: Any) -> None:
            self.is_asked.set()
            for _ in range(50):
                await asyncio.sleep(0)
            await send(message)

        await self.app(scope, receive, hesitate)


class TestMaxStreams:
    @pytest.mark.parametrize("headers", [SSE, JSON])
    @pytest.mark.parametrize("how", ["end", "error", "cancel", "gone", "unfinished"])
    async def test_a_closed_stream_frees_its_place(self, how: str, headers: Any) -> None:
        class Broken(Exception):
            pass

        goes_on = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(start_message(200, headers))
            await send({"type": "http.response.body", "body": ORDERS, "more_body": True})
            if scope["path"] == "/short":
                await send({"type": "http.response.body", "body": b""})
                return
            await goes_on.wait()
            if how == "error":
                raise Broken
            if how != "unfinished":
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        found: list[CompressionEvent] = []
        client = wrap(app, max_streams=1, on_event=found.append)
        async with client.open("gzip", raises_when_gone=True) as first:
            await first.until_read(ORDERS)
            second = expect.plain(await client.get("gzip", path="/short"), ORDERS)
            expect.varies(second)
            assert found == [Skipped("busy")]
            if how == "gone":
                first.disconnect()
            if how == "cancel":
                await first.cancel()
            goes_on.set()
            error = await first.ended()
            expected = {"error": Broken, "gone": OSError, "cancel": asyncio.CancelledError}
            assert isinstance(error, expected.get(how, type(None)))
        expect.coded(await client.get("gzip", path="/short"), "gzip", ORDERS)
        streams = [event for event in found if isinstance(event, Compressed)]
        assert [event.streamed for event in streams] == [True, True]

    @pytest.mark.parametrize("behind", ["the server", "BaseHTTPMiddleware"])
    @pytest.mark.parametrize("decides", ["size", "pause"])
    async def test_an_uncompressed_stream_keeps_its_order(self, decides: str, behind: str) -> None:
        """Messages that are sent while the beginning is delayed come after it."""
        first = FIRST if decides == "pause" else FIRST * 1000

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_part(part: bytes) -> None:
                await send({"type": "http.response.body", "body": part, "more_body": True})

            await send(start_message(200, JSON))
            beginning = asyncio.ensure_future(send_part(first))
            await server.is_asked.wait()
            await send_part(SECOND)
            await beginning
            await send({"type": "http.response.body", "body": THIRD})

        server = Hesitant(CompressionMiddleware(app, max_streams=0))
        outermost: Any = server
        if behind == "BaseHTTPMiddleware":
            from starlette.middleware.base import BaseHTTPMiddleware

            outermost = BaseHTTPMiddleware(server, lambda request, call_next: call_next(request))
        response = expect.plain(await Client(outermost).get("gzip"), first + SECOND + THIRD)
        assert response.messages[0]["type"] == "http.response.start"
        bodies = [message["body"] for message in response.messages[1:] if message["body"]]
        assert bodies == [first, SECOND, THIRD]

    async def test_whole_bodies_are_no_streams(self) -> None:
        expect.coded(await ask(max_streams=0), "gzip", ORDERS)


class Blocked:
    """A compressor that waits for the test, and records its calls."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.levels: list[int] = []
        self.threads: list[str] = []

    def compress(self, body: Any, level: int) -> bytes:
        self.levels.append(level)
        self.threads.append(threading.current_thread().name)
        assert self.gate.wait(10)
        return zlib.compress(body, level, 31)


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Blocked]:
    blocked = Blocked()

    def compress(codec: Zlib, body: Any, level: int) -> bytes:
        return blocked.compress(body, level)

    monkeypatch.setattr(Zlib, "compress", compress)
    yield blocked
    blocked.gate.set()


class TestPool:
    async def fill(
        self, stack: AsyncExitStack, count: int, found: list[CompressionEvent], max_queue: int
    ) -> tuple[Client, list[Exchange]]:
        """Open requests whose bodies wait for the only thread."""
        middleware = CompressionMiddleware(
            Raw().serve(Answer(), Installed(lambda app: app)),
            level=LEVEL_6,
            threads=1,
            on_event=found.append,
        )
        pool = middleware._shared.pool
        pool.offload_after, pool.max_queue = 0, max_queue
        client = Client(middleware)
        exchanges = []
        for number in range(count):
            exchanges.append(await stack.enter_async_context(client.open("gzip")))
            await until(lambda: pool._unfinished > number, "the body to wait")  # noqa: B023
        return client, exchanges

    async def test_bodies_are_not_compressed_if_the_pool_is_full(self, blocked: Blocked) -> None:
        found: list[CompressionEvent] = []
        async with AsyncExitStack() as stack:
            client, exchanges = await self.fill(stack, 3, found, max_queue=2)
            response = expect.plain(await client.get("gzip"), ORDERS)
            expect.varies(response)
            assert found == [Skipped("busy")]
            blocked.gate.set()
            for exchange in exchanges:
                expect.coded(await exchange.response(), "gzip", ORDERS)
            expect.coded(await client.get("gzip"), "gzip", ORDERS)

    async def test_the_level_falls_if_the_pool_is_busy(self, blocked: Blocked) -> None:
        found: list[CompressionEvent] = []
        async with AsyncExitStack() as stack:
            _, exchanges = await self.fill(stack, 6, found, max_queue=8)
            blocked.gate.set()
            for exchange in exchanges:
                expect.coded(await exchange.response(), "gzip", ORDERS)
        assert blocked.levels == [6, 6, 6, 6, 1, 1]
        assert sorted(event.level for event in found if isinstance(event, Compressed)) == [
            1,
            1,
            *[6] * 4,
        ]

    async def test_a_cancelled_request_frees_its_place(self, blocked: Blocked) -> None:
        found: list[CompressionEvent] = []
        async with AsyncExitStack() as stack:
            client, exchanges = await self.fill(stack, 2, found, max_queue=1)
            for exchange in exchanges:
                await exchange.cancel()
            blocked.gate.set()
            for exchange in exchanges:
                assert exchange.messages == []
            await until(lambda: len(blocked.levels) >= 1)
            response = await client.get("gzip")
            while response.coding is None:
                response = await client.get("gzip")
            expect.coded(response, "gzip", ORDERS)

    async def test_runs_slow_work(self, blocked: Blocked, monkeypatch: pytest.MonkeyPatch) -> None:
        blocked.gate.set()
        monkeypatch.setattr(CompressionThreads, "offload_after", 0)
        there = await ask(level=LEVEL_6)
        monkeypatch.setattr(CompressionThreads, "offload_after", 3600)
        here = await ask(level=LEVEL_6)
        assert there == here
        names = [name.startswith("hasten-compression") for name in blocked.threads]
        assert names == [True, False]

    @pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate"])
    async def test_changes_no_response(self, coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(ORDERS), 5000):
                yield ORDERS[start : start + 5000]

        for answer in (Answer(), Answer(chunks), Answer(events, SSE), Answer(ORDERS * 400)):
            client = serve(answer, encodings=(coding,), flush=3600)
            monkeypatch.setattr(CompressionThreads, "offload_after", 0)
            there = await client.get(coding)
            client = serve(answer, encodings=(coding,), flush=3600)
            monkeypatch.setattr(CompressionThreads, "offload_after", 3600)
            here = await client.get(coding)
            assert there.body == here.body
            assert there.headers == here.headers
            assert there.coding == coding

    async def test_large_events_are_coded_in_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """zlib compresses them, so the costs and levels of zlib apply."""
        threads = spied(monkeypatch, _ZlibEncoder, "write")
        event = b"data: " + ORDERS * 22 + b"\n\n"
        assert 240_000 < len(event) < 256 * 1024
        found: list[CompressionEvent] = []

        async def large() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield event

        response = await ask("gzip", Answer(large, SSE), on_event=found.append)
        expect.coded(response, "gzip", event * 3)
        assert [in_pool(name) for name in threads] == [True] * 3
        [coded] = found
        assert isinstance(coded, Compressed)
        assert coded.level == ZLIB.live

    async def test_small_chunks_are_coded_in_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Brotli collects them, and compresses them with the last one."""
        threads = spied(monkeypatch, _BrotliEncoder, "finish")
        body = ORDERS * 8

        async def small() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 500):
                yield body[start : start + 500]

        expect.coded(await ask("br", Answer(small), level={"br": 9}, flush="never"), "br", body)
        assert [in_pool(name) for name in threads] == [True]

    async def test_work_that_could_not_start_is_not_counted(self) -> None:
        pool = CompressionThreads("test", 1)
        pool._executor.shutdown()
        for _ in range(3):
            with pytest.raises(RuntimeError):
                await pool.run(int)
        assert not pool.is_queue_full
        assert pool.queue_length == 0

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
    def test_a_forked_child_has_its_own_threads(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", FORKING], timeout=60, check=False, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (0, "coded\ncoded\n"), done.stderr


def spied(monkeypatch: pytest.MonkeyPatch, encoder: type, method: str) -> list[str]:
    """Return the names of the threads that call a method."""
    threads: list[str] = []
    original = getattr(encoder, method)

    def spy(self: Any, *args: Any) -> bytes:
        threads.append(threading.current_thread().name)
        coded: bytes = original(self, *args)
        return coded

    monkeypatch.setattr(encoder, method, spy)
    return threads


def in_pool(thread: str) -> bool:
    return thread.startswith("hasten-compression")


FORKING = """
import asyncio, os, signal
from hasten.compression import CompressionMiddleware

async def app(scope, receive, send):
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"[0, 1, 2]" * 100_000})

middleware = CompressionMiddleware(app)
middleware._shared.pool.offload_after = 0

async def get():
    found = {}
    async def send(message):
        found.update(message)
    headers = [(b"accept-encoding", b"gzip")]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    await middleware(scope, None, send)
    print("coded" if (b"content-encoding", b"gzip") in found["headers"] else "plain", flush=True)

asyncio.run(get())
child = os.fork()
if not child:
    signal.alarm(20)
    try:
        asyncio.run(get())
    except BaseException:
        os._exit(1)
    os._exit(0)
_, status = os.waitpid(child, 0)
raise SystemExit(os.waitstatus_to_exitcode(status))
"""


class TestETag:
    async def test_a_suffix_is_removed_for_the_application(self) -> None:
        asked: list[bytes | None] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            headers = dict(scope["headers"])
            asked.append(headers.get(b"if-none-match", headers.get(b"if-match")))
            status = 304 if headers.get(b"if-none-match") == b'"abc"' else 200
            await send_response(
                send, status, [*JSON, (b"etag", b'"abc"')], b"" if status == 304 else ORDERS
            )

        client = wrap(app, etag="suffix")
        for coding in ("gzip", "br", "zstd"):
            first = await client.get(coding)
            assert first.get("etag") == f'"abc--{coding}"'
            held = [(b"if-none-match", f'"abc--{coding}"'.encode())]
            again = await client.get(coding, headers=held)
            assert (again.status, again.body) == (304, b"")
            assert again.get("etag") == f'"abc--{coding}"'
            expect.varies(again)
            assert asked[-1] == b'"abc"'
        plain = await client.get()
        assert plain.get("etag") == '"abc"'
        again = await client.get(headers=[(b"if-none-match", b'"abc"')])
        assert (again.status, again.get("etag")) == (304, '"abc"')
        await client.get("gzip", headers=[(b"if-match", b'"x--gzip", "abc--br"')])
        assert asked[-1] == b'"x", "abc"'

    async def test_a_suffix_of_an_empty_etag_is_removed(self) -> None:
        asked: list[bytes | None] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            asked.append(dict(scope["headers"]).get(b"if-none-match"))
            await send_response(send, 200, [*JSON, (b"etag", b'""')], ORDERS)

        client = wrap(app, etag="suffix")
        tag = (await client.get("gzip")).get("etag")
        assert tag == '"--gzip"'
        await client.get("gzip", headers=[(b"if-none-match", tag.encode())])
        assert asked == [None, b'""']

    async def test_the_suffix_policy_does_not_change_the_scope_of_the_server(self) -> None:
        client = serve(Answer(), etag="suffix")
        async with client.open("gzip", headers=[(b"if-none-match", b'"a--gzip"')]) as exchange:
            before = list(exchange.scope["headers"])
            await exchange.response()
            assert exchange.scope["headers"] == before

    @pytest.mark.parametrize(
        ("policy", "coded", "revalidated"),
        [("weaken", 'W/"abc"', 'W/"abc"'), ("drop", None, '"abc"'), ("keep", '"abc"', '"abc"')],
    )
    async def test_etag_policies(self, policy: str, coded: str | None, revalidated: str) -> None:
        headers = (*JSON, (b"etag", b'"abc"'))
        for method in ("GET", "HEAD"):
            client = serve(Answer(ORDERS, headers), etag=policy)
            assert (await client.get("gzip", method=method)).get("etag") == coded
        held = (coded or '"abc"').encode()
        response = await serve(Answer(b"", headers, 304), etag=policy).get(
            "gzip", headers=[(b"if-none-match", held)]
        )
        assert response.get("etag") == revalidated
        assert (await serve(Answer(ORDERS, headers), etag=policy).get()).get("etag") == '"abc"'


class TestServerTiming:
    async def test_server_timing_has_encoding_and_duration(self) -> None:
        [value] = (await ask(server_timing=True)).all("server-timing")
        name, description, duration = value.split(";")
        assert (name, description) == ("cmp", 'desc="gzip"')
        assert float(duration.removeprefix("dur=")) >= 0

    async def test_server_timing_of_a_stream_has_no_duration(self) -> None:
        response = await ask(answer=Answer(events, SSE), server_timing=True)
        assert response.all("server-timing") == ['cmp;desc="gzip"']

    async def test_other_server_timing_headers_are_kept(self) -> None:
        answer = Answer(ORDERS, (*JSON, (b"server-timing", b"db;dur=5")))
        assert len((await ask(answer=answer, server_timing=True)).all("server-timing")) == 2
        assert (await ask("br;q=0", answer, server_timing=True)).all("server-timing") == [
            "db;dur=5"
        ]
        assert (await ask(answer=answer)).all("server-timing") == ["db;dur=5"]


def message_app(*messages: dict[str, Any]) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(dict(message))

    return app


def with_line(name: bytes, value: bytes, body: bytes = ORDERS) -> Answer:
    return Answer(body, (*JSON, (name, value)))


def plain_app(answer: Answer) -> App:
    return Raw().serve(answer, Installed(lambda app: app))


START = {"type": "http.response.start", "status": 200, "headers": list(JSON)}
FOREIGN = [(b"cookie", b"a=b"), (b"sec-fetch-site", b"cross-site")]
SIGNED = (b"signature-input", b'sig=("content-length");created=1')
PATHSEND = {"type": "http.response.pathsend", "path": "/missing.json"}
UNKNOWN = {"type": "http.response.novelty"}
END = {"type": "http.response.body", "body": ORDERS}

REASONS: dict[str, tuple[App, dict[str, Any], dict[str, Any]]] = {
    "status": (plain_app(Answer(b"", (), 204)), {}, {}),
    "already_encoded": (plain_app(with_line(b"content-encoding", b"br")), {}, {}),
    "opted_out": (plain_app(with_line(b"content-encoding", b"identity")), {}, {}),
    "no_transform": (plain_app(with_line(b"cache-control", b"no-transform")), {}, {}),
    "signed": (plain_app(with_line(*SIGNED)), {}, {}),
    "media_type": (plain_app(Answer(ORDERS, of_type("image/png"))), {}, {}),
    "head_request": (plain_app(Answer()), {"method": "HEAD"}, {}),
    "not_modified": (plain_app(Answer(b"", JSON, 304)), {}, {}),
    "too_small": (plain_app(Answer(SMALL)), {}, {}),
    "not_accepted": (plain_app(Answer()), {"accept": "compress"}, {}),
    "cross_site": (plain_app(Answer()), {"headers": FOREIGN}, {}),
    "not_smaller": (plain_app(Answer(noise(5000), TEXT)), {}, {}),
    "wrong_length": (plain_app(Answer(ORDERS, [*JSON, (b"content-length", b"99999")])), {}, {}),
    "busy": (plain_app(Answer(events, SSE)), {}, {"max_streams": 0}),
    "sent_by_server": (message_app(START, PATHSEND), {}, {}),
    "unknown_message": (message_app(START, UNKNOWN, END), {}, {}),
    "unfinished": (message_app(START), {}, {}),
}


class TestEvents:
    def test_every_skip_reason_is_tested(self) -> None:
        assert set(REASONS) == set(get_args(SkipReason))

    @pytest.mark.parametrize("reason", REASONS)
    async def test_skipped_events_have_a_reason(self, reason: str) -> None:
        app, request, options = REASONS[reason]
        found: list[CompressionEvent] = []
        client = wrap(app, on_event=found.append, **options)
        async with client.open(**{"accept": "gzip", **request}) as exchange:
            assert await exchange.ended() is None
            assert exchange.so_far().coding in {None, "br"}
        assert [event.reason for event in found if isinstance(event, Skipped)] == [reason]
        assert len(found) == 1

    async def test_compressed_events_have_sizes(self) -> None:
        found: list[CompressionEvent] = []
        response = await ask("br", level={"br": 3}, on_event=found.append)
        [event] = found
        assert isinstance(event, Compressed)
        assert (event.encoding, event.level, event.bytes_before) == ("br", 3, len(ORDERS))
        assert event.bytes_after == len(response.body)
        assert event.seconds > 0
        assert (event.streamed, event.cached) == (False, False)

    @pytest.mark.parametrize("answer", [Answer(events, SSE), Answer(ORDERS * 400)])
    async def test_the_event_of_a_stream_comes_at_its_end(self, answer: Answer) -> None:
        found: list[CompressionEvent] = []
        response = await ask("zstd", answer, on_event=found.append)
        [event] = found
        assert isinstance(event, Compressed)
        assert event.streamed
        assert event.bytes_before == len(response.decoded())
        assert event.bytes_after == len(response.body)

    async def test_a_large_body_that_does_not_shrink_has_one_event(self) -> None:
        """It was compressed in part before it was sent plain."""
        body = noise(5 << 20)
        found: list[CompressionEvent] = []
        expect.plain(await ask("gzip", Answer(body, TEXT), on_event=found.append), body)
        assert found == [Skipped("not_smaller")]

    @pytest.mark.parametrize(
        ("answer", "coding"),
        [
            (Answer(), "gzip"),
            (Answer(events, SSE), "gzip"),
            (Answer(ORDERS * 400), "gzip"),
            (Answer(SMALL), None),
            (Answer(ORDERS, of_type("image/png")), None),
        ],
    )
    async def test_an_observer_that_raises_does_not_affect_the_response(
        self, answer: Answer, coding: str | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(event: CompressionEvent) -> None:
            raise LookupError("no such metric")

        middleware = CompressionMiddleware(
            Raw().serve(answer, Installed(lambda app: app)), on_event=broken
        )
        response = await Client(middleware).get("gzip")
        assert response.coding == coding
        whole = answer.body if isinstance(answer.body, bytes) else b"".join(EVENTS)
        assert response.decoded() == whole
        [record] = caplog.records
        assert (record.name, record.levelname) == ("hasten.compression", "ERROR")
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], LookupError)
        assert middleware._shared.open_streams == 0
        await until(lambda: not leftovers(), "nothing to be left behind")

    @pytest.mark.parametrize("option", ["on_event", "filter"])
    def test_async_functions_are_refused(self, option: str) -> None:
        async def never_awaited(*_: object) -> None:
            """Return a coroutine that is never awaited."""

        with pytest.raises(InvalidOption, match=f"{option}=.* not async"):
            wrap(plain_app(Answer()), **{option: never_awaited})


class TestStats:
    async def test_stats_count_by_encoding_and_reason(self) -> None:
        stats = CompressionStats()
        client = serve(Answer(), stats=stats)
        sizes = [len((await client.get("gzip")).body) for _ in range(3)]
        await client.get()
        await client.get("compress")
        await serve(Answer(SMALL), stats=stats).get("gzip")
        assert stats.skipped == {"not_accepted": 2, "too_small": 1}
        [(encoding, totals)] = stats.compressed.items()
        assert type(encoding) is str
        assert encoding == "gzip"
        assert totals == EncodingStats(3, 3 * len(ORDERS), sum(sizes), totals.seconds)
        assert totals.seconds > 0
        assert totals.bytes_saved == 3 * len(ORDERS) - sum(sizes)
        assert totals.ratio == 3 * len(ORDERS) / sum(sizes)
        assert json.loads(json.dumps(stats.as_dict())) == {
            "compressed": {
                "gzip": {
                    "responses": 3,
                    "bytes_before": 3 * len(ORDERS),
                    "bytes_after": sum(sizes),
                    "seconds": totals.seconds,
                    "bytes_saved": totals.bytes_saved,
                    "ratio": totals.ratio,
                }
            },
            "skipped": {"not_accepted": 2, "too_small": 1},
        }
        assert "'too_small': 1" in repr(stats)

    async def test_stats_can_be_reset(self) -> None:
        """`app.add_middleware` does not return the middleware."""
        from starlette.applications import Starlette

        stats = CompressionStats()
        app = Starlette()
        app.add_middleware(CompressionMiddleware, stats=stats)
        await Client(app).get("gzip")
        assert stats.skipped == {"too_small": 1}
        stats.reset()
        assert (stats.compressed, stats.skipped) == ({}, {})
        await Client(app).get("gzip")
        assert stats.skipped == {"too_small": 1}

    async def test_count_even_if_an_observer_raises(self, caplog: pytest.LogCaptureFixture) -> None:
        def broken(event: CompressionEvent) -> None:
            raise LookupError("no such metric")

        stats = CompressionStats()
        expect.coded(await ask(stats=stats, on_event=broken), "gzip", ORDERS)
        assert stats.compressed["gzip"].responses == 1
        assert len(caplog.records) == 1

    def test_new_stats_are_empty(self) -> None:
        stats = CompressionStats()
        assert stats.as_dict() == {"compressed": {}, "skipped": {}}
        assert EncodingStats().ratio == 0


class TestNoCompression:
    async def untouched(self, app: App) -> None:
        client = Client(app)
        response = expect.plain(await client.get("gzip", path="/marked"), ORDERS)
        assert response.get("vary") is None
        expect.coded(await client.get("gzip", path="/other"), "gzip", ORDERS)

    async def test_no_compression_on_functions_and_classes_of_starlette(self) -> None:
        from starlette.applications import Starlette
        from starlette.endpoints import HTTPEndpoint
        from starlette.requests import Request
        from starlette.responses import Response as Answered
        from starlette.routing import Mount, Route

        async def answer(request: Request) -> Answered:
            return Answered(ORDERS, media_type="application/json")

        @no_compression
        async def marked(request: Request) -> Answered:
            return await answer(request)

        class Other(HTTPEndpoint):
            async def get(self, request: Request) -> Answered:
                return await answer(request)

        @no_compression
        class Marked(Other):
            pass

        for one, other in ((marked, answer), (Marked, Other), (marked, Other), (Marked, answer)):
            routes = [Route("/marked", one), Route("/other", other)]
            for arranged in (routes, [Mount("/", routes=routes)]):
                app = Starlette(routes=arranged)
                app.add_middleware(CompressionMiddleware)
                await self.untouched(app)

    async def test_no_compression_on_routes_of_fastapi(self) -> None:
        import fastapi

        app = fastapi.FastAPI(openapi_url=None)
        app.add_middleware(CompressionMiddleware)

        @app.get("/marked")
        @no_compression
        async def marked() -> fastapi.Response:
            return fastapi.Response(ORDERS, media_type="application/json")

        @app.get("/other")
        def other() -> fastapi.Response:
            return fastapi.Response(ORDERS, media_type="application/json")

        await self.untouched(app)

    @pytest.mark.parametrize("extensions", [None, {"http.response.debug": {}}])
    @pytest.mark.parametrize("framework", ["starlette", "fastapi"])
    async def test_no_compression_works_behind_decompression(
        self, framework: str, extensions: dict[str, Any] | None
    ) -> None:
        """The scope is restored after the request."""
        import fastapi
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import Response as Answered
        from starlette.routing import Route

        bodies: list[bytes] = []

        async def answer(request: Request) -> Answered:
            bodies.append(await request.body())
            return Answered(ORDERS, media_type="application/json")

        @no_compression
        async def marked(request: Request) -> Answered:
            return await answer(request)

        answer.__annotations__ = marked.__annotations__ = {"request": Request, "return": Answered}
        app: Any
        if framework == "starlette":
            handlers = {"/marked": marked, "/other": answer}
            app = Starlette(routes=[Route(p, f, methods=["POST"]) for p, f in handlers.items()])
        else:
            app = fastapi.FastAPI(openapi_url=None)
            app.post("/marked", response_model=None)(marked)
            app.post("/other", response_model=None)(answer)
        app.add_middleware(DecompressionMiddleware)
        app.add_middleware(CompressionMiddleware)
        for path, coding in (("/marked", None), ("/other", "gzip")):
            headers = [(b"content-encoding", b"gzip")]
            request: Any = {"method": "POST", "body": [encode("gzip", b"{}")], "headers": headers}
            exchange = Client(app).open("gzip", path=path, extensions=extensions, **request)
            before = dict(exchange.scope)
            async with exchange:
                response = await exchange.response()
            assert response.coding == coding
            assert response.decoded() == ORDERS
            assert {name: exchange.scope[name] for name in before} == before
            assert exchange.scope.get("extensions") == extensions
        assert bodies == [b"{}"] * 2

    @pytest.mark.parametrize("kind", ["function", "class"])
    async def test_no_compression_on_handlers_of_litestar(self, kind: str) -> None:
        import litestar
        from litestar.middleware import DefineMiddleware

        @litestar.get("/other", media_type="application/json")
        async def other() -> bytes:
            return ORDERS

        @litestar.get("/marked", media_type="application/json")
        @no_compression
        async def marked() -> bytes:
            return ORDERS

        @no_compression
        class Marked(litestar.Controller):
            @litestar.get("/marked", media_type="application/json")
            async def answer(self) -> bytes:
                return ORDERS

        middleware: Any = CompressionMiddleware
        app: Any = litestar.Litestar(
            [marked if kind == "function" else Marked, other],
            middleware=[DefineMiddleware(middleware)],
            openapi_config=None,
            logging_config=None,
        )
        await self.untouched(app)

    def test_no_compression_returns_the_endpoint(self) -> None:
        def endpoint() -> int:
            return 5

        assert no_compression(endpoint) is endpoint
        assert endpoint() == 5


async def test_html_is_coded_by_default() -> None:
    expect.coded(await ask("gzip, deflate, br, zstd", Answer(ORDERS, HTML)), "zstd", ORDERS)


async def test_an_absurd_content_length_of_a_request_is_handled() -> None:
    """Python raises for numbers of more than 4,300 digits."""
    client = Client(DecompressionMiddleware(plain_app(Answer())))
    headers = [(b"content-encoding", b"gzip"), (b"content-length", b"9" * 5000)]
    response = await client.post([encode("gzip", b"{}")], headers=headers)
    assert response.status in {400, 413}


async def test_an_absurd_content_length_of_a_response_is_handled() -> None:
    absurd = Answer(ORDERS, [*JSON, (b"content-length", b"9" * 5000)])
    expect.coded(await ask(answer=absurd), "gzip", ORDERS)
