"""A cache of compressed bodies, for responses that many clients request."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, NamedTuple

from hasten._asgi import Headers, header_values
from hasten._checks import check_flag
from hasten._loops import is_asyncio, require_asyncio
from hasten._sizes import Size, to_bytes
from hasten.compression._codecs import Codec
from hasten.compression._head import Head, allows_shared_caching
from hasten.compression._negotiation import Coding
from hasten.compression._request_target import RequestTarget

CompressWhenIdle = Callable[[Codec, bytes], Awaitable[bytes | None]]
"""Compresses a body as far as possible, or returns None if all threads are busy."""

RECOMPRESSED_AFTER_HITS: Final = 3

HASHED_AT_ONCE_BYTES: Final = 256 * 1024
"""A larger body is hashed by a thread."""

OVERHEAD_BYTES: Final = 800
"""The approximate memory of an entry, without its body and its target."""


class Key(NamedTuple):
    """The key of one compressed body.

    The digest identifies the bytes. A strong ETag does not: it is often the version of a row, and
    different users see different parts of the row.
    """

    target: RequestTarget
    etag: bytes
    digest: bytes
    coding: Coding


def is_cacheable(target: RequestTarget, request_headers: Headers, head: Head) -> bool:
    """Return whether a response is public: every client may get it."""
    found = head.found
    return (
        head.status == 200
        and target.method == "GET"
        and found.get(b"etag", b"").startswith(b'"')
        and b"set-cookie" not in found
        and head.varies_at_most_by({b"accept-encoding", b"origin"})
        and allows_shared_caching(found.get(b"cache-control", b""))
        and header_values(request_headers, b"authorization") is None
    )


def make_key(target: RequestTarget, head: Head, coding: Coding, body: bytes) -> Key:
    """Return the key of a body. Takes about 1 ns for each byte."""
    return Key(target, head.found[b"etag"], sha256(body).digest(), coding)


@dataclass(slots=True)
class _Entry:
    body: bytes
    hits: int = 0
    is_recompressed: bool = False


class CompressionCache:
    """Keep compressed bodies in memory, at most max_size: ``CompressionMiddleware(cache=…)``.

    Only public responses are kept: those with status 200 to a GET without Authorization, with a
    strong ETag, a Cache-Control that lets shared caches store them (public or s-maxage), no
    Set-Cookie, and a Vary that names nothing but Accept-Encoding and Origin. Several requests for a
    body that is not cached yet wait for one compression. The application still makes each response;
    the cache saves the time to compress it. A cached body is sent only if the uncompressed bytes
    are identical, even if the ETag did not change with them. Bodies above 4 MB are not kept.
    Bodies do not expire: the least recently used ones are dropped when room is needed. So the cache
    has no clock, and tests need no `ManualClock` for it.

    With recompress, a body that was requested three times from the cache is compressed once more,
    at a higher level, in an idle thread. The bytes of the response change then, which only a weak
    entity tag allows: recompress requires etag="weaken" or "drop".

    On trio, requests do not wait for each other's compression, and recompress raises
    `AsyncioRequired`. Raises `InvalidOption`.
    """

    def __init__(self, max_size: Size = "64mb", *, recompress: bool = False) -> None:
        self._max_bytes = to_bytes("max_size", max_size)
        self.recompress = check_flag("recompress", recompress)
        self._bytes = 0
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._pending: dict[tuple[asyncio.AbstractEventLoop, Key], asyncio.Future[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return how many compressed bodies are kept."""
        return len(self._entries)

    def __repr__(self) -> str:
        used = f"{self._bytes:,} of {self._max_bytes:,} bytes"
        return f"<CompressionCache {len(self):,} bodies, {used}>"

    @property
    def size(self) -> int:
        """The approximate memory of the cache, in bytes."""
        return self._bytes

    def _check_event_loop(self) -> None:
        """Raise `AsyncioRequired` if recompress cannot work on this event loop."""
        if self.recompress:
            require_asyncio(
                "CompressionCache(recompress=True)", "leave recompress out, or serve with asyncio"
            )

    def _find(
        self, key: Key, codec: Codec, body: bytes, compress_when_idle: CompressWhenIdle
    ) -> bytes | None:
        """Return a cached body, or None. Bodies in demand are recompressed in the background."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        entry.hits += 1
        # One at a time, because waiting responses need the threads, too.
        if (
            self.recompress
            and entry.hits >= RECOMPRESSED_AFTER_HITS
            and not (entry.is_recompressed or self._tasks)
        ):
            self._start_task(self._recompress(key, entry, codec, body, compress_when_idle))
        return entry.body

    async def _compress_once(
        self, key: Key, compress: Callable[[], Awaitable[bytes]]
    ) -> tuple[bytes, bool]:
        """Compress a body, once for all requests that need it at the same time.

        Also returns whether another request had started the compression.
        """
        if not is_asyncio():
            return await self._compress_and_store(key, compress), False
        here = (asyncio.get_running_loop(), key)
        task = self._pending.get(here)
        if task is None:
            # A separate task: the request that started it may be cancelled while others wait.
            task = asyncio.ensure_future(self._compress_and_store(key, compress))
            self._pending[here] = task
            task.add_done_callback(lambda _: self._pending.pop(here, None))
            task.add_done_callback(_retrieve_error)
            return await asyncio.shield(task), False
        return await asyncio.shield(task), True

    async def _compress_and_store(
        self, key: Key, compress: Callable[[], Awaitable[bytes]]
    ) -> bytes:
        coded = await compress()
        self._store(key, coded)
        return coded

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_retrieve_error)

    async def _recompress(
        self,
        key: Key,
        entry: _Entry,
        codec: Codec,
        body: bytes,
        compress_when_idle: CompressWhenIdle,
    ) -> None:
        smaller = await compress_when_idle(codec, body)
        if smaller is None or self._entries.get(key) is not entry:
            return
        entry.is_recompressed = True
        if len(smaller) < len(entry.body):
            self._bytes -= len(entry.body) - len(smaller)
            entry.body = smaller

    def _store(self, key: Key, body: bytes) -> None:
        entry = _Entry(body)
        if _entry_size(key, entry) > self._max_bytes:
            return
        replaced = self._entries.pop(key, None)
        if replaced is not None:
            self._bytes -= _entry_size(key, replaced)
        self._entries[key] = entry
        self._bytes += _entry_size(key, entry)
        while self._bytes > self._max_bytes:
            self._bytes -= _entry_size(*self._entries.popitem(last=False))


def _entry_size(key: Key, entry: _Entry) -> int:
    return len(entry.body) + key.target.memory_bytes + len(key.etag) + OVERHEAD_BYTES


def _retrieve_error(task: asyncio.Future[Any]) -> None:
    """Mark the error of a task as retrieved: the waiting requests have already raised it."""
    if not task.cancelled():
        task.exception()
