"""Calls that type-check."""

from __future__ import annotations

from datetime import timedelta

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse

from hasten.fastapi import RateLimited
from hasten.ratelimit import (
    Context,
    Decided,
    Limit,
    LoadShedder,
    Rate,
    RateLimitMiddleware,
    current_limit,
    limit,
)


async def plan(context: Context) -> str:
    return "1000/h" if context.header("x-plan") == "pro" else "60/h"


def user(context: Context) -> str | None:
    return context.header("x-user")


async def failed(context: Context) -> PlainTextResponse:
    return PlainTextResponse(context.path, 429)


def watch(decided: Decided) -> None: ...


limits = [
    Limit("100/15m", path="/api/", message={"error": "wait"}, block_for=timedelta(hours=1)),
    Limit(Rate(5, timedelta(hours=1)), methods=["POST"], skip_successful=True, message=failed),
    Limit(plan, key=user, cost=lambda context: len(context.query), name="plan"),
    Limit.concurrency(2, path=["/a", "/b"], key=user, lease=10, shadow=True),
]

app = Starlette()
app.add_middleware(RateLimitMiddleware, limits=limits, store="redis://x", on_decision=watch)
app.add_middleware(LoadShedder, critical=lambda context: context.path == "/pay", most=50)
wrapped = RateLimitMiddleware(LoadShedder(app), hops=1, on_store_error="deny", headers=())
dependency = RateLimited("30/m", cost=2, counts={401})


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
