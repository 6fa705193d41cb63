"""One clock moves queues, limits, load shedding and all stores; a wrong one is refused at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from hasten import Store
from hasten.errors import InvalidLimit, InvalidOption
from hasten.ratelimit import (
    Limit,
    Limiter,
    LoadShedder,
    MemoryStore,
    RateLimitMiddleware,
    open_store,
)
from hasten.testing import ManualClock
from tests.http.client import Client
from tests.ratelimit.sites import Served
from tests.ratelimit.stores import url_of


def store_url(kind: str, place: Path) -> str:
    return "memory://" if kind == "memory" else url_of(kind, place)


async def test_the_clock_of_the_middleware_moves_the_windows_of_its_store(
    kind: str, tmp_path: Path
) -> None:
    clock = ManualClock()
    url = store_url(kind, tmp_path)
    site = Served("asgi", limits=[Limit("1/h")], store=url, clock=clock, budget=10)
    assert await site.statuses(2) == [200, 429]
    clock.advance(3599)
    assert (await site.ask()).status == 429
    clock.advance(1)
    answer = await site.ask()
    assert answer.status == 200
    assert answer.get("x-ratelimit-reset") == str(clock.now_ms() // 1000 + 3600)
    await site.close()


async def test_a_store_that_is_given_brings_its_clock(kind: str, tmp_path: Path) -> None:
    """What is denied from memory goes by it as well."""
    clock = ManualClock()
    store = open_store(store_url(kind, tmp_path), budget=10, clock=clock)
    limits = [Limit("1/h", block_for=7200)]
    site = Served("asgi", limits=limits, store=store, on_store_error="deny")
    limiter = Limiter("1/h", store=store, clock=clock)
    assert await site.statuses(2) == [200, 429]
    assert [(await limiter.hit("ada")).ok for _ in range(2)] == [True, False]
    clock.advance(3600)
    assert (await site.ask()).status == 429
    assert await limiter.hit("ada")
    clock.advance(3600)
    assert (await site.ask()).status == 200
    await site.close()


@pytest.mark.parametrize("algorithm", ["fixed", "sliding", "gcra"])
async def test_a_limiter_waits_by_its_clock(algorithm: Any) -> None:
    clock = ManualClock()
    limiter = Limiter("1/h", algorithm=algorithm, clock=clock)
    await limiter.hit("ada")
    assert not await limiter.wait("ada", timeout=3599)  # at once
    waiting = asyncio.ensure_future(limiter.wait("ada"))
    for _ in range(3):
        await asyncio.sleep(0)
        clock.advance(1799.5)
    assert not waiting.done()
    clock.advance(1.5)
    assert await waiting


async def test_a_limit_of_several_processes_goes_by_the_clock(tmp_path: Path) -> None:
    clock = ManualClock()
    limiter = Limiter(
        "20/h", approximate=2, store=url_of("sqlite", tmp_path), budget=10, clock=clock
    )
    assert [(await limiter.hit("ada")).ok for _ in range(21)] == [*[True] * 20, False]
    clock.advance(3600)
    assert await limiter.hit("ada")
    await limiter.aclose()


async def test_load_shedding_measures_by_the_clock() -> None:
    """A window of measurements is over once enough of its time is."""
    clock = ManualClock()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        clock.advance(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    shedder = LoadShedder(app, least=5, most=50, clock=clock)

    for _ in range(25):
        async with Client(shedder).open(headers=[], scheme="http") as exchange:
            assert (await exchange.response()).status == 200
    assert shedder._window.count < 25


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
    "RateLimitMiddleware": lambda clock: RateLimitMiddleware(None, clock=clock),  # type: ignore[arg-type]
    "Limiter": lambda clock: Limiter("1/s", clock=clock),
    "LoadShedder": lambda clock: LoadShedder(None, clock=clock),  # type: ignore[arg-type]
    "MemoryStore": lambda clock: MemoryStore(clock=clock),
    "sqlite": lambda clock: open_store("sqlite:///limits.db", clock=clock),
    "redis": lambda clock: open_store("redis://localhost", clock=clock),
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_clock_is_refused_when_it_is_given(taker: str, wrong: str) -> None:
    with pytest.raises(InvalidOption, match=r"^clock=.*now_ms\(\).*ManualClock"):
        TAKERS[taker](WRONG[wrong])


@pytest.mark.parametrize("url", ["memory://", "sqlite:///limits.db", "redis://localhost"])
@pytest.mark.parametrize("own", [None, ManualClock()])
def test_a_clock_beside_a_store_with_another_one_is_refused(
    url: str, own: ManualClock | None
) -> None:
    store = open_store(url, clock=own)
    with pytest.raises(InvalidLimit, match=r"open_store\(url, clock=…\) \[CLOCK\]"):
        RateLimitMiddleware(None, store=store, clock=ManualClock())  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match=r"open_store\(url, clock=…\)"):
        Limiter("1/s", store=store, clock=ManualClock())
