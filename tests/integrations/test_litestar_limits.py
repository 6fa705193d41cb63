"""A whole Litestar application under limits, which count requests without a route as well."""

from __future__ import annotations

from typing import Any

import httpx
from litestar import Litestar, get, post
from litestar.params import JSONBody

from hasten.ratelimit import Limit, RateLimitMiddleware, limit


async def test_a_whole_application_can_be_wrapped() -> None:
    @get("/a", sync_to_thread=True)
    @limit("1/m")
    def a() -> str:
        return "a"

    app: Any = Litestar([a], logging_config=None)
    limited = RateLimitMiddleware(app, limits=[Limit("4/m", name="all")])
    transport = httpx.ASGITransport(app=limited)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        statuses = [(await client.get(path)).status_code for path in ("/a", "/a", "/b", "/b", "/b")]
    assert statuses == [200, 429, 404, 404, 429]


async def test_a_body_that_cannot_be_read_is_counted_by_the_limit_of_its_route() -> None:
    @post("/a", status_code=200)
    @limit("2/m")
    async def a(data: JSONBody[dict[str, int]]) -> None: ...

    app: Any = Litestar([a], logging_config=None)
    transport = httpx.ASGITransport(app=RateLimitMiddleware(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        statuses = [
            (await client.post("/a", content=body)).status_code
            for body in (b"{", b'{"b": 1}', b"{", b'{"b": 1}')
        ]
    assert statuses == [400, 200, 429, 429]


async def test_all_routes_of_an_application_share_one_cache_of_plans() -> None:
    """Litestar makes a middleware for each route. All of them together keep a bounded number."""
    made: list[RateLimitMiddleware] = []
    limits = [Limit("100/m")]

    def limited(app: Any) -> Any:
        made.append(RateLimitMiddleware(app, limits=limits))
        return made[-1]

    def route(path: str) -> Any:
        @get(path, sync_to_thread=False)
        def show() -> str:
            return path

        return show

    routes = [route(path) for path in ("/a", "/b", "/c")]
    app: Any = Litestar(routes, logging_config=None, middleware=[limited])
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path in ("/a", "/b", "/c"):
            assert (await client.get(path)).status_code == 200
    used = [each._plans for each in made if each._plans]
    assert len(used) > 1
    assert all(plans is used[0] for plans in used)
