"""The library limits, with its strategies for asyncio."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.asgi import Application, Message, Receive, Scope, Send
from benchmarks.ratelimit.contestant import Hit, PythonContestant, Rate


class Limits(PythonContestant):
    title = "limits"
    remark = "asyncio strategies, fixed window; redis-py. Has nothing for applications"
    packages = ("limits", "redis", "hiredis")
    algorithms = ("fixed-window", "moving-window", "sliding-window-counter")
    has_application = False

    @classmethod
    def limiter(cls, rates: Sequence[Rate], *, algorithm: str, url: str | None = None) -> Hit:
        strategy = _strategy(algorithm, url)
        items = [_item(rate) for rate in rates]
        if len(items) == 1:
            return partial(strategy.hit, items[0])

        async def hit_all(key: str) -> bool:
            for item in items:  # faster than a task for each
                if not await strategy.hit(item, key):
                    return False
            return True

        return hit_all

    @classmethod
    def logins(cls, app: Application, rate: Rate) -> Application:
        """Check first, and count after a failure, as Flask-Limiter does with `deduct_when`."""
        strategy, item = _strategy(cls.algorithms[0], None), _item(rate)

        async def limited(scope: Scope, receive: Receive, send: Send) -> None:
            client = scope["client"][0]
            if not await strategy.test(item, client):
                await send({"type": "http.response.start", "status": 429, "headers": []})
                return

            async def send_and_count(message: Message) -> None:
                if message.get("status", 0) >= 400:
                    await strategy.hit(item, client)
                await send(message)

            await app(scope, receive, send_and_count)

        return limited


def _strategy(algorithm: str, url: str | None) -> Any:
    from limits.aio.storage import MemoryStorage, RedisStorage
    from limits.aio.strategies import STRATEGIES

    storage: Any = MemoryStorage()
    if url is not None:
        # Not coredis, its other client: since 6.0, coredis has to be opened in another way.
        storage = RedisStorage(f"async+{url}", implementation="redispy")
    strategy: Any = STRATEGIES[algorithm]
    return strategy(storage)


def _item(rate: Rate) -> Any:
    from limits import RateLimitItemPerSecond

    return RateLimitItemPerSecond(rate.limit, rate.seconds)


CONTESTANT = Limits
