"""Random bodies, headers and requests: the received body is always complete."""

from __future__ import annotations

import asyncio
import itertools

from hypothesis import given
from hypothesis import strategies as st

from hasten.compression import CompressionMiddleware
from tests.effort import effort
from tests.http.bodies import ORDERS
from tests.http.client import App, Client, Exchange, Headers, Receive, Response, Scope, Send
from tests.http.codings import CODINGS
from tests.http.hosts import start_message

TYPES = [b"application/json", b"text/html", b"text/event-stream", b"application/x-ndjson"]

bodies = st.lists(
    st.one_of(
        st.binary(max_size=300),
        st.integers(0, len(ORDERS)).map(lambda size: ORDERS[:size]),
        st.binary(min_size=1, max_size=4).map(lambda unit: unit * 2000),
    ),
    max_size=6,
).map(b"".join)
weights = st.sampled_from([None, 0.0, 0.1, 0.5, 1.0])
wishes = st.dictionaries(
    st.sampled_from([*CODINGS, "identity", "deflate", "*", "compress"]), weights, max_size=6
)
tags = st.sampled_from([None, b'"abc"', b'W/"abc"'])
varies = st.sampled_from([None, b"Origin", b"*", b"Accept-Encoding", b"Origin, accept-encoding"])


@st.composite
def chunkings(draw: st.DrawFn) -> list[bytes]:
    """Split bodies anywhere, also into empty pieces."""
    body = draw(bodies)
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=8)))
    edges = [0, *cuts, len(body)]
    return [body[start:end] for start, end in itertools.pairwise(edges)]


def serve(chunks: list[bytes], headers: Headers) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start_message(200, headers))
        for number, chunk in enumerate(chunks, 1):
            more = number < len(chunks)
            await send({"type": "http.response.body", "body": chunk, "more_body": more})

    return app


def accept_encoding(wish: dict[str, float | None]) -> str:
    return ", ".join(
        name if weight is None else f"{name};q={weight}" for name, weight in wish.items()
    )


def accepts(wish: dict[str, float | None], coding: str) -> bool:
    """Return whether a client accepts a coding, by RFC 9110, section 12.5.3."""
    weight = wish.get(coding, wish.get("*", 0.0))
    return weight is None or weight > 0


@effort(60)
@given(
    chunks=chunkings(),
    wish=wishes,
    content_type=st.sampled_from(TYPES),
    tag=tags,
    vary=varies,
    with_length=st.booleans(),
)
def test_the_body_is_complete_and_the_headers_are_correct(
    chunks: list[bytes],
    wish: dict[str, float | None],
    content_type: bytes,
    tag: bytes | None,
    vary: bytes | None,
    with_length: bool,
) -> None:
    body = b"".join(chunks)
    headers = [(b"content-type", content_type)]
    headers += [(b"etag", tag)] if tag else []
    headers += [(b"vary", vary)] if vary else []
    headers += [(b"content-length", str(len(body)).encode())] if with_length else []
    client = Client(CompressionMiddleware(serve(chunks, headers)))
    response = asyncio.run(client.get(accept_encoding(wish)))
    assert response.decoded() == body
    _headers_are_true(response, wish, tag)


def _headers_are_true(response: Response, wish: dict[str, float | None], tag: bytes | None) -> None:
    assert len(response.all("content-encoding")) <= 1
    if response.coding is not None:
        assert response.coding in CODINGS
        assert accepts(wish, response.coding)
    assert response.get("content-length") in {None, str(len(response.body))}
    vary = response.members("vary")
    assert vary == ["*"] or vary.count("accept-encoding") == 1
    expected = [] if tag is None else [tag.decode()]
    if response.coding is not None:
        expected = [value if value.startswith("W/") else f"W/{value}" for value in expected]
    assert response.all("etag") == expected


request_names = st.one_of(
    st.sampled_from(
        [
            b"accept-encoding", b"cache-control", b"cookie", b"origin", b"referer",
            b"sec-fetch-site", b"if-none-match", b"range", b"available-dictionary",
            b"content-encoding", b"content-length", b"host",
        ]
    ),
    st.binary(min_size=1, max_size=12),
)  # fmt: skip
request_values = st.one_of(
    st.binary(max_size=60),
    st.text(alphabet='gzipbrstd*;q=0.19, \t"W/:-', max_size=60).map(str.encode),
)


@effort(80)
@given(headers=st.lists(st.tuples(request_names, request_values), max_size=8), path=st.text())
def test_any_request_headers_are_accepted(headers: list[tuple[bytes, bytes]], path: str) -> None:
    app = CompressionMiddleware(serve([ORDERS], [(b"content-type", b"application/json")]))
    scope = Client(app).open(headers=headers).scope
    scope["path"] = path
    assert asyncio.run(_read(Exchange(app, scope, [b""]))).decoded() == ORDERS


async def _read(exchange: Exchange) -> Response:
    async with exchange:
        return await exchange.response()
