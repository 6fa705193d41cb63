"""Clients are reset without a request, in every process and store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hasten import Store
from hasten.errors import InvalidOption, StoreUnavailable
from hasten.ratelimit import Limit, Limiter, Limits, MemoryStore, RateLimitMiddleware, limit
from hasten.ratelimit._counter_store import Check, OnStoreError, hash_client
from hasten.ratelimit._denial_cache import TRUSTED_US
from hasten.ratelimit._rates import Rate
from hasten.ratelimit._rules import make_rule
from hasten.testing import ManualClock
from tests.ratelimit.sites import FRAMEWORKS, PEER, Served
from tests.ratelimit.stores import (
    SECOND,
    Clock,
    WatchedStore,
    client_of,
    open_for_test,
    prefix_of,
    url_of,
)
from tests.ratelimit.test_late import Moody


def url(kind: str, place: Path) -> str:
    return "memory://" if kind == "memory" else url_of(kind, place)


async def test_a_client_is_reset_by_the_name_of_the_limit(kind: str, tmp_path: Path) -> None:
    limits = Limits(
        [Limit("1/h", block_for=7200), Limit("9/h, 99/d", name="all")],
        store=Store(url(kind, tmp_path), clock=ManualClock()),
        store_timeout=10,
    )
    site = Served("asgi", limits=limits)
    other = await site.statuses(2, peer="203.0.113.8")
    assert await site.statuses(2) == [200, 429]
    await limits.reset("1-in-1hr", PEER)
    assert await site.statuses(2) == [200, 429]
    assert other == [200, 429]
    assert (await site.ask(peer="203.0.113.8")).status == 429
    await limits.reset("all", PEER)
    answer = await site.ask()
    assert answer.status == 429
    await limits.reset("1-in-1hr", PEER)
    assert '"all-9-in-1hr";r=8' in str((await site.ask()).get("ratelimit"))
    await site.close()


@pytest.mark.parametrize("shared", ["sqlite", "redis"])
async def test_a_reset_spreads_within_a_second(shared: str, tmp_path: Path, clock: Clock) -> None:
    """Until then they repeat a denial from memory."""
    limits = [Limit("40/h", name="api")]
    async with (
        open_for_test(shared, tmp_path, clock) as store,
        open_for_test(shared, tmp_path, clock) as elsewhere,
    ):
        site = Served("asgi", limits=limits, store=store, processes=2)
        statuses = await site.statuses(41)
        assert statuses == [200] * 40 + [429]
        resilient = site.middleware[0].enforcer.store
        await Limits(limits, store=elsewhere).reset("api", PEER)
        asked = resilient._calls
        assert (await site.ask()).status == 429
        assert resilient._calls == asked
        clock.advance(1)
        assert (await site.ask()).status == 200
        assert (await site.ask()).status == 200


@pytest.mark.parametrize("on_error", ["local", "allow", "deny"])
async def test_a_denial_holds_without_the_store(on_error: OnStoreError, clock: Clock) -> None:
    """Nobody can find out whether it was reset."""
    store: Any = Moody(clock)
    resilient = WatchedStore(store, clock=clock)
    check = Check("api", hash_client("ada"), make_rule(Rate(1, 3600)), on_error=on_error)
    assert [(await resilient.hit([[check]]))[0][0].ok for _ in range(2)] == [True, False]
    store.fails = True
    for _ in range(9):
        clock.advance(2 * TRUSTED_US / SECOND)
        [[outcome]] = await resilient.hit([[check]])
        assert (outcome.ok, outcome.unavailable) == (False, False)
    assert resilient.is_unavailable
    clock.advance(3600)
    assert (await resilient.hit([[check]]))[0][0].ok is (on_error != "deny")


async def test_the_key_to_reset_depends_on_the_limit() -> None:
    def user(request: Any) -> Any:
        return request.header("x-user")

    class Plain(dict[str, str]):
        pass

    limits = Limits(
        [
            Limit("1/h", name="ip", path="/ip"),
            Limit("1/h", name="route", key="route", path="/route"),
            Limit("1/h", name="global", key="global", path="/global"),
            Limit("1/h", name="user", key=user, path="/user"),
            Limit(lambda request: request.header("x-rate"), name="plan", path="/plan"),  # type: ignore[arg-type, return-value]
            Limit.concurrency(1, name="places", path="/places"),
        ],
        ipv6_prefix=64,
    )
    site = Served("asgi", limits=limits)
    peer = "2001:db8::1"
    said = {"user": "7", "rate": "1/h", "peer": peer}
    for path, key, options in (
        ("/ip", "2001:db8::ffff", {}),
        ("/ip", "2001:db8::/64", {}),
        ("/route", f"{peer} //route/", {}),
        ("/global", None, {}),
        ("/user", 7, {}),
        ("/plan", peer, {"rate": "1/h"}),
    ):
        await site.ask(path, **said)
        assert (await site.ask(path, **said)).status == 429, path
        await limits.reset(path[1:], key, **options)
        assert (await site.ask(path, **said)).status == 200, path
    async with site.open("/places", wait="1", peer=peer):
        while not site.site.under_way:
            await site.ask("/other")
        assert (await site.ask("/places", **said)).status == 429
        await limits.reset("places", peer)
        assert (await site.ask("/places", **said)).status == 200
        site.site.gate.set()


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_limits_of_routes_are_reset_by_name(framework: str) -> None:
    limits = Limits([])
    site = Served(framework, limits=limits)
    assert await site.statuses(3, "/limited") == [200, 200, 429]
    await limits.reset("2-in-1min", PEER)
    assert (await site.ask("/limited")).status == 200
    await site.close()


async def test_an_invalid_reset_names_what_is_missing() -> None:
    @limit("3/h", name="of a route")
    async def handler() -> None: ...

    limits = Limits([Limit("5/h"), Limit(lambda request: "1/h", name="plan")])
    with pytest.raises(InvalidOption, match=r"name='6-in-1hr'.*'5-in-1hr'.*'of a route'"):
        await limits.reset("6-in-1hr", PEER)
    with pytest.raises(InvalidOption, match="the key of the client in the limit '5-in-1hr'"):
        await limits.reset("5-in-1hr")
    with pytest.raises(InvalidOption, match="rate=None: must be the rate of this client"):
        await limits.reset("plan", PEER)
    with pytest.raises(InvalidOption, match="rate='many'"):
        await limits.reset("plan", PEER, rate="many")
    for option in ({"store": "memory://"}, {"ipv6_prefix": 64}, {"store_timeout": 1}):
        with pytest.raises(InvalidOption, match=r"cannot be combined with Limits\(…\): pass"):
            RateLimitMiddleware(None, limits=limits, **option)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="limits"):
        Limits(Limit("5/h"))  # type: ignore[arg-type]


async def test_a_store_that_is_unavailable_cannot_be_reset() -> None:
    limits = Limits([Limit("5/h")], store="redis://127.0.0.1:1/0?timeout=0.2", store_timeout=1)
    with pytest.raises(StoreUnavailable):
        await limits.reset("5-in-1hr", PEER)
    await limits.aclose()


def test_without_an_event_loop(tmp_path: Path) -> None:
    store = Store(url_of("sqlite", tmp_path))
    limits = Limits([Limit("1/h", name="api")], store=store, store_timeout=10)
    limiter = Limiter("1/h", store=store, name="api", store_timeout=10)
    assert [limiter.sync.hit(PEER).ok for _ in range(2)] == [True, False]
    limits.sync.reset("api", PEER)
    assert limiter.sync.hit(PEER).ok
    limits.sync.close()


async def test_reset_without_a_name_clears_the_store(kind: str, tmp_path: Path) -> None:
    clock = ManualClock()
    limits: Sequence[Limit] = [Limit("1/h", block_for=7200), Limit("40/h", name="second")]
    store = Store(url(kind, tmp_path), clock=clock)
    site = Served("asgi", limits=limits, store=store, store_timeout=10, processes=2)
    for _ in range(2):
        assert await site.statuses(2) == [200, 429]
        assert (await site.ask(peer="203.0.113.8")).status == 200
        await site.middleware[0].reset()
    await site.close()
    await store.aclose()


async def test_it_clears_nothing_that_has_another_prefix(tmp_path: Path) -> None:
    prefix = prefix_of(tmp_path)
    server = url_of("redis", tmp_path).partition("?")[0]
    with client_of("redis") as client:
        client.set(f"{prefix}:other", "kept", ex=600)
        middleware = RateLimitMiddleware(
            None,  # type: ignore[arg-type]
            limits=[Limit("1/h")],
            store=f"{server}?prefix={prefix}[*]",
            store_timeout=10,
        )
        check = Check("api", hash_client("ada"), make_rule(Rate(1, 3600)))
        await middleware.enforcer.store.hit([[check]])
        await middleware.reset()
        assert client.get(f"{prefix}:other") == b"kept"
        assert (await middleware.enforcer.store.hit([[check]]))[0][0].ok
        await middleware.aclose()


async def test_a_store_without_clear_cannot_be_cleared() -> None:
    store: Any = Moody(Clock())
    middleware = RateLimitMiddleware(None, store=store)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match=r"a store with a method clear\(\)"):
        await middleware.reset()
    shared = MemoryStore()
    await RateLimitMiddleware(None, store=shared).reset()  # type: ignore[arg-type]
