"""Functions of a limit that raise, or return an invalid value."""

from __future__ import annotations

import logging
from typing import Any, Final

import pytest

from hasten import _repeated_errors as repeated_errors
from hasten.loadshedding import LoadSheddingMiddleware
from hasten.ratelimit import Limit, Rate, RateLimitMiddleware, RequestInfo, limit
from hasten.ratelimit._counter_store import OnStoreError
from tests.http.client import Client
from tests.ratelimit.sites import FRAMEWORKS, Served


class Broken:
    """An object that raises in every method."""

    def __bool__(self) -> bool:
        raise ValueError


def fails_to_observe(event: object) -> None:
    raise RuntimeError


async def nothing(scope: Any, receive: Any, send: Any) -> None: ...


def fails(request: RequestInfo) -> Any:
    raise RuntimeError("no database")


async def fails_later(request: RequestInfo) -> Any:
    raise RuntimeError("no database")


BAD_SKIPS: Final = [fails, fails_later, lambda request: Broken()]
BAD_COSTS: Final = [
    fails, fails_later, lambda request: "2", lambda request: -1, lambda request: 1.5,
    lambda request: True, lambda request: None, lambda request: 2**40,
]  # fmt: skip
BAD_RATES: Final = [
    fails, fails_later, lambda request: "many", lambda request: None, lambda request: 5,
    lambda request: [], lambda request: ["1/h"], lambda request: {"1/h": 1},
    lambda request: "5/h burst 3",  # the algorithm has no burst
]  # fmt: skip


async def test_a_skip_that_fails_counts_the_request() -> None:
    for skip in BAD_SKIPS:
        site = Served("asgi", limits=[Limit("1/h", skip=skip)])
        assert await site.statuses(2) == [200, 429]


async def test_a_cost_that_fails_is_1() -> None:
    for cost in BAD_COSTS:
        site = Served("asgi", limits=[Limit("2/h", cost=cost)])
        assert await site.statuses(3) == [200, 200, 429]


@pytest.mark.parametrize(
    ("on_store_error", "statuses"),
    [("local", [200, 200, 200]), ("allow", [200, 200, 200]), ("deny", [503, 503, 503])],
)
async def test_a_rate_that_has_never_worked_follows_on_store_error(
    on_store_error: OnStoreError, statuses: list[int]
) -> None:
    for rate in BAD_RATES:
        limits = [Limit(rate, algorithm="sliding"), Limit("9/h", name="other")]
        site = Served("asgi", limits=limits, on_store_error=on_store_error)
        assert await site.statuses(3) == statuses


async def test_a_rate_that_fails_leaves_the_lowest_that_it_has_returned() -> None:
    """A client that can make it fail gains nothing."""

    def rate(request: RequestInfo) -> Any:
        return request.header("x-rate")

    site = Served("asgi", limits=[Limit(rate, name="plan")])
    for known in ("1000/h", "2/h", "5/m"):
        assert (await site.ask(rate=known)).status == 200
    assert await site.statuses(2) == [200, 429]  # one of two was used before


async def test_several_rates_may_come_as_a_list() -> None:
    def rates(request: RequestInfo) -> Any:
        return [Rate(1, 60), Rate(9, 3600)]

    site = Served("asgi", limits=[Limit(rates)])
    assert await site.statuses(2) == [200, 429]


async def test_a_key_without_a_text_of_its_own_is_an_error() -> None:
    """The text of such an object has its address in memory, which differs for each request."""
    keys: list[Any] = [lambda request: object(), lambda request: Broken(), fails_later]
    for key in keys:
        site = Served("asgi", limits=[Limit("1/h", key=key)])
        assert await site.statuses(2) == [200, 429]


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_a_failing_function_never_causes_a_500(framework: str) -> None:
    limits = [
        Limit("9/h", name="skip", skip=fails),
        Limit("9/h", name="cost", cost=fails_later),
        Limit(fails, name="rate"),
    ]
    site = Served(framework, limits=limits)
    assert await site.statuses(2) == [200, 200]
    await site.close()


async def test_limits_of_routes_follow_the_same_rules() -> None:
    @limit("2/h", cost=fails, skip=fails_later)
    async def handler() -> None: ...

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await handler()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    limited = RateLimitMiddleware(app)
    statuses = []
    for _ in range(3):
        async with Client(limited).open(headers=[], scheme="http") as exchange:
            statuses.append((await exchange.response()).status)
    assert statuses == [200, 200, 429]


class TestTheLog:
    async def test_has_one_line_for_many_requests(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = [1000.0]
        monkeypatch.setattr("hasten._repeated_errors.monotonic", lambda: now[0])
        limits = [Limit(fails, name="a", cost=fails, skip=fails, key=fails), Limit("9/s")]
        site = Served("asgi", limits=limits, on_decision=fails)
        await site.statuses(5)
        lines = sorted(record.getMessage() for record in caplog.records)
        lowest = "the lowest rate that it returned before applies, if there is one"
        assert lines == [
            "limit '9-in-1sec': on_decision() failed; the decision stands",
            "limit 'a': key() failed; the request is counted by the client's address",
            f"limit 'a': rate() failed; {lowest}",
            "limit 'a': skip() failed; the request is counted",
        ]
        assert all(record.exc_info for record in caplog.records)
        caplog.clear()
        now[0] += repeated_errors.LOG_INTERVAL_SECONDS
        await site.statuses(2)
        repeated = "(4 more times since the last log line)"
        line = f"limit 'a': skip() failed; the request is counted {repeated}"
        assert line in [record.getMessage() for record in caplog.records]
        assert len(caplog.records) == 4

    async def test_has_one_line_per_broken_function(self, caplog: pytest.LogCaptureFixture) -> None:
        site = Served("asgi", limits=[Limit("0/h", message=fails, on_limited=fails_to_observe)])
        assert await site.statuses(3) == [429] * 3
        shedder = LoadSheddingMiddleware(
            nothing, min_concurrency=5, max_concurrency=5, critical=fails, on_shed=fails_to_observe
        )
        shedder._load.in_flight = 4
        for _ in range(3):
            async with Client(shedder).open(headers=[], scheme="http") as exchange:
                assert (await exchange.response()).status == 503
        errors = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
        assert sorted(errors) == [
            "critical() failed; the request is treated as not critical",
            "limit '0-in-1hr': message() failed; the default body is sent",
            "limit '0-in-1hr': on_limited() failed; the decision stands",
            "on_shed() failed; the request is refused as usual",
        ]
