"""Statistics in an object of the application, and observers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hasten import Store
from hasten.errors import InvalidOption
from hasten.loadshedding import LoadSheddingMiddleware, LoadSheddingStats
from hasten.ratelimit import (
    Decision,
    Limit,
    Limits,
    LimitStats,
    RateLimitMiddleware,
    RateLimitStats,
)
from hasten.testing import ManualClock
from tests.http.client import Client
from tests.ratelimit import sites
from tests.ratelimit.sites import FRAMEWORKS, PEER, Served


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_stats_are_counted_in_the_given_object(framework: str) -> None:
    """Litestar makes one middleware for each of its routes: they count together."""
    stats = RateLimitStats()
    limits = [Limit("3/h", name="all"), Limit("1/h", name="watched", shadow=True)]
    site = Served(framework, limits=limits, stats=stats)
    await site.statuses(3)
    await site.statuses(1, "/limited")
    assert (stats["all"].allowed, stats["all"].limited) == (3, 1)
    assert stats["all"].near_limit == 1
    assert (stats["watched"].allowed, stats["watched"].shadow) == (3, 2)
    assert list(stats) == ["all", "watched", "2-in-1min"][: len(stats)]
    assert "all" in repr(stats)
    stats.reset()
    assert stats["all"] == LimitStats()
    await site.statuses(1)
    assert stats["all"].limited == 1
    assert all(each.stats is stats for each in site.middleware)
    await site.close()


async def test_limits_of_routes_are_added_when_they_decide() -> None:
    stats = RateLimitStats()
    site = Served("asgi", stats=stats)
    assert len(stats) == 0
    await site.statuses(3, "/limited")
    assert stats["2-in-1min"] == LimitStats(allowed=2, limited=1, near_limit=1)


async def test_limits_reset_clients_and_keep_stats() -> None:
    stats, limits = RateLimitStats(), Limits([Limit("1/h", name="login")])
    site = Served("asgi", limits=limits, stats=stats)
    assert await site.statuses(2) == [200, 429]
    await limits.reset("login", PEER)
    assert await site.statuses(2) == [200, 429]
    await limits.reset_all()
    assert await site.statuses(2) == [200, 429]
    assert stats["login"] == LimitStats(allowed=3, limited=3, near_limit=3)


async def test_load_shedding_counts_in_the_given_object() -> None:
    stats = LoadSheddingStats()
    site = sites.Site()
    app = LoadSheddingMiddleware(sites.asgi(site, lambda app: app), min_concurrency=1, stats=stats)
    assert (stats.limit, stats.in_flight) == (1, 0)
    async with Client(app).open(headers=[(b"x-wait", b"1")], path="/", scheme="http") as slow:
        while not site.under_way:
            await asyncio.sleep(0)
        assert stats.in_flight == 1
        async with Client(app).open(headers=[], path="/", scheme="http") as other:
            assert (await other.response()).status == 503
        site.gate.set()
        assert (await slow.response()).status == 200
    assert stats == LoadSheddingStats(allowed=1, shed=1, limit=1)
    stats.reset()
    assert stats == LoadSheddingStats(limit=1)


async def test_observers_receive_the_decision() -> None:
    decisions: list[Decision] = []
    limited: list[Decision] = []

    async def on_limited(decision: Decision) -> None:
        limited.append(decision)

    clock = ManualClock()
    site = Served(
        "asgi",
        limits=[Limit("1/h", name="login", on_limited=on_limited)],
        store=Store("memory://", clock=clock),
        on_decision=decisions.append,
    )
    await site.statuses(2)
    first, second = decisions
    assert first[:-1] == ("login", True, 1, 0, 3600, 0, False, False)
    assert second[:-1] == ("login", False, 1, 0, 3600, 3600, False, False)
    assert limited == [second._replace(request=limited[0].request)]
    assert second.request is not None
    assert (second.request.path, second.request.client) == ("/api/x", PEER)
    assert (bool(first), bool(second), second.used) == (True, False, 1)


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("stats", {}), ("stats", RateLimitStats), ("stats", LoadSheddingStats()),
        ("on_decision", 5), ("enabled", "no"), ("namespace", ""), ("namespace", None),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_when_the_middleware_is_made(option: str, wrong: Any) -> None:
    with pytest.raises(InvalidOption, match=f"^{option}="):
        RateLimitMiddleware(None, **{option: wrong})  # type: ignore[arg-type]


def test_on_decision_cannot_wait() -> None:
    async def on_decision(decision: Decision) -> None: ...

    class Called:
        async def __call__(self, decision: Decision) -> None: ...

    for wrong in (on_decision, Called()):
        with pytest.raises(InvalidOption, match=r"^on_decision=.*not async"):
            RateLimitMiddleware(None, on_decision=wrong)  # type: ignore[arg-type]
