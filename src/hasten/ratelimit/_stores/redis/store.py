"""The rate limit store on a Redis server, shared by all processes that use the server.

The operations of one tick of the event loop are sent in batches. A batch is one call of a script
(`limit.lua`), which reads all its keys at once and writes each of them once. On a cluster there is
one call for each client, and one write to the socket of each node. Operations are applied in the
order in which they were requested: each event loop has one connection to a server, and sends the
next call without waiting for the response to the previous one.

A Redis key is `prefix:bucket:{client}`. The part in braces determines its slot in a cluster. The
value is the state of the key (see `_algorithms.py`), packed. It expires when the state has no
effect any more. Times are those of the server.
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
from hasten._store_url import RedisAddress, ServerKind
from hasten.errors import StoreError
from hasten.ratelimit._counter_store import Check, CheckGroup, Outcome, is_group_denied
from hasten.ratelimit._stores.lazy_connection import LazyConnection
from hasten.ratelimit._stores.operations import Hit, Operation, Peek
from hasten.ratelimit._stores.redis.batch import (
    ScriptBatch,
    add_operation,
    parse_outcomes,
    unpack_results,
)
from hasten.ratelimit._stores.remote import RemoteStore, Result, get_outcomes_or_raise

DEFAULT_PREFIX: Final = "hasten:limit"

SCRIPT: Final = Script.of(
    "limit", (resources.files(__package__) / "limit.lua").read_text(encoding="utf-8")
)

# The minimum time to live of a key while a test sets the clock: the server expires keys by its own
# clock, which the test does not control.
MIN_TTL_MS: Final = 600_000

DELETED_AT_ONCE: Final = 100


class RedisStore(RemoteStore):
    """A rate limit store on the Redis server at an address. All its keys begin with prefix.

    Times are those of clock, or those of the server if it is None.
    """

    # If a whole tick is one call, client and server work in turns. With several calls they work in
    # parallel, which doubled the checks per second. With batches below 50 operations, the cost of
    # the calls themselves outweighs that.
    max_batch: ClassVar[int | None] = 50

    def __init__(
        self,
        address: RedisAddress,
        *,
        prefix: str = DEFAULT_PREFIX,
        store_timeout: Duration | None = None,
        clock: Clock | None = None,
        on_open: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(address.shown, store_timeout=store_timeout, clock=clock)
        self._prefix = prefix
        self._is_cluster = address.kind is ServerKind.CLUSTER
        self._server: Final = LazyConnection(lambda: Server(address, may_evict=True), on_open)
        self._now_ns = None if clock is None else make_now_ns(clock)
        self._names: dict[str, bytes] = {}

    async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        """Take the costs of groups, up to the first that is denied: see `CounterStore.hit`."""
        if not self._is_cluster:
            return await super().hit(groups)
        # Clients may be on different nodes, so they are sent one after the other: the first denial
        # ends the hit.
        result: list[list[Outcome]] = []
        for _, run in groupby(groups, key=lambda group: group[0].key):
            part = list(run)
            outcomes = await self._apply_one(Hit(part))
            result += outcomes
            if is_group_denied(part[len(outcomes) - 1], outcomes[-1]):
                break
        return result

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        """Return the outcome that each check would have now, without counting anything."""
        if not self._is_cluster:
            return await super().peek(checks)
        futures = [self._enqueue(Peek([check])) for check in checks]
        return [get_outcomes_or_raise(await future)[0][0] for future in futures]

    async def _clear(self) -> None:
        """Delete all keys with the prefix of this store."""
        server = self._server.get()
        names = await server.scan(f"{_escape_pattern(self._prefix)}:*")
        for start in range(0, len(names), DELETED_AT_ONCE):
            chunk = names[start : start + DELETED_AT_ONCE]
            await asyncio.gather(
                *(server.run_command("UNLINK", name, key=name.decode()) for name in chunk)
            )

    async def _close(self) -> None:
        server = self._server.detach()
        if server is not None:
            await server.close()

    def close_without_event_loop(self) -> None:
        """Close the connections of event loops that have ended."""
        server = self._server.detach()
        if server is not None:
            server.close_without_event_loop()

    async def _apply_batch(self, operations: Sequence[Operation]) -> list[Result]:
        now_us = None if self._now_ns is None else self._now_ns() // 1000
        min_ttl_ms = 0 if now_us is None else MIN_TTL_MS
        calls, members = [], []
        for indexes in self._iter_operation_indexes_by_call(operations):
            batch = ScriptBatch(self._make_redis_key)
            for i in indexes:
                add_operation(batch, operations[i])
            calls.append((batch.get_key_names(), batch.pack(now_us, min_ttl_ms)))
            members.append(indexes)
        results: list[Result] = [[]] * len(operations)
        for indexes, returned in zip(
            members, await self._server.get().run_script_pipelined(SCRIPT, calls), strict=True
        ):
            if isinstance(returned, StoreError):
                for i in indexes:
                    results[i] = returned
                continue
            for i, numbers in zip(indexes, unpack_results(returned), strict=True):
                results[i] = parse_outcomes(operations[i], numbers)
        return results

    def _iter_operation_indexes_by_call(
        self, operations: Sequence[Operation]
    ) -> Iterator[Sequence[int]]:
        """Yield the indexes of the operations for each call of the script.

        There is one call for all operations, or on a cluster one for each client.
        """
        if not self._is_cluster:
            yield range(len(operations))
            return
        by_key: dict[bytes, list[int]] = {}
        for i, operation in enumerate(operations):
            by_key.setdefault(operation.key, []).append(i)
        yield from by_key.values()

    def _make_redis_key(self, bucket: str, key: bytes) -> bytes:
        start = self._names.get(bucket)
        if start is None:
            # Quoted, because a cluster would take braces in the bucket for those of the client.
            quoted = quote(bucket, safe=":/,;@=+ ", errors="surrogatepass")
            start = f"{self._prefix}:{quoted}:{{".encode()
            if len(self._names) >= 10_000:  # each client may have its own rate
                self._names.clear()
            self._names[bucket] = start
        return start + key.hex().encode() + b"}"


def _escape_pattern(text: str) -> str:
    """Return the pattern for the SCAN command that matches only this text."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)
