"""fastapi-limiter, which counts with pyrate-limiter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.asgi import Application
from benchmarks.ratelimit.contestant import Hit, LimitPaths, PythonContestant, Rate
from benchmarks.ratelimit.frameworks import fastapi_application


class FastApiLimiter(PythonContestant):
    title = "fastapi-limiter"
    remark = (
        "pyrate-limiter with a bucket for each client, unlike in its README; GCRA, its algorithm of"
        " constant size; three policies are one bucket with three rates. No headers"
    )
    packages = ("fastapi-limiter", "pyrate-limiter", "fastapi")
    algorithms = ("gcra", "sliding-window-log", "fixed-window")

    @classmethod
    def limiter(cls, rates: Sequence[Rate], *, algorithm: str, url: str | None = None) -> Hit:
        return partial(_limiter(rates, algorithm, url).try_acquire_async, blocking=False)

    @classmethod
    def application(cls, paths: LimitPaths, *, url: str | None = None) -> Application:
        from fastapi import Depends
        from fastapi_limiter.depends import RateLimiter

        def dependencies(path: str) -> list[Any]:
            if not paths[path]:
                return []
            limiter = _limiter(paths[path], cls.algorithms[0], url)
            return [Depends(RateLimiter(limiter=limiter))]

        return fastapi_application(paths, dependencies=dependencies)  # type: ignore[no-any-return]

    @classmethod
    def unlimited(cls, paths: LimitPaths) -> Application:
        return fastapi_application(paths)  # type: ignore[no-any-return]


def _limiter(rates: Sequence[Rate], algorithm: str, url: str | None) -> Any:
    from pyrate_limiter import (
        GCRA,
        BucketFactory,
        FixedWindow,
        InMemoryBucket,
        Limiter,
        RateItem,
        RedisStateStore,
        StateBucket,
    )
    from pyrate_limiter import Rate as PyrateRate

    pyrate_rates = [PyrateRate(rate.limit, rate.seconds * 1_000) for rate in rates]
    client: Any = None
    if url is not None:
        from redis.asyncio import Redis

        client = Redis.from_url(url)

    def bucket(name: str) -> Any:
        if client is not None:
            return StateBucket(pyrate_rates, GCRA(), RedisStateStore(client, f"pyrate:{name}"))
        if algorithm == "gcra":
            return StateBucket(pyrate_rates, GCRA())
        fixed = FixedWindow() if algorithm == "fixed-window" else None
        return InMemoryBucket(pyrate_rates, fixed)

    class BucketOfEach(BucketFactory):  # type: ignore[misc, unused-ignore]
        """Creates a bucket for each name, as in its documentation. The buckets need no leaker."""

        def __init__(self) -> None:
            self._buckets: dict[str, Any] = {}

        def wrap_item(self, name: str, weight: int = 1) -> Any:
            return RateItem(name, self.get_by_name(name).now(), weight=weight)

        def get(self, item: Any) -> Any:
            return self.get_by_name(item.name)

        def get_by_name(self, name: str) -> Any:
            found = self._buckets.get(name)
            if found is None:
                found = self._buckets[name] = bucket(name)
            return found

    return Limiter(BucketOfEach())


CONTESTANT = FastApiLimiter
