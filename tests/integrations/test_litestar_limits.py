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
