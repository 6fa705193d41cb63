"""The cache of compressed bodies: what is kept, how much, and that each is made once."""

from __future__ import annotations

import ast
import asyncio
import inspect
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from hasten.compression import (
    Compressed,
    CompressionCache,
    CompressionEvent,
    CompressionMiddleware,
    Skipped,
)
from hasten.compression import _cache as cache_module
from hasten.compression._cache import OVERHEAD_BYTES, RECOMPRESSED_AFTER_HITS
from hasten.compression._codecs import Zlib, Zstd
from tests.http import expect
from tests.http.bodies import HTML, JSON, ORDERS, orders
from tests.http.client import Client, Headers, Receive, Response, Scope, Send, until
from tests.http.hosts import Answer, Installed, Raw, send_response, start_message
from tests.patience import DEADLINE_SECONDS

SHARED: Headers = (*JSON, (b"etag", b'"1"'), (b"cache-control", b"public, max-age=60"))


def without(name: bytes) -> Headers:
    return [line for line in SHARED if line[0] != name]


class Site:
    """An answer, a middleware with a cache, and its events."""

    def __init__(
        self, answer: Answer | None = None, cache: CompressionCache | None = None, **options: Any
    ):
        self.answer = answer or Answer(ORDERS, SHARED)
        self.cache = CompressionCache() if cache is None else cache
        self.events: list[CompressionEvent] = []
        given = {"cache": self.cache, "on_event": self.events.append, **options}
        self.client = Client(Raw().serve(self.answer, Installed(CompressionMiddleware, given)))

    async def get(self, accept: str = "gzip", **request: Any) -> Response:
        return await self.client.get(accept, **request)

    @property
    def cached(self) -> list[bool]:
        """Return for each answer so far whether it came from the cache."""
        return [event.cached for event in self.events if isinstance(event, Compressed)]


def test_no_clock_decides_how_long_a_body_is_kept() -> None:
    """Only the size limit drops bodies, so tests need no `ManualClock`."""
    tree = ast.parse(inspect.getsource(cache_module))
    imports = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (getattr(node, "module", None), *(alias.name for alias in node.names))
    }
    assert "asyncio" in imports
    assert imports.isdisjoint({"time", "datetime", "hasten._clock"})


class TestWhatIsKept:
    @pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
    async def test_a_public_response_is_cached(self, coding: str) -> None:
        site = Site()
        first, second = await site.get(coding), await site.get(coding)
        assert first == second
        expect.coded(second, coding, ORDERS)
        assert second.get("etag") == 'W/"1"'
        assert site.cached == [False, True]
        assert site.answer.calls == 2
        assert len(site.cache) == 1
        address = site.cache.size - len(first.body) - OVERHEAD_BYTES
        assert 0 < address < 100

    @pytest.mark.parametrize(
        "value", [b"public", b"Public", b"s-maxage=5", b"max-age=1 , S-MaxAge=2"]
    )
    async def test_a_response_for_shared_caches_is_cached(self, value: bytes) -> None:
        headers = (*without(b"cache-control"), (b"cache-control", value))
        site = Site(Answer(ORDERS, headers))
        await site.get()
        await site.get()
        assert site.cached == [False, True]

    @pytest.mark.parametrize(
        "headers",
        [
            (*SHARED, (b"set-cookie", b"a=b")),
            without(b"cache-control"),
            (*without(b"cache-control"), (b"cache-control", b"max-age=60")),
            (*without(b"cache-control"), (b"cache-control", b"public, private")),
            (*without(b"cache-control"), (b"cache-control", b'public, Private="x"')),
            (*without(b"cache-control"), (b"cache-control", b"public, No-Store")),
            (*SHARED, (b"cache-control", b"private")),
            without(b"etag"),
            (*without(b"etag"), (b"etag", b'W/"1"')),
            (*without(b"etag"), (b"etag", b"1")),
            (*SHARED, (b"vary", b"Accept-Language")),
            (*SHARED, (b"vary", b"accept-encoding,COOKIE")),
        ],
    )
    async def test_a_private_response_is_not_cached(self, headers: Headers) -> None:
        await self.never_kept(Site(Answer(ORDERS, headers)))

    @pytest.mark.parametrize("status", [201, 203, 404, 500])
    async def test_other_statuses_are_not_cached(self, status: int) -> None:
        await self.never_kept(Site(Answer(ORDERS, SHARED, status)))

    async def test_responses_to_post_are_not_cached(self) -> None:
        await self.never_kept(Site(), method="POST")

    async def test_responses_to_authorized_requests_are_not_cached(self) -> None:
        await self.never_kept(Site(), headers=[(b"authorization", b"Bearer x")])

    async def never_kept(self, site: Site, **request: Any) -> None:
        for _ in range(2):
            expect.coded(await site.get(**request), "gzip", ORDERS)
        assert site.cached == [False, False]
        assert (len(site.cache), site.cache.size) == (0, 0)

    async def test_an_authorized_request_gets_no_cached_body(self) -> None:
        """Even if the body was cached before for a public request."""
        site = Site()
        await site.get()
        await site.get(headers=[(b"authorization", b"Bearer x")])
        assert site.cached == [False, False]


class TestApart:
    async def test_bodies_that_differ_have_their_own_entries(self) -> None:
        """Bodies with the same ETag and length, but other bytes."""
        bodies = {number: b"%02d" % number + ORDERS[2:] for number in range(8)}

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            number = int(dict(scope["headers"])[b"x-number"])
            await send_response(send, 200, SHARED, bodies[number])

        events: list[CompressionEvent] = []
        middleware = CompressionMiddleware(app, cache=CompressionCache(), on_event=events.append)
        requests: list[tuple[int, dict[str, Any]]] = [
            (0, {}),
            (1, {"host": b"other.example"}),
            (2, {"query": b"a=1"}),
            (3, {"query": b"a=2"}),
            (4, {"path": "/other"}),
            (5, {"scheme": "http"}),
        ]
        for turn in range(2):
            for number, request in requests:
                for coding in ("gzip", "br", "zstd"):
                    client = Client(middleware)
                    exchange = client.open(
                        coding,
                        headers=[(b"x-number", b"%d" % number)],
                        path=request.get("path", "/"),
                        scheme=request.get("scheme", "https"),
                    )
                    exchange.scope["query_string"] = request.get("query", b"")
                    exchange.scope["headers"][0] = (b"host", request.get("host", b"example.org"))
                    async with exchange:
                        expect.coded(await exchange.response(), coding, bodies[number])
                    [event] = events[-1:]
                    assert isinstance(event, Compressed)
                    assert event.cached == bool(turn)

    @pytest.mark.parametrize("size", [12_000, 300_000])
    async def test_bodies_with_one_etag_are_not_shared_between_users(self, size: int) -> None:
        """An ETag may be the version of a row, of which users see different parts."""
        bodies = {user: (user + ORDERS * 30)[:size] for user in (b"alice", b"mallory")}

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(start_message(200, SHARED))
            body = bodies[dict(scope["headers"])[b"x-api-key"]]
            await send({"type": "http.response.body", "body": body})

        events: list[CompressionEvent] = []
        cache = CompressionCache()
        client = Client(CompressionMiddleware(app, cache=cache, on_event=events.append))
        for _ in range(2):
            together = [client.get("gzip", headers=[(b"x-api-key", user)]) for user in bodies]
            for body, response in zip(
                bodies.values(), await asyncio.gather(*together), strict=True
            ):
                expect.coded(response, "gzip", body)
        assert len(cache) == 2
        assert [event.cached for event in events if isinstance(event, Compressed)] == [
            False, False, True, True,
        ]  # fmt: skip

    async def test_applications_mounted_elsewhere_have_their_own_entries(self) -> None:
        """Some routers remove the mount path from the scope."""
        bodies = {"/a": b"1" + ORDERS[1:], "/b": b"2" + ORDERS[1:]}

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            mount = scope["path"][:2]
            scope["path"] = scope["path"][2:]
            await send_response(send, 200, SHARED, bodies[mount])

        cache = CompressionCache()
        client = Client(CompressionMiddleware(app, cache=cache))
        for _ in range(2):
            for mount, body in bodies.items():
                expect.coded(await client.get("gzip", path=f"{mount}/x"), "gzip", body)
        assert len(cache) == 2

    async def test_a_new_version_has_its_own_entry(self) -> None:
        site = Site()
        await site.get()
        site.answer.body = orders(120)
        site.answer.headers = (*without(b"etag"), (b"etag", b'"2"'))
        expect.coded(await site.get(), "gzip", orders(120))
        assert site.cached == [False, False]


class TestBound:
    async def test_the_least_recently_used_body_is_dropped(self) -> None:
        first = Site()
        await first.get(path="/1")
        one = first.cache.size
        site = Site(cache=CompressionCache(3 * one))
        for path in ("/1", "/2", "/3"):
            await site.get(path=path)
        await site.get(path="/1")  # which makes /2 the oldest
        await site.get(path="/4")
        assert (len(site.cache), site.cache.size) == (3, 3 * one)
        site.events.clear()
        for path in ("/1", "/3", "/4", "/2"):
            await site.get(path=path)
        assert site.cached == [True, True, True, False]

    async def test_the_maximum_size_is_never_exceeded(self) -> None:
        site = Site(cache=CompressionCache(20_000))
        for number in range(60):
            site.answer.body = orders(30 + 17 * number % 150)
            expect.coded(await site.get("zstd", path=f"/{number % 40}"), "zstd", site.answer.body)
            assert site.cache.size <= 20_000
        assert len(site.cache) > 1

    async def test_the_size_includes_request_targets(self) -> None:
        """Otherwise requests with long targets would fill the memory."""
        site = Site(cache=CompressionCache(100_000))
        for number in range(10):
            exchange = site.client.open("gzip")
            exchange.scope["query_string"] = b"%d" % number + b"x" * 30_000
            async with exchange:
                expect.coded(await exchange.response(), "gzip", ORDERS)
            assert 30_000 * len(site.cache) <= site.cache.size <= 100_000
        assert len(site.cache) > 0

    @pytest.mark.parametrize("size", [0, 700])
    async def test_a_body_above_the_maximum_is_not_cached(self, size: int) -> None:
        site = Site(cache=CompressionCache(size))
        expect.coded(await site.get(), "gzip", ORDERS)
        expect.coded(await site.get(), "gzip", ORDERS)
        assert (len(site.cache), site.cache.size) == (0, 0)


class Gate:
    """Blocks and counts all compressions."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.levels: list[int] = []
        self.error: Exception | None = None


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    compress = Zlib.compress

    def held(codec: Zlib, body: Any, level: int) -> bytes:
        gate.levels.append(level)
        assert gate.open.wait(10)
        if gate.error is not None:
            raise gate.error
        return compress(codec, body, level)

    monkeypatch.setattr(Zlib, "compress", held)
    yield gate
    gate.open.set()


def slow_site(**options: Any) -> Site:
    return Site(level={"gzip": 4}, **options)


@pytest.mark.usefixtures("all_work_in_threads")
class TestSingleFlight:
    async def test_many_requests_are_one_compression(self, gate: Gate) -> None:
        site = slow_site()
        async with AsyncExitStack() as stack:
            exchanges = [
                await stack.enter_async_context(site.client.open("gzip")) for _ in range(12)
            ]
            await until(lambda: site.answer.calls == 12 and gate.levels, "all to ask")
            gate.open.set()
            responses = [await exchange.response() for exchange in exchanges]
        assert gate.levels == [4]
        for response in responses:
            expect.coded(response, "gzip", ORDERS)
        assert sorted(site.cached) == [False, *[True] * 11]

    @pytest.mark.parametrize("which", ["first", "second"])
    async def test_a_cancelled_request_does_not_affect_others(self, gate: Gate, which: str) -> None:
        site = slow_site()
        async with site.client.open("gzip") as first:
            await until(lambda: gate.levels, "the compression")
            async with site.client.open("gzip") as second:
                await until(lambda: site.answer.calls == 2, "the second")
                leaving, staying = (first, second) if which == "first" else (second, first)
                await leaving.cancel()
                assert leaving.messages == []
                gate.open.set()
                expect.coded(await staying.response(), "gzip", ORDERS)
        expect.coded(await site.get(), "gzip", ORDERS)
        assert gate.levels == [4]

    async def test_a_body_is_cached_even_if_all_requests_were_cancelled(self, gate: Gate) -> None:
        site = slow_site()
        async with site.client.open("gzip") as first:
            await until(lambda: gate.levels, "the compression")
            await first.cancel()
        gate.open.set()
        await until(lambda: len(site.cache), "the body to be kept")
        expect.coded(await site.get(), "gzip", ORDERS)
        assert gate.levels == [4]
        assert site.cached == [True]

    @pytest.mark.parametrize("turns", range(6))
    async def test_a_cancelled_compression_is_started_again(self, turns: int) -> None:
        """A server that shuts down cancels all tasks, including those of the cache."""
        site = slow_site()
        async with site.client.open("gzip") as exchange:
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            assert isinstance(await exchange.ended(), asyncio.CancelledError)
        async with asyncio.timeout(DEADLINE_SECONDS):
            expect.coded(await site.get(), "gzip", ORDERS)

    async def test_two_event_loops_may_share_it(self, gate: Gate) -> None:
        site = slow_site(threads=2)
        both = [asyncio.ensure_future(asyncio.to_thread(asyncio.run, site.get())) for _ in range(2)]
        await until(lambda: site.answer.calls == 2 and gate.levels, "both to ask")
        gate.open.set()
        for response in await asyncio.gather(*both):
            expect.coded(response, "gzip", ORDERS)
        expect.coded(await site.get(), "gzip", ORDERS)
        assert site.cached[-1]

    async def test_a_failure_reaches_all_requests_and_is_not_cached(self, gate: Gate) -> None:
        site = slow_site()
        gate.error = MemoryError("no more")
        async with site.client.open("gzip") as first, site.client.open("gzip") as second:
            await until(lambda: site.answer.calls == 2 and gate.levels, "both to ask")
            gate.open.set()
            for exchange in (first, second):
                assert isinstance(await exchange.ended(), MemoryError)
        gate.error = None
        expect.coded(await site.get(), "gzip", ORDERS)
        assert gate.levels == [4, 4]

    async def test_a_hit_needs_no_thread(self, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("hasten.compression._pool.QUEUED_PER_THREAD", 1)
        site = slow_site(threads=1)
        gate.open.set()
        await site.get(path="/kept")
        gate.open.clear()
        async with AsyncExitStack() as stack:
            for number in range(2):
                await stack.enter_async_context(site.client.open("gzip", path=f"/{number}"))
            await until(lambda: site.answer.calls == 3 and len(gate.levels) == 2, "both to wait")
            site.events.clear()
            response = await site.get(path="/kept")
            gate.open.set()
            assert Skipped("busy") not in site.events
            expect.coded(response, "gzip", ORDERS)


@pytest.mark.usefixtures("all_work_in_threads")
class TestRecompress:
    @pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
    async def test_a_popular_body_is_recompressed(self, coding: str) -> None:
        body = orders(400)
        cache = CompressionCache(recompress=True)
        site = Site(Answer(body, SHARED), cache)
        first = await site.get(coding)
        before = cache.size
        for _ in range(RECOMPRESSED_AFTER_HITS):
            response = await site.get(coding)
            assert len(response.body) <= len(first.body)
        await until(lambda: cache.size < before, "the smaller one")
        smaller = expect.coded(await site.get(coding), coding, body)
        assert len(smaller.body) < len(first.body)
        assert before - cache.size == len(first.body) - len(smaller.body)
        assert smaller.get("etag") == first.get("etag") == 'W/"1"'
        assert all(site.cached[1:])

    async def test_a_body_is_recompressed_once(self, gate: Gate) -> None:
        gate.open.set()
        site = slow_site(cache=CompressionCache(recompress=True))
        for _ in range(4 * RECOMPRESSED_AFTER_HITS):
            await site.get()
        await until(lambda: len(gate.levels) > 1, "the recompression")
        assert gate.levels == [4, 9]

    @pytest.mark.parametrize("recompress", [True, False])
    async def test_happens_after_three_hits(self, gate: Gate, *, recompress: bool) -> None:
        gate.open.set()
        site = slow_site(cache=CompressionCache(recompress=recompress))
        for _ in range(RECOMPRESSED_AFTER_HITS):
            await site.get()
        assert gate.levels == [4]
        await site.get()
        if recompress:
            await until(lambda: len(gate.levels) > 1, "the recompression")
        await site.get()
        assert gate.levels == ([4, 9] if recompress else [4])

    async def test_the_recompression_of_a_dropped_body_is_discarded(self, gate: Gate) -> None:
        gate.open.set()
        site = slow_site(cache=CompressionCache("64mb", recompress=True))
        await site.get()
        one = site.cache.size
        site.cache._max_bytes = one + one // 2  # room for one
        for _ in range(RECOMPRESSED_AFTER_HITS - 1):
            await site.get()
        gate.open.clear()
        await site.get()
        await until(lambda: gate.levels == [4, 9], "the recompression")
        async with site.client.open("gzip", path="/other") as other:
            await until(lambda: gate.levels == [4, 9, 4], "the other")
            gate.open.set()
            expect.coded(await other.response(), "gzip", ORDERS)
        await until(lambda: not site.cache._tasks, "the recompression to end")
        assert len(site.cache) == 1
        assert site.cache.size <= site.cache._max_bytes

    async def test_a_failed_recompression_is_ignored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The event loop does not report it, either."""
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: complaints.append(context)
        )
        compress = Zstd.compress

        def failing(codec: Zstd, body: Any, level: int) -> bytes:
            if level == codec.level_policy.smallest:
                raise MemoryError("no more")
            return compress(codec, body, level)

        monkeypatch.setattr(Zstd, "compress", failing)
        site = Site(Answer(ORDERS, (*HTML, *SHARED[1:])), CompressionCache(recompress=True))
        for _ in range(RECOMPRESSED_AFTER_HITS + 1):
            await site.get("zstd")
        await until(lambda: not site.cache._tasks, "the recompression to end")
        expect.coded(await site.get("zstd"), "zstd", ORDERS)
        assert complaints == []
