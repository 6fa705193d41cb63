"""Streams that turn out to be small or empty: coding must not make them larger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hasten.compression import CompressionMiddleware
from hasten.compression import _settings as settings
from tests.http import expect
from tests.http.bodies import JSON, NDJSON, ORDERS, SSE, TEXT
from tests.http.client import Client, Message
from tests.http.codings import CODINGS
from tests.http.hosts import Answer, Can, start_message
from tests.http.site import Site, behaviour
from tests.http.test_asgi import body, sends
from tests.http.test_options import Steps, wrap

PARTS: dict[str, list[bytes]] = {
    "nothing": [],
    "empty pieces": [b"", b""],
    "an empty piece first": [b"", b"{}"],
    "an empty piece last": [b"{}", b""],
    "empty pieces around": [b"", b"{", b"", b"}", b""],
}


@pytest.fixture(autouse=True)
def no_pause(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Avoid flushes on a busy machine, except in tests of pauses."""
    if "pause" not in request.node.originalname:
        monkeypatch.setattr(settings, "IDLE_SECONDS", 3600)


@behaviour(codings=CODINGS)
async def test_a_small_stream_is_not_coded_whatever_empty_pieces_are_in_it(site: Site) -> None:
    for parts in PARTS.values():

        async def stream(parts: list[bytes] = parts) -> AsyncIterator[bytes]:
            for part in parts:
                yield part

        for headers in (JSON, TEXT):
            response = await site.serve(Answer(stream, headers)).get(site.coding)
            expect.plain(response, b"".join(parts))
            expect.varies(response)


@behaviour(codings=CODINGS)
async def test_a_live_stream_without_an_event_is_not_coded(site: Site) -> None:
    """For example, an export without rows."""
    for parts in ([], [b""], [b"", b""]):

        async def stream(parts: list[bytes] = parts) -> AsyncIterator[bytes]:
            for part in parts:
                yield part

        for headers in (SSE, NDJSON):
            response = expect.plain(await site.serve(Answer(stream, headers)).get(site.coding), b"")
            expect.varies(response)


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_a_small_stream_keeps_what_its_head_says_of_the_bytes(site: Site) -> None:
    about = [(b"etag", b'"abc"'), (b"accept-ranges", b"bytes"), (b"content-digest", b"sha-256=:=:")]
    for headers in (JSON, SSE):
        for messages in ([body(b"", more=True)], []):
            app = sends(start_message(200, [*headers, *about]), *messages, body(b""))
            response = expect.plain(await site.client(app).get(site.coding), b"")
            assert [line for line in response.headers if line in about] == about


@behaviour(needs=Can.RAW)
async def test_trailers_follow_a_small_stream(site: Site) -> None:
    trailers: Message = {"type": "http.response.trailers", "headers": [(b"x-sum", b"0")]}
    start = {**start_message(200, JSON), "trailers": True}
    app = sends(start, body(b"", more=True), body(b""), trailers)
    response = expect.plain(await site.client(app).get(site.coding), b"")
    assert response.messages[-1] == trailers


@behaviour(needs=Can.RAW)
async def test_empty_pieces_of_a_response_without_a_body_change_nothing(site: Site) -> None:
    for status, method in ((204, "GET"), (304, "GET"), (200, "HEAD")):
        start = start_message(status, [*JSON, (b"x-one", b"1")])
        app = sends(start, body(b"", more=True), body(b""))
        response = await site.client(app).get(site.coding, method=method)
        assert response.status == status
        expect.plain(response, b"")


@pytest.mark.parametrize("options", [{"minimum_size": 0}, {"strict": True}, {"flush": "message"}])
async def test_an_empty_stream_is_not_coded_with_any_option(options: dict[str, Any]) -> None:
    app = sends(start_message(200, JSON), body(b"", more=True), body(b""))
    accept = "gzip, identity;q=0" if "strict" in options else "gzip"
    expect.plain(await wrap(app, **options).get(accept), b"")


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_a_live_stream_is_coded_though_an_unknown_message_comes_first(site: Site) -> None:
    novel: Message = {"type": "http.response.novel"}
    response = await site.client(sends(start_message(200, SSE), novel, body())).get(site.coding)
    expect.coded(response, site.coding, ORDERS)


@pytest.mark.parametrize("flush", ["auto", "never", "message", 3600])
async def test_an_empty_piece_with_nothing_before_it_sends_nothing(flush: Any) -> None:
    app = Steps()
    async with wrap(app, flush=flush).open("gzip") as exchange:
        await app.send(b"")
        assert exchange.messages == []
        await app.send(ORDERS)
        app.parts.put_nowait(None)
        expect.coded(await exchange.response(), "gzip", ORDERS)


async def test_an_empty_piece_sends_a_small_beginning_in_the_next_pause() -> None:
    app = Steps()
    async with wrap(app).open("gzip") as exchange:
        await app.send(b"<p>one</p>")
        await app.send(b"")
        await exchange.until_read(b"<p>one</p>")
        await app.send(ORDERS)
        app.parts.put_nowait(None)
        expect.coded(await exchange.response(), "gzip", b"<p>one</p>" + ORDERS)


async def test_a_live_stream_that_fails_before_its_first_event_has_not_started() -> None:
    """The framework can still answer 500."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start_message(200, SSE))
        raise ValueError

    async with Client(CompressionMiddleware(app)).open("gzip") as exchange:
        assert isinstance(await exchange.ended(), ValueError)
    assert not exchange.has_started
