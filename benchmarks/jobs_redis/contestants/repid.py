"""repid."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Any, ClassVar

from benchmarks.jobs_redis.asynchronous import OnUvloop, running


class RepidContestant(OnUvloop):
    title = "repid"
    remark = "claim_interval=30 for at least once (default 0: never); the stream is never trimmed"
    packages = ("repid", "redis")
    environment = "repid"
    parts = frozenset({"enqueue", "drain", "pickup", "memory"})
    settings: ClassVar = {"enqueue": ("100 tasks",), "drain": ("10 at once",)}
    share = 0.1

    async def open(self) -> None:
        from repid import Repid, Router
        from repid.connections.redis import RedisServer

        async def noop(number: int) -> None:
            self.ran(number)

        self._app: Any = Repid(title="bench")
        server = RedisServer(self.location, claim_interval=30, batch_size=100)
        self._app.servers.register_server("default", server, is_default=True)
        router: Any = Router()
        router.actor(noop)
        self._app.include_router(router)
        self._exit = contextlib.AsyncExitStack()
        await self._exit.enter_async_context(self._app.servers.default.connection())

    async def close(self) -> None:
        await self._exit.aclose()

    def add(self, number: int) -> Awaitable[object]:
        added: Awaitable[object] = self._app.send_message_json(
            channel="default", payload={"number": number}, headers={"topic": "noop"}
        )
        return added

    @contextlib.asynccontextmanager
    async def working(self, concurrency: int) -> AsyncIterator[None]:
        async with running(self._app.run_worker(tasks_limit=concurrency)):
            yield


CONTESTANT = RepidContestant
