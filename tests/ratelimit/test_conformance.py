"""The two limits of a typical application, in every framework and on every store.

"General" is 100 in 15 minutes on /api/, "login" 5 an hour on POST /api/auth/login, where those that
succeed do not count.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from hasten.errors import InvalidOption
from hasten.ratelimit import Decision, Limit, RateLimitMiddleware
from tests.http.client import Response, until
from tests.ratelimit.sites import FRAMEWORKS, PEER, Served
from tests.ratelimit.stores import Clock, open_for_test

MESSAGE: Final = "Too many requests, please try again later"
LOGIN: Final = "/api/auth/login"

Serve = Callable[..., Served]


def two_limits() -> list[Limit]:
    return [
        Limit("100/15m", path="/api/", message=MESSAGE),
        Limit("5/h", path=LOGIN, methods=["POST"], skip_successful=True),
    ]


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def serve(clock: Clock, tmp_path: Path) -> AsyncIterator[Serve]:
    """Makes sites with limits on the test's clock, by default the limits of this module."""
    async with asyncio.TaskGroup():
        made: list[Served] = []
        async with open_for_test("memory", tmp_path, clock) as memory:

            def make(framework: str = "asgi", **options: Any) -> Served:
                options.setdefault("limits", two_limits())
                options.setdefault("store", memory)
                made.append(Served(framework, **options))
                return made[-1]

            yield make
            for each in made:
                await each.close()


@pytest.fixture
async def on_store(kind: str, clock: Clock, tmp_path: Path) -> AsyncIterator[Served]:
    """The site without a framework, on every store."""
    async with open_for_test(kind, tmp_path, clock) as store:
        served = Served("asgi", limits=two_limits(), store=store, store_timeout=10)
        yield served
        await served.close()


def left(answer: Response, name: str = "100-in-15min") -> int:
    """Return what is left of a policy, from the RateLimit header."""
    for item in (answer.get("ratelimit") or "").split(", "):
        if item.startswith(f'"{name}"'):
            return int(item.partition(";r=")[2].partition(";")[0])
    raise AssertionError(f"nothing of {name}: {answer.headers}")


class TestInEveryFramework:
    """Each framework limits requests in the same way."""

    async def test_a_response_shows_what_is_left(self, serve: Serve, framework: str) -> None:
        answer = await serve(framework).ask()
        assert (answer.status, left(answer)) == (200, 99)
        assert answer.get("retry-after") is None

    async def test_a_request_over_the_limit_is_refused_and_told_when_to_retry(
        self, serve: Serve, framework: str, clock: Clock
    ) -> None:
        site = serve(framework)
        assert await site.statuses(100) == [200] * 100
        clock.advance(10.5)
        answer = await site.ask()
        assert (answer.status, answer.body.decode(), left(answer)) == (429, MESSAGE, 0)
        assert answer.get("content-type") == "text/plain; charset=utf-8"
        assert answer.get("retry-after") == "890"
        assert answer.get("cache-control") == "no-store"
        assert answer.get("x-ratelimit-reset") == str((clock.now_us + 889_500_000) // 1_000_000)
        assert len(site.site.calls) == 100

    async def test_without_a_limit_there_are_no_headers(self, serve: Serve, framework: str) -> None:
        site = serve(framework)
        for path in ("/", "/apix", "/health"):
            answer = await site.ask(path)
            assert (answer.status, answer.get("ratelimit")) == (200, None)
        answer = await site.ask(LOGIN, "HEAD")
        assert "5-in-1hr" not in str(answer.get("ratelimit"))

    async def test_spellings_of_a_path_share_one_count(self, serve: Serve, framework: str) -> None:
        site = serve(framework)
        for number, path in enumerate(("/api", "/api/", "/api/x", "//api/x", "/api//x")):
            assert left(await site.ask(path)) == 99 - number

    async def test_head_counts_and_is_refused_bodiless(self, serve: Serve, framework: str) -> None:
        site = serve(framework, limits=[Limit("1/m")])
        assert left(await site.ask(method="HEAD"), "1-in-1min") == 0
        answer = await site.ask(method="HEAD")
        assert (answer.status, answer.body, answer.get("retry-after")) == (429, b"", "60")

    async def test_only_failed_logins_count(self, serve: Serve, framework: str) -> None:
        site = serve(framework)
        good = await site.ask(LOGIN, "POST")
        assert (good.status, left(good, "5-in-1hr")) == (200, 5)
        for number in range(5):
            bad = await site.ask(LOGIN, "POST", status="401")
            assert (bad.status, left(bad, "5-in-1hr")) == (401, 4 - number)
        answer = await site.ask(LOGIN, "POST")
        assert (answer.status, answer.get("retry-after")) == (429, "3600")

    async def test_failures_are_capped_successes_free(self, serve: Serve, framework: str) -> None:
        site = serve(framework)
        bad = await site.at_once(30, LOGIN, "POST", status="401")
        assert sorted(bad) == [401] * 5 + [429] * 25
        site = serve(framework, store="memory://")
        good = await site.at_once(30, LOGIN, "POST")
        assert good.count(200) >= 5
        assert left(await site.ask(LOGIN, "POST"), "5-in-1hr") == 5

    async def test_a_request_whose_handler_raises_counts_as_failed(
        self, serve: Serve, framework: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        site = serve(framework)
        async with site.open(LOGIN, "POST", broken="1") as exchange:
            await exchange.ended()
        assert left(await site.ask(LOGIN, "POST"), "5-in-1hr") == 4

    async def test_an_exception_counts_as_status_500(
        self, serve: Serve, framework: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """In every framework: an outage must lock nobody out."""
        site = serve(
            framework,
            limits=[Limit("5/h", count_statuses={401}), Limit("7/h", count_statuses={500})],
        )
        async with site.open(broken="1") as exchange:
            await exchange.ended()
        answer = await site.ask(status="404")
        assert (left(answer, "5-in-1hr"), left(answer, "7-in-1hr")) == (5, 6)

    async def test_an_early_disconnect_is_counted(self, serve: Serve, framework: str) -> None:
        site = serve(framework)
        if framework == "django":
            site.expect_leaks()
        async with site.open(LOGIN, "POST", wait="1") as exchange:
            await until(lambda: site.site.under_way == 1, "the request to be under way")
            exchange.disconnect()
            await exchange.cancel()
        site.site.gate.set()
        assert left(await site.ask(LOGIN, "POST"), "5-in-1hr") == 4

    async def test_handlers_fail_refund_charge_or_reset(self, serve: Serve, framework: str) -> None:
        site = serve(framework)
        kept = await site.ask(LOGIN, "POST", say="5-in-1hr:fail")
        assert left(kept, "5-in-1hr") == 4
        given = await site.ask(LOGIN, "POST", status="401", say="5-in-1hr:refund")
        assert left(given, "5-in-1hr") == 4
        charged = await site.ask(say="100-in-15min:charge=50")
        assert left(charged) == 47
        await site.ask(say="100-in-15min:reset")
        assert left(await site.ask()) == 99

    @pytest.mark.parametrize("store", [None, "sqlite"])
    async def test_routes_are_counted_together(
        self, serve: Serve, framework: str, store: str | None, tmp_path: Path
    ) -> None:
        """Litestar makes a middleware for each of them."""
        url = None if store is None else f"sqlite:///{tmp_path / 'own.db'}"
        site = serve(framework, limits=[Limit("9/m", name="a")], store=url, store_timeout=10)
        for number, path in enumerate(("/limited", "/x", "/limited-sync", "/y/z", "/")):
            assert left(await site.ask(path), "a") == 8 - number

    @pytest.mark.parametrize("path", ["/limited", "/limited-sync"])
    async def test_a_route_has_its_own_limit(self, serve: Serve, framework: str, path: str) -> None:
        site = serve(framework)
        answers = [await site.ask(path) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert [left(answer, "2-in-1min") for answer in answers] == [1, 0, 0]
        assert answers[-1].get("retry-after") == "60"
        assert json.loads(answers[-1].body)["violated-policies"] == ["2-in-1min"]
        assert site.site.calls == [path] * 2
        other = "/limited" if path != "/limited" else "/limited-sync"
        assert (await site.ask(other)).status == 200
        assert (await site.ask("/")).get("ratelimit") is None

    async def test_a_preflight_is_not_counted(self, serve: Serve, framework: str) -> None:
        site = serve(framework)
        asks = [(b"origin", b"https://x"), (b"access-control-request-method", b"PUT")]
        async with site.open(method="OPTIONS", headers=asks) as exchange:
            await exchange.ended()
            assert exchange.so_far().get("ratelimit") is None
        async with site.open(method="OPTIONS") as exchange:
            await exchange.ended()
        assert left(await site.ask()) == 98


class TestOnEveryStore:
    async def test_a_successful_login_refunds_only_itself(self, on_store: Served) -> None:
        assert await on_store.statuses(4, LOGIN, "POST", status="401") == [401] * 4
        assert (await on_store.ask(LOGIN, "POST")).status == 200
        assert (await on_store.ask(LOGIN, "POST", status="401")).status == 401
        assert (await on_store.ask(LOGIN, "POST", status="401")).status == 429

    async def test_pending_requests_block_others_until_they_end(self, on_store: Served) -> None:
        async with asyncio.TaskGroup() as group:
            slow = [group.create_task(on_store.ask(LOGIN, "POST", wait="1")) for _ in range(5)]
            await until(lambda: on_store.site.under_way == 5, "five to be under way")
            denied = await on_store.ask(LOGIN, "POST")
            assert (denied.status, denied.get("retry-after")) == (429, "1")
            on_store.site.gate.set()
        assert [task.result().status for task in slow] == [200] * 5
        assert (await on_store.ask(LOGIN, "POST")).status == 200

    async def test_late_refunds_spare_the_next_window(self, on_store: Served, clock: Clock) -> None:
        async with on_store.open(LOGIN, "POST", wait="1") as exchange:
            await until(lambda: on_store.site.under_way == 1, "it to be under way")
            clock.advance(3700)
            assert left(await on_store.ask(LOGIN, "POST", status="401"), "5-in-1hr") == 4
            on_store.site.gate.set()
            await exchange.response()
        assert left(await on_store.ask(LOGIN, "POST", status="401"), "5-in-1hr") == 3

    async def test_a_refusal_keeps_the_charge_of_limits_before_it(self, on_store: Served) -> None:
        await on_store.statuses(6, LOGIN, "POST", status="401")
        assert left(await on_store.ask()) == 93
        await on_store.statuses(93)
        assert (await on_store.ask(LOGIN, "POST", peer=PEER)).body.decode() == MESSAGE


class TestOutcomes:
    async def test_a_limit_can_define_success(self, serve: Serve) -> None:
        site = serve(limits=[Limit("5/h", skip_successful=True)])
        assert left(await site.ask(status="302"), "5-in-1hr") == 5

        async def is_ok(request: Any) -> bool:
            return bool(request.status == 200)

        limits = [Limit("5/h", skip_successful=True, is_success=is_ok)]
        site = serve(limits=limits, store="memory://")
        assert left(await site.ask(status="302"), "5-in-1hr") == 4

    async def test_only_the_given_statuses_count(self, serve: Serve) -> None:
        site = serve(limits=[Limit("5/h", count_statuses={401})])
        for status, remaining in (("422", 5), ("500", 5), ("200", 5), ("401", 4)):
            assert left(await site.ask(status=status), "5-in-1hr") == remaining

    async def test_skip_failed_refunds_failed_and_cancelled_requests(self, serve: Serve) -> None:
        outer = Limit("5/h", skip_failed=True)
        inner = Limit("1/h", path="/api/y", name="inner")
        site = serve(limits=[outer, inner])
        for status in ("404", "500"):
            assert left(await site.ask(status=status), "5-in-1hr") == 5
        assert left(await site.ask("/api/y"), "5-in-1hr") == 4
        assert (await site.ask("/api/y")).status == 429
        async with site.open(wait="1") as exchange:
            await until(lambda: site.site.under_way == 1, "it to be under way")
            await exchange.cancel()
        assert left(await site.ask(status="404"), "5-in-1hr") == 4


class TestAnswers:
    async def test_the_newest_draft_lists_both_limits(self, serve: Serve) -> None:
        answer = await serve().ask(LOGIN, "POST", status="401")
        policy = '"100-in-15min";q=100;w=900, "5-in-1hr";q=5;w=3600'
        assert answer.get("ratelimit-policy") == policy
        assert answer.get("ratelimit") == '"100-in-15min";r=99;t=900, "5-in-1hr";r=4;t=3600'
        assert answer.get("x-ratelimit-limit") == "5"
        assert answer.get("x-ratelimit-remaining") == "4"

    async def test_the_family_of_headers_can_be_chosen(self, serve: Serve) -> None:
        answer = await serve(headers=["draft-7"]).ask(LOGIN, "POST", status="401")
        assert {name: value for name, value in answer.headers if b"ratelimit" in name} == {
            b"ratelimit-policy": b"100;w=900, 5;w=3600",
            b"ratelimit": b"limit=5, remaining=4, reset=3600",
        }

    async def test_a_refusal_without_limit_headers_keeps_retry_after(self, serve: Serve) -> None:
        site = serve(limits=[Limit("1/m")], headers=())
        assert await site.statuses(1) == [200]
        answer = await site.ask()
        assert answer.get("retry-after") == "60"
        assert not any(b"ratelimit" in name for name, _ in answer.headers)

    async def test_a_message_can_be_text_json_or_a_function(self, serve: Serve) -> None:
        async def late(request: Any) -> dict[str, str]:
            return {"path": request.path}

        for message, media_type, body in (
            ("wait", "text/plain; charset=utf-8", "wait"),
            ({"error": "wait"}, "application/json", {"error": "wait"}),
            (late, "application/json", {"path": "/api/x"}),
            (lambda request: f"not {request.method}", "text/plain; charset=utf-8", "not GET"),
        ):
            site = serve(limits=[Limit("0/m", message=message)], store="memory://")
            answer = await site.ask()
            assert answer.get("content-type") == media_type
            text = answer.body.decode()
            assert (json.loads(text) if isinstance(body, dict) else text) == body

    async def test_the_default_refusal_is_a_problem_document(self, serve: Serve) -> None:
        answer = await serve(limits=[Limit("0/m", status=503)]).ask()
        assert (answer.status, answer.get("content-type")) == (503, "application/problem+json")
        problem = json.loads(answer.body)
        assert problem["type"].endswith("#quota-exceeded")
        assert (problem["status"], problem["violated-policies"]) == (503, ["0-in-1min"])

    async def test_limit_headers_of_the_application_are_replaced(self, clock: Clock) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            headers = [(b"X-RateLimit-Limit", b"1"), (b"x-other", b"2")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b""})

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "path": "/", "method": "GET", "headers": [], "client": (PEER, 1),
        }  # fmt: skip
        await RateLimitMiddleware(app, limits=[Limit("5/m")])(scope, None, send)  # type: ignore[arg-type]
        names = [name.lower() for name, _ in sent[0]["headers"]]
        assert names.count(b"x-ratelimit-limit") == 1
        assert b"x-other" in names


class TestLimits:
    async def test_a_limit_may_be_zero_or_one(self, serve: Serve) -> None:
        assert await serve(limits=[Limit("0/m")]).statuses(2) == [429] * 2
        assert await serve(limits=[Limit("1/m")]).statuses(2) == [200, 429]

    async def test_a_key_function_decides_who_shares_a_count(self, serve: Serve) -> None:
        async def user(request: Any) -> str | None:
            name = request.header("x-user")
            if name == "broken":
                raise RuntimeError(name)
            return None if name is None else str(name)

        def site(how: Any) -> Served:
            return serve(limits=[Limit("1/m", key=user)], on_store_error=how, store="memory://")

        one = site("local")
        assert await one.statuses(2, user="ada") == [200, 429]
        assert await one.statuses(1, user="bob", peer="198.51.100.1") == [200]
        assert await one.statuses(3) == [200] * 3
        assert await one.statuses(2, user="broken") == [200, 429]
        assert await site("allow").statuses(2, user="broken") == [200, 200]
        assert await site("deny").statuses(1, user="broken") == [503]

    async def test_any_text_can_be_a_key(self, serve: Serve) -> None:
        keys = [":", "/", "{", "a" * 1_000_000, "a", "\n", "é"]
        order = iter(itertools.cycle(keys))
        limits = [Limit("1/m", key=lambda _: next(order), name=name) for name in ("a", "b")]
        site = serve(limits=limits[:1])
        assert await site.statuses(7) == [200] * 7
        assert await site.statuses(7) == [429] * 7

    async def test_a_request_can_cost_more_than_one(self, serve: Serve) -> None:
        site = serve(limits=[Limit("8/m", cost=lambda request: int(request.header("x-cost") or 1))])
        assert left(await site.ask(cost="5"), "8-in-1min") == 3
        denied = await site.ask(cost="5")
        assert (denied.status, left(denied, "8-in-1min")) == (429, 3)
        assert left(await site.ask(cost="3"), "8-in-1min") == 0

    async def test_several_rates_apply_together(self, serve: Serve, clock: Clock) -> None:
        site = serve(limits=[Limit("2/s, 3/m")])
        assert await site.statuses(3) == [200, 200, 429]
        clock.advance(1)
        assert await site.statuses(2) == [200, 429]
        policy = (await site.ask()).get("ratelimit-policy")
        assert policy == '"2-in-1sec";q=2;w=1, "3-in-1min";q=3;w=60'
        assert json.loads((await site.ask()).body)["violated-policies"] == ["3-in-1min"]

    async def test_several_rates_of_a_named_limit_get_distinct_names(self, serve: Serve) -> None:
        site = serve(limits=[Limit("1/s, 9/m", name="search")])
        await site.ask()
        denied = await site.ask()
        assert json.loads(denied.body)["violated-policies"] == ["search-1-in-1sec"]
        assert (denied.get("ratelimit") or "").startswith('"search-1-in-1sec";r=0;t=1, "search-9')

    async def test_a_rate_can_depend_on_the_request(self, serve: Serve) -> None:
        async def rate(request: Any) -> str:
            return "3/h" if request.header("x-pro") else "1/h"

        site = serve(limits=[Limit(rate)])
        assert await site.statuses(2) == [200, 429]
        assert await site.statuses(4, pro="1") == [200, 200, 200, 429]

    async def test_a_slot_is_released_however_its_request_ends(self, serve: Serve) -> None:
        site = serve(limits=[Limit.concurrency(2)])
        async with site.open(wait="1") as one, site.open(wait="1") as two:
            await until(lambda: site.site.under_way == 2, "two to be under way")
            denied = await site.ask()
            assert (denied.status, denied.get("retry-after")) == (429, "1")
            assert denied.get("ratelimit-policy") == '"2-at-once";q=2;qu="concurrent-requests"'
            await one.cancel()
            assert (await site.ask()).status == 200
            site.site.gate.set()
            await two.response()
        async with site.open(broken="1") as broken:
            await broken.ended()
        assert await site.statuses(3) == [200] * 3

    async def test_a_shadow_limit_refuses_nothing_and_is_reported(self, serve: Serve) -> None:
        seen: list[str] = []
        decided: list[Any] = []

        def note(decision: Decision) -> None:
            assert decision.request is not None
            seen.append(decision.request.path)

        limits = [
            Limit("1/m", shadow=True, name="shadow", on_limited=note),
            Limit("3/m", name="real"),
        ]
        site = serve(limits=limits, on_decision=decided.append)
        assert await site.statuses(4) == [200, 200, 200, 429]
        assert seen == ["/api/x"] * 3
        assert (await site.ask()).get("ratelimit-policy") == '"real";q=3;w=60'
        counters = site.middleware[0].stats
        assert (counters["shadow"].shadow, counters["real"].limited) == (4, 2)
        assert [each.ok for each in decided[:4]] == [True, True, False, True]

    async def test_a_skipped_request_has_no_key_and_no_headers(self, serve: Serve) -> None:
        keys: list[str] = []

        def key(request: Any) -> str:
            keys.append(request.client)
            return str(request.client)

        limits = [Limit("1/m", skip=lambda request: request.header("x-free") is not None, key=key)]
        site = serve(limits=limits)
        answers = [await site.ask(free="1") for _ in range(3)]
        assert [(each.status, each.get("ratelimit")) for each in answers] == [(200, None)] * 3
        assert keys == []

    async def test_a_disabled_middleware_limits_nothing(self, serve: Serve) -> None:
        site = serve(limits=[Limit("0/m")], enabled=False)
        answer = await site.ask()
        assert (answer.status, answer.get("ratelimit")) == (200, None)

    async def test_block_for(self, serve: Serve, clock: Clock) -> None:
        site = serve(limits=[Limit("1/s", block_for=60)])
        assert await site.statuses(2) == [200, 429]
        clock.advance(59)
        assert await site.statuses(1) == [429]
        clock.advance(1)
        assert await site.statuses(1) == [200]

    async def test_one_count_for_all(self, serve: Serve) -> None:
        site = serve(limits=[Limit("2/m", key="global"), Limit("1/m", key="route", name="each")])
        assert await site.statuses(1, "/a", peer="192.0.2.5") == [200]
        assert await site.statuses(1, "/b", peer="192.0.2.5") == [200]
        assert await site.statuses(1, "/c", peer="192.0.2.6") == [429]


class TestInstallation:
    async def test_a_root_path_is_not_part_of_the_path(self, serve: Serve) -> None:
        site = serve()
        assert left(await site.ask("/v1/api/x", root_path="/v1")) == 99
        assert left(await site.ask("/api/x", root_path="/v1")) == 98

    async def test_equals_count_once(self, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        inner = Served("asgi", limits=[Limit("5/m")])
        served = Served("asgi", limits=[Limit("5/m")])
        outer = RateLimitMiddleware(inner.app, limits=[Limit("5/m")])
        served._client = type(served._client)(outer)
        assert left(await served.ask(), "5-in-1min") == 4
        assert left(await served.ask(), "5-in-1min") == 3
        assert caplog.text.count("DOUBLE_COUNT") == 1

    async def test_scopes_that_are_not_requests_pass(self) -> None:
        seen: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["type"])

        middleware = RateLimitMiddleware(app, limits=[Limit("0/m")])
        for kind in ("lifespan", "unknown"):
            await middleware({"type": kind}, None, None)  # type: ignore[arg-type]
        assert seen == ["lifespan", "unknown"]

    async def test_a_refusal_inside_cors_has_cors_headers(self, serve: Serve) -> None:
        from starlette.middleware.cors import CORSMiddleware

        site = serve(limits=[Limit("0/m")])
        site._client = type(site._client)(CORSMiddleware(site.app, allow_origins=["*"]))
        answer = await site.ask(headers=[(b"origin", b"https://x")])
        assert (answer.status, answer.get("access-control-allow-origin")) == (429, "*")

    async def test_requests_without_an_address_share_one_count(
        self, serve: Serve, caplog: pytest.LogCaptureFixture
    ) -> None:
        site = serve(limits=[Limit("1/m")])
        assert await site.statuses(3, peer=None) == [200, 429, 429]
        assert await site.statuses(1, peer="") == [429]
        assert caplog.text.count("NO_CLIENT") == 1

    async def test_a_forwarded_address_counts_only_from_a_trusted_proxy(
        self, serve: Serve, caplog: pytest.LogCaptureFixture
    ) -> None:
        plain = serve(limits=[Limit("2/m")], store="memory://")
        for number in range(3):
            header = (b"x-forwarded-for", b"198.51.100.%d" % number)
            status = (await plain.ask(headers=[header], peer="10.0.0.1")).status
            assert status == (429 if number == 2 else 200)
        assert caplog.text.count("FORWARDED_HEADER") == 1
        trusting = serve(limits=[Limit("1/m")], store="memory://", trusted_proxies=["10.0.0.0/8"])
        chain = [(b"x-forwarded-for", b"6.6.6.6, 203.0.113.9"), (b"x-forwarded-for", b"10.1.1.1")]
        assert await trusting.statuses(2, headers=chain, peer="10.0.0.1") == [200, 429]
        other = [(b"x-forwarded-for", b"7.7.7.7, 203.0.113.9, 10.1.1.1")]
        assert await trusting.statuses(1, headers=other, peer="10.0.0.1") == [429]
        assert await trusting.statuses(1, headers=other, peer="192.0.2.1") == [200]


class TestMistakes:
    @pytest.mark.parametrize(
        ("make", "option", "code"),
        [
            (lambda: Limit("5/fortnight"), "rate", "invalid"),
            (lambda: Limit("x/m"), "rate", "invalid"),
            (lambda: Limit("-1/s"), "rate", "invalid"),
            (lambda: Limit("1/0m"), "rate", "invalid"),
            (lambda: Limit("1/m", algorithm="lucky"), "algorithm", "invalid"),  # type: ignore[arg-type]
            (lambda: Limit("1/m", path="api"), "path", "invalid"),
            (lambda: Limit("1/m", methods="POST"), "methods", "invalid"),
            (lambda: Limit("1/m", methods=["FETCH"]), "methods", "invalid"),
            (lambda: Limit("1/m", key="user"), "key", "invalid"),  # type: ignore[arg-type]
            (lambda: Limit("1/m", cost=2), "cost", "out_of_range"),
            (
                lambda: Limit("1/m", skip_successful=True, skip_failed=True),
                "skip_failed",
                "conflict",
            ),
            (lambda: Limit("1/m", is_success=bool), "is_success", "conflict"),
            (lambda: Limit("1/m", count_statuses={99}), "count_statuses", "invalid"),
            (lambda: Limit("1/m", count_statuses=[]), "count_statuses", "invalid"),
            (lambda: Limit("1/m", status=200), "status", "invalid"),
            (lambda: Limit("1/m", message=7), "message", "invalid"),  # type: ignore[arg-type]
            (lambda: Limit("1/m", name="né"), "name", "invalid"),
            (lambda: Limit("1/m", on_store_error="hope"), "on_store_error", "invalid"),  # type: ignore[arg-type]
            (lambda: Limit("1/m", per="day"), "per", "invalid"),  # type: ignore[arg-type]
            (lambda: Limit("1/m", skip=True), "skip", "invalid"),  # type: ignore[arg-type]
            (lambda: Limit.concurrency(2, count_statuses={401}), "count_statuses", "conflict"),  # type: ignore[call-arg]
            (lambda: Limit("1/m", shadow="yes"), "shadow", "invalid"),  # type: ignore[arg-type]
            (lambda: Limit("1/m", headers=["draft-7"]), "headers", "invalid"),  # type: ignore[arg-type]
            (lambda: with_limits(limits=Limit("1/m")), "limits", "invalid"),
            (lambda: with_limits(limits=["1/m"]), "limits", "invalid"),
            (lambda: with_limits(limits=[Limit("1/m"), Limit("1/m")]), "limits", "duplicate"),
            (lambda: with_limits(headers=["draft-9"]), "headers", "invalid"),
            (lambda: with_limits(headers=["standard", "draft-7"]), "headers", "conflict"),
            (lambda: with_limits(on_store_error="hope"), "on_store_error", "invalid"),
            (lambda: with_limits(trusted_proxies=["0.0.0.0/0"]), "trusted_proxies", "invalid"),
            (lambda: with_limits(trusted_proxies=["*"]), "trusted_proxies", "invalid"),
            (lambda: with_limits(trusted_proxies="10.0.0.0/8"), "trusted_proxies", "invalid"),
            (lambda: with_limits(trusted_proxies=["10.0.0.0/8"], hops=1), "hops", "conflict"),
            (lambda: with_limits(ipv6_prefix=16), "ipv6_prefix", "out_of_range"),
        ],
    )
    def test_an_invalid_option_is_refused_at_construction(
        self, make: Callable[[], object], option: str, code: str
    ) -> None:
        with pytest.raises(InvalidOption, match=f"^{option}=") as caught:
            make()
        assert caught.value.option == option
        assert caught.value.code == code

    def test_an_unknown_option_is_a_type_error(self) -> None:
        with pytest.raises(TypeError):
            Limit("1/m", limit=5)  # type: ignore[call-arg]


def with_limits(**options: Any) -> RateLimitMiddleware:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    return RateLimitMiddleware(app, **options)


class TestWebSockets:
    @pytest.fixture(autouse=True)
    def told(self) -> None:
        self.codes: list[int] = []
        """The codes with which the application received a disconnect."""

    async def talk(
        self, middleware: RateLimitMiddleware, messages: list[Any], extensions: Any = None
    ) -> list[Any]:
        sent: list[Any] = []
        incoming = iter([{"type": "websocket.connect"}, *messages])

        async def receive() -> Any:
            return next(incoming)

        async def send(message: Any) -> None:
            sent.append(message)

        scope: dict[str, Any] = {
            "type": "websocket", "path": "/ws", "headers": [], "client": (PEER, 1),
            "extensions": extensions or {}, "tests.codes": self.codes,
        }  # fmt: skip
        await middleware(scope, receive, send)
        return sent

    @staticmethod
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        scope["tests.codes"].append(message.get("code"))

    async def test_a_handshake_over_the_limit_is_refused(self) -> None:
        middleware = RateLimitMiddleware(self.echo, limits=[Limit("1/m")])
        gone = {"type": "websocket.disconnect", "code": 1000}
        assert (await self.talk(middleware, [gone]))[0]["type"] == "websocket.accept"
        assert await self.talk(middleware, []) == [{"type": "websocket.close", "code": 1008}]
        start, body = await self.talk(middleware, [], {"websocket.http.response": {}})
        assert (start["type"], start["status"]) == ("websocket.http.response.start", 429)
        assert (b"retry-after", b"60") in start["headers"]
        assert body["type"] == "websocket.http.response.body"

    async def test_a_message_over_the_limit_closes_the_connection(self) -> None:
        middleware = RateLimitMiddleware(self.echo, limits=[Limit("2/m", per="message")])
        messages = [{"type": "websocket.receive", "text": str(number)} for number in range(3)]
        sent = await self.talk(middleware, messages)
        kinds = [message["type"] for message in sent]
        assert kinds == [
            "websocket.accept", "websocket.send", "websocket.send", "websocket.close",
        ]  # fmt: skip
        assert (sent[3]["code"], self.codes) == (1008, [1008])

    async def test_a_connection_holds_its_slot(self) -> None:
        limits = [Limit.concurrency(1)]
        middleware = RateLimitMiddleware(self.echo, limits=limits)
        gone = {"type": "websocket.disconnect", "code": 1000}
        for _ in range(3):
            assert (await self.talk(middleware, [gone]))[0]["type"] == "websocket.accept"
