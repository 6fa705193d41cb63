"""One `hasten.Store` for all limits of an application: shared counts and connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hasten import Store
from hasten.errors import InvalidOption, LimitExceeded, StoreTimeout, StoreUnavailable
from hasten.ratelimit import Limit, Limiter, Limits, MemoryStore, RateLimitMiddleware
from hasten.testing import ManualClock
from tests.patience import DEADLINE_SECONDS
from tests.ratelimit.sites import PEER, Served
from tests.ratelimit.stores import Clock, Oracle, client_of, prefix_of, url_of
from tests.servers.redis import RedisServer


def url(kind: str, place: Path) -> str:
    return "memory://" if kind == "memory" else url_of(kind, place)


async def test_middlewares_and_limiters_count_together_by_name(kind: str, tmp_path: Path) -> None:
    async with Store(url(kind, tmp_path)) as store:
        sites = [
            Served("asgi", limits=[Limit("3/h", name="api")], store=store, store_timeout=10)
            for _ in range(2)
        ]
        limiter = Limiter("3/h", name="api", store=store, store_timeout=10)
        assert (await sites[0].ask()).status == 200
        assert (await sites[1].ask()).status == 200
        assert [(await limiter.hit(PEER)).ok for _ in range(2)] == [True, False]
        assert (await sites[0].ask()).status == 429
        roots = {id(site.middleware[0].enforcer.store.root) for site in sites}
        assert roots == {id(limiter._store.root)}  # the same connections


async def test_a_store_that_was_closed_opens_again(kind: str, tmp_path: Path) -> None:
    """Tests start an application twice in a process: both have the limits."""
    store = Store(url(kind, tmp_path))
    limiter = Limiter("3/h", name="api", store=store, store_timeout=10, on_store_error="deny")
    for left in (2, 1):
        decision = await limiter.hit("ada")
        assert (decision.ok, decision.remaining) == (True, left)
        await store.aclose()
    root: Any = limiter._store.root
    if kind != "memory":
        assert (await limiter.hit("ada")).ok
        await store.aclose()  # closes the connection that was opened again
        assert (
            root._database._connection is None
            if kind == "sqlite"
            else root._server._connection is None
        )


async def test_the_owner_of_a_store_closes_it(tmp_path: Path) -> None:
    def is_open(limiter: Limiter) -> bool:
        root: Any = limiter._store.root
        return root._database._connection is not None

    store = Store(url_of("sqlite", tmp_path))
    async with Limiter("3/h", name="a", store=store, store_timeout=10) as limiter:
        await limiter.hit("ada")
    assert is_open(limiter)
    await store.aclose()
    assert not is_open(limiter)
    async with Limiter("3/h", name="a", store=url_of("sqlite", tmp_path)) as limiter:
        await limiter.peek("ada")
        assert is_open(limiter)
    assert not is_open(limiter)


async def test_a_counter_store_of_the_application_is_closed_by_the_application() -> None:
    class Own(Oracle):
        closed = False

        async def aclose(self) -> None:
            self.closed = True

    own = Own(Clock())
    limits = Limits([Limit("1/h")], store=own)
    middleware = RateLimitMiddleware(None, limits=limits)  # type: ignore[arg-type]
    await Limiter("1/h", name="own", store=own).aclose()
    await middleware.aclose()
    await limits.aclose()
    assert not own.closed


async def test_the_owner_of_limits_closes_them(tmp_path: Path) -> None:
    limits = Limits([Limit("2/h", name="api")], store=url_of("sqlite", tmp_path), store_timeout=10)
    site = Served("asgi", limits=limits)
    assert (await site.ask()).status == 200
    await site.close()
    root: Any = limits.counter_store
    assert root._database._connection is not None
    async with limits:
        await limits.reset("api", PEER)
    assert root._database._connection is None


async def test_a_middleware_closes_what_it_made_for_a_url(tmp_path: Path) -> None:
    site = Served("asgi", limits=[Limit("2/h")], store=url_of("sqlite", tmp_path), store_timeout=10)
    async with site.middleware[0] as middleware:
        assert (await site.ask()).status == 200
        root: Any = middleware.enforcer.store.root
        assert root._database._connection is not None
    assert root._database._connection is None


async def test_the_prefix_of_a_store_comes_before_that_of_limits(tmp_path: Path) -> None:
    prefix = prefix_of(tmp_path)
    base = url_of("redis", tmp_path).partition("?")[0]
    async with Store(base, prefix=prefix) as store:
        await Limiter("1/h", name="api", store=store, store_timeout=10).hit("ada")
    with client_of("redis") as client:
        keys = list(client.scan_iter(f"{prefix}:*", count=1000))
    assert [key.startswith(f"{prefix}:limit:api:".encode()) for key in keys] == [True]


@pytest.mark.parametrize("wrong", [5, object(), ManualClock(), Limit("1/h"), MemoryStore, b"x"])
def test_an_invalid_store_is_refused_at_construction(wrong: Any) -> None:
    for take in (
        lambda: Limiter("1/h", name="x", store=wrong),
        lambda: Limits([], store=wrong),
        lambda: RateLimitMiddleware(None, store=wrong),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidOption, match=r"^store=.*must be a URL"):
            take()


class TestAdministration:
    """Administrative calls wait for the store; errors state whether they may have been applied."""

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[RedisServer]:
        server = RedisServer(tmp_path / "redis").start()
        yield server
        server.kill()

    @pytest.mark.parametrize("what", ["block", "reset", "limits"])
    async def test_a_timeout_does_not_say_whether_the_operation_was_applied(
        self, server: RedisServer, what: str
    ) -> None:
        store = Store(server.url, timeout=0.3)
        limiter = Limiter("1/h", name="api", store=store)
        limits = Limits([Limit("1/h", name="api")], store=store)
        while not (await limiter.hit("ada")).unavailable:  # until the connection is warm
            if not (await limiter.peek("ada")).ok:
                break
        server.pause()
        began = time.monotonic()
        calls = {
            "block": lambda: limiter.block("ada", "1h"),
            "reset": lambda: limiter.reset("ada"),
            "limits": lambda: limits.reset("api", PEER),
        }
        with pytest.raises(StoreTimeout, match="may or may not have been applied"):
            await calls[what]()
        assert time.monotonic() - began >= 0.3
        server.go_on()
        if what == "block":  # it was applied although it timed out
            other = Limiter("1/h", name="api", store=server.url)
            async with asyncio.timeout(DEADLINE_SECONDS):
                while (await other.peek("ada")).retry_after < 3500:
                    await asyncio.sleep(0)
            await other.aclose()
        await store.aclose()

    async def test_administrative_calls_wait_for_a_short_outage(self, server: RedisServer) -> None:
        store = Store(server.url)
        limiter = Limiter("1/h", name="api", store=store)
        await limiter.peek("ada")
        server.pause()
        blocking = asyncio.ensure_future(limiter.block("ada", "1h"))
        denied = await limiter.hit("ada")  # after 50 ms, from the denial in memory
        assert not denied.ok
        assert not blocking.done()
        server.go_on()
        await blocking
        await store.aclose()

    async def test_an_unreachable_server_raises_store_unavailable(self) -> None:
        async with Limiter("1/h", name="api", store="redis://127.0.0.1:1?timeout=0.2") as limiter:
            with pytest.raises(StoreUnavailable):
                await limiter.block("ada", 5)


class TestCheck:
    async def test_check_raises_the_decision(self) -> None:
        clock = ManualClock()
        async with Limiter("1/h", name="login", store=Store("memory://", clock=clock)) as limiter:
            assert (await limiter.check("ada")).remaining == 0
            with pytest.raises(LimitExceeded) as caught:
                await limiter.check("ada")
            assert caught.value.decision == await limiter.peek("ada")
            assert caught.value.decision.name == "login"
            assert (caught.value.status, caught.value.retry_after) == (429, 3600)
            clock.advance("1h")
            assert await limiter.check("ada")

    def test_without_an_event_loop(self) -> None:
        limiter = Limiter("1/h", name="login")
        limiter.sync.check("ada")
        with pytest.raises(LimitExceeded):
            limiter.sync.check("ada")

    async def test_a_cost_above_the_limit_never_passes(self) -> None:
        """retry_after is the time until nothing is used, because the same cost never passes."""
        clock = ManualClock()
        limiter = Limiter("2/h", name="big", store=Store("memory://", clock=clock))
        await limiter.hit("ada")
        denied = await limiter.hit("ada", cost=5)
        clock.advance(denied.retry_after)
        assert not await limiter.hit("ada", cost=5)
        assert (await limiter.peek("ada")).remaining == 2
        with pytest.raises(InvalidOption, match=r"^cost=5: must be at most 2") as caught:
            await limiter.wait("ada", cost=5)
        assert caught.value.code == "out_of_range"


def test_a_limiter_needs_a_name() -> None:
    with pytest.raises(TypeError, match="name"):
        Limiter("1/h")  # type: ignore[call-arg]
    for wrong in ("", None, 5):
        with pytest.raises(InvalidOption, match=r"^name="):
            Limiter("1/h", name=wrong)  # type: ignore[arg-type]


async def test_reprs_show_the_store(tmp_path: Path) -> None:
    limits = Limits([Limit("5/h", name="login"), Limit("9/h")], store="redis://:secret@host")
    assert repr(limits) == "<Limits 'login', '9-in-1hr' in redis://host>"
    assert repr(Limiter("1/h, 9/d", name="x")) == "<Limiter 'x' '1/h, 9/d' in memory://>"
    assert repr(limits[0]) == "<Limit 'login' 5/h>"
    assert repr(Limit("1/s", path=["/a", "/b"])) == "<Limit '1-in-1sec' 1/s /a /b>"
    assert repr(MemoryStore()) == "<MemoryStore 0 keys>"
    own = repr(Limiter("1/h", name="x", store=MemoryStore()))
    assert own == "<Limiter 'x' '1/h' in MemoryStore>"
