"""Compressed bodies that are kept, for responses that many clients request."""

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
from hasten.compression._head import Head, is_shared
from hasten.compression._negotiation import Coding
from hasten.compression._place import Place

CompressIdly = Callable[[Codec, bytes], Awaitable[bytes | None]]
"""Makes a body as small as it gets; None if there is no time for that."""

RECOMPRESSED_AFTER_HITS: Final = 3

HASHED_AT_ONCE_BYTES: Final = 256 * 1024
"""A larger body is hashed by a thread."""

OVERHEAD_BYTES: Final = 800
"""About what an entry takes beside its body and its address."""


class Key(NamedTuple):
    """One coding of one body.

    The digest names the bytes. A strong ETag does not: many are the version of a row, of which
    different users see different parts.
    """

    place: Place
    etag: bytes
    digest: bytes
    coding: Coding


def may_be_kept(place: Place, asked: Headers, head: Head) -> bool:
    """Is this an answer that everybody may have?"""
    found = head.found
    return (
        head.status == 200
        and place.method == "GET"
        and found.get(b"etag", b"").startswith(b'"')
        and b"set-cookie" not in found
        and head.varies_at_most_by({b"accept-encoding", b"origin"})
        and is_shared(found.get(b"cache-control", b""))
        and header_values(asked, b"authorization") is None
    )


def key_of(place: Place, head: Head, coding: Coding, body: bytes) -> Key:
    """Where a body is kept. Takes about 1 ns for each byte of it."""
    return Key(place, head.found[b"etag"], sha256(body).digest(), coding)


@dataclass(slots=True)
class _Entry:
    body: bytes
    hits: int = 0
    is_best: bool = False


class CompressionCache:
    """Keep compressed bodies in memory, at most max_size: ``CompressionMiddleware(cache=…)``.

    Only public responses are kept: those with status 200 to a GET without Authorization, with a
    strong ETag, a Cache-Control that lets shared caches store them (public or s-maxage), no
    Set-Cookie, and a Vary that names nothing but Accept-Encoding and Origin. Several requests for a
    body that is not there yet wait for one compression. The application still makes each response;
    the cache saves the time to compress it. A compressed body is sent only for the very bytes that
    it was made of: an ETag that does not change with the body does no harm. Bodies above 4 MB are
    not kept. Bodies do not expire: the least recently used ones are dropped when room is needed, so
    the cache has no clock, and a test needs no `ManualClock` for it.

    With recompress, a body that was found three times is compressed once again, at the highest
    level that is worth it, in an idle thread. The bytes that clients get then change, which only a
    weak validator allows: this works with etag="weaken" and "drop".

    On trio each request compresses for itself, and recompress raises `AsyncioRequired`. Raises
    `InvalidOption`.
    """

    def __init__(self, max_size: Size = "64mb", *, recompress: bool = False) -> None:
        self._max_bytes = to_bytes("max_size", max_size)
        self.recompress = check_flag("recompress", recompress)
        self._bytes = 0
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._under_way: dict[tuple[asyncio.AbstractEventLoop, Key], asyncio.Future[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many compressed bodies are kept."""
        return len(self._entries)

    def __repr__(self) -> str:
        used = f"{self._bytes:,} of {self._max_bytes:,} bytes"
        return f"<CompressionCache {len(self):,} bodies, {used}>"

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
        return self._bytes

    def _check_loop(self) -> None:
        """Raises `AsyncioRequired` if what was asked for needs it."""
        if self.recompress:
            require_asyncio(
                "CompressionCache(recompress=True)", "leave recompress out, or serve with asyncio"
            )

    def _find(
        self, key: Key, codec: Codec, body: bytes, compress_idly: CompressIdly
    ) -> bytes | None:
        """What was kept. What is asked for often is made smaller, in the background."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        entry.hits += 1
        # One at a time: answers that somebody waits for need the threads, too.
        if (
            self.recompress
            and entry.hits >= RECOMPRESSED_AFTER_HITS
            and not (entry.is_best or self._tasks)
        ):
            self._start(self._recompress(key, entry, codec, body, compress_idly))
        return entry.body

    async def _make(self, key: Key, compress: Callable[[], Awaitable[bytes]]) -> tuple[bytes, bool]:
        """Have it compressed, once for all that ask for it at the same time.

        Returns whether somebody else had asked for it, too.
        """
        if not is_asyncio():
            return await self._compress_and_keep(key, compress), False
        here = (asyncio.get_running_loop(), key)
        task = self._under_way.get(here)
        if task is None:
            # A task of its own: who began it may be cancelled while others wait for it.
            task = asyncio.ensure_future(self._compress_and_keep(key, compress))
            self._under_way[here] = task
            task.add_done_callback(lambda _: self._under_way.pop(here, None))
            task.add_done_callback(_look_at)
            return await asyncio.shield(task), False
        return await asyncio.shield(task), True

    async def _compress_and_keep(self, key: Key, compress: Callable[[], Awaitable[bytes]]) -> bytes:
        coded = await compress()
        self._keep(key, coded)
        return coded

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_look_at)

    async def _recompress(
        self, key: Key, entry: _Entry, codec: Codec, body: bytes, compress_idly: CompressIdly
    ) -> None:
        smaller = await compress_idly(codec, body)
        if smaller is None or self._entries.get(key) is not entry:
            return
        entry.is_best = True
        if len(smaller) < len(entry.body):
            self._bytes -= len(entry.body) - len(smaller)
            entry.body = smaller

    def _keep(self, key: Key, body: bytes) -> None:
        entry = _Entry(body)
        if _size(key, entry) > self._max_bytes:
            return
        replaced = self._entries.pop(key, None)
        if replaced is not None:
            self._bytes -= _size(key, replaced)
        self._entries[key] = entry
        self._bytes += _size(key, entry)
        while self._bytes > self._max_bytes:
            self._bytes -= _size(*self._entries.popitem(last=False))


def _size(key: Key, entry: _Entry) -> int:
    return len(entry.body) + key.place.bytes + len(key.etag) + OVERHEAD_BYTES


def _look_at(task: asyncio.Future[Any]) -> None:
    """Nobody may be left to be told of an error: those who waited were."""
    if not task.cancelled():
        task.exception()
