"""Send twice as many requests as an application can handle, with and without load shedding."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.asgi import Application, Message, Receive, Scope, Send
from benchmarks.ratelimit.contestant import PythonContestant

CONNECTIONS: Final = 10
WORK_SECONDS: Final = 0.02
POSSIBLE: Final = CONNECTIONS / WORK_SECONDS
"""Requests per second."""

SCOPE: Final = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("a", 1)}


async def measure(contestant: type[PythonContestant], *, seconds: float) -> dict[str, Any]:
    from hasten.loadshedding import LoadSheddingMiddleware

    bare, shedding = database(), LoadSheddingMiddleware(database())
    return {
        "without": await overload(bare, seconds),
        "with": await overload(shedding, seconds),
    }


def database() -> Application:
    """Return an application that makes one query for each request, over a few connections."""
    connections = asyncio.Semaphore(CONNECTIONS)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with connections:
            await asyncio.sleep(WORK_SECONDS)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app


@dataclass
class Answers:
    took: list[float] = field(default_factory=list)
    """Times of the requests with status 200, in ms."""
    at_the_end: int = 0
    """How many of them had a response before the last request arrived."""
    refused: int = 0


async def overload(app: Application, seconds: float) -> dict[str, float]:
    answers = Answers()
    begun = time.perf_counter()
    asked = 0
    async with asyncio.TaskGroup() as group:
        while (now := time.perf_counter() - begun) < seconds:
            while asked < now * 2 * POSSIBLE:
                asked += 1
                group.create_task(_ask(app, answers))
            await asyncio.sleep(0.001)
        answers.at_the_end = len(answers.took)
    took = sorted(answers.took)
    return {
        "good_share": answers.at_the_end / (seconds * POSSIBLE),
        "median_ms": took[len(took) // 2],
        "late_ms": took[int(len(took) * 0.99)],
        "refused_share": answers.refused / asked,
    }


async def _ask(app: Application, answers: Answers) -> None:
    begun = time.perf_counter()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] != "http.response.start":
            return
        if message["status"] == 200:
            answers.took.append((time.perf_counter() - begun) * 1_000)
        else:
            answers.refused += 1

    await app(dict(SCOPE), receive, send)
