"""The state machine that decides whether to compress a response, and sends it either way.

    NEW ─start─▸ PASSING                           not compressed, or not for this client
         └─────▸ HELD ─body─▸ ENDED                the whole body at once: compressed if smaller
                  ├─more─▸ BUFFERING ─▸ ENDED      too small to decide: there may be no more
                  │          ├───────▸ PASSING     too many streams, or a message that cannot wait
                  │          └───────┐
                  └──────────────▸ STREAMING ─▸ ENDED

The head (status and headers) is held back until the first part of the body arrives, because the
body shows whether compression makes it smaller. The head of a live stream (events, lines) is sent
with the first event or in the first pause. An empty piece does not count as the first part.

A stream is flushed when the application pauses. A separate task flushes it, so a lock keeps the
task and the application from sending at the same time. If a response ends early (by an exception, a
cancellation or a disconnected client), the compressed stream is left unfinished. So no client
mistakes a part for the whole body.
"""

from __future__ import annotations

import asyncio
import os
from enum import Enum
from time import perf_counter
from typing import Final, NamedTuple, TypeAlias

from hasten._asgi import Headers, Message, Scope, Send, join_header_values
from hasten._loops import is_asyncio_running, make_lock
from hasten.compression._cache import HASHED_AT_ONCE_BYTES, CacheKey, is_cacheable, make_cache_key
from hasten.compression._codecs import Codec
from hasten.compression._dictionaries import DCZ, DCZ_LEVEL
from hasten.compression._events import Compressed
from hasten.compression._head import ResponseHead, SkipReason
from hasten.compression._idle_timer import IdleTimer
from hasten.compression._negotiation import Coding
from hasten.compression._opt_out import has_opted_out
from hasten.compression._request_target import RequestTarget
from hasten.compression._settings import ACCEPT_ENCODING, MediaTypeKind, Settings
from hasten.compression._shared_resources import SLICED_ABOVE_BYTES, SharedResources
from hasten.compression._stream import SLICE_BYTES, CompressedStream, FlushMode
from hasten.errors import ResponseBroken

# Messages that are neither the head nor a part of the body. They are passed on at once.
_PASSED_ON: Final = frozenset(
    {"http.response.push", "http.response.early_hint", "http.response.debug"}
)
# Messages that let the server send a file by itself.
_FILE_MESSAGES: Final = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


_CUT_SHORT: Final = "an earlier send was cancelled or failed"


WasSent: TypeAlias = bool


class ResponseState(Enum):
    """How far a response has been sent. The docstring of the module shows the transitions."""

    NEW = 0
    PASSING = 1
    HELD = 2
    BUFFERING = 3
    STREAMING = 4
    ENDED = 5
    BROKEN = 6  # a send was cancelled or failed: the response cannot be completed


# Module-level names, because the lookup of an enum member is slow enough to show for each message.
NEW, PASSING, HELD, BUFFERING, STREAMING, ENDED, BROKEN = ResponseState
INCOMPRESSIBLE, COMPRESSIBLE, LIVE = MediaTypeKind


class ResponseCompressor:
    """Compresses one response. The application gets its `send` in place of the server's."""

    __slots__ = (
        "_awaits_pauses",
        "_buffered",
        "_coding",
        "_declared",
        "_flushes",
        "_head",
        "_idle_timer",
        "_is_broken",
        "_is_live",
        "_lock",
        "_message",
        "_must_compress",
        "_request_headers",
        "_scope",
        "_send",
        "_settings",
        "_shared",
        "_size",
        "_state",
        "_stream",
        "_target",
        "_vary",
        "is_open",
    )  # fmt: skip

    # These are not set in __init__, because most responses never need them. Set from HELD on:
    _coding: Coding
    _declared: int | None
    _is_live: bool
    # Set from BUFFERING and STREAMING on:
    _buffered: list[bytes]
    _size: int
    _lock: asyncio.Lock  # or one of trio's
    _awaits_pauses: bool
    _flushes: bool
    _idle_timer: IdleTimer
    _stream: CompressedStream | None
    _is_broken: bool

    is_open: bool
    """Whether `close` or `release_without_sending` must be called.

    It must be if a part of the response is held back, or an encoder or a timer is running.
    """

    def __init__(
        self,
        settings: Settings,
        shared: SharedResources,
        scope: Scope,
        request_headers: Headers,
        target: RequestTarget | None,
        send: Send,
    ) -> None:
        self._settings = settings
        self._shared = shared
        self._scope = scope  # the dict that the application gets and changes
        self._request_headers = request_headers  # as the client sent them
        self._target = target  # before routers change the scope
        self._send = send
        self._state = NEW
        self.is_open = False

    async def send(self, message: Message) -> None:
        """Handle a message of the application: hold it back, compress it or pass it on."""
        if self._state is PASSING:
            await self._send(message)
            return
        match message["type"]:
            case "http.response.body":
                if self._state is HELD and (
                    not message.get("more_body") or self._contains_whole_body(message)
                ):
                    self.is_open = False
                    await self._send_whole_response(message.get("body", b""))
                else:
                    await self._on_body(message)
            case "http.response.start" if self._state is NEW:
                start = self._on_start(message)
                if start is not None:
                    await self._send(start)
                elif self._is_live:
                    await self._on_live_start()
            case _:
                await self._on_other_message(message)

    async def close(self) -> None:
        """Send the held-back part of the response uncompressed, after the application returned."""
        if self._state is HELD:
            self.is_open = False
            await self._send(self._make_uncompressed_start("unfinished"))
        elif self._state is BUFFERING and not self._is_broken:
            async with self._lock:
                await self._fall_back_to_uncompressed("unfinished")
        await self.release_without_sending()

    async def release_without_sending(self) -> None:
        """Stop the idle timer and discard the encoder, without sending anything."""
        if self.is_open and self._state is not HELD:
            if self._stream is not None:
                self._stream.release()
            await self._idle_timer.stop_and_cancel_action()

    # The head -------------------------------------------------------------------------------------

    def _on_start(self, message: Message) -> Message | None:
        """Return the start message to send now, None if it has to wait for the body."""
        settings = self._settings
        head = ResponseHead(message["status"], message.get("headers", ()))
        kind = self._classify_response(head)
        self._state = PASSING  # may become HELD below
        if isinstance(kind, str):
            headers = head.headers  # those of the message may be an exhausted iterator
            if kind == "opted_out" and head.has_identity_encoding:
                headers = head.make_headers_without_encoding()
            if self._shared.is_observed:
                self._shared.emit_skipped(kind)
            return {**message, "headers": headers}
        vary = settings.make_vary_value(self._target) if settings.has_extras else ACCEPT_ENCODING
        length = head.content_length
        is_small = length is not None and length < settings.minimum_size
        if is_small and head.status != 304 and not settings.strict:  # the common case
            if self._shared.is_observed:
                self._shared.emit_skipped("too_small")
            return {**message, "headers": head.make_headers_with_vary(vary)}
        self._message = message
        self._head = head
        self._vary = vary
        self._declared = length
        if head.status == 304:
            held = join_header_values(self._request_headers, b"if-none-match")
            self._head = ResponseHead(304, head.make_not_modified_headers(held, settings.etag))
            return self._make_uncompressed_start("not_modified")
        is_live = length is None and kind is LIVE
        preferences = settings.negotiate(self._request_headers, is_live=is_live)
        if isinstance(preferences, str):
            return self._make_uncompressed_start(preferences)
        self._must_compress = preferences.refuses_identity and settings.strict
        if is_small and not self._must_compress:
            return self._make_uncompressed_start("too_small")
        if self._scope["method"] == "HEAD":
            self._shared.emit_skipped("head_request")
            headers = head.make_compressed_headers_for_head_request(
                preferences.codings[0], settings.etag, self._vary
            )
            return {**message, "headers": headers}
        self._state = HELD
        self._coding = preferences.codings[0]
        self._is_live = is_live
        self.is_open = True
        return None

    def _classify_response(self, head: ResponseHead) -> MediaTypeKind | SkipReason:
        """Return the kind of the response's media type, or the reason not to compress it.

        This looks only at the endpoint and the response, not at the client.
        """
        settings = self._settings
        scope = self._scope
        if reason := head.find_skip_reason(scope["method"]):
            return reason
        wanted = settings.filter and settings.filter(scope, head.status, [*head.headers])
        if wanted is False or has_opted_out(scope):
            return "opted_out"
        content_type = head.found.get(b"content-type")
        if content_type is None:
            # A 304 response often has no Content-Type.
            return COMPRESSIBLE if wanted or head.status == 304 else "media_type"
        kind = settings.classify_media_type(content_type)
        if kind is INCOMPRESSIBLE:
            return COMPRESSIBLE if wanted else "media_type"
        return kind

    def _make_uncompressed_start(self, reason: SkipReason) -> Message:
        """Return the start message of an uncompressed response, and emit the `Skipped` event.

        Vary is added, because the response could be compressed for another client.
        """
        self._shared.emit_skipped(reason)
        return {**self._message, "headers": self._head.make_headers_with_vary(self._vary)}

    def _make_compressed_start(
        self, coding: str, length: int | None, seconds: float | None
    ) -> Message:
        """Return the start message of a compressed response.

        length is that of the compressed body, None if unknown. seconds is the compression time, for
        Server-Timing.
        """
        if self._message.get("trailers"):
            length = None  # HTTP/1.1 allows trailers only after a chunked body
        headers = self._head.make_compressed_headers(
            coding, self._settings.etag, length, self._vary
        )
        if self._settings.has_extras:
            headers += self._make_dictionary_and_timing_headers(coding, seconds)
        return {**self._message, "headers": headers}

    def _make_dictionary_and_timing_headers(self, coding: str, seconds: float | None) -> Headers:
        """Return the headers Use-As-Dictionary and Server-Timing, if these options are used."""
        headers = []
        if self._settings.dictionaries is not None:
            headers += self._settings.dictionaries._make_use_as_dictionary_headers(
                self._target, self._make_user_and_query_digest()
            )
        if self._settings.server_timing:
            duration = f";dur={seconds * 1000:.3f}" if seconds is not None else ""
            headers.append((b"server-timing", f'cmp;desc="{coding}"{duration}'.encode()))
        return headers

    # The body -------------------------------------------------------------------------------------

    async def _on_body(self, message: Message) -> None:
        body = message.get("body", b"")
        if self._state is HELD:
            self._start_buffering()
        if self._state is BUFFERING or self._state is STREAMING:
            async with self._lock:
                self._mark_broken_until_sent()
                await self._on_chunk(body, more=message.get("more_body", False))
                self._is_broken = False
        elif self._state is BROKEN:
            raise ResponseBroken(_CUT_SHORT)
        elif body or self._state is NEW:
            await self._send(message)  # out of order: the server raises an error

    def _contains_whole_body(self, message: Message) -> bool:
        """Return whether a message contains the whole body, by its Content-Length.

        Some frameworks send the whole body with more_body, and then an empty message.
        """
        return len(message.get("body", b"")) == self._declared

    async def _on_live_start(self) -> None:
        """Send the head of a live stream at once, or leave that to the idle timer.

        If a short pause flushes the stream, the head waits for the first event or the next pause,
        because a stream that ends without an event should not be compressed.
        """
        self._start_buffering()
        if self._awaits_pauses:
            self._idle_timer.restart()  # the stream may end without an event
            return
        async with self._lock:
            self._mark_broken_until_sent()
            await self._start_stream()
            if self._stream is None:
                self._state = PASSING
            self._is_broken = False

    def _start_buffering(self) -> None:
        """Prepare for a body that arrives in pieces, and enter the state BUFFERING."""
        flush = self._settings.flush
        self._lock = make_lock()
        has_timer = is_asyncio_running()
        idle_seconds = flush.idle_seconds if has_timer else None
        self._idle_timer = IdleTimer(idle_seconds, self._on_pause)
        self._awaits_pauses = flush.flushes_on_short_pause and has_timer
        # Without a timer, each message may be the last one before a pause.
        self._flushes = flush.after_messages or (flush.idle_seconds is not None and not has_timer)
        self._buffered = []
        self._size = 0
        self._stream = None
        self._is_broken = False
        self._state = BUFFERING

    def _mark_broken_until_sent(self) -> None:
        """Mark the response as broken. The caller removes the mark when it has sent its data.

        If the caller is cancelled or fails in between, compressed data is lost. The stream must not
        continue then, because the client would not notice the gap. Call it with the lock held.
        """
        if self._is_broken:
            raise ResponseBroken(_CUT_SHORT) from self._idle_timer.failure
        self._is_broken = True

    async def _on_chunk(self, body: bytes, *, more: bool, send_buffered: bool = False) -> None:
        """Handle a piece of the body: buffer it, compress it, or pass it on.

        With send_buffered, body is empty, and the data buffered so far is sent, however little.
        """
        self._size += len(body)
        newest = body
        if self._state is BUFFERING:
            self._buffered.append(bytes(body))  # the application may reuse its buffer
            if not more:
                self._idle_timer.stop()
                await self._send_whole_response(self._take_buffered())
                return
            if not send_buffered and not self._should_start_stream(body):
                self._idle_timer.restart()
                return
            await self._start_stream()
            body = self._take_buffered()
        if self._stream is None:  # sent uncompressed
            await self._send({"type": "http.response.body", "body": body, "more_body": more})
            self._state = PASSING
            return
        if not more:
            self._end_stream()
        await self._stream.write(body, more=more)
        if more and not newest:
            await self._stream.flush()
        if self._stream.has_unflushed:
            self._idle_timer.restart()

    def _end_stream(self) -> None:
        """End the stream.

        Raises `ResponseBroken` if the length of the body differs from its Content-Length.
        """
        if self._declared is not None and self._size != self._declared:
            raise ResponseBroken(
                f"Content-Length is {self._declared:,}, but the body has {self._size:,} bytes"
            )
        self._state = ENDED
        self._idle_timer.stop()

    def _take_buffered(self) -> bytes:
        held = b"".join(self._buffered)
        self._buffered = []
        return held

    def _should_start_stream(self, newest: bytes) -> bool:
        """Return whether compression can start now, before the whole body is known.

        It cannot if the data so far is smaller than minimum_size, because it may be the whole body,
        unless it must be compressed or flushed anyway, or is longer by its Content-Length. newest
        is the latest piece.
        """
        settings = self._settings
        return self._size > 0 and (
            self._size >= settings.minimum_size
            or self._declared is not None
            or self._must_compress
            or self._is_live
            or self._flushes
            # An empty message is an explicit flush. If a short pause flushes, it need not.
            or (not newest and not self._awaits_pauses)
        )

    async def _on_pause(self) -> None:
        async with self._lock:
            if self._is_broken:
                return
            self._is_broken = True
            if self._state is BUFFERING and (self._size or self._is_live):
                await self._on_chunk(b"", more=True, send_buffered=True)
            elif self._stream is not None:
                await self._stream.flush()
            self._is_broken = False

    # Whole bodies --------------------------------------------------------------------------------

    async def _send_whole_response(self, body: bytes) -> None:
        """Send a response whose whole body is known. Compress it if that makes it smaller."""
        self._state = BROKEN  # stays so if sending fails
        await self._compress_and_send(body)
        self._state = ENDED

    async def _compress_and_send(self, body: bytes) -> None:
        settings = self._settings
        size = len(body)
        if size < settings.minimum_size and not (self._must_compress and body):
            await self._send_uncompressed(body, "too_small")
            return
        if size != self._declared and self._declared is not None:
            await self._send_uncompressed(body, "wrong_length")  # the server raises an error
            return
        codec = settings.codecs[self._coding]
        level = codec.level_policy.choose_level(size)
        shared = self._shared
        if (
            settings.has_extras
            or shared.is_observed
            or not shared.is_quick_to_compress(codec, level, size)
        ):
            await self._send_with_cache_or_pool(codec, level, body)
            return
        # Most responses take this fast path.
        coded = codec.compress(body, level)
        if len(coded) >= size and not self._must_compress:
            await self._send_uncompressed(body, "not_smaller")
            return
        await self._send(self._make_compressed_start(codec.coding, len(coded), None))
        await self._send({"type": "http.response.body", "body": coded})

    async def _send_with_cache_or_pool(self, codec: Codec, level: int, body: bytes) -> None:
        """Send a whole body from the cache, or compress it, in the thread pool if that takes long.

        The body is sent uncompressed if the pool is full, or if compression makes it no smaller.
        """
        start = perf_counter()
        key = await self._make_cache_key_if_cacheable(codec, body)
        whole = self._find_cached(key, codec, body)
        if whole is None and not self._shared.is_quick_to_compress(codec, level, len(body)):
            if self._shared.pool.is_queue_full and not self._must_compress:
                await self._send_uncompressed(body, "busy")
                return
            if self._shared.pool.is_queue_long:
                level = codec.level_policy.fastest
            if len(body) > SLICED_ABOVE_BYTES:
                await self._send_in_slices(codec, level, body)
                return
        if whole is None:
            whole = await self._compress_whole(key, codec, level, body)
        seconds = 0.0 if whole.cached else perf_counter() - start
        size = len(whole.body)
        if size >= len(body) and not self._must_compress:
            await self._send_uncompressed(body, "not_smaller")
            return
        await self._send(self._make_compressed_start(whole.coding, size, seconds))
        await self._send({"type": "http.response.body", "body": whole.body})
        self._shared.emit(
            Compressed(
                str(whole.coding), whole.level, len(body), size, seconds, cached=whole.cached
            )
        )

    async def _send_uncompressed(self, body: bytes, reason: SkipReason) -> None:
        await self._send(self._make_uncompressed_start(reason))
        await self._send({"type": "http.response.body", "body": body})

    async def _send_uncompressed_piece(self, body: bytes) -> None:
        if body:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def _make_cache_key_if_cacheable(self, codec: Codec, body: bytes) -> CacheKey | None:
        """Return the cache key of the body, None if it must not be cached."""
        target, pool = self._target, self._shared.pool
        if self._settings.cache is None or target is None or len(body) > SLICED_ABOVE_BYTES:
            return None
        if not is_cacheable(target, self._request_headers, self._head):
            return None
        if len(body) <= HASHED_AT_ONCE_BYTES:
            return make_cache_key(target, self._head, codec.coding, body)
        if pool.is_queue_full:
            return None
        return await pool.run(make_cache_key, target, self._head, codec.coding, body)

    def _make_user_and_query_digest(self) -> bytes | None:
        """Return the digest that restricts a dictionary to requests of the same user and query.

        It is None if the response must not become a dictionary.
        """
        dictionaries = self._settings.dictionaries
        if dictionaries is None:
            return None
        return dictionaries._make_user_and_query_digest(
            self._target, self._scope, self._request_headers, self._head
        )

    def _find_cached(
        self, key: CacheKey | None, codec: Codec, body: bytes
    ) -> _CompressedBody | None:
        """Return the compressed body from the cache, None if it is not there."""
        cache = self._settings.cache
        kept = None
        if cache is not None and key is not None:
            kept = cache._find_body_and_recompress_if_due(
                key, codec, body, self._compress_if_thread_is_idle
            )
        if kept is None:
            return None
        return _CompressedBody(kept, codec.coding, 0, cached=True)

    async def _compress_whole(
        self, key: CacheKey | None, codec: Codec, level: int, body: bytes
    ) -> _CompressedBody:
        """Compress the body, as a difference to an earlier response if possible."""
        settings = self._settings
        owner = self._make_user_and_query_digest()
        if settings.dictionaries is not None and owner is not None:
            delta = await settings.dictionaries._compress_as_delta(
                owner, self._request_headers, body, self._shared.pool.run
            )
            if delta is not None:
                return _CompressedBody(delta, DCZ, DCZ_LEVEL)
        if settings.cache is not None and key is not None:
            coded, shared = await settings.cache._compress_once(
                key, lambda: self._compress(codec, level, body)
            )
        else:
            coded, shared = await self._compress(codec, level, body), False
        return _CompressedBody(coded, codec.coding, level, cached=shared)

    async def _compress(self, codec: Codec, level: int, body: bytes) -> bytes:
        """Compress the body, in a thread unless that is quick."""
        if self._shared.is_quick_to_compress(codec, level, len(body)):
            return codec.compress(body, level)
        return await self._shared.pool.run(codec.compress, body, level)

    async def _compress_if_thread_is_idle(self, codec: Codec, body: bytes) -> bytes | None:
        """Compress the body at the highest useful level, or return None if all threads are busy."""
        pool = self._shared.pool
        if pool.queue_length:
            return None
        return await pool.run(codec.compress, body, codec.level_policy.smallest)

    async def _send_in_slices(self, codec: Codec, level: int, body: bytes) -> None:
        """Compress a large body slice by slice, and send each slice at once.

        Between two slices, the threads can compress other bodies.
        """
        encoder = codec.make_encoder(level)
        stream = CompressedStream(self._shared, self._send, codec, level, encoder, flushes=False)
        try:
            view = memoryview(body)
            coded = await stream.compress_in_thread(view[:SLICE_BYTES], FlushMode.FLUSH)
            if len(coded) >= SLICE_BYTES and not self._must_compress:
                stream.release_without_event()
                await self._send_uncompressed(body, "not_smaller")
                return
            await self._send(self._make_compressed_start(codec.coding, None, None))
            await self._send({"type": "http.response.body", "body": coded, "more_body": True})
            await stream.write(view[SLICE_BYTES:], more=False)
        finally:
            stream.release()

    # Streams --------------------------------------------------------------------------------------

    async def _start_stream(self) -> None:
        """Send the head of a stream: a compressed one, or uncompressed if too many are open."""
        settings = self._settings
        if not (self._shared.has_room_for_stream or self._must_compress):
            self._idle_timer.stop()
            await self._send(self._make_uncompressed_start("busy"))
            return
        codec = settings.codecs[self._coding]
        if self._is_live:
            self._idle_timer.stop()  # no longer needed: each event is flushed
            codec = codec.codec_for_live_streams
            encoder = codec.make_live_stream_encoder(
                codec.level_policy.live, settings.stream_memory
            )
            level = codec.level_policy.live
        else:
            level = codec.level_policy.streaming
            encoder = codec.make_encoder(level)
        flushes = self._flushes or (self._is_live and settings.flush.after_live_messages)
        self._state = STREAMING
        self._stream = CompressedStream(
            self._shared, self._send, codec, level, encoder, flushes=flushes
        )
        await self._send(self._make_compressed_start(codec.coding, None, None))

    async def _fall_back_to_uncompressed(self, reason: SkipReason) -> None:
        """Send the head and the buffered part of the body uncompressed.

        The rest of the body is then passed on unchanged.
        """
        self._idle_timer.stop()
        await self._send(self._make_uncompressed_start(reason))
        await self._send_uncompressed_piece(self._take_buffered())
        self._state = PASSING

    # Other messages -------------------------------------------------------------------------------

    async def _on_other_message(self, message: Message) -> None:
        """Handle a message that is not an ordinary start or body message, such as a file."""
        kind = message["type"]
        reason: SkipReason = "sent_by_server" if kind in _FILE_MESSAGES else "unknown_message"
        if kind in _PASSED_ON or self._state is NEW or self._state is ENDED:
            await self._send(message)
        elif self._state is HELD:
            if kind == "http.response.pathsend":
                if self._shared.pool.is_queue_full and not self._must_compress:
                    reason = "busy"
                elif await self._send_file_at_path(message):
                    return
            self._state = PASSING
            self.is_open = False
            await self._send(self._make_uncompressed_start(reason))
            await self._send(message)
        elif self._state is BROKEN:
            raise ResponseBroken(_CUT_SHORT)
        else:
            async with self._lock:
                self._mark_broken_until_sent()
                if self._state is BUFFERING and self._is_live:
                    await self._start_stream()
                elif self._state is BUFFERING:
                    await self._fall_back_to_uncompressed(reason)
                await self._pass_to_stream(message)
                self._is_broken = False

    async def _send_file_at_path(self, message: Message) -> WasSent:
        """Read a file, compress it and send it as the body.

        Return False without sending anything if the file cannot be read. The message is then passed
        on to the server, which reports the error.
        """
        try:
            body = await self._shared.pool.run(_read_unless_large, message["path"])
        except (OSError, ValueError):  # ValueError: a null byte in the path
            return False
        if body is not None:
            self.is_open = False
            await self._send_whole_response(body)
            return True
        self._start_buffering()
        async with self._lock:
            self._mark_broken_until_sent()
            await self._start_stream()
            await self._pass_to_stream(message)
            self._is_broken = False
        return True

    async def _pass_to_stream(self, message: Message) -> None:
        """Handle a message within a body: compress its file, or pass the message on."""
        if self._stream is None:  # sent uncompressed
            await self._send(message)
            self._state = PASSING
        elif message["type"] in _FILE_MESSAGES:
            await self._write_file(self._stream, message)
        else:
            await self._send(message)

    async def _write_file(self, stream: CompressedStream, message: Message) -> None:
        """Compress and send a file that the server would send itself without compression."""
        self._size += await stream.write_file(message)
        more = message.get("more_body", False)
        if not more:
            self._end_stream()
        await stream.write(b"", more=more)


def _read_unless_large(path: str) -> bytes | None:
    """Return the content of a file, None if it is larger than `SLICED_ABOVE_BYTES`."""
    with open(path, "rb") as file:  # noqa: PTH123 - faster than Path.open
        is_large = os.fstat(file.fileno()).st_size > SLICED_ABOVE_BYTES
        return None if is_large else file.read()


class _CompressedBody(NamedTuple):
    """A whole compressed body, with the coding and level that were used.

    cached says whether another request has compressed it. If it was already in the cache, the level
    is not known, and is 0.
    """

    body: bytes
    coding: str
    level: int
    cached: bool = False
