"""Requests with a coded body."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from hasten.compression import DecompressionMiddleware
from hasten.compression import _decompression as decompression
from hasten.compression._decoders import Decoder
from hasten.compression._pool import CompressionThreads
from tests.http.bodies import JSON, ORDERS, noise
from tests.http.client import App, Client, Headers, Receive, Response, Scope, Send
from tests.http.codings import CODINGS, encode, zstd_with_window
from tests.http.hosts import Can, Echo, Installed, Raw, no_middleware, read_body, send_response
from tests.http.site import Site
from tests.http.site import behaviour as any_behaviour

behaviour = functools.partial(any_behaviour, subject="DecompressionMiddleware")

MEGABYTE = 1024 * 1024


async def upload(client: Client, coding: str, body: bytes, *more: tuple[bytes, bytes]) -> Response:
    return await client.post(pieces(body), headers=coded(coding, body, *more))


def coded(coding: str, body: bytes, *more: tuple[bytes, bytes]) -> Headers:
    length = str(len(body)).encode()
    return [(b"content-encoding", coding.encode()), (b"content-length", length), *more]


def pieces(body: bytes, size: int = 4096) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


async def refused(site: Site, status: int, coding: str, body: bytes, **options: Any) -> Echo:
    """Check that the application did not get the whole body, and that the response is a problem."""
    echo = Echo()
    response = await upload(site.echo(echo, **options), coding, body)
    assert response.status == status
    assert response.is_whole
    assert response.get("content-type") == "application/problem+json"
    problem = json.loads(response.body)
    assert (problem["type"], problem["status"]) == ("about:blank", status)
    assert problem["detail"].startswith("request body refused: ")
    assert problem["code"] == {400: "malformed_body", 413: "body_too_large"}[status]
    assert echo.seen == []
    return echo


@functools.cache
def bomb(coding: str, megabytes: int) -> bytes:
    return encode(coding, bytes(megabytes * MEGABYTE))


@behaviour(codings=CODINGS)
async def test_the_application_reads_the_plain_body(site: Site) -> None:
    echo = Echo()
    body = encode(site.coding, ORDERS)
    digest = (b"content-digest", b"sha-256=:AAAA:")
    response = await upload(site.echo(echo), site.coding, body, digest, (b"x-one", b"1"))
    assert response.status == 200
    assert response.body == ORDERS
    assert echo.seen == [ORDERS]
    (headers,) = echo.headers
    assert "content-encoding" not in headers
    assert "content-digest" not in headers
    assert headers.get("content-length") in {None, str(len(ORDERS))}
    assert headers["x-one"] == "1"
    (scope,) = echo.scopes
    assert scope["extensions"]["hasten.decompression"] == {
        "content_encoding": site.coding.encode(),
        "content_length": str(len(body)).encode(),
        "content_digest": b"sha-256=:AAAA:",
    }


@behaviour(once=True)
async def test_digests_of_the_coded_body_are_removed(site: Site) -> None:
    """They do not match the decoded body: RFC 9530, sections 2 and 3."""
    echo = Echo()
    body = encode(site.coding, ORDERS)
    digests = [
        (b"repr-digest", b"sha-256=:AAAA:"),
        (b"digest", b"sha-256=AAAA"),
        (b"content-md5", b"AAAA"),
        (b"content-digest", b"sha-256=:AAAA:"),
    ]
    response = await upload(site.echo(echo), site.coding, body, *digests, (b"x-one", b"1"))
    assert response.status == 200
    (headers,) = echo.headers
    assert headers.keys().isdisjoint(name.decode() for name, _ in digests)
    assert headers["x-one"] == "1"


@behaviour(once=True)
async def test_names_of_codings_have_no_case_and_x_gzip_is_gzip(site: Site) -> None:
    """RFC 9110, sections 8.4.1 and 8.4.1.3."""
    for name in ("GZip", "x-gzip", " gzip "):
        echo = Echo()
        response = await upload(site.echo(echo), name, encode("gzip", ORDERS))
        assert response.status == 200
        assert echo.seen == [ORDERS]


@behaviour()
async def test_a_plain_body_is_not_changed(site: Site) -> None:
    """The limit applies to decoded bodies only."""
    echo = Echo()
    length = (b"content-length", str(len(ORDERS)).encode())
    response = await site.echo(echo, max_size=1000).post(pieces(ORDERS), headers=[length])
    assert response.status == 200
    assert echo.seen == [ORDERS]
    assert echo.headers[0]["content-length"] == str(len(ORDERS))
    assert "hasten.decompression" not in echo.scopes[0].get("extensions", {})


@behaviour(codings=CODINGS, once=True)
async def test_the_body_may_be_cut_anywhere(site: Site) -> None:
    for size in (1, 7, 100_000):
        echo = Echo()
        body = encode(site.coding, ORDERS)
        parts = [b"", *pieces(body, size), b""]
        response = await site.echo(echo).post(parts, headers=coded(site.coding, body))
        assert response.status == 200
        assert echo.seen == [ORDERS]


@behaviour(once=True)
async def test_an_unknown_coding_is_415(site: Site) -> None:
    """The response lists the supported ones: RFC 9110, section 12.5.3."""
    echo = Echo()
    for name in ("compress", "x-unheard-of", "deflate"):
        response = await upload(site.echo(echo), name, ORDERS)
        assert response.status == 415
        assert response.members("accept-encoding") == list(CODINGS)
    client = site.echo(echo, encodings=("gzip",))
    response = await upload(client, "br", encode("br", ORDERS))
    assert response.status == 415
    assert response.members("accept-encoding") == ["gzip"]
    assert echo.scopes == []


@behaviour(once=True)
async def test_more_codings_than_allowed_are_415(site: Site) -> None:
    echo = Echo()
    twice = encode("gzip", encode("gzip", ORDERS))
    for headers in ([b"gzip, gzip"], [b"gzip", b"gzip"], [b"gzip," * 5000]):
        lines = [(b"content-encoding", value) for value in headers]
        response = await site.echo(echo).post(pieces(twice), headers=lines)
        assert response.status == 415
    assert echo.scopes == []
    mixed = encode("br", encode("gzip", ORDERS))
    response = await upload(site.echo(echo, max_encodings=2), "gzip, br", mixed)
    assert response.status == 200
    assert echo.seen == [ORDERS]


@behaviour(codings=CODINGS)
async def test_a_body_that_becomes_too_large_is_413(site: Site) -> None:
    """Even if the framework suppresses the exception of receive()."""
    body = encode(site.coding, noise(60_000))
    await refused(site, 413, site.coding, body, max_size=50_000)
    echo = Echo()
    exact = encode(site.coding, noise(50_000))
    response = await upload(site.echo(echo, max_size=50_000), site.coding, exact)
    assert response.status == 200


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_a_bomb_takes_no_memory(site: Site) -> None:
    """No more of it is read than is needed to detect it."""
    read = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal read
        while True:
            message = await receive()
            read += len(message.get("body", b""))
            if not message.get("more_body", False):
                break
        await send_response(send, 200, [], b"done")

    body = bomb(site.coding, 64) + bytes(MEGABYTE)
    client = site.client(app, max_size="8mb", max_ratio=10**9)
    parts = pieces(body)
    tracemalloc.start()
    try:
        request: Any = {"method": "POST", "body": parts, "headers": coded(site.coding, body)}
        async with client.open(None, **request) as exchange:
            response = await exchange.response()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert response.status == 413
    assert read <= 8 * MEGABYTE
    assert peak < 4 * MEGABYTE
    assert exchange.receives < len(parts)


async def test_brotli_is_supported_only_if_configured() -> None:
    """Its decoder allocates megabytes before it returns the first byte."""
    echo = Echo()
    body = encode("br", ORDERS)
    for encodings, status in ((None, 415), (CODINGS, 200)):
        options: dict[str, Any] = {} if encodings is None else {"encodings": encodings}
        client = Client(
            DecompressionMiddleware(Raw().echo(echo, Installed(no_middleware)), **options)
        )
        assert (await upload(client, "br", body)).status == status


@behaviour(codings=CODINGS, once=True)
async def test_a_suspicious_ratio_is_413(site: Site) -> None:
    """After the first 512 kB: small bodies of zeros are harmless."""
    await refused(site, 413, site.coding, bomb(site.coding, 4), max_size="64mb")
    echo = Echo()
    harmless = encode(site.coding, bytes(MEGABYTE * 4 // 10))
    response = await upload(site.echo(echo), site.coding, harmless)
    assert response.status == 200
    response = await upload(site.echo(echo, max_ratio=10**6), site.coding, bomb(site.coding, 4))
    assert response.status == 200


@behaviour(codings=CODINGS)
async def test_a_truncated_body_is_400(site: Site) -> None:
    body = encode(site.coding, ORDERS)
    for length in (1, len(body) // 2, len(body) - 1):
        await refused(site, 400, site.coding, body[:length])


@behaviour(codings=CODINGS, once=True)
async def test_garbage_is_400(site: Site) -> None:
    body = encode(site.coding, ORDERS)
    await refused(site, 400, site.coding, ORDERS)
    await refused(site, 400, site.coding, body + b"garbage")


@behaviour(once=True)
async def test_a_wrong_checksum_is_400(site: Site) -> None:
    body = bytearray(encode("gzip", ORDERS))
    body[-5] ^= 1  # in the checksum
    await refused(site, 400, "gzip", bytes(body))


@behaviour(codings=("gzip", "zstd"), once=True)
async def test_several_members_are_one_body(site: Site) -> None:
    """RFC 1952, section 2.2, and RFC 8878, section 3.1."""
    echo = Echo()
    body = encode(site.coding, ORDERS) + encode(site.coding, b"tail")
    response = await upload(site.echo(echo), site.coding, body)
    assert response.status == 200
    assert echo.seen == [ORDERS + b"tail"]
    await refused(site, 413, site.coding, encode(site.coding, noise(9000)) * 4, max_size=30_000)


@behaviour(codings=("zstd",), once=True)
async def test_a_huge_window_is_refused(site: Site) -> None:
    """Memory would be allocated before the first byte is read: RFC 9659, section 3."""
    echo = Echo()
    response = await upload(site.echo(echo), "zstd", zstd_with_window(ORDERS, 27))
    assert response.status in {400, 413}
    assert echo.seen == []
    response = await upload(site.echo(echo), "zstd", zstd_with_window(ORDERS, 23))
    assert response.status == 200


@behaviour(codings=CODINGS, once=True)
async def test_an_empty_coded_body_is_400(site: Site) -> None:
    await refused(site, 400, site.coding, b"")


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_a_disconnect_is_passed_on(site: Site) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (kind := (await receive())["type"]) == "http.request":
            seen.append(kind)
            assert len(seen) < 20
        seen.append(kind)
        seen.append((await receive())["type"])

    async def cut_off(scope: Scope, receive: Receive, send: Send) -> None:
        messages = iter([{"type": "http.request", "body": body[:100], "more_body": True}])

        async def cut() -> Any:
            return next(messages, {"type": "http.disconnect"})

        await wrapped(scope, cut, send)

    body = encode(site.coding, noise(9000))
    wrapped = site.wrap(app)
    request: Any = {"method": "POST", "headers": coded(site.coding, body)}
    async with Client(cut_off).open(None, **request) as exchange:
        assert await exchange.ended() is None
    assert seen[-2:] == ["http.disconnect"] * 2
    assert exchange.messages == []


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_nothing_is_read_before_the_application_reads(site: Site) -> None:
    """Reading makes a server send 100 Continue, and the application may refuse before."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send_response(send, 401, [], b"who are you?")

    body = encode(site.coding, noise(90_000))
    expect = (b"expect", b"100-continue")
    request: Any = {"method": "POST", "body": pieces(body)}
    for coding, status in ((site.coding, 401), ("x-unheard-of", 415)):
        headers = coded(coding, body, expect)
        async with site.client(app).open(None, headers=headers, **request) as exchange:
            response = await exchange.response()
        assert response.status == status
        assert exchange.receives == 0


def answers_first(finish: bool) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(JSON)})
        await send({"type": "http.response.body", "body": b"[", "more_body": True})
        await read_body(receive)
        if finish:
            await send({"type": "http.response.body", "body": b"]"})

    return app


@behaviour(needs=Can.RAW, codings=CODINGS)
async def test_after_the_start_of_the_response_the_error_is_raised(site: Site) -> None:
    """The response has started, so it ends incomplete."""
    for body in (b"garbage", encode(site.coding, noise(9000))[:-3]):
        client = site.client(answers_first(finish=True))
        request: Any = {"method": "POST", "body": [body], "headers": coded(site.coding, body)}
        async with client.open(None, **request) as exchange:
            error = await exchange.ended()
        assert isinstance(error, Exception)
        assert not exchange.has_ended


@behaviour(needs=Can.RAW)
async def test_an_error_of_the_application_is_raised_after_a_refusal(site: Site) -> None:
    """The client gets the refusal, and the server gets the error."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        refusals: list[str] = []
        try:
            await read_body(receive)
        except Exception as refusal:  # noqa: BLE001 - whatever it is
            refusals.append(type(refusal).__name__)
        assert refusals == ["BodyRefused"]
        raise LookupError("something else")

    request: Any = {"method": "POST", "body": [b"garbage"], "headers": coded("gzip", b"garbage")}
    async with site.client(app).open(None, **request) as exchange:
        error = await exchange.ended()
    assert isinstance(error, LookupError)
    response = exchange.so_far()
    assert (response.status, response.is_whole) == (400, True)


class Watched:
    """A decoder that can be blocked, and that detects concurrent calls."""

    def __init__(self, decoder: Decoder, gate: threading.Event) -> None:
        self.decoder = decoder
        self.gate = gate
        self.calls = 0
        self.is_working = threading.Lock()
        self.overlaps = 0

    @property
    def has_pending_output(self) -> bool:
        return self.decoder.has_pending_output

    @property
    def is_body_complete(self) -> bool:
        return self.decoder.is_body_complete

    def decode(self, data: bytes, at_most: int) -> bytes:
        self.calls += 1
        if not self.is_working.acquire(blocking=False):
            self.overlaps += 1
            return b""
        try:
            assert self.gate.wait(10)
            return self.decoder.decode(data, at_most)
        finally:
            self.is_working.release()


def watched(app: App, **options: Any) -> tuple[DecompressionMiddleware, list[Watched]]:
    """Return a middleware and the list of decoders that it makes."""
    made: list[Watched] = []
    middleware = DecompressionMiddleware(app, **{"encodings": CODINGS, **options})
    for name, make in list(middleware._decoders.items()):

        def make_watched(make: Callable[[], Decoder] = make) -> Watched:
            gate = threading.Event()
            gate.set()
            made.append(Watched(make(), gate))
            return made[-1]

        middleware._decoders[name] = make_watched
    return middleware, made


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.usefixtures("all_work_in_threads")
async def test_reading_may_be_cancelled_at_any_point(coding: str, threads: int) -> None:
    """As by asyncio.wait_for. The next read continues without a gap."""
    cancelled = 0
    read: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal cancelled
        more = True
        while more:
            turn = len(read)
            [decoder] = made
            if turn % 2:
                decoder.gate.clear()
            reading = asyncio.ensure_future(receive())
            for _ in range(turn // 2 % 8):
                await asyncio.sleep(0)
            if turn % 4 == 3:
                await asyncio.wait([reading], timeout=0.02)  # the decoder has it by now
            reading.cancel()
            await asyncio.wait([reading])
            if reading.cancelled():
                cancelled += 1
                again = asyncio.ensure_future(receive())
                for _ in range(turn // 2 % 8):
                    await asyncio.sleep(0)
                decoder.gate.set()
                message = await again
            else:
                message = reading.result()
            decoder.gate.set()
            read.append(message["body"])
            more = message["more_body"]
        await send_response(send, 200, JSON, b"{}")

    whole = noise(600_000) + ORDERS * 40
    body = encode(coding, whole)
    middleware, made = watched(app, threads=threads)
    response = await upload(Client(middleware), coding, body)
    assert response.status == 200
    assert b"".join(read) == whole
    assert cancelled > 10
    assert [decoder.overlaps for decoder in made] == [0]


@pytest.mark.usefixtures("all_work_in_threads")
async def test_waiting_for_a_thread_is_not_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(decompression, "perf_counter", lambda: now)
    gate = threading.Event()
    read: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        read.append(await read_body(receive))
        await send_response(send, 200, JSON, b"{}")

    middleware = DecompressionMiddleware(app, max_time=5, threads=1)
    body = encode("gzip", ORDERS)
    request: Any = {"method": "POST", "body": [body], "headers": coded("gzip", body)}
    occupied = asyncio.ensure_future(middleware._pool.run(gate.wait, 10))
    async with Client(middleware).open(None, **request) as exchange:
        await exchange.until(lambda: middleware._pool.queue_length, "the body to wait")
        now = 3600.0
        gate.set()
        response = await exchange.response()
    await occupied
    assert response.status == 200
    assert read == [ORDERS]


async def test_decoding_takes_no_longer_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(0, 10_000, 2))
    monkeypatch.setattr(decompression, "perf_counter", lambda: float(next(times)))
    echo = Echo()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        echo.seen.append(await read_body(receive))

    middleware = DecompressionMiddleware(app, max_time=5)
    response = await upload(Client(middleware), "gzip", encode("gzip", noise(100_000)))
    assert response.status == 413
    assert echo.seen == []


EMPTY_FRAME = b"\x50\x2a\x4d\x18" + bytes(4)  # of zstd, to be skipped

TINY_PARTS = {
    "gzip-empty": ("gzip", [encode("gzip", b"")]),
    "gzip-byte": ("gzip", [encode("gzip", b"a")]),
    "gzip-mixed": ("gzip", [encode("gzip", b"a"), *[encode("gzip", b"")] * 99]),
    "zstd-empty": ("zstd", [encode("zstd", b"")]),
    "zstd-byte": ("zstd", [encode("zstd", b"a")]),
    "zstd-mixed": ("zstd", [encode("zstd", b"a"), *[encode("zstd", b"")] * 99]),
    "zstd-skippable": ("zstd", [encode("zstd", b"a"), *[EMPTY_FRAME] * 99]),
}


class Work:
    """The cost of one body: calls of the decoder and changes of thread."""

    def __init__(self, app: App, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.middleware, self.made = watched(app, **options)
        self.thread_changes = 0
        self.submit = self.middleware._pool.submit
        monkeypatch.setattr(self.middleware._pool, "submit", self._submit)

    def _submit(self, *args: Any) -> Any:
        self.thread_changes += 1
        return self.submit(*args)

    @property
    def steps(self) -> int:
        return sum(decoder.calls for decoder in self.made)


async def reads_all(scope: Scope, receive: Receive, send: Send) -> None:
    body = await read_body(receive)
    await send_response(send, 200, JSON, body)


class TestBodiesOfManyParts:
    """Members of gzip and frames of zstd: each takes time, and may be tiny or empty."""

    @pytest.mark.parametrize("size", [65_536, 4096, 30, 7])
    @pytest.mark.parametrize("kind", TINY_PARTS)
    @pytest.mark.parametrize("offload_after", [0, 1])
    async def test_too_many_for_the_size_are_400_before_long(
        self, kind: str, size: int, offload_after: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        coding, parts = TINY_PARTS[kind]
        body = b"".join(parts * (20_000 // len(parts)))
        monkeypatch.setattr(CompressionThreads, "offload_after", offload_after)
        work = Work(reads_all, monkeypatch)
        response = await Client(work.middleware).post(
            pieces(body, size), headers=coded(coding, body)
        )
        assert response.status == 400
        assert b"gzip members or zstd frames" in response.body
        messages = len(body) // size
        assert work.steps < 300 + min(messages, 600)
        assert work.thread_changes < 10 + (min(messages, 600) if offload_after == 0 else 0)

    @pytest.mark.parametrize("size", [65_536, 3, 1])
    @pytest.mark.parametrize("coding", ["gzip", "zstd"])
    async def test_a_hundred_parts_are_accepted_however_cut(self, coding: str, size: int) -> None:
        body = b"".join(encode(coding, b"%d" % (number % 10)) for number in range(100))
        client = Client(DecompressionMiddleware(reads_all))
        response = await client.post(pieces(body, size), headers=coded(coding, body))
        assert response.status == 200
        assert response.body == b"0123456789" * 10

    @pytest.mark.parametrize("coding", ["gzip", "zstd"])
    async def test_larger_parts_change_threads_per_input_not_per_part(
        self, coding: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain = noise(600)
        body = encode(coding, plain) * 1000
        work = Work(reads_all, monkeypatch)
        response = await Client(work.middleware).post(
            pieces(body, 65_536), headers=coded(coding, body)
        )
        assert response.status == 200
        assert response.body == plain * 1000
        assert work.thread_changes <= 1 + len(body) // 16_384

    @pytest.mark.parametrize("coding", ["gzip", "zstd"])
    async def test_only_a_few_parts_are_decoded_in_one_turn_of_the_event_loop(
        self, coding: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The frames that fit into 16 kB would block the event loop for 10 ms."""
        body = encode(coding, b"a") * 90
        turns: list[int] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            more = True
            while more:
                before = (work.steps, work.thread_changes)
                more = (await receive())["more_body"]
                if work.thread_changes == before[1]:
                    turns.append(work.steps - before[0])
            await send_response(send, 200, JSON, b"{}")

        work = Work(app, monkeypatch)
        response = await Client(work.middleware).post([body], headers=coded(coding, body))
        assert response.status == 200
        assert turns == [16]
        assert work.thread_changes == 1

    @pytest.mark.parametrize("inner", ["gzip-empty", "gzip-byte", "zstd-empty", "zstd-byte"])
    @pytest.mark.parametrize("outer", ["gzip", "br"])
    async def test_nested_parts_count_by_received_bytes(self, inner: str, outer: str) -> None:
        coding, parts = TINY_PARTS[inner]
        body = encode(outer, b"".join(parts * 20_000))
        assert len(body) < 5000
        made: list[Watched] = []
        middleware, made = watched(reads_all, max_encodings=2)
        response = await upload(Client(middleware), f"{coding}, {outer}", body)
        assert response.status == 400
        assert sum(decoder.calls for decoder in made) < 300

    async def test_only_one_piece_between_two_codings_is_decoded_on_the_event_loop(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        frame = EMPTY_FRAME[:4] + (60_000).to_bytes(4, "little") + bytes(60_000)
        body = encode("gzip", frame * 6 + encode("zstd", b"a"))
        on_loop: list[Watched] = []
        decode = Watched.decode

        def noted(decoder: Watched, data: bytes, at_most: int) -> bytes:
            if threading.current_thread() is threading.main_thread():
                on_loop.append(decoder)
            return decode(decoder, data, at_most)

        monkeypatch.setattr(Watched, "decode", noted)
        middleware, made = watched(reads_all, max_encodings=2)
        response = await upload(Client(middleware), "zstd, gzip", body)
        assert response.body == b"a"
        assert on_loop == made

    async def test_a_coding_between_two_may_not_be_a_bomb(self) -> None:
        """The output of the inner coding is limited, even if it decodes to nothing."""
        frames = (EMPTY_FRAME[:4] + (60_000).to_bytes(4, "little") + bytes(60_000)) * 80
        body = encode("gzip", frames)
        middleware, _ = watched(reads_all, max_encodings=2)
        response = await upload(Client(middleware), "zstd, gzip", body)
        assert response.status == 413

    async def test_the_time_of_nested_codings_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The time in threads counts, too."""
        now = 0.0

        class Slow(Watched):
            def decode(self, data: bytes, at_most: int) -> bytes:
                nonlocal now
                now += 1
                return super().decode(data, at_most)

        monkeypatch.setattr(decompression, "perf_counter", lambda: now)
        monkeypatch.setattr("tests.http.test_decompression.Watched", Slow)
        middleware, _ = watched(reads_all, max_time=50)
        response = await upload(Client(middleware), "zstd", encode("zstd", b"a") * 60)
        assert response.status == 413
        assert b"takes more than 50 s" in response.body
