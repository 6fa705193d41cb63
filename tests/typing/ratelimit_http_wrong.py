"""Calls that must not type-check. Read by mypy, never run; see jobs_wrong.py."""

from __future__ import annotations

from hasten.fastapi import RateLimited
from hasten.loadshedding import LoadSheddingMiddleware
from hasten.ratelimit import Limit, Limiter, RateLimitMiddleware, RequestInfo, limit
from tests.typing.ratelimit_http_ok import app, search

Limit(5)  # type: ignore[arg-type]
Limit("5/h", limit=5)  # type: ignore[call-arg]
Limit("5/h", key="user")  # type: ignore[arg-type]
Limit("5/h", algorithm="leaky")  # type: ignore[arg-type]
Limit("5/h", on_store_error="hope")  # type: ignore[arg-type]
Limit("5/h", key=lambda request, response: "x")  # type: ignore[arg-type,misc]
Limit.concurrency(2, count_statuses={401})  # type: ignore[call-arg]
Limit.concurrency(2, per="message")  # type: ignore[call-arg]
RateLimitMiddleware(app, limits=["5/h"])  # type: ignore[list-item]
RateLimitMiddleware(app, trusted=["10.0.0.0/8"])  # type: ignore[call-arg]
RateLimited("5/h", path="/")  # type: ignore[call-arg]
LoadSheddingMiddleware(app, max_concurrency="many")  # type: ignore[arg-type]
Limiter("5/h")  # type: ignore[call-arg]
limit("5/h", methods=["GET"])  # type: ignore[call-arg]


async def a_signature_is_kept() -> None:
    await search(7)  # type: ignore[arg-type]
    await search("x", 2)  # type: ignore[call-arg]


def takes_nothing() -> str:
    return "60/h"


Limit(takes_nothing)  # type: ignore[arg-type]


def no_text(request: RequestInfo) -> int:
    return 7


Limit("5/h", key=no_text)  # type: ignore[arg-type]
