"""slowapi with its decorator. Its middlewares do the same and additional work."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.asgi import Application
from benchmarks.ratelimit.contestant import Hit, LimitPaths, PythonContestant, Rate
from benchmarks.ratelimit.frameworks import starlette_application


class SlowApi(PythonContestant):
    title = "slowapi"
    remark = "its decorator on Starlette, fixed window, headers; its Redis blocks the event loop"
    packages = ("slowapi", "limits", "starlette")
    algorithms = ("fixed-window", "moving-window", "sliding-window-counter")

    @classmethod
    def limiter(cls, rates: Sequence[Rate], *, algorithm: str, url: str | None = None) -> Hit:
        from limits import RateLimitItemPerSecond

        strategy = _limiter(url, algorithm).limiter
        items = [RateLimitItemPerSecond(rate.limit, rate.seconds) for rate in rates]
        if len(items) == 1:
            return partial(strategy.hit, items[0])
        return lambda key: all(strategy.hit(item, key) for item in items)

    @classmethod
    def application(cls, paths: LimitPaths, *, url: str | None = None) -> Application:
        from slowapi import _rate_limit_exceeded_handler
        from slowapi.errors import RateLimitExceeded

        limiter = _limiter(url, cls.algorithms[0])

        def limited(path: str, endpoint: Any) -> Any:
            # slowapi identifies functions by their names.
            endpoint.__name__ = f"endpoint_{path.strip('/')}"
            text = ";".join(f"{rate.limit} per {rate.seconds} second" for rate in paths[path])
            return limiter.limit(text)(endpoint) if text else endpoint

        app = starlette_application(paths, limited)
        app.state.limiter = limiter
        app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)
        return app  # type: ignore[no-any-return]

    @classmethod
    def unlimited(cls, paths: LimitPaths) -> Application:
        return starlette_application(paths)  # type: ignore[no-any-return]


def _limiter(url: str | None, algorithm: str) -> Any:
    from slowapi import Limiter
    from slowapi.util import get_remote_address

    return Limiter(
        key_func=get_remote_address, storage_uri=url or "memory://", strategy=algorithm,
        headers_enabled=True,
    )  # fmt: skip


CONTESTANT = SlowApi
