"""Calls that type-check."""

from __future__ import annotations

from datetime import timedelta

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse

from hasten import Store
from hasten.fastapi import RateLimited
from hasten.loadshedding import LoadSheddingMiddleware, ShedRequest
from hasten.ratelimit import (
    Decision,
    Limit,
    Rate,
    RateLimitMiddleware,
    RateLimitStats,
    RequestInfo,
    current_limit,
    exempt,
    limit,
)


async def plan(request: RequestInfo) -> str:
    return "1000/h" if request.header("x-plan") == "pro" else "60/h"


def user(request: RequestInfo) -> str | None:
    return request.header("x-user")


async def failed(request: RequestInfo) -> PlainTextResponse:
    return PlainTextResponse(request.path, 429)


async def reported(decision: Decision) -> None: ...


def watch(decision: Decision) -> None: ...


def shed(event: ShedRequest) -> None: ...


limits = [
    Limit("100/15m", path="/api/", message={"error": "wait"}, block_for=timedelta(hours=1)),
    Limit(Rate(5, timedelta(hours=1)), methods=["POST"], skip_successful=True, message=failed),
    Limit(plan, key=user, cost=lambda request: len(request.query), name="plan"),
    Limit.concurrency(2, path=["/a", "/b"], key=user, lease=10, shadow=True),
]

app = Starlette()
stats = RateLimitStats()
app.add_middleware(
    RateLimitMiddleware,
    limits=limits,
    store=Store("redis://x"),
    on_decision=watch,
    stats=stats,
    exclude_paths=["/health"],
)
app.add_middleware(
    LoadSheddingMiddleware,
    critical=lambda request: request.path == "/pay",
    max_concurrency=50,
    on_shed=shed,
    clock=Store("memory://").clock,
)
wrapped = RateLimitMiddleware(
    LoadSheddingMiddleware(app), hops=1, on_store_error="deny", headers=(), store_timeout="20ms"
)
refused: int = stats["plan"].limited
dependency = RateLimited("30/m", cost=2, count_statuses={401}, on_limited=reported)


@limit("30/m", key="global")
async def search(query: str, *, page: int = 1) -> list[str]:
    await current_limit("30-in-1min").charge(2)
    return [query] * page


@limit(plan)
def export() -> bytes:
    current_limit("plan").sync.reset()
    return b""


async def keeps_their_signatures() -> tuple[list[str], bytes]:
    return await search("x", page=2), export()


@exempt
async def health(verbose: bool = False) -> str:
    return "ok"


async def an_exempt_handler_keeps_its_signature() -> str:
    return await health(verbose=True)
