"""A store on a Redis server, shared by all processes that use it.

All operations of one tick of the event loop are one call of a script (`limit.lua`), which reads its
keys at once and writes each of them once. On a cluster there is one call for each client, and one
write to the socket of each node. Operations are applied in the order of their calls: each event
loop has one connection to a server, and does not wait for a response before the next call.

A key is `prefix:bucket:{client}`: the part in braces determines its slot in a cluster. It holds the
state of `_algorithms.py`, packed, and expires when the state has no effect any more. Times are the
server's.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from itertools import groupby
from typing import ClassVar, Final
from urllib.parse import quote

from hasten._clock import Clock, make_now_ns
from hasten._durations import Duration
from hasten._redis.server import Script, Server
from hasten._store_url import Address, ServerKind
from hasten.errors import StoreError
from hasten.ratelimit._counter_store import Check, CheckGroup, Outcome, is_denied
from hasten.ratelimit._stores.operations import Hit, Operation, Peek
from hasten.ratelimit._stores.redis.batch import Batch, add, read, unpack
from hasten.ratelimit._stores.remote import RemoteStore, Result, value_of
from hasten.ratelimit._stores.reopened import Reopened

DEFAULT_PREFIX: Final = "hasten:limit"

SCRIPT: Final = Script.of(
    "limit", (resources.files(__package__) / "limit.lua").read_text(encoding="utf-8")
)

# With the clock of a test, keys must not expire by the server's time.
LINGER_MS: Final = 600_000

DELETED_AT_ONCE: Final = 100


class RedisStore(RemoteStore):
    """A store on the server of an address. All keys begin with prefix.

    Times are those of the clock if there is one, else the server's.
    """

    # With one call for a whole tick, client and server take turns. With several calls they work in
    # parallel, which doubled the checks per second. Below 50, the calls themselves become costly.
    max_batch: ClassVar[int | None] = 50

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
        self._is_cluster = address.kind is ServerKind.CLUSTER
        self._server: Final = Reopened(lambda: Server(address, may_evict=True), on_open)
        self._now_ns = None if clock is None else make_now_ns(clock)
        self._names: dict[str, bytes] = {}

    async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        """Implement `CounterStore.hit`."""
        if not self._is_cluster:
            return await super().hit(groups)
        # One client after the other: the first denial ends the hit.
        result: list[list[Outcome]] = []
        for _, run in groupby(groups, key=lambda group: group[0].key):
            part = list(run)
            outcomes = await self._apply(Hit(part))
            result += outcomes
            if is_denied(part[len(outcomes) - 1], outcomes[-1]):
                break
        return result

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        """Implement `CounterStore.peek`."""
        if not self._is_cluster:
            return await super().peek(checks)
        futures = [self._put(Peek([check])) for check in checks]
        return [value_of(await future)[0][0] for future in futures]

    async def clear(self) -> None:
        """Delete all keys with the prefix of this store."""
        server = self._server.get()
        names = await server.scan(f"{_literal(self._prefix)}:*")
        for start in range(0, len(names), DELETED_AT_ONCE):
            portion = names[start : start + DELETED_AT_ONCE]
            await asyncio.gather(
                *(server.command("UNLINK", name, key=name.decode()) for name in portion)
            )

    async def _close(self) -> None:
        server = self._server.take()
        if server is not None:
            await server.close()

    def close_now(self) -> None:
        """Close the connections of event loops that have ended."""
        server = self._server.take()
        if server is not None:
            server.close_now()

    async def _exchange(self, operations: Sequence[Operation]) -> list[Result]:
        now_us = None if self._now_ns is None else self._now_ns() // 1000
        linger_ms = 0 if now_us is None else LINGER_MS
        calls, members = [], []
        for indexes in self._batches(operations):
            batch = Batch(self._name)
            for i in indexes:
                add(batch, operations[i])
            calls.append((batch.names(), batch.packed(now_us, linger_ms)))
            members.append(indexes)
        results: list[Result] = [[]] * len(operations)
        for indexes, returned in zip(
            members, await self._server.get().run_together(SCRIPT, calls), strict=True
        ):
            if isinstance(returned, StoreError):
                for i in indexes:
                    results[i] = returned
                continue
            for i, numbers in zip(indexes, unpack(returned), strict=True):
                results[i] = read(operations[i], numbers)
        return results

    def _batches(self, operations: Sequence[Operation]) -> Iterator[Sequence[int]]:
        """Yield the indexes of the operations of each call."""
        if not self._is_cluster:
            yield range(len(operations))
            return
        by_key: dict[bytes, list[int]] = {}
        for i, operation in enumerate(operations):
            by_key.setdefault(operation.key, []).append(i)
        yield from by_key.values()

    def _name(self, bucket: str, key: bytes) -> bytes:
        start = self._names.get(bucket)
        if start is None:
            # Braces in a name would look like those around the client.
            plain = quote(bucket, safe=":/,;@=+ ", errors="surrogatepass")
            start = f"{self._prefix}:{plain}:{{".encode()
            if len(self._names) >= 10_000:  # each client may have its own rate
                self._names.clear()
            self._names[bucket] = start
        return start + key.hex().encode() + b"}"


def _literal(text: str) -> str:
    """Return the pattern for SCAN that matches only this text."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)
