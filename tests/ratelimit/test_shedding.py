"""What a process refuses that has no room left."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hasten.errors import InvalidLimit
from hasten.ratelimit import LoadShedder
from tests.http.client import App, Client, Exchange, Receive, Response, Scope, Send, until

CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Site:
    """An application whose answers begin and end when the test lets them."""

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
    return Client(app).open(headers=[], path=path, scheme="http", **options)


async def ask(app: App, path: str = "/", **options: Any) -> Response:
    async with open_(app, path, **options) as exchange:
        return await exchange.response()


@contextlib.asynccontextmanager
async def busy(shedder: LoadShedder, site: Site, count: int) -> AsyncIterator[None]:
    """So many requests are under way, and go on while the block lasts."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(open_(shedder))
        await until(lambda: site.under_way == count, "requests to be under way")
        yield


async def test_what_is_too_much_is_refused_at_once(site: Site) -> None:
    shedder = LoadShedder(site, least=3)
    async with busy(shedder, site, 3):
        answer = await ask(shedder)
    assert (answer.status, answer.get("content-type")) == (503, "application/problem+json")
    assert json.loads(answer.body)["type"] == CAPACITY
    assert answer.get("cache-control") == "no-store"
    assert answer.get("retry-after") in {"1", "2"}
    site.begins.set()
    assert (await ask(shedder)).status == 200
    assert (shedder.counts.allowed, shedder.counts.refused) == (4, 1)
    assert shedder.in_flight == 0


async def test_clients_are_told_to_come_at_different_times(site: Site) -> None:
    shedder = LoadShedder(site, least=1, retry_after=10, message="busy")
    async with busy(shedder, site, 1):
        answers = [await ask(shedder) for _ in range(40)]
    told = {int(answer.get("retry-after") or 0) for answer in answers}
    assert len(told) > 3
    assert min(told) >= 10
    assert max(told) <= 20
    assert answers[0].body == b"busy"


async def test_what_is_critical_has_room_reserved(site: Site) -> None:
    shedder = LoadShedder(site, least=5, critical=lambda context: context.path == "/pay")
    async with busy(shedder, site, 4):
        assert (await ask(shedder)).status == 503
        async with open_(shedder, "/pay"):
            await until(lambda: site.under_way == 5, "what is critical to be under way")
            assert (await ask(shedder, "/pay")).status == 503
    assert shedder.counts.critical == 1


async def test_what_cannot_tell_is_not_critical(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def critical(context: Any) -> bool:
        raise RuntimeError

    shedder = LoadShedder(site, least=1, critical=critical)
    async with busy(shedder, site, 1):
        assert (await ask(shedder)).status == 503
    assert "critical" not in caplog.text  # there was no room for anything


async def test_clients_that_send_slowly_take_no_room(site: Site) -> None:
    shedder = LoadShedder(site, least=1)
    waiting = asyncio.Event()
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def receive() -> dict[str, Any]:
        waiting.set()
        return await incoming.get()

    async def send(message: Any) -> None: ...

    scope: Scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    slow = asyncio.create_task(shedder(scope, receive, send))
    await waiting.wait()
    assert shedder.in_flight == 0
    site.begins.set()
    assert (await ask(shedder)).status == 200
    incoming.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    await slow
    assert shedder.in_flight == 0


async def test_answers_that_are_long_take_no_room_either(site: Site) -> None:
    shedder = LoadShedder(site, least=1)
    site.begins.set()
    site.ends.clear()
    async with open_(shedder) as exchange:
        await until(lambda: exchange.messages, "the answer to begin")
        assert shedder.in_flight == 0
        site.ends.set()
        await exchange.response()


@pytest.mark.parametrize("path", ["/broken", "/left"])
async def test_room_is_free_whatever_becomes_of_a_request(site: Site, path: str) -> None:
    shedder = LoadShedder(site, least=1)
    async with open_(shedder, path) as exchange:
        await until(lambda: site.under_way == 1, "it to be under way")
        if path == "/broken":
            site.begins.set()
        await exchange.cancel()
    assert shedder.in_flight == 0


async def test_who_waits_for_the_client_to_leave_is_still_at_work() -> None:
    """The body is there, so waiting goes on beside the work."""
    entered, goes_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        leaving = asyncio.ensure_future(receive())
        entered.set()
        await goes_on.wait()
        leaving.cancel()

    shedder = LoadShedder(app, least=1)
    async with open_(shedder) as exchange:
        await entered.wait()
        await asyncio.sleep(0)
        assert shedder.in_flight == 1
        goes_on.set()
        await exchange.ended()
    assert shedder.in_flight == 0


async def many(shedder: LoadShedder, site: Site, time: Time, count: int, took: float) -> None:
    """Requests at once that take so long on the test's clock."""
    site.begins.clear()
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(ask(shedder))
        await until(lambda: site.under_way == count, "all to be under way")
        time.now += took
        site.begins.set()


async def test_the_limit_follows_how_long_requests_take(site: Site, time: Time) -> None:
    shedder = LoadShedder(site, least=10, most=100, clock=time)
    assert shedder.limit == 10
    for _ in range(40):
        await many(shedder, site, time, shedder.limit, took=0.15)
    grown = shedder.limit
    assert grown > 20
    for _ in range(20):
        await many(shedder, site, time, shedder.limit, took=0.9)
    assert shedder.limit < grown


async def test_refusals_and_errors_say_nothing_of_how_long_answers_take(
    site: Site, time: Time
) -> None:
    shedder = LoadShedder(site, least=10, clock=time)
    site.status = 404
    for _ in range(20):
        await many(shedder, site, time, 10, took=0.15)
    assert shedder.limit == 10


async def test_without_adaption_the_limit_is_the_most(site: Site, time: Time) -> None:
    shedder = LoadShedder(site, adaptive=False, most=12, clock=time)
    for _ in range(5):
        await many(shedder, site, time, 12, took=5)
    assert shedder.limit == 12


async def test_the_limit_falls_while_the_event_loop_is_late(site: Site, time: Time) -> None:
    shedder = LoadShedder(site, least=10, most=100, clock=time)
    for _ in range(40):
        await many(shedder, site, time, shedder.limit, took=0.15)
    grown = shedder.limit

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        time.now += 0.3  # the loop is blocked so long
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    shedder.app = app
    for _ in range(50):
        await ask(shedder)
    assert shedder.limit < grown


async def test_what_is_no_request_passes() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    shedder = LoadShedder(app, least=1)
    for kind in ("lifespan", "websocket", "unknown"):
        await shedder({"type": kind}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan", "websocket", "unknown"]


@pytest.mark.parametrize(
    "options",
    [
        {"least": 0}, {"most": 0}, {"reserved": 1}, {"reserved": -0.1}, {"critical": "/pay"},
        {"max_lag": 0}, {"retry_after": -1},
    ],
)  # fmt: skip
def test_mistakes_are_found_when_it_is_made(site: Site, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidLimit, match=next(iter(options)).upper()):
        LoadShedder(site, **options)
