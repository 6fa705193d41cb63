"""One response on its way out.

    NEW ──start──▸ PASSING                    nothing to code, or not for this client
     │   ├───────▸ HELD ──body───▸ ENDED      all of it came at once: coded as a whole, if smaller
     │   │          └──more─▸ STREAMING ─▸ ENDED
     │   └───────────────────▸ STREAMING      events: the head leaves at once

The head is held back until the first of the body has come, for only that tells whether coding pays.
A stream is flushed when its producer pauses, by a timer; a lock keeps what the timer sends and what
the application sends apart. Whatever ends a response early (an exception, a cancellation, a client
that has gone) leaves the coded stream without its end, so that nobody takes a part for the whole.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from enum import Enum
from time import perf_counter
from typing import Final

from hasten._asgi import Headers, Message, Scope, Send, header_values
from hasten.compression.codecs import Codec, Encoder
from hasten.compression.events import Coded
from hasten.compression.head import Head, Reason
from hasten.compression.marks import is_marked
from hasten.compression.negotiation import Coding
from hasten.compression.settings import Kind, Settings

SLICE_BYTES: Final = 256 * 1024
"""What a thread codes in one go. Large bodies take turns, slice by slice."""

SLICED_ABOVE_BYTES: Final = 4 * 1024 * 1024
"""A larger body is sent slice by slice, and so without its length."""

# Messages that say nothing of this response's head and body: they need not wait for them.
_BESIDE: Final = frozenset(
    {"http.response.push", "http.response.early_hint", "http.response.debug"}
)
_BY_THE_SERVER: Final = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


class State(Enum):
    NEW = 0
    PASSING = 1
    HELD = 2
    STREAMING = 3
    ENDED = 4


class End(Enum):
    """What is done after a piece was written."""

    NONE = 0
    FLUSH = 1
    FINISH = 2


class Response:
    """The `send` that the application is given."""

    __slots__ = (
        "_asked", "_bytes_after", "_bytes_before", "_codec", "_codings", "_encoder", "_failure",
        "_flushes", "_head", "_held", "_level", "_lock", "_message", "_must", "_scope", "_seconds",
        "_send", "_settings", "_size", "_state", "_task", "_timer", "_touched", "_unflushed",
        "_vary",
    )  # fmt: skip

    _codec: Codec
    _codings: tuple[Coding, ...]
    _head: Head
    _held: list[bytes]
    _level: int
    _message: Message
    _must: bool

    def __init__(self, settings: Settings, scope: Scope, asked: Headers, send: Send) -> None:
        # Only what each response needs: most are never held, and fewer are streams.
        self._settings = settings
        self._scope = scope  # what the application sees, and writes to
        self._asked = asked  # the headers of the request as they came
        self._send = send
        self._state = State.NEW
        self._encoder: Encoder | None = None
        self._lock: asyncio.Lock | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    async def send(self, message: Message) -> None:
        if self._state is State.PASSING:
            await self._send(message)
            return
        match message["type"]:
            case "http.response.body":
                await self._on_body(message)
            case "http.response.start" if self._state is State.NEW:
                await self._on_start(message)
            case _:
                await self._on_other(message)

    async def close(self) -> None:
        """The application has returned. What it has not finished stays unfinished."""
        if self._state is State.HELD:
            async with self._exclusively():
                await self._release(Reason.UNFINISHED)
        await self.abandon()

    async def abandon(self) -> None:
        """Leave nothing behind: no timer, no task, no encoder."""
        self._stop_timer()
        if self._encoder is not None:
            self._forget_encoder()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    @property
    def is_clean(self) -> bool:
        """Is there nothing to close?"""
        return self._encoder is None and self._lock is None and self._state is not State.HELD

    # The head
    # --------------------------------------------------------------------------------------

    async def _on_start(self, message: Message) -> None:
        settings = self._settings
        scope = self._scope
        head = Head(message["status"], message.get("headers", ()))
        kind = self._classify(head)
        if isinstance(kind, Reason):
            if kind is Reason.OPTED_OUT and head.asks_for_identity:
                message = {**message, "headers": head.without_encoding()}
            await self._pass(message, kind)
            return
        self._message = message
        self._head = head
        self._vary = settings.vary(scope)
        if head.status == 304:
            asked = header_values(self._asked, b"if-none-match")
            self._head = Head(304, head.revalidated(asked, settings.etag))
            await self._pass_uncoded(Reason.NOT_MODIFIED)
            return
        length = head.content_length
        is_live = length is None and kind is Kind.SHRINKS_LIVE
        wishes = settings.wishes(self._asked, live=is_live)
        if isinstance(wishes, Reason):
            await self._pass_uncoded(wishes)
        elif length is not None and length < settings.threshold and not wishes.refuses_identity:
            await self._pass_uncoded(Reason.SMALL)
        elif scope["method"] == "HEAD":
            headers = head.about_coded(settings.etag, wishes.codings[0], self._vary)
            await self._pass({**message, "headers": headers}, Reason.HEAD)
        else:
            self._codings = wishes.codings
            self._must = wishes.refuses_identity
            self._state = State.HELD
            self._held = []
            self._size = 0
            if is_live:
                async with self._exclusively():
                    await self._begin_stream(is_live=True)

    def _classify(self, head: Head) -> Kind | Reason:
        """What coding would do for this response, or why it is none of our business."""
        settings = self._settings
        scope = self._scope
        if reason := head.untouchable(scope["method"]):
            return reason
        wanted = settings.filter and settings.filter(scope, head.status, [*head.headers])
        if wanted is False or is_marked(scope):
            return Reason.OPTED_OUT
        content_type = head.found.get(b"content-type")
        if content_type is None:
            # A 304 need not repeat the type of what it confirms.
            return Kind.SHRINKS if wanted or head.status == 304 else Reason.TYPE
        kind = settings.kind_of(content_type)
        if kind is Kind.NOTHING:
            return Kind.SHRINKS if wanted else Reason.TYPE
        return kind

    async def _pass(self, message: Message, reason: Reason) -> None:
        self._state = State.PASSING
        self._settings.skipped(reason)
        await self._send(message)

    async def _pass_uncoded(self, reason: Reason) -> None:
        """Send the head on as it is; but another client, or a larger body, would be coded."""
        await self._pass({**self._message, "headers": self._head.varying(self._vary)}, reason)

    async def _release(self, reason: Reason) -> None:
        """Let go, uncoded, what was held back. From here on all passes."""
        held = b"".join(self._held)
        self._held = []
        self._stop_timer()
        await self._pass_uncoded(reason)
        if held:
            await self._send({"type": "http.response.body", "body": held, "more_body": True})

    def _coded_start(self, coding: str, length: int | None, seconds: float | None) -> Message:
        settings = self._settings
        if self._message.get("trailers"):
            length = None  # in HTTP/1.1 only chunks can be followed by them
        headers = self._head.coded(coding, length, settings.etag, self._vary)
        if settings.dictionaries is not None:
            headers += settings.dictionaries.announcement(self._scope)
        if settings.server_timing:
            duration = f";dur={seconds * 1000:.3f}" if seconds is not None else ""
            headers.append((b"server-timing", f'cmp;desc="{coding}"{duration}'.encode()))
        return {**self._message, "headers": headers}

    # The body
    # --------------------------------------------------------------------------------------

    async def _on_body(self, message: Message) -> None:
        if self._lock is None and self._state is State.HELD and not message.get("more_body"):
            await self._send_whole(message.get("body", b""))
            return
        if self._state not in {State.HELD, State.STREAMING}:
            await self._send(message)  # out of turn: the server knows what to say
            return
        async with self._exclusively():
            await self._on_chunk(message)

    async def _on_chunk(self, message: Message) -> None:
        body = message.get("body", b"")
        more = message.get("more_body", False)
        if self._failure is not None:
            raise self._failure
        if self._state is State.HELD:
            self._held.append(body)
            self._size += len(body)
            if not more:
                await self._send_whole(b"".join(self._held))
                return
            if not self._is_decided(body):
                self._start_timer()
                return
            body = await self._begin_stream()
        if self._state is State.PASSING:
            await self._send({**message, "body": body})
        else:
            await self._write(body, more=more)

    def _is_decided(self, newest: bytes) -> bool:
        """Will it be coded, whatever comes next? Too small a beginning may be all there is."""
        return (
            self._size >= self._settings.threshold
            or self._head.content_length is not None
            or self._must
            or not newest  # an explicit flush
            or self._settings.flushes_messages
        )

    # All at once
    # -----------------------------------------------------------------------------------

    async def _send_whole(self, body: bytes) -> None:
        self._state = State.ENDED
        self._held = []
        self._stop_timer()
        settings = self._settings
        if not body or (len(body) < settings.threshold and not self._must):
            await self._send_uncoded(body, Reason.SMALL)
            return
        codec = settings.codecs[self._codings[0]]
        level = codec.effort.level_for(len(body))
        if not settings.is_quick(codec, level, len(body)):
            if settings.pool.is_full:
                await self._send_uncoded(body, Reason.BUSY)
                return
            if settings.pool.is_busy:
                level = codec.effort.fastest
        if len(body) > SLICED_ABOVE_BYTES:
            await self._send_in_slices(codec, level, body)
            return
        start = perf_counter()
        whole = await self._code_whole(codec, level, body)
        seconds = perf_counter() - start
        size = len(whole.body)
        if size >= len(body) and not self._must:
            await self._send_uncoded(body, Reason.NOT_SMALLER)
            return
        await self._send(self._coded_start(whole.coding, size, seconds))
        await self._send({"type": "http.response.body", "body": whole.body})
        if settings.on_event is not None:
            settings.on_event(
                Coded(whole.coding, level, len(body), size, seconds, cached=whole.cached)
            )

    async def _send_uncoded(self, body: bytes, reason: Reason) -> None:
        await self._pass_uncoded(reason)
        await self._send({"type": "http.response.body", "body": body})

    async def _code_whole(self, codec: Codec, level: int, body: bytes) -> _Whole:
        settings = self._settings
        if settings.dictionaries is not None:
            delta = await settings.dictionaries.code(self._scope, self._asked, body, self._compress)
            if delta is not None:
                return _Whole(delta, "dcz")
        cache = settings.cache
        key = cache.key(self._scope, self._head, codec.coding, body) if cache is not None else None
        if cache is not None and key is not None:
            coded, cached = await cache.coded(key, codec, level, body, self._compress)
        else:
            coded, cached = await self._compress(codec, level, body), False
        if settings.padding is not None:
            coded = settings.padding.pad(codec.coding, coded, body)
        return _Whole(coded, codec.coding, cached)

    async def _compress(self, codec: Codec, level: int, body: bytes) -> bytes:
        if self._settings.is_quick(codec, level, len(body)):
            return codec.compress(body, level)
        return await self._settings.pool.run(codec.compress, body, level)

    async def _send_in_slices(self, codec: Codec, level: int, body: bytes) -> None:
        """Code a large body by turns with others; what has been coded leaves at once."""
        async with self._exclusively():
            self._begin(codec, level, codec.encoder(level))
            view = memoryview(body)
            coded = await self._advance(view[:SLICE_BYTES], End.FLUSH)
            if len(coded) >= SLICE_BYTES and not self._must:
                self._forget_encoder()
                await self._send_uncoded(body, Reason.NOT_SMALLER)
                return
            await self._send(self._coded_start(codec.coding, None, None))
            await self._send({"type": "http.response.body", "body": coded, "more_body": True})
            await self._write(view[SLICE_BYTES:], more=False)

    # Bit by bit
    # ------------------------------------------------------------------------------------

    async def _begin_stream(self, *, is_live: bool = False) -> bytes:
        """Send the head of a coded stream, or of an uncoded one where there are too many.

        Returns what was held back of the body.
        """
        settings = self._settings
        held = b"".join(self._held)
        self._held = []
        if settings.open_streams >= settings.max_streams:
            self._stop_timer()
            await self._pass_uncoded(Reason.BUSY)
            return held
        codec = settings.codecs[self._codings[0]]
        if is_live:
            level = codec.effort.live
            encoder = codec.live_encoder(level, settings.stream_memory)
        else:
            level = codec.effort.streaming
            encoder = codec.encoder(level)
        self._begin(codec, level, encoder)
        self._flushes = settings.flushes_messages or (is_live and settings.flushes_live)
        await self._send(self._coded_start(codec.coding, None, None))
        return held

    def _begin(self, codec: Codec, level: int, encoder: Encoder) -> None:
        self._state = State.STREAMING
        self._settings.open_streams += 1
        self._codec = codec
        self._level = level
        self._encoder = encoder
        self._flushes = False
        self._unflushed = False
        self._bytes_before = 0
        self._bytes_after = 0
        self._seconds = 0.0

    async def _write(self, data: bytes | memoryview, *, more: bool) -> None:
        """Code and send. Empty data is an explicit flush, unless it is the end."""
        end = End.NONE
        if not more:
            end = End.FINISH
        elif self._flushes or not data:
            end = End.FLUSH
        while len(data) > SLICE_BYTES:
            piece, data = data[:SLICE_BYTES], data[SLICE_BYTES:]
            await self._send_part(await self._advance(piece, End.NONE))
        if data or end is End.FINISH or self._unflushed:
            coded = await self._advance(data, end)
            if end is End.FINISH:
                self._state = State.ENDED
                self._stop_timer()
                self._forget_encoder()
                await self._send({"type": "http.response.body", "body": coded})
                return
            await self._send_part(coded)
        if self._unflushed:
            self._start_timer()

    async def _send_part(self, coded: bytes) -> None:
        if coded:
            await self._send({"type": "http.response.body", "body": coded, "more_body": True})

    async def _advance(self, data: bytes | memoryview, end: End) -> bytes:
        encoder = self._encoder
        assert encoder is not None
        start = perf_counter()
        if self._settings.is_quick(self._codec, self._level, len(data)):
            coded = _advance(encoder, data, end)
        else:
            coded = await self._settings.pool.run(_advance, encoder, data, end)
        self._seconds += perf_counter() - start
        self._unflushed = end is End.NONE
        self._bytes_before += len(data)
        self._bytes_after += len(coded)
        return coded

    def _forget_encoder(self) -> None:
        self._encoder = None
        self._settings.open_streams -= 1
        if self._settings.on_event is not None:
            self._settings.on_event(
                Coded(
                    self._codec.coding,
                    self._level,
                    self._bytes_before,
                    self._bytes_after,
                    self._seconds,
                    streamed=True,
                )
            )

    # When the producer pauses
    # ----------------------------------------------------------------------

    def _start_timer(self) -> None:
        idle = self._settings.idle_seconds
        if idle is not None:
            loop = asyncio.get_running_loop()
            self._touched = loop.time()
            # One that is running sees by itself that there has been more since.
            if self._timer is None:
                self._timer = loop.call_later(idle, self._on_timer)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._settings.idle_seconds is not None
        due = self._touched + self._settings.idle_seconds
        if loop.time() < due:
            self._timer = loop.call_at(due, self._on_timer)
            return
        self._timer = None
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._flush_idle())

    async def _flush_idle(self) -> None:
        async with self._exclusively():
            try:
                if self._state is State.HELD:
                    held = await self._begin_stream()
                    coded = held if self._encoder is None else await self._advance(held, End.FLUSH)
                    await self._send_part(coded)
                elif self._state is State.STREAMING and self._unflushed:
                    await self._send_part(await self._advance(b"", End.FLUSH))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the application's
                self._failure = error

    def _exclusively(self) -> asyncio.Lock:
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    # Other messages
    # --------------------------------------------------------------------------------

    async def _on_other(self, message: Message) -> None:
        kind = message["type"]
        if kind in _BESIDE or self._state not in {State.HELD, State.STREAMING}:
            await self._send(message)
            return
        async with self._exclusively():
            if self._state is State.HELD:
                await self._release(
                    Reason.UNBUFFERED if kind in _BY_THE_SERVER else Reason.UNKNOWN_MESSAGE
                )
            if self._state is State.STREAMING and kind in _BY_THE_SERVER:
                await self._write_file(message)
            else:
                await self._send(message)

    async def _write_file(self, message: Message) -> None:
        """Code what the server was to send by itself: the beginning of this body is coded."""
        settings = self._settings
        path = message.get("path")
        if path is not None:
            file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        else:
            file = message["file"] if isinstance(message["file"], int) else message["file"].fileno()
        try:
            if message.get("offset") is not None:
                os.lseek(file, message["offset"], os.SEEK_SET)
            left = message.get("count")
            while left is None or left > 0:
                size = SLICE_BYTES if left is None else min(left, SLICE_BYTES)
                data = await settings.pool.run(os.read, file, size)
                if not data:
                    break
                left = left and left - len(data)
                await self._write(data, more=True)
        finally:
            if path is not None:
                os.close(file)
        await self._write(b"", more=message.get("more_body", False))


@dataclass(frozen=True, slots=True)
class _Whole:
    """A body that was coded as a whole."""

    body: bytes
    coding: str
    cached: bool = False


def _advance(encoder: Encoder, data: bytes | memoryview, end: End) -> bytes:
    coded = encoder.write(data) if data else b""
    match end:
        case End.NONE:
            return coded
        case End.FLUSH:
            return coded + encoder.flush()
        case End.FINISH:
            return coded + encoder.finish()
