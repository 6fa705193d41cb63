"""Limits and requests in unusual cases: streams, nested middlewares, cancellation."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from hasten.errors import InvalidOption, MissingMiddleware, UsageError
from hasten.ratelimit import Limit, RateLimitMiddleware, current_limit, limit
from tests.effort import effort
from tests.http.client import App, Client, Exchange, Message, Receive, Scope, Send, until

PEER: Final = ("203.0.113.7", 4711)


def client(app: App) -> Client:
    return Client(app)


async def ask(app: App, path: str = "/", method: str = "GET", **scope: Any) -> Any:
    exchange = client(app).open(headers=[], method=method, path=path, scheme="http")
    exchange.scope["client"] = PEER
    exchange.scope.update(scope)
    async with exchange:
        return await exchange.response()


async def seen(exchange: Exchange, body: bytes) -> None:
    """Wait until this part of the response has arrived."""
    await until(lambda: any("status" in each for each in exchange.messages), "an answer")
    await until(lambda: exchange.so_far().body == body, "its body")


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def left(answer: Any) -> list[int]:
    items = (answer.get("ratelimit") or "").split(", ")
    return [int(item.partition(";r=")[2].partition(";")[0]) for item in items if item]


class TestResponses:
    async def test_a_stream_passes_through_chunk_by_chunk(self) -> None:
        may_go_on = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for part in (b"a", b"b"):
                await send({"type": "http.response.body", "body": part, "more_body": True})
                await may_go_on.wait()
            await send({"type": "http.response.body", "body": b"c"})

        limited = RateLimitMiddleware(app, limits=[Limit("5/m"), Limit.concurrency(1)])
        exchange = client(limited).open(headers=[], path="/", scheme="http")
        exchange.scope["client"] = PEER
        async with exchange:
            await seen(exchange, b"a")
            may_go_on.set()
            answer = await exchange.response()
        assert answer.body == b"abc"
        kinds = [message["type"] for message in exchange.messages]
        assert kinds == ["http.response.start", *["http.response.body"] * 3]

    async def test_a_slot_is_released_when_the_response_ends(self) -> None:
        """Even if the application continues after it."""
        after = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await ok(scope, receive, send)
            await after.wait()

        limited = RateLimitMiddleware(app, limits=[Limit.concurrency(1)])
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                exchange = client(limited).open(headers=[], path="/", scheme="http")
                exchange.scope["client"] = PEER
                group.create_task(_whole(exchange))
                await seen(exchange, b"ok")
            after.set()

    async def test_a_broken_stream_releases_its_slot(self) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            if scope["path"] == "/broken":
                raise RuntimeError
            await asyncio.Event().wait()

        limited = RateLimitMiddleware(app, limits=[Limit.concurrency(1)])
        for path in ("/broken", "/endless", "/broken"):
            exchange = client(limited).open(headers=[], path=path, scheme="http")
            exchange.scope["client"] = PEER
            async with exchange:
                await seen(exchange, b"a")
                assert exchange.so_far().status == 200
                await exchange.cancel()

    async def test_a_path_that_is_not_found_counts(self) -> None:
        app = Starlette(routes=[Route("/api/x", lambda request: PlainTextResponse("x"))])
        limited = RateLimitMiddleware(app, limits=[Limit("2/m", path="/api/")])
        statuses = [(await ask(limited, "/api/none")).status for _ in range(3)]
        assert statuses == [404, 404, 429]
        assert (await ask(limited, "/api/x")).status == 429

    async def test_a_request_to_a_mounted_application_counts_once(self) -> None:
        inner = Starlette(routes=[Route("/x", lambda request: PlainTextResponse("x"))])
        app = Starlette(routes=[Mount("/api/sub", inner)])
        limited = RateLimitMiddleware(app, limits=[Limit("5/m", path="/api/")])
        assert left(await ask(limited, "/api/sub/x")) == [4]

    async def test_limits_inside_a_mounted_application_match_its_own_paths(self) -> None:
        inner = Starlette(routes=[Route("/x", lambda request: PlainTextResponse("x"))])
        inner.add_middleware(RateLimitMiddleware, limits=[Limit("5/m", path="/x")])
        app = Starlette(routes=[Mount("/api/sub", inner)])
        assert left(await ask(app, "/api/sub/x")) == [4]

    async def test_encodings_of_a_path_share_one_count(self) -> None:
        limited = RateLimitMiddleware(ok, limits=[Limit("5/m", path="/api/")])
        for number, raw in enumerate((b"/api/x", b"/api%2Fx", b"/%61pi/x")):
            assert left(await ask(limited, "/api/x", raw_path=raw)) == [4 - number]

    @pytest.mark.parametrize("refusing", ["inner", "outer", "none"])
    async def test_headers_describe_the_limits_of_nested_middlewares(self, refusing: str) -> None:
        """Return the remaining requests that a refusal shows."""
        rates = {"inner": "9/m", "outer": "8/15m", refusing: "0/h"}
        own = RateLimitMiddleware(
            ok, limits=[Limit(rates["inner"], name="inner")], namespace="inner"
        )
        limited = RateLimitMiddleware(own, limits=[Limit(rates["outer"], name="outer")])
        answer = await ask(limited)
        told = answer.get("ratelimit")
        match refusing:
            case "none":
                assert told == '"outer";r=7;t=900, "inner";r=8;t=60'
                assert answer.get("x-ratelimit-limit") == "8"
            case "inner":
                assert told == '"outer";r=7;t=900, "inner";r=0;t=3600'
                assert answer.get("x-ratelimit-limit") == "0"
                assert answer.get("retry-after") == "3600"
            case "outer":
                assert told == '"outer";r=0;t=3600'
                assert answer.get("retry-after") == "3600"
        assert len(answer.all("ratelimit-policy")) == 1

    async def test_an_inner_middleware_writes_headers_if_the_outer_does_not(self) -> None:
        own = RateLimitMiddleware(ok, limits=[Limit("9/m")], namespace="inner")
        limited = RateLimitMiddleware(own, limits=[Limit("8/m")], headers=())
        assert left(await ask(limited)) == [8]

    async def test_handlers_find_the_limits_of_nested_middlewares(self) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert current_limit("a").decision.remaining == 7
            assert current_limit("b").decision.remaining == 8
            with pytest.raises(LookupError, match="limits that apply: 'b', 'a'"):
                current_limit("c")
            await ok(scope, receive, send)

        own = RateLimitMiddleware(app, limits=[Limit("9/m", name="b")], namespace="inner")
        limited = RateLimitMiddleware(own, limits=[Limit("8/m", name="a")])
        assert (await ask(limited)).status == 200

    async def test_a_refusal_settles_earlier_limits_by_its_status(self) -> None:
        """Also if a handler's own limit refuses: 429 is not among the statuses that count."""

        @limit("1/m")
        async def handler(request: Request) -> Response:
            return PlainTextResponse("x", 401)

        app = Starlette(routes=[Route("/", handler)])
        limited = RateLimitMiddleware(app, limits=[Limit("5/m", count_statuses={401})])
        assert [(await ask(limited)).status for _ in range(3)] == [401, 429, 429]
        assert left(await ask(limited))[0] == 4


async def _whole(exchange: Exchange) -> None:
    async with exchange:
        await exchange.ended()


class TestMessages:
    async def test_a_message_can_be_a_response(self) -> None:
        async def message(request: Any) -> Response:
            headers = {"x-own": "1", "Retry-After": "1", "X-RateLimit-Limit": "7"}
            return PlainTextResponse(request.path, 420, headers)

        limited = RateLimitMiddleware(ok, limits=[Limit("0/m", message=message)])
        answer = await ask(limited, "/p")
        assert (answer.status, answer.body, answer.get("x-own")) == (420, b"/p", "1")
        assert answer.get("retry-after") == "60"
        assert answer.get("x-ratelimit-limit") == "0"

    async def test_a_failing_one_means_the_default(self, caplog: pytest.LogCaptureFixture) -> None:
        def message(request: Any) -> str:
            raise RuntimeError

        limited = RateLimitMiddleware(ok, limits=[Limit("0/m", message=message, name="a")])
        answer = await ask(limited)
        assert (answer.status, json.loads(answer.body)["violated-policies"]) == (429, ["a"])
        assert "limit 'a': message() failed" in caplog.text

    async def test_failing_observers_change_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        def fails(*_: object) -> None:
            raise RuntimeError

        limited = RateLimitMiddleware(
            ok, limits=[Limit("1/m", on_limited=lambda request: fails())], on_decision=fails
        )
        assert [(await ask(limited)).status for _ in range(2)] == [200, 429]
        assert "on_limited() failed" in caplog.text
        assert "on_decision() failed" in caplog.text

    async def test_a_failing_is_success_counts(self, caplog: pytest.LogCaptureFixture) -> None:
        def is_success(request: Any) -> bool:
            raise RuntimeError

        for option in ("skip_successful", "skip_failed"):
            options: dict[str, Any] = {option: True, "is_success": is_success}
            limited = RateLimitMiddleware(ok, limits=[Limit("5/m", **options)])
            assert left(await ask(limited)) == [4]
        assert caplog.text.count("the request is counted") == 2


class TestHandlers:
    async def charged(self, handler: Any, *limits: Limit) -> Any:
        limited = RateLimitMiddleware(Starlette(routes=[Route("/", handler)]), limits=limits)
        return await ask(limited)

    async def test_a_handler_without_async_can_change_its_limit(self) -> None:
        def handler(request: Request) -> Response:
            found = current_limit("a")
            found.sync.reset()
            found.sync.charge(4)
            decision = found.decision
            assert (decision.limit, decision.used, decision.remaining) == (9, 4, 5)
            assert 0 < decision.reset_after <= 60
            return PlainTextResponse("x")

        assert left(await self.charged(handler, Limit("9/m", name="a"))) == [5]

    async def test_sync_calls_work_on_the_event_loop_with_memory(self) -> None:
        async def handler(request: Request) -> Response:
            current_limit("a").sync.charge(4)
            return PlainTextResponse("x")

        assert left(await self.charged(handler, Limit("9/m", name="a"))) == [4]

    async def test_wrong_calls_of_current_limit_raise(self) -> None:
        async def handler(request: Request) -> Response:
            with pytest.raises(UsageError, match="need skip_successful"):
                current_limit("a").count_request()
            with pytest.raises(UsageError, match="need skip_successful"):
                current_limit("b").refund()
            with pytest.raises(InvalidOption, match=r"^cost="):
                await current_limit("a").charge(-1)
            with pytest.raises(UsageError, match="limit 'b': charge"):
                await current_limit("b").charge(1)
            with pytest.raises(LookupError, match="limits that apply: 'a', 'b'"):
                current_limit("c")
            return PlainTextResponse("x")

        answer = await self.charged(handler, Limit("9/m", name="a"), Limit.concurrency(1, name="b"))
        assert (answer.status, left(answer)) == (200, [8, 0])
        with pytest.raises(MissingMiddleware, match="needs RateLimitMiddleware"):
            current_limit("a")

    async def test_an_outcome_given_after_the_response_began_is_an_error(self) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            found = current_limit("a")
            await ok(scope, receive, send)
            with pytest.raises(UsageError, match="before the response begins"):
                found.count_request()

        limited = RateLimitMiddleware(app, limits=[Limit("9/m", name="a", skip_successful=True)])
        assert (await ask(limited)).status == 200

    async def test_repeated_slashes_share_the_count_of_a_route(self) -> None:
        limited = RateLimitMiddleware(ok, limits=[Limit("9/m", key="route")])
        for number, path in enumerate(["/a", "//a", "/a/", "/a//"]):
            assert left(await ask(limited, path)) == [8 - number]
        assert left(await ask(limited, "/b")) == [8]

    async def test_keys_may_be_numbers(self) -> None:
        limited = RateLimitMiddleware(ok, limits=[Limit("9/m", key=lambda request: 7)])  # type: ignore[arg-type,return-value]
        assert left(await ask(limited)) == [8]

    async def test_a_key_that_is_the_raw_address(self, caplog: pytest.LogCaptureFixture) -> None:
        limits = [Limit("9/m", key=lambda request: str(request.scope["client"][0]), name="raw")]
        limited = RateLimitMiddleware(ok, limits=limits)
        await ask(limited, client=("2001:db8::1", 1))
        await ask(limited, client=("2001:db8::2", 1))
        assert caplog.text.count("KEY_ADDRESS") == 1


class TestConstruction:
    @pytest.mark.parametrize("path", ["/api/*", "/users/{id}", "/a?b=1", "/a#b", "/caf%C3%A9"])
    def test_a_path_that_no_request_can_have_is_refused(self, path: str) -> None:
        with pytest.raises(InvalidOption, match=r"^path="):
            Limit("1/m", path=path)

    def test_a_message_that_is_not_json_is_refused(self) -> None:
        with pytest.raises(InvalidOption, match=r"^message="):
            Limit("1/m", message={"a": object()})

    @pytest.mark.parametrize(
        "option", ["key", "cost", "skip", "message", "on_limited", "is_success"]
    )
    def test_a_function_with_other_parameters_is_refused(self, option: str) -> None:
        options: dict[str, Any] = {option: lambda request, response: True, "skip_failed": True}
        with pytest.raises(InvalidOption, match=f"^{option}="):
            Limit("1/m", **options)
        with pytest.raises(InvalidOption, match=r"^rate="):
            Limit(lambda: "1/m")  # type: ignore[arg-type,misc]

    def test_a_limit_cannot_be_changed(self) -> None:
        limit = Limit("1/m", name="a")
        with pytest.raises(AttributeError, match="name cannot be changed: a Limit is immutable"):
            limit.name = "b"  # type: ignore[misc]
        assert limit.name == "a"

    def test_a_concurrency_limit_does_not_count_messages(self) -> None:
        with pytest.raises(InvalidOption, match=r"^per="):
            Limit.concurrency(1, per="message")  # type: ignore[call-arg]

    def test_concurrency_limits_of_different_paths_count_separately(self) -> None:
        RateLimitMiddleware(
            ok, limits=[Limit.concurrency(2, path="/a"), Limit.concurrency(2, path="/b")]
        )


class TestProxies:
    @pytest.mark.parametrize("options", [{"trusted_proxies": ["10.0.0.0/8"]}, {"hops": 1}])
    async def test_a_proxy_that_sets_another_header_is_logged(
        self, options: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        limited = RateLimitMiddleware(ok, limits=[Limit("5/m")], **options)
        for _ in range(2):
            headers = [(b"forwarded", b"for=203.0.113.9")]
            await ask(limited, client=("10.0.0.1", 1), headers=headers)
        assert caplog.text.count("OTHER_HEADER") == 1

    async def test_trusted_ranges_may_be_written_as_mapped(self) -> None:
        limited = RateLimitMiddleware(
            ok, limits=[Limit("1/m")], trusted_proxies=["::ffff:10.0.0.0/104"]
        )
        for number in range(2):
            headers = [(b"x-forwarded-for", b"203.0.113.%d" % number)]
            answer = await ask(limited, client=("10.0.0.1", 1), headers=headers)
            assert answer.status == 200


class TestMemory:
    async def test_caches_of_paths_and_clients_are_bounded(self) -> None:
        """There is one plan for all paths with the same limits, and long paths are not cached."""
        limited = RateLimitMiddleware(ok, limits=[Limit("100/m", path="/api/")])
        for number in range(50):
            await ask(limited, f"/api/{number}")
            await ask(limited, f"/api/{number}/{'x' * 10_000}")
        assert len(limited.enforcer._plans) == 1
        assert sum(len(str(path)) for path, *_ in limited._plans) < 1_000


class Socket:
    """A WebSocket in a test: the messages of the server, and those that were sent."""

    def __init__(self, app: App, *messages: Message, extensions: Any = None) -> None:
        self.app = app
        self.sent: list[Message] = []
        self._incoming = iter([{"type": "websocket.connect"}, *messages])
        self._extensions = extensions or {}

    async def run(self) -> list[str]:
        scope: Scope = {
            "type": "websocket", "path": "/ws", "root_path": "", "headers": [], "client": PEER,
            "query_string": b"", "extensions": self._extensions, "subprotocols": [],
        }  # fmt: skip
        await self.app(scope, self._receive, self._send)
        return [message["type"] for message in self.sent]

    async def _receive(self) -> Message:
        return next(self._incoming)

    async def _send(self, message: Message) -> None:
        closed = [each for each in self.sent if each["type"] == "websocket.close"]
        assert not closed, f"{message} after the end"
        self.sent.append(message)


def text(number: int) -> Message:
    return {"type": "websocket.receive", "text": str(number)}


class TestWebSockets:
    async def test_a_closed_connection_receives_only_disconnects(self) -> None:
        """The application may continue to receive and send."""
        received: list[Message] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            for _ in range(5):
                received.append(await receive())
                await send({"type": "websocket.send", "text": "x"})
            await send({"type": "websocket.close"})

        limited = RateLimitMiddleware(app, limits=[Limit("2/m", per="message")])
        socket = Socket(limited, *map(text, range(10)))
        kinds = await socket.run()
        assert kinds == ["websocket.accept", *["websocket.send"] * 2, "websocket.close"]
        assert [each.get("code") for each in received] == [None, None, 1008, 1008, 1008]

    @pytest.mark.parametrize("denies_with_http", [True, False])
    async def test_a_handler_s_own_limit_refuses_handshakes(self, denies_with_http: bool) -> None:
        @limit("1/m")
        async def handler(socket: WebSocket) -> None:
            await socket.accept()
            await socket.close()

        app = Starlette(routes=[WebSocketRoute("/ws", handler)])
        limited = RateLimitMiddleware(app)
        extensions: Scope = {"websocket.http.response": {}} if denies_with_http else {}
        assert await Socket(limited).run() == ["websocket.accept", "websocket.close"]
        socket = Socket(limited, extensions=extensions)
        kinds = await socket.run()
        if denies_with_http:
            assert kinds == ["websocket.http.response.start", "websocket.http.response.body"]
            assert socket.sent[0]["status"] == 429
            assert (b"retry-after", b"60") in socket.sent[0]["headers"]
        else:
            assert kinds == ["websocket.close"]

    async def test_a_fastapi_dependency_refuses_handshakes(self) -> None:
        from fastapi import FastAPI

        from hasten.fastapi import RateLimited

        app = FastAPI()

        @app.websocket("/ws", dependencies=[RateLimited("1/m")])
        async def handler(socket: WebSocket) -> None:
            await socket.accept()
            await socket.close()

        limited = RateLimitMiddleware(app)
        assert await Socket(limited).run() == ["websocket.accept", "websocket.close"]
        assert await Socket(limited).run() == ["websocket.close"]

    async def test_a_message_of_the_application_refuses_handshakes(self) -> None:
        refused = Limit("0/m", message=lambda request: PlainTextResponse("no"), name="own")
        limited = RateLimitMiddleware(ok, limits=[refused])
        socket = Socket(limited, extensions={"websocket.http.response": {}})
        kinds = await socket.run()
        assert kinds == ["websocket.http.response.start", "websocket.http.response.body"]

    async def test_slots_of_connections_are_released_if_messages_are_limited(self) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
            assert current_limit("1-at-once").decision.remaining == 0

        limits = [Limit.concurrency(1), Limit("100/m", per="message")]
        limited = RateLimitMiddleware(app, limits=limits)
        for _ in range(3):
            assert await Socket(limited, text(1)).run() == ["websocket.accept"]


class TestCancelling:
    async def test_a_refused_handler_that_is_cancelled_stays_so(self) -> None:
        stops = asyncio.Event()

        @limit("0/m")
        async def handler() -> None: ...

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await handler()
            stops.set()
            await asyncio.Event().wait()

        limited = RateLimitMiddleware(app, limits=[Limit.concurrency(1)])
        asking = asyncio.create_task(ask(limited))
        await stops.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert asking.cancelled()


HEADERS: Final = st.sampled_from(
    [b"x-forwarded-for", b"forwarded", b"x-real-ip", b"cf-connecting-ip", b"accept", b"origin"]
)


class TestAnything:
    """Every client gets a response and is counted by its own address, whatever it sends."""

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"trusted_proxies": ["10.0.0.0/8"]},
            {"trusted_proxies": ["10.0.0.0/8"], "proxy_header": "forwarded"},
            {"trusted_proxies": ["10.0.0.0/8"], "proxy_header": "cf-connecting-ip"},
        ],
    )
    @effort(30)
    @given(
        st.lists(st.tuples(HEADERS, st.binary(max_size=60)), max_size=5),
        st.text(max_size=20),
        st.text(max_size=5),
        st.sampled_from(["GET", "HEAD", "OPTIONS", "POST", "WEBSOCKET", "\n"]),
    )
    def test_no_header_changes_which_client_an_untrusted_peer_is(
        self,
        options: dict[str, Any],
        headers: list[tuple[bytes, bytes]],
        path: str,
        root_path: str,
        method: str,
    ) -> None:
        limited = RateLimitMiddleware(ok, limits=[Limit("9/m")], **options)
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "http.request"}

        async def twice() -> None:
            for lines in (headers, []):
                scope: Scope = {
                    "type": "http", "method": method, "path": "/" + path, "root_path": root_path,
                    "headers": lines, "client": PEER,
                }  # fmt: skip
                await limited(scope, receive, send)

        asyncio.run(twice())
        told = [dict(each["headers"])[b"x-ratelimit-remaining"] for each in sent[::2]]
        assert told == [b"8", b"7"]
