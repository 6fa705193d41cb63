"""One response on its way out.

    NEW ─start─▸ PASSING                           nothing to code, or not for this client
         └─────▸ HELD ─body─▸ ENDED                all of it came at once: coded, if that is smaller
                  ├─more─▸ PEEKING ─▸ ENDED        too small yet to tell: there may be no more
                  │          ├───────▸ PASSING     too many streams, or a message that cannot wait
                  │          └───────┐
                  └──────────────▸ STREAMING ─▸ ENDED

The head is held back until the first of the body has come, for only that tells whether coding pays;
that of a live stream (events, lines) leaves with the first event or in the first pause. An empty
piece is no beginning of a body. A stream is flushed when its producer pauses. That is done by a
task of its own, so a lock keeps what it sends and what the application sends apart. Whatever ends a
response early (an exception, a cancellation, a client that has gone) leaves the coded stream
without its end, so that nobody takes a part for the whole.
"""

from __future__ import annotations

import asyncio
import os
from enum import Enum
from time import perf_counter
from typing import Final, NamedTuple

from hasten._asgi import Headers, Message, Scope, Send, header_values
from hasten._loops import is_asyncio, make_lock
from hasten.compression._cache import HASHED_AT_ONCE_BYTES, Key, key_of, may_be_kept
from hasten.compression._codecs import Codec
from hasten.compression._dictionaries import DCZ, DCZ_LEVEL
from hasten.compression._events import Compressed
from hasten.compression._head import Head, SkipReason
from hasten.compression._marks import is_marked
from hasten.compression._negotiation import Coding
from hasten.compression._pause import Pause
from hasten.compression._place import Place
from hasten.compression._settings import ACCEPT_ENCODING, SLICED_ABOVE_BYTES, Kind, Settings
from hasten.compression._stream import SLICE_BYTES, CodedStream, End
from hasten.errors import ResponseBroken

# Messages that say nothing of this response's head and body: they need not wait for them.
_BESIDE: Final = frozenset(
    {"http.response.push", "http.response.early_hint", "http.response.debug"}
)
_BY_THE_SERVER: Final = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


_CUT_SHORT: Final = "an earlier send was cancelled or failed"


class State(Enum):
    """Where a response is on its way; see above."""

    NEW = 0
    PASSING = 1
    HELD = 2
    PEEKING = 3
    STREAMING = 4
    ENDED = 5
    BROKEN = 6  # it was not sent to its end, and never will be


# Looking a member up by its class takes longer than most of what a message costs.
NEW, PASSING, HELD, PEEKING, STREAMING, ENDED, BROKEN = State
NOTHING, SHRINKS, SHRINKS_LIVE = Kind


class Response:
    """The `send` that the application is given."""

    __slots__ = (
        "_asked", "_awaits_pauses", "_coding", "_declared", "_flushes", "_head", "_held",
        "_is_broken", "_is_live", "_lock", "_message", "_must", "_pause", "_place", "_scope",
        "_send", "_settings", "_size", "_state", "_stream", "_vary", "is_open",
    )  # fmt: skip

    # Set when they are needed, which for most responses is never. From HELD on:
    _coding: Coding
    _declared: int | None
    _is_live: bool
    # From PEEKING and STREAMING on:
    _held: list[bytes]
    _size: int
    _lock: asyncio.Lock  # or one of trio's
    _awaits_pauses: bool
    _flushes: bool
    _pause: Pause
    _stream: CodedStream | None
    _is_broken: bool

    is_open: bool
    """Was something begun that `close` or `abandon` has to end?"""

    def __init__(
        self, settings: Settings, scope: Scope, asked: Headers, place: Place | None, send: Send
    ) -> None:
        self._settings = settings
        self._scope = scope  # what the application sees, and writes to
        self._asked = asked  # the headers of the request as they came
        self._place = place  # what was asked for, before routers changed the scope
        self._send = send
        self._state = NEW
        self.is_open = False

    async def send(self, message: Message) -> None:
        if self._state is PASSING:
            await self._send(message)
            return
        match message["type"]:
            case "http.response.body":
                if self._state is HELD and (
                    not message.get("more_body") or self._has_declared_length(message)
                ):
                    self.is_open = False
                    await self._send_whole(message.get("body", b""))
                else:
                    await self._on_body(message)
            case "http.response.start" if self._state is NEW:
                start = self._on_start(message)
                if start is not None:
                    await self._send(start)
                elif self._is_live:
                    await self._on_live_start()
            case _:
                await self._on_other(message)

    async def close(self) -> None:
        """The application has returned. What it has not finished stays unfinished."""
        if self._state is HELD:
            self.is_open = False
            await self._send(self._uncoded("unfinished"))
        elif self._state is PEEKING and not self._is_broken:
            async with self._lock:
                await self._let_go("unfinished")
        await self.abandon()

    async def abandon(self) -> None:
        """Leave nothing behind: no timer, no task, no encoder."""
        if self.is_open and self._state is not HELD:
            if self._stream is not None:
                self._stream.close()
            await self._pause.close()

    # The head -------------------------------------------------------------------------------------

    def _on_start(self, message: Message) -> Message | None:
        """The head as it is to be sent at once, None if it has to wait for the body."""
        settings = self._settings
        head = Head(message["status"], message.get("headers", ()))
        kind = self._classify(head)
        self._state = PASSING  # unless it turns out to be worth coding
        if isinstance(kind, str):
            headers = head.headers  # not the message's: they may be an iterator, used up by now
            if kind == "opted_out" and head.asks_for_identity:
                headers = head.without_encoding()
            if settings.is_observed:
                settings.emit_skipped(kind)
            return {**message, "headers": headers}
        vary = ACCEPT_ENCODING if settings.is_plain else settings.vary(self._place)
        length = head.content_length
        is_small = length is not None and length < settings.minimum_size
        if is_small and head.status != 304 and not settings.strict:  # as it often is
            if settings.is_observed:
                settings.emit_skipped("too_small")
            return {**message, "headers": head.varying(vary)}
        self._message = message
        self._head = head
        self._vary = vary
        self._declared = length
        if head.status == 304:
            held = header_values(self._asked, b"if-none-match")
            self._head = Head(304, head.revalidated(held, settings.etag))
            return self._uncoded("not_modified")
        is_live = length is None and kind is SHRINKS_LIVE
        wishes = settings.wishes(self._asked, is_live=is_live)
        if isinstance(wishes, str):
            return self._uncoded(wishes)
        self._must = wishes.refuses_identity and settings.strict
        if is_small and not self._must:
            return self._uncoded("too_small")
        if self._scope["method"] == "HEAD":
            settings.emit_skipped("head_request")
            headers = head.about_coded(wishes.codings[0], settings.etag, self._vary)
            return {**message, "headers": headers}
        self._state = HELD
        self._coding = wishes.codings[0]
        self._is_live = is_live
        self.is_open = True
        return None

    def _classify(self, head: Head) -> Kind | SkipReason:
        """What coding would do for this response, or why it is none of our business."""
        settings = self._settings
        scope = self._scope
        if reason := head.untouchable(scope["method"]):
            return reason
        wanted = settings.filter and settings.filter(scope, head.status, [*head.headers])
        if wanted is False or is_marked(scope):
            return "opted_out"
        content_type = head.found.get(b"content-type")
        if content_type is None:
            # A 304 need not repeat the type of what it confirms.
            return SHRINKS if wanted or head.status == 304 else "media_type"
        kind = settings.kind_of(content_type)
        if kind is NOTHING:
            return SHRINKS if wanted else "media_type"
        return kind

    def _uncoded(self, reason: SkipReason) -> Message:
        """The head as it is; but to another client, or with a larger body, it would be coded."""
        if self._settings.is_observed:
            self._settings.emit_skipped(reason)
        return {**self._message, "headers": self._head.varying(self._vary)}

    def _coded_start(self, coding: str, length: int | None, seconds: float | None) -> Message:
        if self._message.get("trailers"):
            length = None  # in HTTP/1.1 only chunks can be followed by them
        headers = self._head.coded(coding, self._settings.etag, length, self._vary)
        if not self._settings.is_plain:
            headers += self._extra_headers(coding, seconds)
        return {**self._message, "headers": headers}

    def _extra_headers(self, coding: str, seconds: float | None) -> Headers:
        headers = []
        if self._settings.dictionaries is not None:
            headers += self._settings.dictionaries._announcement(self._place, self._owner())
        if self._settings.server_timing:
            duration = f";dur={seconds * 1000:.3f}" if seconds is not None else ""
            headers.append((b"server-timing", f'cmp;desc="{coding}"{duration}'.encode()))
        return headers

    # The body -------------------------------------------------------------------------------------

    async def _on_body(self, message: Message) -> None:
        body = message.get("body", b"")
        if self._state is HELD:
            self._open()
        if self._state is PEEKING or self._state is STREAMING:
            async with self._lock:
                self._begin_step()
                await self._on_chunk(body, more=message.get("more_body", False))
                self._is_broken = False
        elif self._state is BROKEN:
            raise ResponseBroken(_CUT_SHORT)
        elif body or self._state is NEW:
            await self._send(message)  # out of turn: the server knows what to say

    def _has_declared_length(self, message: Message) -> bool:
        """Is there no more to come? Some frameworks send an empty message behind a whole body."""
        return len(message.get("body", b"")) == self._declared

    async def _on_live_start(self) -> None:
        self._open()
        if self._awaits_pauses:
            self._pause.restart()  # it may end without an event
            return
        async with self._lock:
            self._begin_step()
            await self._begin_stream()
            if self._stream is None:
                self._state = PASSING
            self._is_broken = False

    def _open(self) -> None:
        """Begin to take the body in pieces."""
        settings = self._settings
        self._lock = make_lock()
        has_timer = is_asyncio()
        self._pause = Pause(settings.idle_seconds if has_timer else None, self._on_pause)
        self._awaits_pauses = settings.pauses_are_short and has_timer
        # Where nothing can notice a pause, each message may be the last one before it.
        self._flushes = settings.flushes_messages or (
            settings.idle_seconds is not None and not has_timer
        )
        self._held = []
        self._size = 0
        self._stream = None
        self._is_broken = False
        self._state = PEEKING

    def _begin_step(self) -> None:
        """Under the lock: what does not come to its end leaves the response broken.

        A piece that was coded and not sent, or sent in part, is missing. A stream that went on
        would hide that.
        """
        if self._is_broken:
            raise ResponseBroken(_CUT_SHORT) from self._pause.failure
        self._is_broken = True

    async def _on_chunk(self, body: bytes, *, more: bool, in_pause: bool = False) -> None:
        self._size += len(body)
        newest = body
        if self._state is PEEKING:
            self._held.append(bytes(body))  # the application may use its buffer again
            if not more:
                self._pause.stop()
                await self._send_whole(self._take_held())
                return
            if not in_pause and not self._is_decided(body):
                self._pause.restart()
                return
            await self._begin_stream()
            body = self._take_held()
        if self._stream is None:  # it was let go, uncoded
            await self._send({"type": "http.response.body", "body": body, "more_body": more})
            self._state = PASSING
            return
        if not more:
            self._end_stream()
        await self._stream.write(body, more=more)
        if more and not newest:
            await self._stream.flush()
        if self._stream.has_unflushed:
            self._pause.restart()

    def _end_stream(self) -> None:
        """Raises `ResponseBroken` if the body is not as long as it was said to be."""
        if self._declared is not None and self._size != self._declared:
            raise ResponseBroken(
                f"Content-Length was {self._declared:,}, and the body has {self._size:,} bytes"
            )
        self._state = ENDED
        self._pause.stop()

    def _take_held(self) -> bytes:
        held = b"".join(self._held)
        self._held = []
        return held

    def _is_decided(self, newest: bytes) -> bool:
        """Will it be coded, whatever comes next? Too small a beginning may be all there is."""
        settings = self._settings
        return self._size > 0 and (
            self._size >= settings.minimum_size
            or self._declared is not None
            or self._must
            or self._is_live
            or self._flushes
            # An explicit flush. It is of use only before a pause, which may be soon enough.
            or (not newest and not self._awaits_pauses)
        )

    async def _on_pause(self) -> None:
        async with self._lock:
            if self._is_broken:
                return
            self._is_broken = True
            if self._state is PEEKING and (self._size or self._is_live):
                await self._on_chunk(b"", more=True, in_pause=True)
            elif self._stream is not None:
                await self._stream.flush()
            self._is_broken = False

    # All at once ----------------------------------------------------------------------------------

    async def _send_whole(self, body: bytes) -> None:
        self._state = BROKEN  # until it is done
        await self._send_all(body)
        self._state = ENDED

    async def _send_all(self, body: bytes) -> None:
        settings = self._settings
        size = len(body)
        if size < settings.minimum_size and not (self._must and body):
            await self._send_uncoded(body, "too_small")
            return
        if size != self._declared and self._declared is not None:
            await self._send_uncoded(body, "wrong_length")  # the server says what is wrong
            return
        codec = settings.codecs[self._coding]
        level = codec.effort.level_for(size)
        if not settings.is_plain or not settings.is_quick(codec, level, size):
            await self._send_slowly(codec, level, body)
            return
        # The short way, which most take.
        coded = codec.compress(body, level)
        if len(coded) >= size and not self._must:
            await self._send_uncoded(body, "not_smaller")
            return
        await self._send(self._coded_start(codec.coding, len(coded), None))
        await self._send({"type": "http.response.body", "body": coded})

    async def _send_slowly(self, codec: Codec, level: int, body: bytes) -> None:
        settings = self._settings
        start = perf_counter()
        key = await self._key(codec, body)
        whole = self._find_coded(key, codec, body)
        if whole is None and not settings.is_quick(codec, level, len(body)):
            if settings.pool.is_full and not self._must:
                await self._send_uncoded(body, "busy")
                return
            if settings.pool.is_busy:
                level = codec.effort.fastest
            if len(body) > SLICED_ABOVE_BYTES:
                await self._send_in_slices(codec, level, body)
                return
        if whole is None:
            whole = await self._code_whole(key, codec, level, body)
        seconds = 0.0 if whole.cached else perf_counter() - start
        size = len(whole.body)
        if size >= len(body) and not self._must:
            await self._send_uncoded(body, "not_smaller")
            return
        await self._send(self._coded_start(whole.coding, size, seconds))
        await self._send({"type": "http.response.body", "body": whole.body})
        settings.emit(
            Compressed(
                str(whole.coding), whole.level, len(body), size, seconds, cached=whole.cached
            )
        )

    async def _send_uncoded(self, body: bytes, reason: SkipReason) -> None:
        await self._send(self._uncoded(reason))
        await self._send({"type": "http.response.body", "body": body})

    async def _send_uncoded_piece(self, body: bytes) -> None:
        if body:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def _key(self, codec: Codec, body: bytes) -> Key | None:
        """Where the coded body is kept, None if nowhere."""
        place, pool = self._place, self._settings.pool
        if self._settings.cache is None or place is None or len(body) > SLICED_ABOVE_BYTES:
            return None
        if not may_be_kept(place, self._asked, self._head):
            return None
        if len(body) <= HASHED_AT_ONCE_BYTES:
            return key_of(place, self._head, codec.coding, body)
        if pool.is_full:
            return None
        return await pool.run(key_of, place, self._head, codec.coding, body)

    def _owner(self) -> bytes | None:
        """Whose dictionaries this answer belongs to, None if to nobody's."""
        dictionaries = self._settings.dictionaries
        if dictionaries is None:
            return None
        return dictionaries._owner(self._place, self._scope, self._asked, self._head)

    def _find_coded(self, key: Key | None, codec: Codec, body: bytes) -> _Whole | None:
        """What was kept of an earlier answer."""
        cache = self._settings.cache
        kept = None
        if cache is not None and key is not None:
            kept = cache._find(key, codec, body, self._compress_idly)
        if kept is None:
            return None
        return self._padded(_Whole(kept, codec.coding, 0, cached=True), body)

    async def _code_whole(self, key: Key | None, codec: Codec, level: int, body: bytes) -> _Whole:
        settings = self._settings
        owner = self._owner()
        if settings.dictionaries is not None and owner is not None:
            delta = await settings.dictionaries._difference(
                owner, self._asked, body, settings.pool.run
            )
            if delta is not None:
                return _Whole(delta, DCZ, DCZ_LEVEL)
        if settings.cache is not None and key is not None:
            coded, shared = await settings.cache._make(
                key, lambda: self._compress(codec, level, body)
            )
        else:
            coded, shared = await self._compress(codec, level, body), False
        return self._padded(_Whole(coded, codec.coding, level, cached=shared), body)

    def _padded(self, whole: _Whole, body: bytes) -> _Whole:
        if self._settings.padding is None:
            return whole
        return whole._replace(body=self._settings.padding._pad(whole.coding, whole.body, body))

    async def _compress(self, codec: Codec, level: int, body: bytes) -> bytes:
        if self._settings.is_quick(codec, level, len(body)):
            return codec.compress(body, level)
        return await self._settings.pool.run(codec.compress, body, level)

    async def _compress_idly(self, codec: Codec, body: bytes) -> bytes | None:
        """As small as it gets, if nobody waits for a thread."""
        pool = self._settings.pool
        if pool.waiting:
            return None
        return await pool.run(codec.compress, body, codec.effort.smallest)

    async def _send_in_slices(self, codec: Codec, level: int, body: bytes) -> None:
        """Code a large body by turns with others; what has been coded leaves at once."""
        encoder = codec.encoder(level)
        stream = CodedStream(self._settings, self._send, codec, level, encoder, flushes=False)
        try:
            view = memoryview(body)
            coded = await stream.advance_off_loop(view[:SLICE_BYTES], End.FLUSH)
            if len(coded) >= SLICE_BYTES and not self._must:
                stream.forget()
                await self._send_uncoded(body, "not_smaller")
                return
            await self._send(self._coded_start(codec.coding, None, None))
            await self._send({"type": "http.response.body", "body": coded, "more_body": True})
            await stream.write(view[SLICE_BYTES:], more=False)
        finally:
            stream.close()

    # Bit by bit -----------------------------------------------------------------------------------

    async def _begin_stream(self) -> None:
        """Send the head of a coded stream, or of an uncoded one where there are too many."""
        settings = self._settings
        if settings.open_streams >= settings.max_streams and not self._must:
            self._pause.stop()
            await self._send(self._uncoded("busy"))
            return
        codec = settings.codecs[self._coding]
        if self._is_live:
            self._pause.stop()  # it may run for the first event, and each event is flushed
            codec = codec.live
            encoder = codec.live_encoder(codec.effort.live, settings.stream_memory)
            level = codec.effort.live
        else:
            level = codec.effort.streaming
            encoder = codec.encoder(level)
        flushes = self._flushes or (self._is_live and settings.flushes_live)
        self._state = STREAMING
        self._stream = CodedStream(settings, self._send, codec, level, encoder, flushes=flushes)
        await self._send(self._coded_start(codec.coding, None, None))

    async def _let_go(self, reason: SkipReason) -> None:
        """Send on, uncoded, what was held back. From here on all passes."""
        self._pause.stop()
        await self._send(self._uncoded(reason))
        await self._send_uncoded_piece(self._take_held())
        self._state = PASSING

    # Other messages -------------------------------------------------------------------------------

    async def _on_other(self, message: Message) -> None:
        kind = message["type"]
        reason: SkipReason = "sent_by_server" if kind in _BY_THE_SERVER else "unknown_message"
        if kind in _BESIDE or self._state is NEW or self._state is ENDED:
            await self._send(message)
        elif self._state is HELD:
            if kind == "http.response.pathsend":
                if self._settings.pool.is_full and not self._must:
                    reason = "busy"
                elif await self._send_path(message):
                    return
            self._state = PASSING
            self.is_open = False
            await self._send(self._uncoded(reason))
            await self._send(message)
        elif self._state is BROKEN:
            raise ResponseBroken(_CUT_SHORT)
        else:
            async with self._lock:
                self._begin_step()
                if self._state is PEEKING and self._is_live:
                    await self._begin_stream()
                elif self._state is PEEKING:
                    await self._let_go(reason)
                await self._in_stream(message)
                self._is_broken = False

    async def _send_path(self, message: Message) -> bool:
        """Code a whole file. False if it cannot be read: the server knows what to say then."""
        try:
            body = await self._settings.pool.run(_read_unless_large, message["path"])
        except (OSError, ValueError):  # ValueError: a null byte in the path
            return False
        if body is not None:
            self.is_open = False
            await self._send_whole(body)
            return True
        self._open()
        async with self._lock:
            self._begin_step()
            await self._begin_stream()
            await self._in_stream(message)
            self._is_broken = False
        return True

    async def _in_stream(self, message: Message) -> None:
        if self._stream is None:  # it was let go, uncoded
            await self._send(message)
            self._state = PASSING
        elif message["type"] in _BY_THE_SERVER:
            await self._on_file(self._stream, message)
        else:
            await self._send(message)

    async def _on_file(self, stream: CodedStream, message: Message) -> None:
        """The server was to send it by itself. What has begun coded goes on so."""
        self._size += await stream.write_file(message)
        more = message.get("more_body", False)
        if not more:
            self._end_stream()
        await stream.write(b"", more=more)


def _read_unless_large(path: str) -> bytes | None:
    with open(path, "rb") as file:  # noqa: PTH123 - as cheaply as it goes
        is_large = os.fstat(file.fileno()).st_size > SLICED_ABOVE_BYTES
        return None if is_large else file.read()


class _Whole(NamedTuple):
    """A body that was coded as a whole."""

    body: bytes
    coding: str
    level: int
    cached: bool = False
