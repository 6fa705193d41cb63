"""Load shedding."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from hasten.errors import InvalidOption
from hasten.loadshedding import LoadSheddingMiddleware, ShedRequest
from hasten.loadshedding._load import LagMeter
from tests.http.client import App, Client, Exchange, Receive, Response, Scope, Send, until
from tests.ratelimit import sites

CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def now_ns(self) -> int:
        return round(self.now * 1_000_000_000)

    def now_ms(self) -> int:
        return round(self.now * 1_000)

    async def sleep_until(self, due_ms: int) -> None:
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


class Site:
    """An application whose responses begin and end when the test allows it."""

    def __init__(self) -> None:
        self.begins = asyncio.Event()
        self.ends = asyncio.Event()
        self.ends.set()
        self.status = 200
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        self.under_way += 1
        try:
            await self.begins.wait()
        finally:
            self.under_way -= 1
        if scope["path"] == "/broken":
            raise RuntimeError
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await self.ends.wait()
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def site() -> Site:
    return Site()


def open_(app: App, path: str = "/", **options: Any) -> Exchange:
    return Client(app).open(path=path, scheme="http", **{"headers": [], **options})


async def ask(app: App, path: str = "/", **options: Any) -> Response:
    async with open_(app, path, **options) as exchange:
        return await exchange.response()


@contextlib.asynccontextmanager
async def busy(shedder: LoadSheddingMiddleware, site: Site, count: int) -> AsyncIterator[None]:
    """Keep this many requests in flight during the block."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(open_(shedder))
        await until(lambda: site.under_way == count, "requests to be under way")
        yield


async def test_a_request_above_the_limit_is_refused_at_once(site: Site) -> None:
    shedder = LoadSheddingMiddleware(site, min_concurrency=3)
    async with busy(shedder, site, 3):
        answer = await ask(shedder)
    assert (answer.status, answer.get("content-type")) == (503, "application/problem+json")
    assert json.loads(answer.body)["type"] == CAPACITY
    assert answer.get("cache-control") == "no-store"
    assert answer.get("retry-after") in {"1", "2"}
    site.begins.set()
    assert (await ask(shedder)).status == 200
    assert (shedder.stats.allowed, shedder.stats.shed) == (4, 1)
    assert shedder.stats.in_flight == 0


async def test_retry_after_differs_from_client_to_client(site: Site) -> None:
    shedder = LoadSheddingMiddleware(site, min_concurrency=1, retry_after=10, message="busy")
    async with busy(shedder, site, 1):
        answers = [await ask(shedder) for _ in range(40)]
    told = {int(answer.get("retry-after") or 0) for answer in answers}
    assert len(told) > 3
    assert min(told) >= 10
    assert max(told) <= 20
    assert answers[0].body == b"busy"


async def test_critical_requests_have_reserved_capacity(site: Site) -> None:
    shedder = LoadSheddingMiddleware(
        site, min_concurrency=5, critical=lambda request: request.path == "/pay"
    )
    async with busy(shedder, site, 4):
        assert (await ask(shedder)).status == 503
        async with open_(shedder, "/pay"):
            await until(lambda: site.under_way == 5, "what is critical to be under way")
            assert (await ask(shedder, "/pay")).status == 503
    assert shedder.stats.critical == 1


async def test_a_request_is_not_critical_if_the_function_fails(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def critical(request: Any) -> bool:
        raise RuntimeError

    shedder = LoadSheddingMiddleware(site, min_concurrency=5, critical=critical)
    async with busy(shedder, site, 4):
        assert (await ask(shedder)).status == 503
    assert "critical() failed" in caplog.text


async def test_critical_is_called_only_if_it_matters(site: Site) -> None:
    asked: list[str] = []

    def critical(request: Any) -> bool:
        asked.append(request.path)
        return True

    shedder = LoadSheddingMiddleware(site, min_concurrency=1, critical=critical)
    async with busy(shedder, site, 1):  # a request was accepted without the function
        assert (await ask(shedder)).status == 503  # and now there is no room for any request
    assert asked == []


async def test_clients_that_send_slowly_occupy_no_capacity(site: Site) -> None:
    shedder = LoadSheddingMiddleware(site, min_concurrency=1)
    waiting = asyncio.Event()
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def receive() -> dict[str, Any]:
        waiting.set()
        return await incoming.get()

    async def send(message: Any) -> None: ...

    scope: Scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    slow = asyncio.create_task(shedder(scope, receive, send))
    await waiting.wait()
    assert shedder.stats.in_flight == 0
    site.begins.set()
    assert (await ask(shedder)).status == 200
    incoming.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    await slow
    assert shedder.stats.in_flight == 0


async def test_long_responses_occupy_no_capacity(site: Site) -> None:
    shedder = LoadSheddingMiddleware(site, min_concurrency=1)
    site.begins.set()
    site.ends.clear()
    async with open_(shedder) as exchange:
        await until(lambda: exchange.messages, "the answer to begin")
        assert shedder.stats.in_flight == 0
        site.ends.set()
        await exchange.response()


async def test_a_failed_request_is_counted_out(site: Site) -> None:
    shedder = LoadSheddingMiddleware(site, min_concurrency=1)
    site.begins.set()
    async with open_(shedder, "/broken") as exchange:
        assert isinstance(await exchange.ended(), RuntimeError)
        assert shedder.stats.in_flight == 0
    assert (await ask(shedder)).status == 200


async def test_a_cancelled_request_is_counted_out(site: Site) -> None:
    shedder = LoadSheddingMiddleware(site, min_concurrency=1)
    async with open_(shedder) as exchange:
        await until(lambda: site.under_way == 1, "it to be under way")
        await exchange.cancel()
        assert shedder.stats.in_flight == 0


async def test_a_request_is_counted_out_when_the_client_disconnects() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    shedder = LoadSheddingMiddleware(app, min_concurrency=1)
    async with open_(shedder) as exchange:
        await until(lambda: exchange.receives == 1, "it to wait for the client to leave")
        assert shedder.stats.in_flight == 1
        exchange.disconnect()
        assert await exchange.ended() is None
        assert shedder.stats.in_flight == 0


async def test_waiting_for_a_disconnect_counts_as_work() -> None:
    """The body has arrived, so the application waits while it works."""
    entered, goes_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        leaving = asyncio.ensure_future(receive())
        entered.set()
        await goes_on.wait()
        leaving.cancel()

    shedder = LoadSheddingMiddleware(app, min_concurrency=1)
    async with open_(shedder) as exchange:
        await entered.wait()
        await asyncio.sleep(0)
        assert shedder.stats.in_flight == 1
        goes_on.set()
        await exchange.ended()
    assert shedder.stats.in_flight == 0


async def many(
    shedder: LoadSheddingMiddleware, site: Site, time: Time, count: int, took: float
) -> None:
    """Serve concurrent requests that take this long on the test's clock."""
    site.begins.clear()
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(ask(shedder))
        await until(lambda: site.under_way == count, "all to be under way")
        time.now += took
        site.begins.set()


async def test_the_limit_follows_how_long_requests_take(site: Site, time: Time) -> None:
    shedder = LoadSheddingMiddleware(site, min_concurrency=10, max_concurrency=100, clock=time)
    assert shedder.stats.limit == 10
    for _ in range(40):
        await many(shedder, site, time, shedder.stats.limit, took=0.15)
    grown = shedder.stats.limit
    assert grown > 20
    for _ in range(20):
        await many(shedder, site, time, shedder.stats.limit, took=0.9)
    assert shedder.stats.limit < grown


async def test_durations_of_refusals_and_errors_are_ignored(site: Site, time: Time) -> None:
    shedder = LoadSheddingMiddleware(site, min_concurrency=10, clock=time)
    for site.status in (400, 404, 429, 500, 503):
        for _ in range(5):
            await many(shedder, site, time, 10, took=0.15)
    assert shedder.stats.limit == 10


@pytest.mark.parametrize(
    ("count", "took", "learns"),
    [(10, 0.1, True), (9, 0.1, False), (10, 0.09, False)],
    ids=["enough", "few", "short"],
)
async def test_the_limit_needs_enough_requests_and_time_to_adapt(
    site: Site, time: Time, count: int, took: float, learns: bool
) -> None:
    shedder = LoadSheddingMiddleware(site, min_concurrency=10, max_concurrency=100, clock=time)
    before = shedder._load.level
    await many(shedder, site, time, count, took)
    assert (shedder._load.level != before) is learns


async def test_waiting_for_the_body_is_not_part_of_the_duration(time: Time) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        time.now += 0.02
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> dict[str, Any]:
        time.now += 5
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None: ...

    shedder = LoadSheddingMiddleware(app, min_concurrency=1, clock=time)
    for _ in range(10):
        await shedder({"type": "http", "method": "POST", "headers": []}, receive, send)
    assert shedder._load.level.usual_us == pytest.approx(20_000)


async def test_the_lag_is_measured_once_for_many_requests(site: Site, time: Time) -> None:
    """And not at all without requests."""
    loop = asyncio.get_running_loop()
    asked: list[float] = []
    ask_loop = loop.call_later

    def call_later(delay: float, *args: Any, **options: Any) -> asyncio.TimerHandle:
        if "LagMeter" in repr(args[0]):
            asked.append(time.now)
        return ask_loop(delay, *args, **options)

    shedder = LoadSheddingMiddleware(site, min_concurrency=50, clock=time)
    lag = shedder._load._lag = LagMeter(lambda: time.now)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "call_later", call_later)
        site.begins.set()
        for time.now in (1.0, 1.019, 1.02, 1.03):
            for _ in range(10):
                await ask(shedder)
        time.now = 9.0
        await until(lambda: lag._started_at is None, "the event loop to answer")
    assert asked == [1.0, 1.02]


async def test_equal_bounds_fix_the_limit(site: Site, time: Time) -> None:
    shedder = LoadSheddingMiddleware(site, min_concurrency=12, max_concurrency=12, clock=time)
    for _ in range(5):
        await many(shedder, site, time, 12, took=5)
    assert shedder.stats.limit == 12


async def test_the_limit_falls_while_the_event_loop_lags(site: Site, time: Time) -> None:
    shedder = LoadSheddingMiddleware(site, min_concurrency=10, max_concurrency=100, clock=time)
    for _ in range(40):
        await many(shedder, site, time, shedder.stats.limit, took=0.15)
    grown = shedder.stats.limit

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        time.now += 0.3  # the event loop is blocked for this long
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    shedder.app = app
    shedder._load._lag = LagMeter(lambda: time.now)
    for _ in range(50):
        await ask(shedder)
    assert shedder.stats.limit < grown


@pytest.mark.parametrize("framework", sites.FRAMEWORKS)
async def test_every_framework_sheds_load_while_a_handler_runs(framework: str) -> None:
    """Also if a framework waits for a disconnect while the handler works."""
    site = sites.Site()
    shedders: list[LoadSheddingMiddleware] = []

    def install(app: App) -> LoadSheddingMiddleware:
        shedders.append(LoadSheddingMiddleware(app, min_concurrency=1))
        return shedders[-1]

    app = sites.FRAMEWORKS[framework](site, install)
    async with open_(app, headers=[(b"x-wait", b"1")]) as exchange:
        await until(lambda: site.under_way == 1, "it to be under way")
        assert sum(each.stats.in_flight for each in shedders) == 1
        refused = await ask(app)
        assert (refused.status, refused.get("cache-control")) == (503, "no-store")
        site.gate.set()
        assert (await exchange.response()).status == 200
    assert (await ask(app)).status == 200
    assert sum(each.stats.in_flight for each in shedders) == 0


async def test_all_routes_of_litestar_share_one_shedder() -> None:
    """Litestar makes a middleware for each route."""
    site = sites.Site()
    app = sites.FRAMEWORKS["litestar"](site, partial(LoadSheddingMiddleware, min_concurrency=1))
    async with open_(app, headers=[(b"x-wait", b"1")]):
        await until(lambda: site.under_way == 1, "it to be under way")
        refused = await asyncio.gather(*(ask(app, path) for path in ("/", "/a", "/a/b")))
        assert [answer.status for answer in refused] == [503] * 3


async def test_scopes_other_than_http_pass() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    shedder = LoadSheddingMiddleware(app, min_concurrency=1)
    for kind in ("lifespan", "websocket", "unknown"):
        await shedder({"type": kind}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan", "websocket", "unknown"]


@pytest.mark.parametrize(
    "options",
    [
        {"min_concurrency": 0}, {"max_concurrency": 0}, {"reserved": 1}, {"reserved": -0.1},
        {"reserved": "half"}, {"reserved": None}, {"reserved": float("nan")}, {"max_lag": 0},
        {"retry_after": -1}, {"min_concurrency": 50, "max_concurrency": 12}, {"stats": {}},
        {"message": 5},
        {"message": {"a": object()}}, {"clock": 3},
    ],
)  # fmt: skip
def test_invalid_options_are_refused_at_construction(site: Site, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=f"^{next(iter(options))}="):
        LoadSheddingMiddleware(site, **options)


@pytest.mark.parametrize("option", ["critical", "on_shed"])
async def test_functions_cannot_be_async(site: Site, option: str) -> None:
    """A coroutine is always true, whatever its result is."""

    async def function(request: Any) -> bool:
        return False

    class Called:
        async def __call__(self, request: Any) -> bool:
            return False

    given: Any
    for given in (function, Called(), "/pay"):
        with pytest.raises(InvalidOption, match=f"^{option}="):
            LoadSheddingMiddleware(site, **{option: given})


async def test_on_shed_is_called_per_refusal(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """If it raises, the refusal is sent anyway."""
    told: list[ShedRequest] = []

    def on_shed(shed: ShedRequest) -> None:
        told.append(shed)
        raise RuntimeError

    shedder = LoadSheddingMiddleware(site, min_concurrency=1, on_shed=on_shed)
    async with busy(shedder, site, 1):
        assert told == []
        assert (await ask(shedder, "/x")).status == 503
    [shed] = told
    assert (shed.request.path, shed.request.client) == ("/x", "192.0.2.1")
    assert (shed.in_flight, shed.limit) == (1, 1)
    assert 1 <= shed.retry_after <= 2
    assert "on_shed() failed" in caplog.text


async def test_retry_after_is_rounded_up(site: Site) -> None:
    shedder = LoadSheddingMiddleware(site, max_concurrency=1, retry_after=1.4)
    async with busy(shedder, site, 1):
        told = {(await ask(shedder)).get("retry-after") for _ in range(60)}
    assert told == {"2", "3", "4"}
