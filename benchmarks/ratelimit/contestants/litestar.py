"""Litestar's RateLimitMiddleware, in Litestar."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.asgi import Application
from benchmarks.ratelimit.application import BODY
from benchmarks.ratelimit.contestant import LimitPaths, PythonContestant, Rate

UNITS: Final = {1: "second", 60: "minute", 3_600: "hour", 86_400: "day"}


class Litestar(PythonContestant):
    title = "Litestar"
    remark = "a RateLimitMiddleware for each handler and policy; stores the time of every hit"
    packages = ("litestar", "redis")

    @classmethod
    def application(cls, paths: LimitPaths, *, url: str | None = None) -> Application:
        return _application(paths, is_limited=True, url=url)

    @classmethod
    def unlimited(cls, paths: LimitPaths) -> Application:
        return _application(paths, is_limited=False, url=None)


def _application(paths: LimitPaths, *, is_limited: bool, url: str | None) -> Application:
    from litestar import Litestar as Framework
    from litestar import MediaType, Request, Response, get
    from litestar.middleware.rate_limit import RateLimitConfig
    from litestar.stores.memory import MemoryStore
    from litestar.stores.redis import RedisStore

    def identifier(start: str) -> Any:
        # With the same identifier, the policies would share a count.
        return lambda request: start + request.scope["client"][0]

    def middleware(path: str) -> list[Any]:
        return [
            RateLimitConfig(
                rate_limit=_rate(rate),
                identifier_for_request=identifier(f"{path}:{number}:"),
            ).middleware
            for number, rate in enumerate(paths[path])
        ]

    def handler(path: str) -> Any:
        async def endpoint(request: Request[Any, Any, Any]) -> Response[bytes]:
            return Response(BODY, media_type=MediaType.JSON)

        # Litestar evaluates annotations of handlers, and could not evaluate these as strings.
        endpoint.__annotations__ = {"request": Request, "return": Response[bytes]}
        return get(path, middleware=middleware(path) if is_limited else [])(endpoint)

    store: Any = MemoryStore() if url is None else RedisStore.with_client(url=url)
    app: Any = Framework(
        [handler(path) for path in paths], stores={"rate_limit": store}, openapi_config=None,
        logging_config=None,
    )  # fmt: skip
    return app  # type: ignore[no-any-return]


def _rate(rate: Rate) -> Any:
    """Return the longest of the four windows of Litestar that is not longer than the rate's."""
    unit = max(seconds for seconds in UNITS if seconds <= rate.seconds)
    return UNITS[unit], rate.limit


CONTESTANT = Litestar
