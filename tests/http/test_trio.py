"""The middlewares on trio, which Hypercorn and Starlette support."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from trio.testing import wait_all_tasks_blocked

from hasten.compression import (
    CompressionCache,
    CompressionMiddleware,
    DecompressionMiddleware,
    Precompressed,
)
from hasten.compression._pool import CompressionThreads
from hasten.errors import AsyncioRequired
from hasten.loadshedding import LoadSheddingMiddleware
from hasten.pagination import Paginator, Window
from hasten.ratelimit import Limit, Limiter, RateLimitMiddleware, current_limit
from tests.http import expect
from tests.http.bodies import HTML, JSON, ORDERS, SSE, tokens
from tests.http.client import App, Headers, Message, Receive, Response, Scope, Send
from tests.http.codings import CODINGS, decode_beginning, encode
from tests.http.hosts import start_message
from tests.http.test_asgi import body, sends

Seen = Callable[[list[Message]], object]


async def request(
    app: App,
    accept: str = "gzip",
    *,
    parts: Sequence[bytes] = (b"",),
    headers: Headers = (),
    path: str = "/",
    messages: list[Message] | None = None,
) -> Response:
    """Serve one request in the running trio event loop."""
    left = [*parts]
    sent = [] if messages is None else messages

    async def receive() -> Message:
        await trio.lowlevel.checkpoint()
        if not left:
            await trio.sleep_forever()
        part = left.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(left)}

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET" if parts == (b"",) else "POST",
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"x"), (b"accept-encoding", accept.encode()), *headers],
        "client": ("192.0.2.1", 4711),
        "server": ("example.org", 443),
        "state": {},
    }
    with trio.fail_after(10):
        await app(scope, receive, send)
    return seen(sent)


def seen(messages: list[Message]) -> Response:
    start, *bodies = messages
    whole = b"".join(message.get("body", b"") for message in bodies)
    is_whole = not bodies[-1].get("more_body", False)
    return Response(start["status"], start["headers"], whole, is_whole, messages)


def ask(app: App, accept: str = "gzip", **options: Any) -> Response:
    return trio.run(partial(request, app, accept, **options))


class TestCompression:
    @pytest.mark.parametrize("coding", CODINGS)
    @pytest.mark.parametrize("offload_after", [1.0, 0.0], ids=["at once", "in a thread"])
    def test_whole_bodies_are_compressed(
        self, coding: str, offload_after: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(CompressionThreads, "offload_after", offload_after)
        app = CompressionMiddleware(sends(start_message(200, JSON), body()))
        expect.coded(ask(app, coding), coding, ORDERS)

    @pytest.mark.parametrize("coding", CODINGS)
    @pytest.mark.parametrize("headers", [SSE, HTML], ids=["live", "other"])
    def test_each_message_of_a_stream_is_flushed(self, headers: Headers, coding: str) -> None:
        """No timer flushes after a pause."""
        events = tokens(5)
        messages: list[Message] = []
        read: list[bytes] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(start_message(200, headers))
            for event in events:
                await send({**body(event), "more_body": True})
                read.append(decode_beginning(coding, seen(messages).body))
            await send(body(b""))

        found = ask(CompressionMiddleware(app), coding, messages=messages)
        expect.coded(found, coding, b"".join(events))
        assert read == [b"".join(events[: count + 1]) for count in range(5)]

    def test_flush_never_is_obeyed(self) -> None:
        messages: list[Message] = []
        pieces = [start_message(200, JSON), body(ORDERS, more=True), body(b"x")]
        app = CompressionMiddleware(sends(*pieces), flush="never")
        expect.coded(ask(app, "zstd", messages=messages), "zstd", ORDERS + b"x")
        assert [message.get("body") for message in messages].count(b"") == 0
        assert len(messages) == 2  # nothing left before the end

    def test_an_empty_stream_is_not_changed(self) -> None:
        app = sends(start_message(200, JSON), body(b"", more=True), body(b""))
        expect.plain(ask(CompressionMiddleware(app)), b"")

    def test_streams_of_starlette_are_compressed(self) -> None:
        from starlette.applications import Starlette
        from starlette.responses import StreamingResponse
        from starlette.routing import Route

        async def lines() -> AsyncIterator[bytes]:
            for line in ORDERS.split(b","):
                yield line

        async def endpoint(request: Any) -> StreamingResponse:
            return StreamingResponse(lines(), media_type="text/plain")

        app = Starlette(routes=[Route("/", endpoint)])
        app.add_middleware(CompressionMiddleware)
        assert ask(app).decoded() == ORDERS.replace(b",", b"")

    def test_tasks_of_the_application_may_send_concurrently(self) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(start_message(200, HTML))
            async with trio.open_nursery() as nursery:
                for part in tokens(20):
                    nursery.start_soon(send, {**body(part), "more_body": True})
            await send(body(b""))

        events = ask(CompressionMiddleware(app)).decoded().split(b"\n\n")
        assert sorted(events) == sorted(b"".join(tokens(20)).split(b"\n\n"))

    @pytest.mark.usefixtures("all_work_in_threads")
    def test_a_request_can_be_cancelled_while_a_thread_works(self) -> None:
        async def main() -> None:
            app = CompressionMiddleware(sends(start_message(200, JSON), body()), threads=1)
            with trio.move_on_after(0):
                await request(app)
            expect.coded(await request(app), "gzip", ORDERS)

        trio.run(main)

    def test_compressed_bodies_are_cached(self) -> None:
        cache = CompressionCache()
        shared = [*JSON, (b"etag", b'"abc"'), (b"cache-control", b"public")]
        app = CompressionMiddleware(sends(start_message(200, shared), body()), cache=cache)
        for _ in range(2):
            expect.coded(ask(app), "gzip", ORDERS)
        assert len(cache) == 1

    def test_recompress_is_refused_at_the_first_request(self) -> None:
        app = CompressionMiddleware(
            sends(start_message(200, []), body()), cache=CompressionCache(recompress=True)
        )
        with pytest.raises(
            AsyncioRequired, match=r"CompressionCache\(recompress=True\) needs asyncio"
        ):
            ask(app)


class TestDecompression:
    @pytest.mark.parametrize("offload_after", [1.0, 0.0], ids=["at once", "in a thread"])
    def test_decodes_requests(self, offload_after: float, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(CompressionThreads, "offload_after", offload_after)
        app = DecompressionMiddleware(echo)
        coded = encode("gzip", ORDERS * 20)
        gzip = [(b"content-encoding", b"gzip")]
        assert ask(app, parts=[coded[:50], coded[50:]], headers=gzip).body == ORDERS * 20
        refused = ask(app, parts=[coded[:-1]], headers=gzip)
        assert refused.status == 400


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    read = b""
    while True:
        message = await receive()
        read += message["body"]
        if not message["more_body"]:
            break
    await send(start_message(200, []))
    await send(body(read))


def test_precompressed_files_are_served(tmp_path: Path) -> None:
    from starlette.staticfiles import StaticFiles

    (tmp_path / "a.txt").write_bytes(b"plain")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"plain"))
    found = ask(Precompressed(StaticFiles(directory=tmp_path), tmp_path), path="/a.txt")
    assert (found.coding, found.decoded()) == ("gzip", b"plain")


class TestLimits:
    def test_limits_in_memory_work(self) -> None:
        app = RateLimitMiddleware(sends(start_message(200, []), body()), limits=[Limit("2/m")])
        assert [ask(app).status for _ in range(3)] == [200, 200, 429]

    @pytest.mark.parametrize("in_thread", [False, True])
    def test_limits_in_memory_can_be_charged_without_waiting(self, in_thread: bool) -> None:
        left: list[int] = []

        def charge() -> None:
            found = current_limit("a")
            found.sync.charge(4)
            left.append(found.decision.remaining)
            found.sync.reset()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if in_thread:
                await trio.to_thread.run_sync(charge)
            else:
                charge()
            await send(start_message(200, []))
            await send(body())

        limited = RateLimitMiddleware(app, limits=[Limit("9/m", name="a")])
        assert [ask(limited).status for _ in range(2)] == [200, 200]
        assert left == [4, 4]

        trio.run(limited.aclose)

    @pytest.mark.parametrize("scheme", ["sqlite", "redis"])
    def test_other_stores_are_refused_at_first_request(self, scheme: str, tmp_path: Path) -> None:
        """Those stores need timers and tasks of asyncio."""
        url = {"sqlite": f"sqlite:///{tmp_path}/limits.db", "redis": "redis://127.0.0.1:1"}[scheme]
        app = RateLimitMiddleware(
            sends(start_message(200, []), body()), limits=[Limit("2/m")], store=url
        )
        for _ in range(2):
            with pytest.raises(AsyncioRequired, match="use store='memory://'"):
                ask(app)

    def test_limiters_in_other_stores_are_refused(self, tmp_path: Path) -> None:
        limiter = Limiter("1/m", name="calls", store=f"sqlite:///{tmp_path}/limits.db")
        with pytest.raises(AsyncioRequired, match="leave store= out"):
            trio.run(limiter.hit, "ada")

    def test_limiters_work_but_cannot_wait(self) -> None:
        limiter = Limiter("1/m", name="calls")
        assert trio.run(limiter.hit, "ada").ok
        assert not trio.run(limiter.hit, "ada").ok
        with pytest.raises(AsyncioRequired, match=r"Limiter\.wait needs asyncio"):
            trio.run(limiter.wait, "ada")
        trio.run(limiter.reset, "ada")
        assert trio.run(limiter.hit, "ada").ok
        trio.run(limiter.aclose)


def test_load_shedding_works() -> None:
    async def main() -> None:
        gate = trio.Event()
        statuses: list[int] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await send(start_message(200, []))
            await send(body())

        shedder = LoadSheddingMiddleware(app, min_concurrency=1, max_concurrency=1)

        async def one() -> None:
            statuses.append((await request(shedder)).status)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            await wait_all_tasks_blocked()
            statuses.append((await request(shedder)).status)
            gate.set()
        assert statuses == [503, 200]
        assert shedder._load._lag._started_at is None  # the measurement of the lag has ended

    trio.run(main)


class Item(BaseModel):
    id: int


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "rows"
    id: Mapped[int] = mapped_column(primary_key=True)


class TestPages:
    def test_pages_of_lists_and_sources_work(self) -> None:
        class Numbers:
            async def fetch(self, window: Window) -> list[dict[str, int]]:
                await trio.lowlevel.checkpoint()
                return [{"id": 1}]

            async def count(self, cap: int | None) -> int:
                return 1

        async def main() -> None:
            items = Paginator(Item)
            q = items.parse("")
            assert items.from_items([{"id": 1}], q).total == 1
            assert (await items.from_source(Numbers(), q)).total == 1

        trio.run(main)

    def test_sessions_that_need_asyncio_are_refused(self) -> None:
        rows = Paginator(Item, model=Row, sort=("id",))

        async def main() -> None:
            session = AsyncSession(create_async_engine("sqlite+aiosqlite://"))
            with pytest.raises(AsyncioRequired, match="AsyncSession of SQLAlchemy needs asyncio"):
                await rows.page(session, select(Row), rows.parse(""))

        trio.run(main)


def test_without_any_event_loop_the_error_says_so() -> None:
    app = CompressionMiddleware(sends(start_message(200, HTML), body(b"a", more=True)))
    scope = {"type": "http", "method": "GET", "headers": [(b"accept-encoding", b"gzip")]}
    running = app(scope, receive_nothing, send_nothing)
    with pytest.raises(AsyncioRequired, match="asyncio, or on trio"):
        running.send(None)


async def receive_nothing() -> Message:
    raise AssertionError("nothing is read")


async def send_nothing(message: Message) -> None:
    raise AssertionError("nothing is sent")


def test_hypercorn_serves_a_compressed_stream() -> None:
    from hypercorn.config import Config
    from hypercorn.trio import serve

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send(start_message(200, HTML))
        for part in (ORDERS, b"", b"tail"):
            await send({**body(part), "more_body": True})
        await send(body(b""))

    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = config.accesslog = None

    async def main() -> bytes:
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(
                partial(serve, CompressionMiddleware(app), config)  # type: ignore[arg-type]
            )
            port = int(str(address).rpartition(":")[2])
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(
                    b"GET / HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip\r\n"
                    b"connection: close\r\n\r\n"
                )
                received = b"".join([data async for data in stream])
            nursery.cancel_scope.cancel()
        return received

    received = trio.run(main)
    head, _, chunks = received.partition(b"\r\n\r\n")
    assert b"content-encoding: gzip" in head
    coded = b""
    while chunks:
        size, _, chunks = chunks.partition(b"\r\n")
        coded += chunks[: int(size, 16)]
        chunks = chunks[int(size, 16) + 2 :]
    assert gzip.decompress(coded) == ORDERS + b"tail"
