"""hasten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from benchmarks.asgi import Application
from benchmarks.ratelimit.application import bare
from benchmarks.ratelimit.contestant import Hit, LimitPaths, PythonContestant, Rate

ROOM = 2_000_000  # the maximum number of keys, higher than any number that is measured

# By default, hasten counts in memory if Redis does not respond in time. Here it has to count on
# Redis, even if the machine is busy.
TIMEOUT_SECONDS = 10


class Hasten(PythonContestant):
    title = "hasten"
    remark = (
        "defaults: a fixed window, standard and X-RateLimit headers; without an application:"
        " Limiter.hit; waits for Redis without a limit"
    )
    packages = ("hasten", "redis", "hiredis")
    algorithms = ("fixed", "sliding", "gcra")

    @classmethod
    def limiter(cls, rates: Sequence[Rate], *, algorithm: str, url: str | None = None) -> Hit:
        from hasten.ratelimit import Limiter, MemoryStore

        text = ", ".join(map(_text, rates))
        store = url or MemoryStore(max_keys=ROOM)
        kind = cast("Any", algorithm)
        return Limiter(
            text, name="bench", store=store, algorithm=kind, store_timeout=TIMEOUT_SECONDS
        ).hit

    @classmethod
    def application(cls, paths: LimitPaths, *, url: str | None = None) -> Application:
        from hasten.ratelimit import Limit, RateLimitMiddleware

        limits = [Limit(_text(rate), path=path) for path, rates in paths.items() for rate in rates]
        return RateLimitMiddleware(bare, limits=limits, store=url, store_timeout=TIMEOUT_SECONDS)

    @classmethod
    def unlimited(cls, paths: LimitPaths) -> Application:
        return bare

    @classmethod
    def logins(cls, app: Application, rate: Rate) -> Application:
        from hasten.ratelimit import Limit, RateLimitMiddleware

        limit = Limit(_text(rate), path="/login", methods=["POST"], skip_successful=True)
        return RateLimitMiddleware(app, limits=[limit])


def _text(rate: Rate) -> str:
    return f"{rate.limit}/{rate.seconds}s"


CONTESTANT = Hasten
