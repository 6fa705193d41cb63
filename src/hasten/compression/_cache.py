"""A cache of compressed bodies, which saves compressing the same public response many times."""

from __future__ import annotations

import asyncio
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeAlias

from hasten._asgi import Headers, join_header_values
from hasten._checks import check_flag
from hasten._loops import is_asyncio_running, require_asyncio
from hasten._sizes import Size, to_byte_count
from hasten.compression._codecs import Codec
from hasten.compression._head import ResponseHead, allows_shared_caching
from hasten.compression._negotiation import Coding
from hasten.compression._request_target import RequestTarget

CompressIfIdle = Callable[[Codec, bytes], Awaitable[bytes | None]]
"""Compresses a body at the highest useful level, or returns None if all threads are busy."""

RECOMPRESSED_AFTER_HITS: Final = 3
"""How often a cached body is sent before recompress makes it smaller."""

HASHED_AT_ONCE_BYTES: Final = 256 * 1024
"""A larger body is hashed in a thread, not on the event loop."""

OVERHEAD_BYTES: Final = 800
"""The approximate memory of a cache entry, without its body, ETag and request target."""


WasShared: TypeAlias = bool


class CacheKey(NamedTuple):
    """The cache key of one compressed body.

    It contains a digest of the uncompressed body, because the ETag is not enough: it is often the
    version of a database row, and users with different rights get different columns of the row.
    """

    target: RequestTarget
    etag: bytes
    digest: bytes
    coding: Coding


def is_cacheable(target: RequestTarget, request_headers: Headers, head: ResponseHead) -> bool:
    """Return whether a response is public, so that its compressed body may be sent to others.

    The docstring of `CompressionCache` lists the conditions.
    """
    found = head.found
    return (
        head.status == 200
        and target.method == "GET"
        and found.get(b"etag", b"").startswith(b'"')
        and b"set-cookie" not in found
        and head.varies_at_most_by({b"accept-encoding", b"origin"})
        and allows_shared_caching(found.get(b"cache-control", b""))
        and join_header_values(request_headers, b"authorization") is None
    )


def make_cache_key(
    target: RequestTarget, head: ResponseHead, coding: Coding, body: bytes
) -> CacheKey:
    """Return the cache key of a body. Hashing takes about 1 ns for each byte."""
    return CacheKey(target, head.found[b"etag"], sha256(body).digest(), coding)


@dataclass(slots=True)
class _CachedBody:
    """A cached body, how often it was sent, and whether it has its smallest size already."""

    body: bytes
    hits: int = 0
    is_recompressed: bool = False


class CompressionCache:
    """A cache of compressed bodies in memory, for ``CompressionMiddleware(cache=…)``.

    The application still creates each response: the cache only saves the time to compress its body.
    A cached body is sent only if the uncompressed bytes are identical, even if the application
    sends the same ETag for different bytes. If several requests need a body that is not cached yet,
    it is compressed once.

    Only public responses are cached. These have status 200, answer a GET without Authorization, and
    have a strong ETag, a Cache-Control with public or s-maxage, no Set-Cookie, and a Vary that
    names nothing but Accept-Encoding and Origin. Bodies above 4 MB are not cached. Bodies do not
    expire: when max_size is reached, the least recently used ones are dropped. So the cache has no
    clock, and tests need no `ManualClock` for it.

    With recompress, a body that was sent from the cache three times is compressed again in an idle
    thread, at a higher level. The same response then has different bytes, which HTTP forbids for
    a strong ETag. So recompress requires etag="weaken" or "drop".

    On trio, each request compresses a missing body itself, and recompress raises `AsyncioRequired`.
    Raises `InvalidOption`.
    """

    def __init__(self, max_size: Size = "64mb", *, recompress: bool = False) -> None:
        self._max_bytes = to_byte_count("max_size", max_size)
        self.recompress = check_flag("recompress", recompress)
        self._bytes = 0
        self._entries: OrderedDict[CacheKey, _CachedBody] = OrderedDict()
        self._pending: dict[tuple[asyncio.AbstractEventLoop, CacheKey], asyncio.Future[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        _caches.add(self)

    def __len__(self) -> int:
        """Return the number of cached bodies."""
        return len(self._entries)

    def __repr__(self) -> str:
        used = f"{self._bytes:,} of {self._max_bytes:,} bytes"
        return f"<CompressionCache {len(self):,} bodies, {used}>"

    @property
    def size(self) -> int:
        """The approximate memory that the cache uses, in bytes."""
        return self._bytes

    def _clear(self) -> None:
        """Delete all bodies."""
        self._entries.clear()
        self._pending.clear()
        self._bytes = 0

    def _require_asyncio_for_recompress(self) -> None:
        """Raise `AsyncioRequired` if recompress is set and the event loop is not asyncio's."""
        if self.recompress:
            require_asyncio(
                "CompressionCache(recompress=True)",
                "remove recompress, or run the server on asyncio",
            )

    def _find_body_and_recompress_if_due(
        self, key: CacheKey, codec: Codec, body: bytes, compress_if_idle: CompressIfIdle
    ) -> bytes | None:
        """Return a compressed body from the cache, or None.

        With recompress, this also starts to compress a frequently sent body again.
        """
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        entry.hits += 1
        # Only one body at a time is recompressed: responses need the threads, too.
        if (
            self.recompress
            and entry.hits >= RECOMPRESSED_AFTER_HITS
            and not (entry.is_recompressed or self._tasks)
        ):
            self._start_task(self._recompress(key, entry, codec, body, compress_if_idle))
        return entry.body

    async def _compress_once(
        self, key: CacheKey, compress: Callable[[], Awaitable[bytes]]
    ) -> tuple[bytes, WasShared]:
        """Return the compressed body, and whether another request has compressed it.

        Requests that need the same body at the same time wait for a single call of compress.
        """
        if not is_asyncio_running():
            return await self._compress_and_store(key, compress), False
        here = (asyncio.get_running_loop(), key)
        task = self._pending.get(here)
        if task is None:
            # A task of its own: if the first request is cancelled, others still wait for it.
            task = asyncio.ensure_future(self._compress_and_store(key, compress))
            self._pending[here] = task
            task.add_done_callback(lambda _: self._pending.pop(here, None))
            task.add_done_callback(_mark_error_as_retrieved)
            return await asyncio.shield(task), False
        return await asyncio.shield(task), True

    async def _compress_and_store(
        self, key: CacheKey, compress: Callable[[], Awaitable[bytes]]
    ) -> bytes:
        coded = await compress()
        self._store(key, coded)
        return coded

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_mark_error_as_retrieved)

    async def _recompress(
        self,
        key: CacheKey,
        entry: _CachedBody,
        codec: Codec,
        body: bytes,
        compress_if_idle: CompressIfIdle,
    ) -> None:
        smaller = await compress_if_idle(codec, body)
        if smaller is None or self._entries.get(key) is not entry:
            return
        entry.is_recompressed = True
        if len(smaller) < len(entry.body):
            self._bytes -= len(entry.body) - len(smaller)
            entry.body = smaller

    def _store(self, key: CacheKey, body: bytes) -> None:
        entry = _CachedBody(body)
        if _get_memory_bytes(key, entry) > self._max_bytes:
            return
        replaced = self._entries.pop(key, None)
        if replaced is not None:
            self._bytes -= _get_memory_bytes(key, replaced)
        self._entries[key] = entry
        self._bytes += _get_memory_bytes(key, entry)
        while self._bytes > self._max_bytes:
            self._bytes -= _get_memory_bytes(*self._entries.popitem(last=False))


_caches: Final[weakref.WeakSet[CompressionCache]] = weakref.WeakSet()


def clear_all_caches() -> None:
    """Delete the bodies in all caches of this process. For `hasten.testing`."""
    for cache in list(_caches):
        cache._clear()


def _get_memory_bytes(key: CacheKey, entry: _CachedBody) -> int:
    return len(entry.body) + key.target.memory_bytes + len(key.etag) + OVERHEAD_BYTES


def _mark_error_as_retrieved(task: asyncio.Future[Any]) -> None:
    """Retrieve the exception of a task, so that asyncio does not log it as never retrieved.

    The requests that wait for the task raise it.
    """
    if not task.cancelled():
        task.exception()
