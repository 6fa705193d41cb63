"""One clock moves queues, limits, load shedding and all stores; a wrong one is refused at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from hasten import Store
from hasten.errors import InvalidOption
from hasten.loadshedding import LoadSheddingMiddleware
from hasten.ratelimit import Limit, Limiter, MemoryStore
from hasten.testing import ManualClock
from tests.http.client import Client, until
from tests.ratelimit.sites import Served
from tests.ratelimit.stores import url_of


def store_url(kind: str, place: Path) -> str:
    return "memory://" if kind == "memory" else url_of(kind, place)


async def test_limits_limiters_denials_and_headers_use_the_clock(kind: str, tmp_path: Path) -> None:
    """Cached denials use it as well."""
    clock = ManualClock()
    store = Store(store_url(kind, tmp_path), clock=clock)
    limits = [Limit("1/h", block_for=7200, path="/block"), Limit("1/h")]
    site = Served("asgi", limits=limits, store=store, store_timeout=10, on_store_error="deny")
    limiter = Limiter("1/h", name="limiter", store=store, store_timeout=10)
    assert await site.statuses(2) == [200, 429]
    assert await site.statuses(2, "/block", peer="203.0.113.8") == [200, 429]
    assert [(await limiter.hit("ada")).ok for _ in range(2)] == [True, False]
    clock.advance(3599)
    assert (await site.ask()).status == 429
    clock.advance(1)
    answer = await site.ask()
    assert answer.status == 200
    assert answer.get("x-ratelimit-reset") == str(clock.now_ms() // 1000 + 3600)
    assert (await site.ask("/block", peer="203.0.113.8")).status == 429
    assert await limiter.hit("ada")
    clock.advance(3600)
    assert (await site.ask("/block", peer="203.0.113.8")).status == 200
    await site.close()
    await store.aclose()


@pytest.mark.parametrize("algorithm", ["fixed", "sliding", "gcra"])
async def test_a_limiter_waits_by_its_clock(algorithm: Any) -> None:
    clock = ManualClock()
    limiter = Limiter(
        "1/h", name="limiter", algorithm=algorithm, store=Store("memory://", clock=clock)
    )
    await limiter.hit("ada")
    assert not await limiter.wait("ada", timeout=3599)  # at once
    waiting = asyncio.ensure_future(limiter.wait("ada"))
    for _ in range(3):
        await asyncio.sleep(0)
        clock.advance(1799.5)
    assert not waiting.done()
    clock.advance(1.5)
    assert await waiting


async def test_a_limit_of_concurrency_ends_leases_by_the_clock(kind: str, tmp_path: Path) -> None:
    clock = ManualClock()
    store = Store(store_url(kind, tmp_path), clock=clock)
    limits = [Limit.concurrency(1, lease=60)]
    site = Served("asgi", limits=limits, store=store, store_timeout=10, on_store_error="deny")
    async with site.open(wait="1") as slow:
        await until(lambda: site.site.under_way == 1, "the request to be under way")
        assert await site.statuses(1) == [429]
        clock.advance(59.9)
        assert await site.statuses(1) == [429]
        clock.advance(0.1)
        assert await site.statuses(1) == [200]
        site.site.gate.set()
        assert (await slow.response()).status == 200
    await site.close()
    await store.aclose()


async def test_a_cached_denial_expires_by_the_clock(tmp_path: Path) -> None:
    """The store is asked again after a second of the clock, however long that takes."""
    clock = ManualClock()
    store = Store(url_of("sqlite", tmp_path), clock=clock)
    limiter = Limiter("1/h", name="limiter", store=store, store_timeout=10)
    other = Limiter("1/h", name="limiter", store=Store(url_of("sqlite", tmp_path), clock=clock))
    assert [(await limiter.hit("ada")).ok for _ in range(2)] == [True, False]
    await other.reset("ada")
    clock.advance(0.999)
    assert not await limiter.hit("ada")
    clock.advance(0.001)
    assert await limiter.hit("ada")
    await other.aclose()
    await store.aclose()


async def test_load_shedding_measures_durations_by_the_clock_of_a_store() -> None:
    """The lag of the event loop is real time: a clock that jumps does not look like lag."""
    clock = ManualClock()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        clock.advance(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    store = Store("memory://", clock=clock)
    shedder = LoadSheddingMiddleware(app, min_concurrency=5, max_concurrency=50, clock=store.clock)

    for _ in range(25):
        async with Client(shedder).open(headers=[], scheme="http") as exchange:
            assert (await exchange.response()).status == 200
    assert shedder._load.level.usual_us == pytest.approx(10_000)


async def nowhere(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers nothing."""


WRONG: Final = {
    "a function": time.time,
    "the class": ManualClock,
    "a number": 5,
    "a clock in seconds": type(
        "Duration", (), {"now_ms": time.time, "sleep": None, "sleep_until": None}
    )(),
}

TAKERS: Final[dict[str, Callable[[Any], object]]] = {
    "Store": lambda clock: Store("memory://", clock=clock),
    "MemoryStore": lambda clock: MemoryStore(clock=clock),
    "LoadSheddingMiddleware": lambda clock: LoadSheddingMiddleware(nowhere, clock=clock),
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_clock_is_refused_when_it_is_given(taker: str, wrong: str) -> None:
    with pytest.raises(InvalidOption, match=r"^clock=.*now_ms\(\).*ManualClock"):
        TAKERS[taker](WRONG[wrong])
