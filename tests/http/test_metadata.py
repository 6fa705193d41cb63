"""The headers of compressed responses."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any

from tests.http import expect
from tests.http.bodies import JSON, ORDERS, SMALL, TEXT, noise, orders
from tests.http.client import App, Headers, Receive, Scope, Send
from tests.http.codings import CODINGS, DCZ_MAGIC, decode_dcz, zstd_window_bytes
from tests.http.hosts import Answer, Can, Stream, send_response
from tests.http.site import Site, behaviour

WINDOW_LIMIT_BYTES = 8 * 1024 * 1024


def chunked(*chunks: bytes) -> Stream:
    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return stream


def request_header(scope: Scope, name: bytes) -> bytes | None:
    return dict(scope["headers"]).get(name)


@behaviour()
async def test_vary_is_completed(site: Site) -> None:
    for body in (ORDERS, SMALL):
        answer = Answer(body, (*JSON, (b"vary", b"Origin")))
        response = await site.serve(answer).get(site.coding)
        assert response.members("vary") == ["origin", "accept-encoding"]


@behaviour()
async def test_vary_by_everything_is_kept(site: Site) -> None:
    response = await site.serve(Answer(ORDERS, (*JSON, (b"vary", b"*")))).get(site.coding)
    assert response.coding == site.coding
    assert response.all("vary") == ["*"]


@behaviour()
async def test_vary_names_accept_encoding_once(site: Site) -> None:
    for value in (b"accept-encoding", b"ACCEPT-Encoding", b"Origin, Accept-Encoding , Cookie"):
        answer = Answer(ORDERS, (*JSON, (b"vary", value)))
        response = expect.coded(await site.serve(answer).get(site.coding), site.coding, ORDERS)
        assert response.get("vary") == value.decode()
    similar = Answer(ORDERS, (*JSON, (b"vary", b"X-Accept-Encoding")))
    expect.varies(await site.serve(similar).get(site.coding))


@behaviour(needs=Can.REPEAT)
async def test_vary_in_several_lines_names_accept_encoding_once(site: Site) -> None:
    answer = Answer(ORDERS, (*JSON, (b"vary", b"Accept-Encoding"), (b"vary", b"Origin")))
    response = expect.coded(await site.serve(answer).get(site.coding), site.coding, ORDERS)
    assert sorted(response.members("vary")) == ["accept-encoding", "origin"]


@behaviour(codings=CODINGS)
async def test_a_strong_etag_is_weakened(site: Site) -> None:
    """The coded bytes are others than the plain ones: RFC 9110, section 8.8.1."""
    answer = Answer(ORDERS, (*JSON, (b"etag", b'"abc"')))
    response = expect.coded(await site.serve(answer).get(site.coding), site.coding, ORDERS)
    assert response.all("etag") == ['W/"abc"']
    plain = await site.serve(answer).get()
    assert plain.all("etag") == ['"abc"']


@behaviour()
async def test_a_weak_etag_is_kept(site: Site) -> None:
    response = await site.serve(Answer(ORDERS, (*JSON, (b"etag", b'W/"abc"')))).get(site.coding)
    expect.coded(response, site.coding, ORDERS)
    assert response.all("etag") == ['W/"abc"']


@behaviour(once=True)
async def test_an_etag_can_be_kept_dropped_or_given_a_suffix(site: Site) -> None:
    answer = Answer(ORDERS, (*JSON, (b"etag", b'"abc"')))
    kept = await site.serve(answer, etag="keep").get(site.coding)
    assert kept.all("etag") == ['"abc"']
    dropped = await site.serve(answer, etag="drop").get(site.coding)
    assert dropped.all("etag") == []
    suffixed = await site.serve(answer, etag="suffix").get(site.coding)
    (tag,) = suffixed.all("etag")
    assert tag.startswith('"abc')
    assert tag.endswith('"')
    assert site.coding in tag


@behaviour()
async def test_a_coded_response_does_not_accept_ranges(site: Site) -> None:
    answer = Answer(ORDERS, (*JSON, (b"accept-ranges", b"bytes")))
    response = expect.coded(await site.serve(answer).get(site.coding), site.coding, ORDERS)
    assert response.get("accept-ranges") in {None, "none"}
    assert (await site.serve(answer).get()).get("accept-ranges") == "bytes"


@behaviour(codings=CODINGS, once=True)
async def test_digests_match_the_bytes_that_are_sent(site: Site) -> None:
    digest = base64.b64encode(hashlib.sha256(ORDERS).digest())
    md5 = base64.b64encode(hashlib.md5(ORDERS).digest())
    digests = (
        (b"content-digest", b"sha-256=:" + digest + b":"),
        (b"repr-digest", b"sha-256=:" + digest + b":"),
        (b"digest", b"sha-256=" + digest),
        (b"content-md5", md5),
    )
    answer = Answer(ORDERS, (*JSON, *digests))
    response = expect.coded(await site.serve(answer).get(site.coding), site.coding, ORDERS)
    now = base64.b64encode(hashlib.sha256(response.body).digest()).decode()
    assert response.get("content-digest") in {None, f"sha-256=:{now}:"}
    assert response.get("repr-digest") in {None, f"sha-256=:{now}:"}
    assert response.get("digest") in {None, f"sha-256={now}"}
    assert response.get("content-md5") is None
    plain = await site.serve(answer).get()
    assert [plain.get(name.decode()) for name, _ in digests] == [v.decode() for _, v in digests]


@behaviour()
async def test_other_headers_keep_their_order(site: Site) -> None:
    answer = Answer(ORDERS, (*JSON, (b"x-one", b"1"), (b"x-two", b"2"), (b"x-three", b"3")))
    response = expect.coded(await site.serve(answer).get(site.coding), site.coding, ORDERS)
    names = [name.lower() for name, _ in response.headers]
    assert [name for name in names if name.startswith(b"x-")] == [b"x-one", b"x-two", b"x-three"]
    assert response.get("content-type") == "application/json"


@behaviour(needs=Can.REPEAT)
async def test_cookies_keep_their_order(site: Site) -> None:
    cookies = ((b"set-cookie", b"b=2; Path=/"), (b"set-cookie", b"a=1"))
    response = await site.serve(Answer(ORDERS, (*JSON, *cookies))).get(site.coding)
    expect.coded(response, site.coding, ORDERS)
    assert response.all("set-cookie") == ["b=2; Path=/", "a=1"]


@behaviour()
async def test_a_304_has_the_etag_of_the_200(site: Site) -> None:
    """The application compares weakly and answers with its own tag."""
    answer = Answer(ORDERS, (*JSON, (b"etag", b'"abc"')))
    client = site.serve(answer)
    tag = (await client.get(site.coding)).get("etag")
    assert tag == 'W/"abc"'
    answer.body, answer.status = b"", 304
    for asked, given in ((tag, tag), (f'"x", {tag}', tag), ('"abc"', '"abc"')):
        headers = [(b"if-none-match", asked.encode())]
        response = await client.get(site.coding, headers=headers)
        assert (response.status, response.body) == (304, b"")
        assert response.all("etag") == [given]


def ranged(body: bytes) -> App:
    """Serve ranges as RFC 9110 says: If-Range and If-Match compare strongly."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers: Headers = (*JSON, (b"etag", b'"abc"'), (b"accept-ranges", b"bytes"))
        if scope["method"] == "PUT":
            matches = request_header(scope, b"if-match") == b'"abc"'
            await send_response(send, 204 if matches else 412, [])
        elif request_header(scope, b"range") and request_header(scope, b"if-range") == b'"abc"':
            part = (b"content-range", b"bytes 0-99/%d" % len(body))
            await send_response(send, 206, (*headers, part), body[:100])
        else:
            await send_response(send, 200, headers, body)

    return app


@behaviour(needs=Can.RAW)
async def test_if_range_with_a_weakened_etag_gets_the_whole_body(site: Site) -> None:
    client = site.client(ranged(ORDERS))
    tag = (await client.get(site.coding)).get("etag") or ""
    headers = [(b"range", b"bytes=0-99"), (b"if-range", tag.encode())]
    response = await client.get(site.coding, headers=headers)
    assert response.status == 200
    expect.coded(response, site.coding, ORDERS)
    plain_tag = (await client.get()).get("etag") or ""
    headers = [(b"range", b"bytes=0-99"), (b"if-range", plain_tag.encode())]
    response = await client.get(site.coding, headers=headers)
    assert response.status == 206
    assert response.body == ORDERS[:100]


@behaviour(needs=Can.RAW)
async def test_if_match_with_a_weakened_etag_fails(site: Site) -> None:
    """If-Match compares strongly, because the writer must have seen the plain body."""
    client = site.client(ranged(ORDERS))
    tag = (await client.get(site.coding)).get("etag") or ""
    response = await client.get(None, method="PUT", headers=[(b"if-match", tag.encode())])
    assert response.status == 412
    plain_tag = (await client.get()).get("etag") or ""
    response = await client.get(None, method="PUT", headers=[(b"if-match", plain_tag.encode())])
    assert response.status == 204


@behaviour(codings=CODINGS)
async def test_the_server_frames_streams(site: Site) -> None:
    answer = Answer(chunked(ORDERS, ORDERS), JSON)
    response = expect.coded(await site.serve(answer).get(site.coding), site.coding, ORDERS * 2)
    assert response.get("transfer-encoding") is None


@behaviour(once=True)
async def test_a_signed_response_is_not_changed(site: Site) -> None:
    """RFC 9421: a changed response would invalidate its signature."""
    for covered in (
        b'"content-digest"',
        b'"@status" "content-length"',
        b'"etag";req "repr-digest"',
    ):
        signature = (
            (b"content-digest", b"sha-256=:AAAA:"),
            (b"signature-input", b"sig1=(" + covered + b");created=1618884473"),
            (b"signature", b"sig1=:AAAA:"),
        )
        answer = Answer(ORDERS, (*JSON, *signature))
        response = await site.serve(answer).get(site.coding)
        expect.untouched(response, await site.bare(answer).get(site.coding))


@behaviour(codings=CODINGS, once=True)
async def test_equal_bodies_give_equal_bytes(site: Site) -> None:
    """Caches compare them. So gzip has neither a time nor a name in its header."""
    # At a set level gzip uses zlib. The output of isal may differ from time to time.
    options: dict[str, Any] = {"level": {"gzip": 6}} if site.coding == "gzip" else {}
    client = site.serve(Answer(), **options)
    first, second = [(await client.get(site.coding)).body for _ in range(2)]
    assert first == second
    fresh = (await site.serve(Answer(), **options).get(site.coding)).body
    assert fresh == first
    if site.coding == "gzip":
        for body in (first, (await site.serve(Answer()).get("gzip")).body):
            assert body[3] == 0  # no flags, so no name
            assert body[4:8] == bytes(4)  # no time


@behaviour(codings=("zstd",), once=True)
async def test_browsers_can_decode_every_zstd_window(site: Site) -> None:
    """They refuse windows of more than 8 MB: RFC 9659, section 3."""
    for level in (1, 3, 9, 19, 20, 22):
        try:
            client = site.serve(Answer(chunked(*[ORDERS] * 4), JSON), level={"zstd": level})
            response = await client.get("zstd")
        except ValueError:
            assert level >= 20  # the error may come when the middleware is created
            continue
        expect.coded(response, "zstd", ORDERS * 4)
        assert zstd_window_bytes(response.body) <= WINDOW_LIMIT_BYTES
    large = orders(92_000)
    assert len(large) > WINDOW_LIMIT_BYTES
    response = expect.coded(await site.serve(Answer(large)).get("zstd"), "zstd", large)
    assert zstd_window_bytes(response.body) <= WINDOW_LIMIT_BYTES


@behaviour(once=True)
async def test_the_previous_response_is_a_dictionary(site: Site) -> None:
    """RFC 9842: a client that has the previous response gets the difference."""
    from hasten.compression import Dictionaries

    before, after = ORDERS, ORDERS.replace(b'"open"', b'"paid"', 3)
    fresh = (*JSON, (b"cache-control", b"public, max-age=60"))
    answer = Answer(before, fresh)
    client = site.serve(answer, dictionaries=Dictionaries(["/api/feed*"]))
    first = expect.coded(await client.get("gzip, dcz", path="/api/feed"), "gzip", before)
    assert 'match="/api/feed*"' in (first.get("use-as-dictionary") or "")
    assert set(first.members("vary")) >= {"accept-encoding", "available-dictionary"}

    answer.body = after
    digest = hashlib.sha256(before).digest()
    shown = [(b"available-dictionary", b":" + base64.b64encode(digest) + b":")]
    second = await client.get("gzip, dcz", path="/api/feed", headers=shown)
    assert second.coding == "dcz"
    assert second.body[:8] == DCZ_MAGIC
    assert second.body[8:40] == digest
    assert decode_dcz(second.body, before) == after
    assert second.get("content-length") in {None, str(len(second.body))}
    assert second.members("vary") == ["accept-encoding", "available-dictionary"]
    plain = await site.serve(answer).get("gzip")
    assert len(second.body) < len(plain.body) / 4


@behaviour(once=True)
async def test_a_dictionary_is_used_only_if_both_sides_have_it(site: Site) -> None:
    from hasten.compression import Dictionaries

    fresh = (*JSON, (b"cache-control", b"max-age=60"))
    client = site.serve(Answer(ORDERS, fresh), dictionaries=Dictionaries(["/api/feed*"]))
    await client.get("gzip, dcz", path="/api/feed")
    shown = base64.b64encode(hashlib.sha256(ORDERS).digest())
    other = base64.b64encode(hashlib.sha256(b"another").digest())
    for accept, value, path in (
        ("gzip", b":" + shown + b":", "/api/feed"),  # no dcz wanted
        ("gzip, dcz;q=0", b":" + shown + b":", "/api/feed"),
        ("gzip, dcz", b":" + other + b":", "/api/feed"),  # not stored by the server
        ("gzip, dcz", b"nonsense", "/api/feed"),
        ("gzip, dcz", b":" + shown + b":", "/elsewhere"),
    ):
        headers = [(b"available-dictionary", value)]
        expect.coded(await client.get(accept, path=path, headers=headers), "gzip", ORDERS)


@behaviour(once=True)
async def test_all_variants_of_a_url_have_the_same_vary(site: Site) -> None:
    headers = (*JSON, (b"vary", b"Origin"), (b"etag", b'"abc"'))
    requests = [
        (Answer(ORDERS, headers), "GET", "gzip"),
        (Answer(ORDERS, headers), "GET", "br"),
        (Answer(ORDERS, headers), "GET", None),
        (Answer(SMALL, headers), "GET", "gzip"),
        (Answer(noise(5000), (*TEXT, *headers[1:])), "GET", "gzip"),
        (Answer(ORDERS, headers), "HEAD", "gzip"),
        (Answer(ORDERS, headers), "HEAD", None),
        (Answer(b"", headers, 304), "GET", "gzip"),
        (Answer(b"", headers, 304), "GET", None),
    ]
    values = {
        (await site.serve(answer).get(accept, method=method)).get("vary")
        for answer, method, accept in requests
    }
    assert len(values) == 1
    assert values.pop() in {"Origin, Accept-Encoding", "Origin, accept-encoding"}
