"""Requests of clients to a library, or to an application with limits."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from benchmarks.asgi import Application
from benchmarks.ratelimit.application import call, clients
from benchmarks.ratelimit.contestant import PythonContestant, Rate

CLIENTS: Final = clients(1_000)

Request: TypeAlias = Callable[[str], Awaitable[bool]]
"""Sends a request of a client, and returns whether it was allowed."""


def by_library(
    contestant: type[PythonContestant], algorithm: str, rates: Sequence[Rate], url: str | None
) -> Request:
    hit = contestant.limiter(rates, algorithm=algorithm, url=url)

    async def request(client: str) -> bool:
        result = hit(client)
        return contestant.is_allowed(await result if inspect.isawaitable(result) else result)

    return request


def by_application(app: Application, path: str) -> Request:
    async def request(client: str) -> bool:
        status = (await call(app, path, client)).status
        if status not in (200, 429):
            raise AssertionError(f"unexpected status {status}")
        return status == 200

    return request


def by_default(contestant: type[PythonContestant], rate: Rate, url: str | None = None) -> Request:
    """Return a function that uses the library, or an application if the library needs one."""
    if contestant.algorithms:
        return by_library(contestant, contestant.algorithms[0], [rate], url)
    return by_application(contestant.application({"/one": [rate]}, url=url), "/one")


async def repeat(
    request: Request,
    *,
    concurrent: int,
    count: int | None = None,
    seconds: float = 0.0,
    denied: bool = False,
) -> int:
    """Send count requests, or as many as possible in some seconds. Return their number.

    Each of the concurrent callers sends its next request after the response to the last one. If
    denied is set, all requests have to be denied; else all have to be allowed.
    """
    numbers = itertools.count()
    end = time.perf_counter() + seconds
    done = 0

    async def caller() -> None:
        nonlocal done
        for number in numbers:
            if number >= count if count is not None else time.perf_counter() > end:
                return
            if await request(CLIENTS[number % len(CLIENTS)]) is denied:
                raise AssertionError("a request was allowed" if denied else "a request was denied")
            done += 1

    await asyncio.gather(*(caller() for _ in range(concurrent)))
    return done
