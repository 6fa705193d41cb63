"""Unusual applications that ASGI allows."""

from __future__ import annotations

import asyncio
import copy
import time
from tempfile import NamedTemporaryFile
from typing import Any

from tests.http import expect
from tests.http.bodies import JSON, ORDERS, orders
from tests.http.client import App, Message, Receive, Scope, Send
from tests.http.codings import CODINGS
from tests.http.hosts import Answer, Can, start_message
from tests.http.site import Site, behaviour


def sends(*messages: Message) -> App:
    """Return an application that sends these messages, the same objects each time."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def body(data: bytes = ORDERS, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_trailers_follow_the_body(site: Site) -> None:
    length = (b"content-length", str(len(ORDERS)).encode())
    trailers = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]}
    start = {**start_message(200, (*JSON, length)), "trailers": True}
    for bodies in ([body()], [body(ORDERS[:5000], more=True), body(ORDERS[5000:])]):
        app = sends(start, *bodies, trailers)
        response = await site.client(app).get(
            site.coding, extensions={"http.response.trailers": {}}
        )
        expect.coded(response, site.coding, ORDERS)
        assert response.messages[0]["trailers"] is True
        assert response.messages[-1] == trailers
        assert [m["type"] for m in response.messages].count("http.response.trailers") == 1


@behaviour(needs=Can.RAW)
async def test_an_unreadable_path_is_sent_by_the_server(site: Site) -> None:
    start = start_message(200, (*JSON, (b"content-length", b"12345"), (b"etag", b'"abc"')))
    pathsend = {"type": "http.response.pathsend", "path": "/srv/orders.json"}
    app = sends(start, pathsend)
    request: dict[str, Any] = {"extensions": {"http.response.pathsend": {}}}
    response = await site.client(app).get(site.coding, **request)
    assert response.messages[1:] == [pathsend]
    assert response.coding is None
    assert response.get("content-length") == "12345"
    assert response.get("etag") == '"abc"'


@behaviour(needs=Can.RAW)
async def test_a_file_descriptor_is_sent_by_the_server(site: Site) -> None:
    """Otherwise its extension is hidden, so that the application sends the body."""
    zerocopy = {"type": "http.response.zerocopysend", "file": 7, "offset": 0, "count": 12345}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start_message(200, (*JSON, (b"etag", b'"abc"'))))
        offered = "http.response.zerocopysend" in scope.get("extensions", {})
        await send(zerocopy if offered else body())

    request: dict[str, Any] = {"extensions": {"http.response.zerocopysend": {}}}
    response = await site.client(app).get(site.coding, **request)
    if response.coding is None:
        assert response.messages[1:] == [zerocopy]
        assert response.get("etag") == '"abc"'
    else:
        expect.coded(response, site.coding, ORDERS)


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_a_file_may_be_a_part_of_a_coded_body(site: Site) -> None:
    """Messages may follow the file: the end of the body and trailers."""
    trailers = {"type": "http.response.trailers", "headers": [(b"x-one", b"1")]}
    start = {**start_message(200, JSON), "trailers": True}
    with NamedTemporaryFile() as opened:
        opened.write(ORDERS[::-1])
        opened.flush()
        path: Message = {"type": "http.response.pathsend", "path": opened.name}
        part = {"type": "http.response.zerocopysend", "file": opened, "offset": 0, "count": 5000}
        for messages, whole in (
            ([path, body(b"")], ORDERS + ORDERS[::-1]),
            ([path], ORDERS + ORDERS[::-1]),
            ([{**part, "more_body": True}, body(b"tail")], ORDERS + ORDERS[::-1][:5000] + b"tail"),
            ([part, body(b"")], ORDERS + ORDERS[::-1][:5000]),
        ):
            app = sends(start, body(more=True), *messages, trailers)
            async with site.client(app).open(site.coding) as exchange:
                response = await exchange.response()
            expect.coded(response, site.coding, whole)
            assert response.messages[-1] == trailers


@behaviour(needs=Can.RAW)
async def test_unknown_messages_are_passed_on(site: Site) -> None:
    """Before the start, after it, and within the body."""
    debug = {"type": "http.response.debug", "info": {"template": "a.html"}}
    novel = {"type": "http.response.novel", "x": 1}
    messages = [
        debug,
        start_message(200, JSON),
        novel,
        body(ORDERS, more=True),
        novel,
        body(ORDERS),
    ]
    response = await site.client(sends(*messages)).get(site.coding)
    assert response.status == 200
    assert response.decoded() == ORDERS * 2
    kinds = [message["type"] for message in response.messages]
    assert kinds[0] == "http.response.debug"
    assert kinds[1] == "http.response.start"
    assert kinds.count("http.response.novel") == 2
    assert response.messages[0] == debug


@behaviour(needs=Can.RAW)
async def test_early_hints_are_sent_at_once(site: Site) -> None:
    hint = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]}
    seen: list[list[Message]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(hint)
        seen.append(list(exchange.messages))
        await send(start_message(200, JSON))
        await send(body())

    client = site.client(app)
    async with client.open(site.coding, extensions={"http.response.early_hint": {}}) as exchange:
        response = await exchange.response()
    assert seen == [[hint]]
    expect.coded(response, site.coding, ORDERS)


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_headers_may_be_any_iterable(site: Site) -> None:
    pairs = [[b"Content-Type", b"application/json"], [b"x-one", b"\xe9"], [b"ETag", b'"abc"']]
    for headers in (tuple(map(tuple, pairs)), pairs, (tuple(pair) for pair in pairs)):
        app = sends({"type": "http.response.start", "status": 200, "headers": headers}, body())
        response = expect.coded(await site.client(app).get(site.coding), site.coding, ORDERS)
        assert response.get("x-one") == "\xe9"
        assert response.get("etag") == 'W/"abc"'


@behaviour(needs=Can.RAW)
async def test_headers_of_a_plain_response_may_be_any_iterable(site: Site) -> None:
    pairs = [(b"content-type", b"image/png"), (b"x-one", b"1")]
    app = sends({"type": "http.response.start", "status": 200, "headers": iter(pairs)}, body())
    response = await site.client(app).get(site.coding)
    assert response.headers == pairs
    assert response.body == ORDERS


@behaviour(needs=Can.RAW)
async def test_headers_may_be_missing(site: Site) -> None:
    response = await site.client(sends({"type": "http.response.start", "status": 200}, body())).get(
        site.coding
    )
    assert response.status == 200
    assert response.headers == []
    assert response.body == ORDERS


@behaviour(needs=Can.RAW)
async def test_other_scopes_are_passed_on(site: Site) -> None:
    """The same objects are passed on unchanged."""
    calls: list[tuple[object, object, object]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append((scope, receive, send))

    async def receive() -> Message:
        raise AssertionError("nobody asked")

    async def send(message: Message) -> None:
        raise AssertionError("nobody asked")

    wrapped = site.wrap(app)
    for kind in ("websocket", "lifespan", "webtransport"):
        scope = {"type": kind, "headers": object()}
        await wrapped(scope, receive, send)
        assert calls.pop() == (scope, receive, send)


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_objects_of_the_application_are_not_changed(site: Site) -> None:
    """Applications may reuse messages and header lists."""
    headers = [(b"content-type", b"application/json"), (b"etag", b'"abc"'), (b"vary", b"Origin")]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    for messages in ([start, body()], [start, body(more=True), body()]):
        before = copy.deepcopy(messages)
        client = site.client(sends(*messages))
        first = await client.get(site.coding)
        second = await client.get(site.coding)
        assert messages == before
        assert first.headers == second.headers
        assert first.coding == site.coding
        expect.varies(second)


@behaviour(needs=Can.RAW)
async def test_the_application_sees_the_request_unchanged(site: Site) -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(copy.deepcopy(scope))
        await send(start_message(200, JSON))
        await send(body())

    client = site.client(app)
    async with client.open("gzip, br", headers=[(b"if-none-match", b'W/"abc"')]) as exchange:
        before = copy.deepcopy(exchange.scope)
        expect.coded(await exchange.response(), "br", ORDERS)
    assert seen == [before]


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_the_event_loop_runs_while_a_large_body_is_coded(site: Site) -> None:
    """Compression on the event loop would block it for most of the response."""
    large = orders(80_000) * 5
    assert len(large) > 32_000_000
    client = site.serve(Answer(large))
    shares = []
    for _ in range(3):  # a busy machine may delay the test once
        shares.append(await longest_gap_share(client.get(site.coding), site.coding, large))
        if shares[-1] < 0.4:
            break
    assert min(shares) < 0.4


async def longest_gap_share(request: Any, coding: str, large: bytes) -> float:
    """Return the longest time that the event loop was blocked, as a share of the request."""
    gaps = [0.0]

    async def tick() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0)
    started = time.perf_counter()
    response = await request
    seconds = time.perf_counter() - started
    ticker.cancel()
    await asyncio.wait([ticker])
    expect.coded(response, coding, large)
    return max(gaps) / seconds
