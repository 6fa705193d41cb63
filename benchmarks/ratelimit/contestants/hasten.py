"""hasten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from benchmarks.asgi import Application
from benchmarks.ratelimit.application import bare
from benchmarks.ratelimit.contestant import Hit, Paths, PythonContestant, Rate

ROOM = 2_000_000  # more keys than are counted, so that all of them are kept

# When Redis does not answer in time, hasten counts in memory. Here all counts have to be on Redis,
# even on a busy machine.
TIMEOUT_SECONDS = 10


class Hasten(PythonContestant):
    title = "hasten"
    remark = (
        "defaults: a fixed window, standard and X-RateLimit headers; alone: Limiter.hit; waits for"
        " Redis as long as it takes"
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
    def application(cls, paths: Paths, *, url: str | None = None) -> Application:
        from hasten.ratelimit import Limit, RateLimitMiddleware

        limits = [Limit(_text(rate), path=path) for path, rates in paths.items() for rate in rates]
        return RateLimitMiddleware(bare, limits=limits, store=url, store_timeout=TIMEOUT_SECONDS)

    @classmethod
    def unlimited(cls, paths: Paths) -> Application:
        return bare

    @classmethod
    def logins(cls, app: Application, rate: Rate) -> Application:
        from hasten.ratelimit import Limit, RateLimitMiddleware

        limit = Limit(_text(rate), path="/login", methods=["POST"], skip_successful=True)
        return RateLimitMiddleware(app, limits=[limit])


def _text(rate: Rate) -> str:
    return f"{rate.limit}/{rate.seconds}s"


CONTESTANT = Hasten
