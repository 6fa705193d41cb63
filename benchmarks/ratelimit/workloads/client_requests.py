"""Requests of a contestant, by its library alone or through its application."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from benchmarks.asgi import Application
from benchmarks.ratelimit.application import call
from benchmarks.ratelimit.contestant import PythonContestant, Rate

Request: TypeAlias = Callable[[str], Awaitable[bool]]
"""Whether a client's request passed."""


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
            raise AssertionError(f"answered {status}")
        return status == 200

    return request


def in_the_first_way(
    contestant: type[PythonContestant], rate: Rate, url: str | None = None
) -> Request:
    """By its first algorithm, or through an application where it is a part of one."""
    if contestant.algorithms:
        return by_library(contestant, contestant.algorithms[0], [rate], url)
    return by_application(contestant.application({"/one": [rate]}, url=url), "/one")
