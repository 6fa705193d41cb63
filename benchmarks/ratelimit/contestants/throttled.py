"""throttled-py."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from benchmarks.asgi import Application, Message, Receive, Scope, Send
from benchmarks.ratelimit.contestant import Hit, LimitPaths, PythonContestant, Rate
from benchmarks.ratelimit.frameworks import fastapi_application

ROOM = 2_000_000  # by default it keeps only 1,024 keys, and also forgets blocked ones


class Throttled(PythonContestant):
    title = "throttled-py"
    remark = (
        "its asyncio API, fixed window; in FastAPI its decorator, and its middleware for headers"
    )
    packages = ("throttled-py", "fastapi", "redis", "hiredis")
    algorithms = ("fixed_window", "sliding_window", "token_bucket", "leaking_bucket", "gcra")

    @classmethod
    def limiter(cls, rates: Sequence[Rate], *, algorithm: str, url: str | None = None) -> Hit:
        store = _store(url)
        limiters = [_make_limiter(rate, algorithm, store) for rate in rates]
        if len(limiters) == 1:
            limit: Hit = limiters[0].limit
            return limit

        async def limit_all(key: str) -> Any:
            result: Any = None
            for number, limiter in enumerate(limiters):
                result = await limiter.limit(f"{number}:{key}")
                if result.limited:
                    break
            return result

        return limit_all

    @staticmethod
    def is_allowed(result: Any) -> bool:
        return not result.limited

    @classmethod
    def application(cls, paths: LimitPaths, *, url: str | None = None) -> Application:
        from throttled.asyncio.contrib.fastapi import (
            Limiter,
            RateLimitExceededError,
            RateLimitMiddleware,
            get_remote_address,
            rate_limit_exceeded_handler,
        )

        store = _store(url)

        def key(number: int) -> Any:
            # With the same key, the policies of a route would share a count.
            return lambda request: f"{number}:{get_remote_address(request)}"

        def limited(path: str, endpoint: Any) -> Any:
            for number, rate in enumerate(paths[path]):
                limiter = Limiter(
                    _make_quota(rate), store=store, using=cls.algorithms[0], key_func=key(number)
                )
                endpoint = limiter.limit()(endpoint)
            return endpoint

        app = fastapi_application(paths, limited)
        app.add_middleware(RateLimitMiddleware)
        app.add_exception_handler(RateLimitExceededError, rate_limit_exceeded_handler)
        return app  # type: ignore[no-any-return]

    @classmethod
    def unlimited(cls, paths: LimitPaths) -> Application:
        return fastapi_application(paths)  # type: ignore[no-any-return]

    @classmethod
    def logins(cls, app: Application, rate: Rate) -> Application:
        """Check before the request and count after a failure, as the library has no option."""
        throttled = _make_limiter(rate, cls.algorithms[0], _store(None))

        async def limited(scope: Scope, receive: Receive, send: Send) -> None:
            client = scope["client"][0]
            if (await throttled.peek(client)).remaining < 1:
                await send({"type": "http.response.start", "status": 429, "headers": []})
                return

            async def send_and_count(message: Message) -> None:
                if message.get("status", 0) >= 400:
                    await throttled.limit(client)
                await send(message)

            await app(scope, receive, send_and_count)

        return limited


def _store(url: str | None) -> Any:
    from throttled.asyncio import store

    if url is None:
        return store.MemoryStore(options={"MAX_SIZE": ROOM})
    return store.RedisStore(server=url)


def _make_limiter(rate: Rate, algorithm: str, store: Any) -> Any:
    from throttled.asyncio import Throttled as Limiter

    return Limiter(using=algorithm, quota=_make_quota(rate), store=store)


def _make_quota(rate: Rate) -> Any:
    from throttled.asyncio import rate_limiter

    return rate_limiter.per_duration(timedelta(seconds=rate.seconds), rate.limit, rate.limit)


CONTESTANT = Throttled
