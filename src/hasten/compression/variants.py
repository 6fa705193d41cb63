"""Coded bodies that are kept, for answers that many ask for."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from hasten._asgi import Scope
from hasten.compression.codecs import Codec
from hasten.compression.head import Head
from hasten.compression.negotiation import Coding
from hasten.compression.options import Size, to_bytes

Compress = Callable[[Codec, int, bytes], Awaitable[bytes]]

UPGRADE_AFTER_HITS: Final = 3

OVERHEAD_BYTES: Final = 500
"""About what an entry takes beside its body."""


class Key(NamedTuple):
    """One variant of one representation. A strong validator names its exact bytes."""

    scheme: str
    host: bytes
    path: str
    query: bytes
    etag: bytes
    size: int
    coding: Coding


@dataclass(slots=True)
class _Entry:
    body: bytes
    hits: int = 0


class Variants:
    """Coded bodies kept in memory, for CompressionMiddleware(cache=…): at most max_size bytes.

    Only what is everybody's is kept: answers with status 200 to a GET without Authorization, with a
    strong ETag, a Cache-Control that lets shared caches store it (public or s-maxage) and no
    Set-Cookie. Several requests for what is not there yet wait for one compression. The application
    still makes each answer; what is saved is compressing it.

    With upgrade, what was asked for three times more is compressed once again, as small as it gets,
    in a thread. The validator that clients see is weak, so the bytes may change.
    """

    def __init__(self, max_size: Size = "64mb", *, upgrade: bool = False) -> None:
        self.max_bytes = to_bytes("max_size", max_size)
        self.upgrade = upgrade
        self.bytes = 0
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._under_way: dict[Key, asyncio.Task[bytes]] = {}
        self._upgrades: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def key(self, scope: Scope, head: Head, coding: Coding, body: bytes) -> Key | None:
        """Where this answer is kept, None if it must not be."""
        found = head.found
        etag = found.get(b"etag", b"")
        if (
            head.status != 200
            or scope["method"] != "GET"
            or not etag.startswith(b'"')
            or b"set-cookie" in found
            or not _is_shared(found.get(b"cache-control", b""))
        ):
            return None
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if b"authorization" in headers:
            return None
        return Key(
            scope.get("scheme", "http"),
            headers.get(b"host", b""),
            scope["path"],
            scope.get("query_string", b""),
            etag,
            len(body),
            coding,
        )

    async def coded(
        self, key: Key, codec: Codec, level: int, body: bytes, compress: Compress
    ) -> tuple[bytes, bool]:
        """The coded body, and whether it was there already."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
            entry.hits += 1
            if self.upgrade and entry.hits == UPGRADE_AFTER_HITS:
                self._start_upgrade(key, codec, body, compress)
            return entry.body, True
        task = self._under_way.get(key)
        if task is None:
            # A task of its own: who began it may be cancelled while others wait for it.
            task = asyncio.create_task(self._make(key, codec, level, body, compress))
            self._under_way[key] = task
            return await asyncio.shield(task), False
        return await asyncio.shield(task), True

    async def _make(
        self, key: Key, codec: Codec, level: int, body: bytes, compress: Compress
    ) -> bytes:
        try:
            coded = await compress(codec, level, body)
            self._keep(key, coded)
            return coded
        finally:
            del self._under_way[key]

    def _start_upgrade(self, key: Key, codec: Codec, body: bytes, compress: Compress) -> None:
        async def upgrade() -> None:
            smaller = await compress(codec, codec.effort.smallest, body)
            entry = self._entries.get(key)
            if entry is not None and len(smaller) < len(entry.body):
                self.bytes -= len(entry.body) - len(smaller)
                entry.body = smaller

        task = asyncio.create_task(upgrade())
        self._upgrades.add(task)
        task.add_done_callback(self._upgrades.discard)

    def _keep(self, key: Key, body: bytes) -> None:
        size = len(body) + OVERHEAD_BYTES
        if size > self.max_bytes:
            return
        self._entries[key] = _Entry(body)
        self.bytes += size
        while self.bytes > self.max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= len(oldest.body) + OVERHEAD_BYTES


def _is_shared(cache_control: bytes) -> bool:
    directives = {part.partition(b"=")[0].strip().lower() for part in cache_control.split(b",")}
    return bool(directives & {b"public", b"s-maxage"}) and not directives & {
        b"private",
        b"no-store",
    }
