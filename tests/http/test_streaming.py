"""Bodies that are sent in several messages."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from hasten.compression import CompressionMiddleware
from hasten.errors import ResponseBroken
from tests.http import expect
from tests.http.bodies import HTML, JSON, NDJSON, ORDERS, SMALL, SSE, TEXT, noise, tokens
from tests.http.client import App, Client, Exchange, Headers, Receive, Scope, Send, stays
from tests.http.codings import CODINGS, BadCoding, decode
from tests.http.hosts import Answer, Can, start_message
from tests.http.site import Site, behaviour

EVENTS = tokens(5)
CODER_HOLDS_BYTES = 4 * 1024 * 1024  # brotli reads that much before it writes
LINES = [b'{"line": %d}\n' % number for number in range(5)]


def beginnings(parts: list[bytes]) -> list[bytes]:
    """Return the first part, the first two parts, and so on."""
    return [b"".join(parts[:count]) for count in range(1, len(parts) + 1)]


def never_ends_well(exchange: Exchange) -> None:
    """Check that the client can detect that the response is incomplete."""
    assert not exchange.has_ended
    coding = exchange.so_far().coding
    if coding is not None and exchange.body:
        with pytest.raises(BadCoding):
            decode(coding, exchange.body)


def leftovers() -> set[str]:
    """Return the tasks that still run, except that of the test."""
    mine = asyncio.current_task()
    return {task.get_name() for task in asyncio.all_tasks() if task is not mine}


@behaviour(codings=CODINGS)
async def test_each_event_is_decodable_when_its_send_returns(site: Site) -> None:
    read: list[bytes] = []

    async def events() -> AsyncIterator[bytes]:
        for event in EVENTS:
            yield event
            read.append(exchange.decoded())

    async with site.serve(Answer(events, SSE)).open(site.coding) as exchange:
        response = await exchange.response()
    assert read == beginnings(EVENTS)
    assert response.coding == site.coding
    assert response.decoded() == b"".join(EVENTS)


@behaviour(codings=CODINGS)
async def test_the_start_of_an_event_stream_is_sent_at_once(site: Site) -> None:
    """The `open` event of the browser and time-outs depend on it."""

    async def events() -> AsyncIterator[bytes]:
        await exchange.until(lambda: exchange.has_started, "the start")
        yield EVENTS[0]

    async with site.serve(Answer(events, SSE)).open(site.coding) as exchange:
        response = await exchange.response()
    assert response.decoded() == EVENTS[0]
    assert response.coding == site.coding
    assert response.get("content-length") is None
    expect.varies(response)


@behaviour(codings=CODINGS, once=True)
async def test_events_are_compressed_well(site: Site) -> None:
    """Events share one compressor, so they can refer to earlier ones."""
    events = tokens(400)

    async def stream() -> AsyncIterator[bytes]:
        for event in events:
            yield event

    response = await site.serve(Answer(stream, SSE)).get(site.coding)
    expect.coded(response, site.coding, b"".join(events))
    bytes_per_event = len(response.body) / len(events)
    assert bytes_per_event < (15 if site.coding == "gzip" else 30)


@behaviour(codings=CODINGS)
async def test_each_line_is_decodable_before_the_next_comes(site: Site) -> None:
    async def lines() -> AsyncIterator[bytes]:
        for line, so_far in zip(LINES, beginnings(LINES), strict=True):
            yield line
            await exchange.until_read(so_far)

    async with site.serve(Answer(lines, NDJSON)).open(site.coding) as exchange:
        response = await exchange.response()
    assert response.coding == site.coding
    assert response.decoded() == b"".join(LINES)


@behaviour(codings=CODINGS)
async def test_a_pause_flushes_the_stream(site: Site) -> None:
    """A browser can show the head of a page while the rest is computed."""
    parts = [ORDERS, b"<p>two</p>" * 9, b"<p>three</p>"]

    async def page() -> AsyncIterator[bytes]:
        for part, so_far in zip(parts, beginnings(parts), strict=True):
            yield part
            await exchange.until_read(so_far)

    async with site.serve(Answer(page, HTML)).open(site.coding) as exchange:
        response = await exchange.response()
    expect.coded(response, site.coding, b"".join(parts))


@behaviour(codings=CODINGS)
async def test_a_pause_flushes_even_a_small_beginning(site: Site) -> None:
    """It is not known whether more will follow, so a small part is flushed as well."""

    async def page() -> AsyncIterator[bytes]:
        yield b"<p>one</p>"
        await exchange.until_read(b"<p>one</p>")
        yield ORDERS

    async with site.serve(Answer(page, HTML)).open(site.coding) as exchange:
        response = await exchange.response()
    assert response.decoded() == b"<p>one</p>" + ORDERS


@behaviour(codings=CODINGS, once=True)
async def test_chunks_without_a_pause_compress_like_one_body(site: Site) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(ORDERS), 64):
            yield ORDERS[start : start + 64]

    response = expect.coded(await site.serve(Answer(chunks)).get(site.coding), site.coding, ORDERS)
    whole = await site.serve(Answer(ORDERS)).get(site.coding)
    assert len(response.body) <= 1.35 * len(whole.body)


@behaviour(codings=CODINGS)
async def test_a_small_body_in_pieces_is_plain(site: Site) -> None:
    async def tiny() -> AsyncIterator[bytes]:
        yield b'{"a":1}'

    response = expect.plain(await site.serve(Answer(tiny)).get(site.coding), b'{"a":1}')
    expect.varies(response)


@behaviour(needs=Can.RAW)
async def test_a_small_body_behind_a_middleware_of_starlette_is_plain(site: Site) -> None:
    """BaseHTTPMiddleware turns every body into a stream."""
    from starlette.applications import Starlette
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    app = Starlette(routes=[Route("/", lambda request: JSONResponse({"a": 1}))])
    app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))
    response = expect.plain(await site.client(app).get(site.coding), b'{"a":1}')
    assert response.get("content-length") == "7"


@behaviour(codings=CODINGS)
async def test_empty_chunks_are_harmless(site: Site) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b""
        yield ORDERS
        yield b""
        yield b""
        yield ORDERS
        yield b""

    expect.coded(await site.serve(Answer(chunks)).get(site.coding), site.coding, ORDERS * 2)


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_messages_may_lack_keys_that_have_a_default(site: Site) -> None:
    """`body` is b"" and `more_body` is False where they are left out."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start_message(200, JSON))
        if scope["path"] == "/long":
            await send({"type": "http.response.body", "more_body": True})
            await send({"type": "http.response.body", "body": ORDERS, "more_body": True})
        await send({"type": "http.response.body"})

    client = site.client(app)
    expect.coded(await client.get(site.coding, path="/long"), site.coding, ORDERS)
    expect.plain(await client.get(site.coding), b"")


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_bodies_may_be_any_bytes(site: Site) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start_message(200, JSON))
        for part in (bytearray(ORDERS), memoryview(ORDERS)):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": memoryview(b"")})

    expect.coded(await site.client(app).get(site.coding), site.coding, ORDERS * 2)


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_the_application_may_reuse_its_buffer(site: Site) -> None:
    """The data that was sent is copied before it is held back."""
    parts = [b"first " * 10, *(bytes([65 + number]) * 3000 for number in range(3)), b"last"]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        buffer = bytearray()
        await send(start_message(200, JSON))
        for part in parts:
            buffer[:] = part
            await send({"type": "http.response.body", "body": buffer, "more_body": True})
        buffer[:] = b""
        await send({"type": "http.response.body", "body": buffer})

    expect.coded(await site.client(app).get(site.coding), site.coding, b"".join(parts))


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_chunk_is_not_kept_for_the_life_of_the_stream(coding: str) -> None:
    kept: list[int] = []

    def parts() -> Iterator[bytes]:
        yield b"["
        yield b"0, " * 4_000_000
        yield b"1, "
        yield b"2"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start_message(200, JSON))
        for part in parts():
            await send({"type": "http.response.body", "body": part, "more_body": True})
            del part
            kept.append(tracemalloc.get_traced_memory()[0])
        await send({"type": "http.response.body", "body": b"]"})

    tracemalloc.start()
    try:
        response = await Client(CompressionMiddleware(app)).get(coding)
    finally:
        tracemalloc.stop()
    assert response.coding == coding
    assert min(kept[1:]) - kept[0] < 6_000_000


@behaviour(codings=CODINGS)
async def test_a_coded_stream_has_no_declared_length(site: Site) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield ORDERS[:6000]
        yield ORDERS[6000:]

    length = (b"content-length", str(len(ORDERS)).encode())
    response = await site.serve(Answer(chunks, (*JSON, length))).get(site.coding)
    expect.coded(response, site.coding, ORDERS)


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_a_body_of_another_length_than_declared_breaks_the_response(site: Site) -> None:
    """Without the middleware, the server and the client would detect it."""
    whole, more, end = ([ORDERS[:3000]], [ORDERS[:1500], ORDERS[1500:3000]], b"")
    for declared in (b"100000", b"2000"):
        for parts in (whole, more, [*whole, end], [*more, end]):

            async def app(
                scope: Scope,
                receive: Receive,
                send: Send,
                declared: bytes = declared,
                parts: list[bytes] = parts,
            ) -> None:
                await send(start_message(200, (*JSON, (b"content-length", declared))))
                for number, part in enumerate(parts, 1):
                    message: Any = {"type": "http.response.body", "body": part}
                    await send({**message, "more_body": number < len(parts)})

            async with site.client(app).open(site.coding) as exchange:
                error = await exchange.ended()
            response = exchange.so_far()
            expect.varies(response)
            if response.coding is None:  # the server detects it
                assert response.get("content-length") == declared.decode()
            else:
                assert error is not None
                never_ends_well(exchange)


@behaviour(codings=CODINGS)
async def test_a_declared_small_length_stays_plain(site: Site) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield SMALL[:100]
        await exchange.until_read(SMALL[:100])
        yield SMALL[100:]

    length = (b"content-length", str(len(SMALL)).encode())
    client = site.serve(Answer(chunks, (*JSON, length)))
    async with client.open(site.coding) as exchange:
        response = await exchange.response()
    expect.plain(response, SMALL)
    assert response.get("content-length") == str(len(SMALL))


@behaviour(codings=CODINGS)
async def test_an_empty_chunk_flushes(site: Site) -> None:
    """Applications may know when a part is complete."""
    read: list[bytes] = []

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield ORDERS
            yield b""
            read.append(exchange.decoded())

    async with site.serve(Answer(chunks), flush="never").open(site.coding) as exchange:
        response = await exchange.response()
    assert read == beginnings([ORDERS] * 3)
    expect.coded(response, site.coding, ORDERS * 3)


@behaviour(codings=CODINGS)
async def test_flush_can_be_set(site: Site) -> None:
    read: list[bytes] = []

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, 9000, 3000):
            yield ORDERS[start : start + 3000]
            read.append(exchange.decoded())

    async with site.serve(Answer(chunks), flush="message").open(site.coding) as exchange:
        every = await exchange.response()
    assert read == [ORDERS[:3000], ORDERS[:6000], ORDERS[:9000]]
    async with site.serve(Answer(chunks), flush="never").open(site.coding) as exchange:
        never = await exchange.response()
    expect.coded(never, site.coding, ORDERS[:9000])
    assert len(never.body) < len(every.body)


def endless(scope_headers: Headers, part: bytes) -> App:
    """An application that sends until an exception stops it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start_message(200, scope_headers))
        while True:
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0)

    return app


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_a_failed_send_raises_in_the_application(site: Site) -> None:
    for headers, part in ((SSE, EVENTS[0]), (JSON, ORDERS), (JSON, noise(9000))):
        client = site.client(endless(headers, part))
        async with client.open(site.coding, raises_when_gone=True) as exchange:
            await exchange.until(lambda: exchange.body, "the first bytes")
            exchange.disconnect()
            error = await exchange.ended()
        if isinstance(error, ResponseBroken):
            # A flush in a pause has failed, so the next send of the application raises the error.
            error = error.__cause__
        assert isinstance(error, OSError)
        assert str(error) == "the client is gone"
        never_ends_well(exchange)
        await exchange.until(lambda: not leftovers(), "nothing to be left behind")


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_the_application_receives_the_disconnect(site: Site) -> None:
    """Errors that the application raises then reach the server."""

    class Gone(Exception):
        pass

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(start_message(200, JSON))
        await send({"type": "http.response.body", "body": ORDERS, "more_body": True})
        message = await receive()
        assert message == {"type": "http.disconnect"}
        raise Gone

    async with site.client(app).open(site.coding) as exchange:
        await exchange.until(lambda: exchange.body, "the first bytes")
        exchange.disconnect()
        error = await exchange.ended()
    assert isinstance(error, Gone)
    await exchange.until(lambda: not leftovers(), "nothing to be left behind")


@behaviour(needs=Can.CANCEL, codings=CODINGS)
async def test_cancelling_leaves_nothing_behind(site: Site) -> None:
    async def stuck() -> AsyncIterator[bytes]:
        yield ORDERS
        await asyncio.Event().wait()

    async with site.serve(Answer(stuck)).open(site.coding) as exchange:
        await exchange.until_read(ORDERS)
        await exchange.cancel()
        never_ends_well(exchange)
        sent = len(exchange.messages)
        await exchange.until(lambda: not leftovers(), "nothing to be left behind")
        await stays(lambda: len(exchange.messages) == sent, "something was sent afterwards")


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_cancelling_while_the_client_is_blocked_leaves_nothing_behind(site: Site) -> None:
    """The task that flushes after a pause must end with the request."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start_message(200, JSON))
        await send({"type": "http.response.body", "body": ORDERS, "more_body": True})
        await asyncio.Event().wait()

    async with site.client(app).open(site.coding) as exchange:
        exchange.hold()
        await asyncio.wait([exchange.task], timeout=0.02)  # the pause comes
        await exchange.cancel()
        exchange.release()
        await exchange.until(lambda: not leftovers(), "nothing to be left behind")
        assert exchange.messages == []


async def breaks_for_good(send: Send) -> None:
    """Check that later messages do not continue the response."""
    for part, more in ((ORDERS, True), (b"", True), (b"", False), (ORDERS, False)):
        with pytest.raises(ResponseBroken):
            await send({"type": "http.response.body", "body": part, "more_body": more})


@pytest.mark.parametrize("headers", [JSON, SSE])
@pytest.mark.parametrize("waits_for", ["a thread", "the client"])
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.usefixtures("all_work_in_threads")
async def test_cancelled_sends_leave_no_gap(coding: str, waits_for: str, headers: Headers) -> None:
    """The message of the cancelled send is lost, so nothing may follow it."""
    gate = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_part() -> None:
            await send({"type": "http.response.body", "body": noise(9000), "more_body": True})

        await send(start_message(200, headers))
        await send_part()
        await exchange.until(lambda: exchange.decoded() == noise(9000), "the first part")
        occupied = asyncio.ensure_future(middleware._shared.pool.run(gate.wait, 10))
        if waits_for == "the client":
            gate.set()
            exchange.hold()
        sending = asyncio.ensure_future(send_part())
        await asyncio.wait([sending], timeout=0.02)
        sending.cancel()
        await asyncio.wait([sending])
        assert sending.cancelled()
        exchange.release()
        gate.set()
        await occupied
        await breaks_for_good(send)

    middleware = CompressionMiddleware(app, threads=1, flush="message")
    async with Client(middleware).open(coding) as exchange:
        assert await exchange.ended() is None
        never_ends_well(exchange)
        assert exchange.decoded() == noise(9000)
        await exchange.until(lambda: not leftovers(), "nothing to be left behind")
    assert middleware._shared.open_streams == 0


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_cancelled_send_of_a_large_body_leaves_no_gap(coding: str) -> None:
    """A part of the body has been sent, and the rest is lost."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start_message(200, JSON))
        sending = asyncio.ensure_future(send({"type": "http.response.body", "body": ORDERS * 500}))
        await exchange.until(lambda: exchange.body, "the first slice")
        exchange.hold()
        await asyncio.wait([sending], timeout=0.02)
        sending.cancel()
        await asyncio.wait([sending])
        assert sending.cancelled()
        exchange.release()
        await breaks_for_good(send)

    async with Client(CompressionMiddleware(app)).open(coding) as exchange:
        error = await exchange.ended()
        never_ends_well(exchange)
        assert error is None


@pytest.mark.parametrize("first", [ORDERS, b"<p>one</p>"])
@pytest.mark.parametrize("coding", CODINGS)
async def test_a_failed_flush_leaves_no_gap(coding: str, first: bytes) -> None:
    """The server would accept the messages after the failed one."""
    has_failed = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start_message(200, HTML))
        await send({"type": "http.response.body", "body": first, "more_body": True})
        await has_failed.wait()
        await breaks_for_good(send)

    async def server(scope: Scope, receive: Receive, send: Send) -> None:
        async def fail_once(message: Any) -> None:
            if message.get("body") and not has_failed.is_set():
                has_failed.set()
                raise OSError("not now")
            await send(message)

        await CompressionMiddleware(app)(scope, receive, fail_once)

    async with Client(server).open(coding) as exchange:
        assert await exchange.ended() is None
        never_ends_well(exchange)
        assert exchange.body == b""
        await exchange.until(lambda: not leftovers(), "nothing to be left behind")


class Broken(Exception):
    pass


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_an_early_exception_sends_nothing(site: Site) -> None:
    """A middleware outside can still answer 500."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start_message(200, JSON))
        raise Broken

    async with site.client(app).open(site.coding) as exchange:
        error = await exchange.ended()
    assert isinstance(error, Broken)
    assert exchange.messages == []


@behaviour(needs=Can.EARLY_ERRORS)
async def test_the_framework_answers_an_early_exception_with_500(site: Site) -> None:
    async def broken() -> AsyncIterator[bytes]:
        empty: list[bytes] = []
        for part in empty:
            yield part
        raise Broken

    async with site.serve(Answer(broken)).open(site.coding) as exchange:
        error = await exchange.ended()
    assert isinstance(error, Broken)
    response = exchange.so_far()
    assert response.status == 500
    assert response.decoded() == b"Internal Server Error"


@behaviour(needs=Can.LATE_ERRORS, codings=CODINGS)
async def test_a_broken_stream_is_not_finished(site: Site) -> None:
    """Otherwise the client and caches would take it for complete."""
    for headers, parts in ((JSON, [ORDERS] * 2), (SSE, EVENTS), (JSON, [noise(9000)] * 2)):

        async def broken(parts: list[bytes] = parts) -> AsyncIterator[bytes]:
            for part in parts:
                yield part
            await exchange.until(lambda: exchange.body, "the first bytes")
            raise Broken

        async with site.serve(Answer(broken, headers)).open(site.coding) as exchange:
            error = await exchange.ended()
        assert isinstance(error, Broken)
        never_ends_well(exchange)
        await exchange.until(lambda: not leftovers(), "nothing to be left behind")


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_a_body_without_an_end_is_not_finished(site: Site) -> None:
    """An application that returns too early has failed."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start_message(200, JSON))
        await send({"type": "http.response.body", "body": ORDERS, "more_body": True})

    async with site.client(app).open(site.coding) as exchange:
        await exchange.ended()
    never_ends_well(exchange)
    await exchange.until(lambda: not leftovers(), "nothing to be left behind")


@behaviour(codings=CODINGS)
async def test_concurrent_requests_do_not_mix(site: Site) -> None:
    """The messages of two streams alternate."""
    turns = [asyncio.Event() for _ in range(7)]
    bodies: list[list[bytes]] = [[ORDERS, b'"a"', ORDERS], [ORDERS[::-1], b'"b"', ORDERS[::-1]]]
    started: list[int] = []

    async def stream() -> AsyncIterator[bytes]:
        number = len(started)
        started.append(number)
        for turn, part in enumerate(bodies[number]):
            await turns[2 * turn + number].wait()
            yield part
            turns[2 * turn + number + 1].set()

    client = site.serve(Answer(stream))
    turns[0].set()
    async with client.open(site.coding) as first, client.open(site.coding) as second:
        responses = [await first.response(), await second.response()]
    decoded = {response.decoded() for response in responses}
    assert decoded == {b"".join(body) for body in bodies}
    assert [response.coding for response in responses] == [site.coding] * 2


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_a_slow_client_slows_the_application(site: Site) -> None:
    """At most one unread message is taken, and what the compressor holds back."""
    for headers, part in ((SSE, EVENTS[0]), (TEXT, noise(500_000)), (JSON, ORDERS * 40)):
        taken: list[int] = []

        async def app(
            scope: Scope,
            receive: Receive,
            send: Send,
            headers: Headers = headers,
            part: bytes = part,
            taken: list[int] = taken,
        ) -> None:
            await send(start_message(200, headers))
            for number in range(1000):
                await send({"type": "http.response.body", "body": part, "more_body": True})
                taken.append(number)
                await asyncio.sleep(0.001)  # the client may have read it meanwhile

        async with site.client(app).open(site.coding, raises_when_gone=True) as exchange:
            await exchange.until(lambda: len(taken) > 3, "the first messages")  # noqa: B023
            exchange.hold()
            before = len(taken)
            allowed = before + 2 + (0 if headers == SSE else CODER_HOLDS_BYTES // len(part))
            await stays(lambda: len(taken) <= allowed, "more and more was taken")  # noqa: B023
            exchange.disconnect()
            exchange.release()
            await exchange.ended()


@behaviour(codings=CODINGS)
async def test_a_slow_client_gets_everything(site: Site) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield ORDERS

    async with site.serve(Answer(chunks)).open(site.coding) as exchange:
        exchange.hold()
        await asyncio.wait([exchange.task], timeout=0.02)
        assert exchange.messages == []
        exchange.release()
        response = await exchange.response()
    expect.coded(response, site.coding, ORDERS * 3)
