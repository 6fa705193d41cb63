"""Which responses may be coded."""

from __future__ import annotations

from tests.http import expect
from tests.http.bodies import HTML, JSON, ORDERS, SMALL, TEXT, noise, of_type
from tests.http.client import Headers, Receive, Scope, Send
from tests.http.codings import CODINGS, encode
from tests.http.hosts import Answer, Can, send_response
from tests.http.site import Site, behaviour

PACKED_TYPES = [
    "image/png", "image/jpeg", "image/webp", "image/avif", "video/mp4", "audio/ogg",
    "application/zip", "application/gzip", "application/pdf", "font/woff2",
]  # fmt: skip
PACKABLE_TYPES = [
    "image/svg+xml", "font/ttf", "font/otf", "image/bmp", "application/wasm",
    "application/javascript", "text/javascript", "text/css", "text/markdown", "application/xml",
]  # fmt: skip
STRUCTURED_TYPES = [
    "application/problem+json",
    "application/vnd.api+json",
    "application/geo+json",
    "application/ld+json; profile=x",
    "application/atom+xml",
    "application/xhtml+xml",
    "application/vnd.oai.openapi+yaml",
]


async def untouched(site: Site, answer: Answer, **request: object) -> None:
    response = await site.serve(answer).get(f"{site.coding}, *", **request)
    expect.untouched(response, await site.bare(answer).get(f"{site.coding}, *", **request))


@behaviour()
async def test_statuses_without_a_body_are_not_changed(site: Site) -> None:
    for status in (204, 205):
        await untouched(site, Answer(b"", (*JSON, (b"etag", b'"abc"')), status))


@behaviour(needs=Can.RAW)
async def test_interim_statuses_are_not_changed(site: Site) -> None:
    for status in (100, 102, 103):
        await untouched(site, Answer(b"", ((b"link", b"</a.css>"),), status))


@behaviour()
async def test_a_304_has_no_body_and_varies_like_the_200(site: Site) -> None:
    answer = Answer(b"", ((b"etag", b'W/"abc"'), *JSON, (b"vary", b"Origin")), 304)
    response = await site.serve(answer).get(site.coding)
    assert response.status == 304
    assert response.body == b""
    assert response.coding is None
    assert response.get("etag") == 'W/"abc"'
    assert response.members("vary") == ["origin", "accept-encoding"]


@behaviour(needs=Can.UNTYPED)
async def test_a_304_without_a_type_varies(site: Site) -> None:
    """Most frameworks omit the type, so it is unknown whether the 200 would be compressed."""
    response = await site.serve(Answer(b"", ((b"etag", b'"abc"'),), 304)).get(site.coding)
    assert response.get("etag") == '"abc"'
    expect.varies(response)


@behaviour()
async def test_a_304_of_an_image_does_not_vary(site: Site) -> None:
    await untouched(site, Answer(b"", ((b"etag", b'"abc"'), *of_type("image/png")), 304))


@behaviour()
async def test_partial_content_is_not_changed(site: Site) -> None:
    """A range applies to the plain body. Compressing it would mix two representations."""
    one = (*JSON, (b"content-range", b"bytes 0-11999/99999"), (b"etag", b'"abc"'))
    await untouched(site, Answer(ORDERS, one, 206))
    several = of_type("multipart/byteranges; boundary=THIS")
    await untouched(site, Answer(ORDERS, several, 206))


@behaviour(needs=Can.RAW)
async def test_head_with_a_length_and_no_body_loses_the_length(site: Site) -> None:
    headers = (*JSON, (b"content-length", b"12345"), (b"etag", b'"abc"'))
    response = await site.serve(Answer(b"", headers)).head(site.coding)
    assert response.status == 200
    assert response.body == b""
    assert response.coding is None
    assert response.get("content-length") is None
    assert response.get("etag") == 'W/"abc"'
    expect.varies(response)


@behaviour()
async def test_head_is_described_and_not_compressed(site: Site) -> None:
    """Frameworks answer with the body of GET or without one."""
    answer = Answer(ORDERS, (*JSON, (b"etag", b'"abc"')))
    response = await site.serve(answer).head(site.coding)
    assert response.status == 200
    assert response.body in {b"", ORDERS}
    assert response.coding is None
    assert response.get("content-length") is None
    assert response.get("etag") == 'W/"abc"'
    expect.varies(response)


@behaviour()
async def test_head_of_an_uncodable_type_keeps_its_length(site: Site) -> None:
    await untouched(site, Answer(noise(9000), of_type("image/png")), method="HEAD")


@behaviour()
async def test_a_coded_response_is_not_changed(site: Site) -> None:
    for coding in ("br", "gzip", "x-unheard-of"):
        body = encode("br", ORDERS)
        headers = (*JSON, (b"content-encoding", coding.encode()), (b"etag", b'"abc"'))
        await untouched(site, Answer(body, headers))


@behaviour()
async def test_no_transform_is_obeyed(site: Site) -> None:
    for directives in (b"public, no-transform", b"No-Transform", b"max-age=60,no-transform"):
        await untouched(site, Answer(ORDERS, (*JSON, (b"cache-control", directives))))
    similar = Answer(ORDERS, (*JSON, (b"cache-control", b"public, x-no-transform")))
    expect.coded(await site.serve(similar).get(site.coding), site.coding, ORDERS)


@behaviour(once=True)
async def test_packed_types_are_not_changed(site: Site) -> None:
    """The type decides, although this body could be made smaller."""
    for content_type in PACKED_TYPES:
        await untouched(site, Answer(ORDERS, of_type(content_type)))


@behaviour(once=True)
async def test_unpacked_images_and_fonts_are_coded(site: Site) -> None:
    for content_type in PACKABLE_TYPES:
        response = await site.serve(Answer(ORDERS, of_type(content_type))).get(site.coding)
        expect.coded(response, site.coding, ORDERS)


@behaviour(once=True)
async def test_the_structure_of_a_type_decides(site: Site) -> None:
    for content_type in STRUCTURED_TYPES:
        response = await site.serve(Answer(ORDERS, of_type(content_type))).get(site.coding)
        expect.coded(response, site.coding, ORDERS)


@behaviour()
async def test_types_have_no_case_and_may_have_parameters(site: Site) -> None:
    for content_type in ("Application/JSON; charset=utf-8", "TEXT/HTML;charset=utf-8"):
        response = await site.serve(Answer(ORDERS, of_type(content_type))).get(site.coding)
        expect.coded(response, site.coding, ORDERS)
    await untouched(site, Answer(ORDERS, of_type("Image/PNG; x=text/html")))


@behaviour(once=True)
async def test_sequences_of_json_are_coded(site: Site) -> None:
    for content_type in ("application/x-ndjson", "application/jsonl", "application/json-seq"):
        response = await site.serve(Answer(ORDERS, of_type(content_type))).get(site.coding)
        assert response.coding == site.coding
        assert response.decoded() == ORDERS


@behaviour(once=True)
async def test_unknown_types_are_not_changed(site: Site) -> None:
    for content_type in ("application/octet-stream", "application/x-unheard-of", "nonsense"):
        await untouched(site, Answer(ORDERS, of_type(content_type)))


@behaviour(needs=Can.UNTYPED)
async def test_a_response_without_a_type_is_not_changed(site: Site) -> None:
    await untouched(site, Answer(ORDERS, ((b"x-kind", b"none"),)))


@behaviour(once=True)
async def test_types_can_be_added_and_removed(site: Site) -> None:
    from hasten.compression import DEFAULT_MEDIA_TYPES

    types = (DEFAULT_MEDIA_TYPES | {"application/x-tiles"}) - {"text/csv"}
    tiles = site.serve(Answer(ORDERS, of_type("application/x-tiles")), media_types=types)
    expect.coded(await tiles.get(site.coding), site.coding, ORDERS)
    table = Answer(ORDERS, of_type("text/csv"))
    response = await site.serve(table, media_types=types).get(site.coding)
    expect.untouched(response, await site.bare(table).get())
    called = site.serve(table, media_types=lambda name: name == "text/csv")
    expect.coded(await called.get(site.coding), site.coding, ORDERS)


@behaviour(once=True)
async def test_grpc_is_not_changed(site: Site) -> None:
    """gRPC compresses its own messages."""
    for content_type in ("application/grpc", "application/grpc+proto", "application/grpc+json"):
        await untouched(site, Answer(ORDERS, of_type(content_type)))


@behaviour(codings=CODINGS)
async def test_small_bodies_stay_plain(site: Site) -> None:
    response = expect.plain(await site.serve(Answer(SMALL)).get(site.coding), SMALL)
    assert response.get("content-length") == str(len(SMALL))


@behaviour(codings=CODINGS, once=True)
async def test_the_threshold_can_be_changed(site: Site) -> None:
    lower = site.serve(Answer(SMALL), minimum_size=100)
    expect.coded(await lower.get(site.coding), site.coding, SMALL)
    higher = site.serve(Answer(ORDERS), minimum_size="20kb")
    expect.plain(await higher.get(site.coding), ORDERS)
    at, below = b"a" * 1024, b"a" * 1023
    expect.coded(await site.serve(Answer(at)).get(site.coding), site.coding, at)
    expect.plain(await site.serve(Answer(below)).get(site.coding), below)


@behaviour()
async def test_small_bodies_vary(site: Site) -> None:
    """The body of the same URL may be large later."""
    expect.varies(await site.serve(Answer(SMALL)).get(site.coding))


@behaviour(codings=CODINGS, once=True)
async def test_a_body_that_does_not_get_smaller_stays_plain(site: Site) -> None:
    body = noise(4096)
    response = expect.plain(await site.serve(Answer(body, TEXT)).get(site.coding), body)
    assert response.get("content-length") == "4096"
    expect.varies(response)


@behaviour()
async def test_errors_are_coded(site: Site) -> None:
    for status in (400, 404, 422, 500, 503):
        response = await site.serve(Answer(ORDERS, status=status)).get(site.coding)
        assert response.status == status
        expect.coded(response, site.coding, ORDERS)


@behaviour()
async def test_identity_in_the_response_opts_out(site: Site) -> None:
    """identity is no valid Content-Encoding, so it is removed."""
    for value in (b"identity", b"", b"Identity"):
        answer = Answer(ORDERS, (*JSON, (b"content-encoding", value), (b"etag", b'"abc"')))
        response = expect.plain(await site.serve(answer).get(site.coding), ORDERS)
        assert response.get("etag") == '"abc"'
        assert response.get("vary") is None


@behaviour(needs=Can.RAW)
async def test_tunnels_and_upgrades_are_not_changed(site: Site) -> None:
    await untouched(site, Answer(ORDERS), method="CONNECT")
    await untouched(site, Answer(b"", (*JSON, (b"upgrade", b"x")), 101))


@behaviour(once=True)
async def test_multipart_replacements_are_not_changed(site: Site) -> None:
    await untouched(site, Answer(ORDERS, of_type("multipart/x-mixed-replace; boundary=b")))


@behaviour()
async def test_an_unsatisfiable_range_is_not_changed(site: Site) -> None:
    await untouched(site, Answer(ORDERS, (*JSON, (b"content-range", b"bytes */12345")), 416))


@behaviour(needs=Can.ENDPOINT)
async def test_an_endpoint_can_opt_out(site: Site) -> None:
    from hasten.compression import no_compression

    answer = Answer(ORDERS, (*JSON, (b"etag", b'"abc"')), decorate=no_compression)
    response = await site.serve(answer).get(site.coding)
    plain = Answer(ORDERS, answer.headers)
    expect.untouched(response, await site.bare(plain).get(site.coding))


@behaviour()
async def test_a_filter_decides(site: Site) -> None:
    """True and False are final, and None means the default rule."""
    asked: list[tuple[int, bool]] = []

    def decide(scope: Scope, status: int, headers: Headers) -> bool | None:
        asked.append((status, any(name == b"x-mark" for name, _ in headers)))
        return {"/never": False, "/always": True}.get(scope["path"])

    answer = Answer(ORDERS, (*of_type("image/png"), (b"x-mark", b"1")))
    client = site.serve(answer, filter=decide)
    expect.coded(await client.get(site.coding, path="/always"), site.coding, ORDERS)
    expect.untouched(await client.get(site.coding), await site.bare(answer).get())
    page = Answer(ORDERS, (*HTML, (b"x-mark", b"1")))
    client = site.serve(page, filter=decide)
    expect.coded(await client.get(site.coding), site.coding, ORDERS)
    response = await client.get(site.coding, path="/never")
    expect.untouched(response, await site.bare(page).get())
    assert set(asked) == {(200, True)}


@behaviour(needs=Can.RAW)
async def test_an_endpoint_that_the_router_finds_late_can_opt_out(site: Site) -> None:
    """Routers put it into the scope when they match, or into a copy of the scope."""
    from hasten.compression import no_compression

    @no_compression
    async def login() -> None: ...

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope.update(endpoint=login)
        await send_response(send, 200, JSON, ORDERS)

    expect.plain(await site.client(app).get(site.coding), ORDERS)
