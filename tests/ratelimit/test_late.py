"""Short delays and a slow event loop do not count as failures of the store."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hasten._timeouts import TimeoutExcludingBlockedTime, done_within
from hasten.errors import StoreUnavailable
from hasten.ratelimit import Limiter
from hasten.ratelimit._circuit_breaker import FAILURES
from hasten.ratelimit._counter_store import Check, CheckGroup, Outcome, hash_client
from hasten.ratelimit._rates import Rate
from hasten.ratelimit._rules import make_rule
from tests.ratelimit.eventually import until
from tests.ratelimit.stores import Clock, Oracle, WatchedStore, counter_store, url_of
from tests.servers.redis import RedisServer

CHECK = Check("api", hash_client("ada"), make_rule(Rate(1000, 3600)))


@contextlib.asynccontextmanager
async def late(seconds: float) -> AsyncIterator[None]:
    """Make each turn of the event loop take this long."""

    async def work() -> None:
        while True:
            time.sleep(seconds)
            await asyncio.sleep(0)

    working = asyncio.ensure_future(work())
    try:
        yield
    finally:
        working.cancel()


@pytest.mark.parametrize(
    ("kind", "clients", "lateness"), [("sqlite", 1500, 0.01), ("redis", 300, 0.03)]
)
async def test_a_slow_event_loop_does_not_count_against_the_store(
    kind: str, clients: int, lateness: float, tmp_path: Path
) -> None:
    """A response needs several turns to reach one of many requests in flight."""
    limiter = Limiter("1000000/h", name="limiter", store=url_of(kind, tmp_path))
    counters = limiter._counters.counter_store
    resilient = limiter._store = WatchedStore(counters, store_timeout=0.05)
    await limiter.hit("ada")
    before = resilient.errors  # opening a file may take longer
    async with late(lateness):
        for _ in range(2):
            await asyncio.gather(*(limiter.hit(f"client {number}") for number in range(clients)))
    assert resilient.errors == before
    await limiter.aclose()


async def test_a_slow_event_loop_does_not_count_against_an_own_store() -> None:
    class Slow(Oracle):
        async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
            for _ in range(4):
                await asyncio.sleep(0)
            return await super().hit(groups)

    store: Any = Slow(Clock())
    resilient = WatchedStore(store, store_timeout=0.02)
    async with late(0.04):
        await resilient.hit([[CHECK]])
    assert resilient.errors == 0


async def test_a_timeout_ends_on_a_slow_event_loop() -> None:
    """Not too early, and also if the event loop is never on time."""
    for lateness in (0.0, 0.01):
        async with late(lateness):
            never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            began = time.monotonic()
            assert not await done_within(never, 0.02)
            assert time.monotonic() - began >= 0.02
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                async with TimeoutExcludingBlockedTime(0.02):
                    await never
            assert time.monotonic() - began >= 0.02


class Moody(Oracle):
    """A store that fails on demand."""

    fails = False

    async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        self._raise()
        return await super().hit(groups)

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        self._raise()
        return await super().peek(checks)

    def _raise(self) -> None:
        if self.fails:
            raise StoreUnavailable("moody", "it says so")


@pytest.fixture
def server(tmp_path: Path) -> Any:
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.kill()


async def test_one_short_delay_is_not_an_outage(server: RedisServer) -> None:
    """However many requests are in flight."""
    store = counter_store(server.url)
    resilient = WatchedStore(store, store_timeout=0.2)
    await resilient.hit([[CHECK]])
    server.pause()
    asking = []
    for _ in range(3 * FAILURES):
        asking += [asyncio.ensure_future(resilient.hit([[CHECK]])) for _ in range(10)]
        await asyncio.sleep(0)
    answers = await asyncio.gather(*asking)
    assert all(outcome.ok for [[outcome]] in answers)
    assert resilient.errors == len(asking)
    assert not resilient.is_unavailable
    server.go_on()

    async def is_up_to_date() -> bool:
        [outcome] = await store.peek([CHECK])
        return outcome.remaining == 999 - len(asking)

    await until(is_up_to_date)  # the late hit was counted
    await resilient.wait_for_unfinished_calls()


async def test_repeated_outages_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    store: Any = Moody(clock)
    resilient = WatchedStore(store, clock=clock)

    async def is_back() -> bool:
        clock.advance(1)
        await resilient.hit([[CHECK]])
        return not resilient.is_unavailable

    for _ in range(5):
        store.fails = True
        while not resilient.is_unavailable:
            await resilient.hit([[CHECK]])
        store.fails = False
        await until(is_back)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith(
        "rate limit store unavailable, using on_store_error until it responds: "
    )
    assert lines[1] == "rate limit store available again"
