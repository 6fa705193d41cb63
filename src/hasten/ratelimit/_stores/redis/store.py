"""Counts on a Redis server, shared by all who use it.

All that one tick of the event loop asks leaves as one call of one script (`limit.lua`), which reads
the keys it is about at once and writes each of them once. On a cluster it is one call for each
client, in one write for each node. What is asked later is done later: there is one connection to a
server for each event loop, and answers need not have come for the next call to leave.

A key is `prefix:bucket:{client}`: its part in braces decides about its place in a cluster. It holds
what `algorithms.py` says is known of a client, packed, and lives until that tells nothing more.
Times are the server's.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from itertools import groupby
from typing import ClassVar, Final
from urllib.parse import quote

from hasten._clock import Clock, now_ns_of
from hasten._durations import Duration
from hasten._redis.server import Script, Server
from hasten._store_url import Address, Kind
from hasten.errors import StoreError
from hasten.ratelimit._counter_store import Check, CheckGroup, Outcome, is_denied
from hasten.ratelimit._stores.asking import Answer, AskingStore, value_of
from hasten.ratelimit._stores.redis.batch import Batch, add, read, unpack
from hasten.ratelimit._stores.reopened import Reopened
from hasten.ratelimit._stores.requests import Hit, Peek, Request

DEFAULT_PREFIX: Final = "hasten:limit"

SCRIPT: Final = Script.of(
    "limit", (resources.files(__package__) / "limit.lua").read_text(encoding="utf-8")
)

# Where a test brings its own time, keys must not go by the server's.
LINGER_MS: Final = 600_000

DELETED_AT_ONCE: Final = 100


class RedisStore(AskingStore):
    """Counts on the server of an address. prefix is what all keys begin with.

    With a clock the times are the clock's, else the server's.
    """

    # With one call for a whole tick, client and server take turns; with several they work side by
    # side, which doubled the checks a second. Below 50 the calls themselves begin to cost.
    at_once: ClassVar[int | None] = 50

    def __init__(
        self,
        address: Address,
        *,
        prefix: str = DEFAULT_PREFIX,
        store_timeout: Duration | None = None,
        clock: Clock | None = None,
        on_open: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(address.shown, store_timeout=store_timeout, clock=clock)
        self._prefix = prefix
        self._is_cluster = address.kind is Kind.CLUSTER
        self._server: Final = Reopened(lambda: Server(address, may_evict=True), on_open)
        self._now_ns = None if clock is None else now_ns_of(clock)
        self._names: dict[str, bytes] = {}

    async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        if not self._is_cluster:
            return await super().hit(groups)
        # One client after the other, for the first denial ends it.
        answer: list[list[Outcome]] = []
        for _, run in groupby(groups, key=lambda group: group[0].key):
            part = list(run)
            outcomes = await self._ask(Hit(part))
            answer += outcomes
            if is_denied(part[len(outcomes) - 1], outcomes[-1]):
                break
        return answer

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        if not self._is_cluster:
            return await super().peek(checks)
        answers = [self._put(Peek([check])) for check in checks]
        return [value_of(await answer)[0][0] for answer in answers]

    async def clear(self) -> None:
        """Forget all keys with the prefix of this store."""
        server = self._server.get()
        names = await server.scan(f"{_literal(self._prefix)}:*")
        for start in range(0, len(names), DELETED_AT_ONCE):
            some = names[start : start + DELETED_AT_ONCE]
            await asyncio.gather(
                *(server.command("UNLINK", name, key=name.decode()) for name in some)
            )

    async def _close(self) -> None:
        server = self._server.take()
        if server is not None:
            await server.close()

    def close_now(self) -> None:
        server = self._server.take()
        if server is not None:
            server.close_now()

    async def _exchange(self, requests: Sequence[Request]) -> list[Answer]:
        now_us = None if self._now_ns is None else self._now_ns() // 1000
        linger_ms = 0 if now_us is None else LINGER_MS
        calls, members = [], []
        for places in self._batches(requests):
            batch = Batch(self._name)
            for place in places:
                add(batch, requests[place])
            calls.append((batch.names(), batch.packed(now_us, linger_ms)))
            members.append(places)
        answers: list[Answer] = [[]] * len(requests)
        for places, told in zip(
            members, await self._server.get().run_together(SCRIPT, calls), strict=True
        ):
            if isinstance(told, StoreError):
                for place in places:
                    answers[place] = told
                continue
            for place, numbers in zip(places, unpack(told), strict=True):
                answers[place] = read(requests[place], numbers)
        return answers

    def _batches(self, requests: Sequence[Request]) -> Iterator[Sequence[int]]:
        """Which requests go in one call, by their places."""
        if not self._is_cluster:
            yield range(len(requests))
            return
        by_key: dict[bytes, list[int]] = {}
        for place, request in enumerate(requests):
            by_key.setdefault(request.key, []).append(place)
        yield from by_key.values()

    def _name(self, bucket: str, key: bytes) -> bytes:
        start = self._names.get(bucket)
        if start is None:
            # Braces in a name would be taken for those around the client.
            plain = quote(bucket, safe=":/,;@=+ ", errors="surrogatepass")
            start = f"{self._prefix}:{plain}:{{".encode()
            if len(self._names) >= 10_000:  # rates may be made up for each client
                self._names.clear()
            self._names[bucket] = start
        return start + key.hex().encode() + b"}"


def _literal(text: str) -> str:
    """The pattern of SCAN that nothing but this text matches."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)
