"""The middleware that decompresses request bodies, with limits on size, ratio and time.

A body of a few kilobytes can decode to gigabytes (a bomb). So the body is decoded only when the
application reads it, and only one piece at a time. As soon as it exceeds a limit, it is rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final, TypeAlias

from hasten._asgi import ASGIApp, Headers, Message, Receive, Scope, Send, join_header_values
from hasten._checks import check_flag, check_whole_number
from hasten._durations import Duration, to_seconds
from hasten._loops import wait_for_concurrent_future
from hasten._responses import EncodedResponse
from hasten._sizes import Size, to_byte_count
from hasten.compression import _decoders as decoders
from hasten.compression._decoders import Decoder, MalformedBody
from hasten.compression._negotiation import Coding, normalize_coding
from hasten.compression._options import (
    to_codings,
)
from hasten.compression._pool import CompressionThreads
from hasten.errors import BodyRefused

EXTENSION: Final = "hasten.decompression"

PIECE_BYTES: Final = 64 * 1024
"""The approximate maximum size of the decoded pieces that the application gets."""

INPUT_BYTES: Final = 16 * 1024
"""How much input a decoder gets at a time.

It is small because decoders copy the unused rest of their input for each piece of output.
"""

RATIO_COUNTS_FROM_BYTES: Final = 512 * 1024
"""max_ratio applies only to bodies whose decoded size is larger than this.

A small body of zeros has a huge ratio, too, but is harmless.
"""

NS_PER_BYTE: Final = 3
"""About how many nanoseconds the slowest coding needs to decode one byte of output."""

DECODER_CALLS_ON_LOOP: Final = 16
"""How many calls of a decoder run on the event loop before a thread continues.

16 calls take about 100 µs if each starts another zstd frame.
"""

# Each body may take this many extra calls of its decoder, and more in proportion to its encoded and
# decoded bytes. A call is extra if it starts another gzip member or zstd frame, or only gets more
# output. The limit is needed because starting a gzip member or a zstd frame takes up to 10 µs, and
# a frame of only 9 bytes may have no output.
FREE_DECODER_CALLS: Final = 100
INPUT_BYTES_PER_DECODER_CALL: Final = 512
OUTPUT_BYTES_PER_DECODER_CALL: Final = PIECE_BYTES // 4

# Headers that are wrong for the decoded body are removed. The values of _KEPT are available to the
# application in scope["extensions"].
_KEPT: Final = (b"content-encoding", b"content-length", b"content-digest")
_ABOUT_ENCODED_BODY: Final = {*_KEPT, b"repr-digest", b"digest", b"content-md5"}


Seconds: TypeAlias = float


class DecompressionMiddleware:
    """Decompress request bodies that have a Content-Encoding, for any ASGI application.

    The application reads the decoded body. At first the headers in the scope have no
    Content-Length, because the decoded size is unknown. When the application has read the whole
    body, its decoded size is added as Content-Length. The original Content-Encoding, Content-Length
    and Content-Digest are in ``scope["extensions"]["hasten.decompression"]``.

    - encodings: the accepted encodings. A request with any other gets a 415 response with
      Accept-Encoding, and the application is not called (RFC 9110, sections 12.5.3 and 15.5.16).
      Add "br" only if your clients send it: its decoder fills a window of up to 16 MB before it
      returns the first byte, so that even a body of 30 bytes costs about 10 ms.
    - max_size: the maximum size of a decoded body. A larger one is rejected with 413, and the rest
      of it is not read.
    - max_ratio: the maximum ratio of decoded to encoded bytes. It applies from 512 kB of decoded
      bytes on. A body above it is rejected with 413.
    - max_encodings: how many encodings may be applied to a body one after the other. A body with
      more is rejected with 415.
    - max_time: how long decoding one body may take in total. A body above it is rejected with 413.
    - threads: how many threads decode large bodies; by default one for each processor, at most
      four.
    - buffered: decode the whole body before the application is called, so that Content-Length is
      known from the start. WSGI applications behind a2wsgi need this, because they would get an
      empty body. Each body occupies up to max_size of memory.

    A malformed, incomplete or empty body is rejected with 400. So is one with too many gzip members
    or zstd frames: 100 are allowed, and one more for each 512 bytes received. All rejections are
    ``application/problem+json``, and replace the response that the framework creates for the
    exception. If the response has already started, the application only gets `BodyRefused`. Bodies
    without a Content-Encoding are not changed, whatever their size. Raises `InvalidOption`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        encodings: Collection[str] = ("gzip", "zstd"),
        max_size: Size = "10mb",
        max_ratio: int = 100,
        max_encodings: int = 1,
        max_time: Duration = 10,
        threads: int | None = None,
        buffered: bool = False,
    ) -> None:
        self.app = app
        self._buffered = check_flag("buffered", buffered)
        self._max_bytes = to_byte_count("max_size", max_size, at_least=1)
        self._max_ratio = check_whole_number("max_ratio", max_ratio, 1)
        self._max_codings = check_whole_number("max_encodings", max_encodings, 1)
        self._max_seconds = to_seconds("max_time", max_time)
        self._pool = CompressionThreads("decompression", threads)
        self._decoders = decoders.find_decoder_factories(to_codings("encodings", encodings))

    def __repr__(self) -> str:
        codings = ", ".join(self._decoders)
        return f"<DecompressionMiddleware {codings}: at most {self._max_bytes:,} bytes>"

    @property
    def _max_compressed_bytes(self) -> int:
        """The largest allowed compressed body: slightly more than the largest decoded body.

        Data that cannot be compressed becomes larger by compression.
        """
        return self._max_bytes + self._max_bytes // 100 + 1024

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        coded = (
            join_header_values(scope["headers"], b"content-encoding") if _is_http(scope) else None
        )
        names = _parse_content_encoding(coded)
        if not names:
            await self.app(scope, receive, send)
            return
        decoders = self._decoder_factories(names)
        if decoders is None:
            refusal = BodyRefused(
                415, f"unsupported Content-Encoding; supported: {self._accepted_encodings}"
            )
            refusal.headers = {"accept-encoding": self._accepted_encodings}
            await EncodedResponse.for_error(refusal)(scope, receive, send)
            return
        length = join_header_values(scope["headers"], b"content-length") or b""
        if length.isdigit() and (len(length) > 18 or int(length) > self._max_compressed_bytes):
            refusal = BodyRefused(413, self._make_too_large_reason())
            await EncodedResponse.for_error(refusal)(scope, receive, send)
            return
        decoder = _make_decoder(
            [make() for make in decoders], self._max_compressed_bytes, self._max_ratio
        )
        request = _DecodedRequest(self, decoder, scope, receive, send)
        with _use_headers_of_decoded_body(scope):
            await request.run(self.app)

    def _check_limits(self, bytes_in: int, bytes_out: int, seconds: float) -> None:
        """Raise `BodyRefused` with status 413 if a body exceeds max_size, max_ratio or max_time.

        bytes_in and bytes_out are its encoded and decoded bytes so far.
        """
        if bytes_out > self._max_bytes or bytes_in > self._max_compressed_bytes:
            raise BodyRefused(413, self._make_too_large_reason())
        if bytes_out > RATIO_COUNTS_FROM_BYTES and bytes_out > bytes_in * self._max_ratio:
            reason = f"more than {self._max_ratio:,} times larger when decoded"
            raise BodyRefused(413, reason)
        if seconds > self._max_seconds:
            raise BodyRefused(413, f"decoding takes more than {self._max_seconds:g} s")

    def _make_too_large_reason(self) -> str:
        return f"larger than {self._max_bytes:,} bytes when decoded"

    def _decoder_factories(self, names: Sequence[str]) -> list[Callable[[], Decoder]] | None:
        """Return the functions that create the decoders of a body, in the order of decoding.

        names are its codings, in the order in which the client has applied them. The result is None
        if a coding is not accepted, or if there are more than max_encodings.
        """
        if len(names) > self._max_codings:
            return None
        found = [self._decoders[Coding(name)] for name in reversed(names) if name in self._decoders]
        return found if len(found) == len(names) else None

    @property
    def _accepted_encodings(self) -> str:
        return ", ".join(self._decoders)


class _DecodedRequest:
    """One request with a compressed body: its `receive` and `send` are passed to the application.

    `receive` returns the decoded body. `send` replaces the framework's error response if the body
    was rejected.
    """

    def __init__(
        self,
        limits: DecompressionMiddleware,
        decoder: Decoder,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._limits = limits
        self._decoder = decoder
        # With several codings, one call may do more work than its output shows.
        self._decoder_calls_on_loop = (
            1 if isinstance(decoder, _DecoderChain) else DECODER_CALLS_ON_LOOP
        )
        self._scope = scope
        self._receive = receive
        self._send = send
        self._input = memoryview(b"")
        self._bytes_in = 0
        self._bytes_out = 0
        self._seconds = 0.0
        self._extra_decoder_calls = 0
        self._has_read_all = False
        self._is_done = False
        self._has_started = False
        self._work: Future[tuple[bytes, Seconds]] | None = None
        self._refusal: BodyRefused | None = None
        self._has_answered = False
        self._buffered: Message | None = None

    async def run(self, app: ASGIApp) -> None:
        """Call the application. Send the rejection if the body was rejected."""
        try:
            if self._limits._buffered:
                self._buffered = await self._read_whole_body()
            await app(self._scope, self.receive, self.send)
        except Exception as error:
            if self._refusal is None or self._has_started:
                raise
            await self._send_refusal(self._refusal)
            if not _is_caused_by(error, self._refusal):
                raise
        if self._refusal is not None and not self._has_started:
            await self._send_refusal(self._refusal)

    async def _read_whole_body(self) -> Message:
        """Return the whole decoded body as one message.

        If the server sends another message first, such as a disconnect, return that one.
        """
        parts: list[bytes] = []
        while True:
            message = await self.receive()
            if message["type"] != "http.request":
                return message
            parts.append(message["body"])
            if not message["more_body"]:
                return {**message, "body": b"".join(parts)}

    async def receive(self) -> Message:
        """Return the next message for the application. Raises `BodyRefused`."""
        if self._buffered is not None:
            message, self._buffered = self._buffered, None
            return message
        if self._is_done:
            return await self._receive()
        try:
            return await self._make_next_message()
        except MalformedBody as exc:
            self._refusal = BodyRefused(400, str(exc))
            raise self._refusal from exc
        except BodyRefused as refusal:
            self._refusal = refusal
            raise

    async def send(self, message: Message) -> None:
        """Send a message of the application, or the rejection if the body was rejected."""
        if self._refusal is not None and not self._has_started:
            await self._send_refusal(self._refusal)
            return  # instead of the framework's own response
        self._has_started = self._has_started or message["type"] == "http.response.start"
        await self._send(message)

    async def _send_refusal(self, refusal: BodyRefused) -> None:
        """Send the response for a rejected body, if it was not sent before."""
        if not self._has_answered:
            self._has_answered = True
            response = EncodedResponse.for_error(refusal)
            await response(self._scope, self._receive, self._send)

    async def _make_next_message(self) -> Message:
        """Return a message with the next decoded piece, or a disconnect from the server."""
        if self._refusal is not None:
            raise self._refusal
        while True:
            if self._needs_input:
                message = await self._receive()
                if message["type"] != "http.request":
                    self._is_done = True
                    return message
                self._input = memoryview(message.get("body", b""))
                self._has_read_all = not message.get("more_body", False)
            decoded = await self._decode_next_piece()
            self._limits._check_limits(self._bytes_in, self._bytes_out, self._seconds)
            if self._has_read_all and not self._input and not self._decoder.has_pending_output:
                if not self._decoder.is_body_complete:
                    raise MalformedBody("the compressed data ends too early")
                self._is_done = True
                _set_content_length(self._scope, self._bytes_out)
                return {"type": "http.request", "body": decoded, "more_body": False}
            if decoded:
                return {"type": "http.request", "body": decoded, "more_body": True}

    @property
    def _needs_input(self) -> bool:
        is_idle = self._work is None and not self._decoder.has_pending_output
        return is_idle and not self._input and not self._has_read_all

    async def _decode_next_piece(self) -> bytes:
        if self._work is None:
            is_fresh = not self._decoder.has_pending_output
            data = self._take_encoded_input() if is_fresh else b""
            # The first piece of output is quick to decode. If there is more, a thread continues,
            # because the body is large or a bomb.
            if is_fresh and self._limits._pool.offload_after >= PIECE_BYTES * NS_PER_BYTE * 1e-9:
                return self._add_to_totals(self._decode_piece(data, self._decoder_calls_on_loop))
            self._work = self._limits._pool.submit(self._decode_piece, data, INPUT_BYTES)
        # If the application is cancelled here, its next read waits for the same work.
        done = await wait_for_concurrent_future(self._work)
        self._work = None
        return self._add_to_totals(done)

    def _take_encoded_input(self) -> bytes:
        data = bytes(self._input[:INPUT_BYTES])
        self._input = self._input[INPUT_BYTES:]
        self._bytes_in += len(data)
        return data

    def _decode_piece(self, data: bytes, max_decoder_calls: int) -> tuple[bytes, Seconds]:
        """Return decoded output, and the seconds that decoding took.

        Decoding stops when the output reaches PIECE_BYTES, when there is no more output, or after
        max_decoder_calls calls of the decoder. The time does not include the wait for a thread.
        """
        start = perf_counter()
        decoder = self._decoder
        if decoder.is_body_complete if data else decoder.has_pending_output:
            self._limit_extra_decoder_calls(self._bytes_out)
        decoded = decoder.decode(data, PIECE_BYTES)
        if decoder.has_pending_output and len(decoded) < PIECE_BYTES:
            decoded = self._decode_rest_of_piece(decoded, max_decoder_calls - 1)
        return decoded, perf_counter() - start

    def _decode_rest_of_piece(self, beginning: bytes, max_decoder_calls: int) -> bytes:
        """Return the beginning of a piece plus the output that needs no more input.

        The piece has at most about PIECE_BYTES.
        """
        parts = [beginning]
        size = len(beginning)
        for _ in range(max_decoder_calls):
            self._limit_extra_decoder_calls(self._bytes_out + size)
            parts.append(self._decoder.decode(b"", PIECE_BYTES - size))
            size += len(parts[-1])
            if size >= PIECE_BYTES or not self._decoder.has_pending_output:
                break
        return b"".join(parts)

    def _limit_extra_decoder_calls(self, total_bytes_out: int) -> None:
        """Count an extra call of the decoder.

        Such a call starts another gzip member or zstd frame, or only gets more output.
        total_bytes_out is the number of bytes that were decoded so far. Raises `MalformedBody` if
        the body takes too many extra calls for its size.
        """
        self._extra_decoder_calls += 1
        allowed = (
            self._bytes_in // INPUT_BYTES_PER_DECODER_CALL
            + total_bytes_out // OUTPUT_BYTES_PER_DECODER_CALL
        )
        if self._extra_decoder_calls > FREE_DECODER_CALLS + allowed:
            raise MalformedBody("too many gzip members or zstd frames for the size of the body")

    def _add_to_totals(self, output_and_seconds: tuple[bytes, Seconds]) -> bytes:
        decoded, seconds = output_and_seconds
        self._bytes_out += len(decoded)
        self._seconds += seconds
        return decoded


class _DecoderChain:
    """Decodes a body to which several codings were applied one after the other.

    decoders are in the order of decoding. max_intermediate_bytes and max_ratio limit the output of
    all decoders but the last, which has its own limits.
    """

    def __init__(
        self, decoders: Sequence[Decoder], max_intermediate_bytes: int, max_ratio: int
    ) -> None:
        self._stages = decoders
        self._max_between = max_intermediate_bytes
        self._max_ratio = max_ratio
        self._received = 0
        self._between = 0

    @property
    def has_pending_output(self) -> bool:
        return any(stage.has_pending_output for stage in self._stages)

    @property
    def is_body_complete(self) -> bool:
        return all(stage.is_body_complete for stage in self._stages)

    def decode(self, data: bytes, max_output_bytes: int) -> bytes:
        self._received += len(data)
        # Begin with the last stage that has output left: a stage must not get new input before its
        # output was taken.
        waiting = [i for i, stage in enumerate(self._stages) if stage.has_pending_output]
        for stage in self._stages[waiting[-1] if waiting else 0 :]:
            data = stage.decode(data, max_output_bytes)
            if stage is not self._stages[-1]:
                self._between += len(data)
        allowed = max(RATIO_COUNTS_FROM_BYTES, self._received * self._max_ratio)
        if self._between > min(allowed, self._max_between):
            raise BodyRefused(413, "the body is too large after one of its encodings is decoded")
        return data


def _make_decoder(
    decoders: Sequence[Decoder], max_intermediate_bytes: int, max_ratio: int
) -> Decoder:
    """Return one decoder that applies all of these decoders, one after the other."""
    return (
        decoders[0]
        if len(decoders) == 1
        else _DecoderChain(decoders, max_intermediate_bytes, max_ratio)
    )


def _is_caused_by(error: BaseException | None, cause: BaseException) -> bool:
    """Return whether cause is the error itself, or in the chain of errors that led to it."""
    while error is not None and error is not cause:
        error = error.__cause__ or error.__context__
    return error is cause


def _is_http(scope: Scope) -> bool:
    return bool(scope["type"] == "http")


def _parse_content_encoding(header: bytes | None) -> list[str]:
    """Return the names of the codings in a Content-Encoding value, without identity."""
    names = [normalize_coding(name) for name in (header or b"").decode("latin-1").split(",")]
    return [name for name in names if name and name != "identity"]


@contextmanager
def _use_headers_of_decoded_body(scope: Scope) -> Iterator[None]:
    """Within a ``with`` block, change the headers in the scope to those of the decoded body.

    The original headers are restored at the end.

    The scope itself is changed, not a copy: routers add to it, mainly the endpoint, and outer
    middlewares may need what they have added.
    """
    before = {key: scope[key] for key in ("headers", "extensions") if key in scope}
    headers: Headers = scope["headers"]
    facts: dict[str, Any] = {
        name.decode().replace("-", "_"): join_header_values(headers, name) for name in _KEPT
    }
    scope["headers"] = [line for line in headers if line[0] not in _ABOUT_ENCODED_BODY]
    scope["extensions"] = {**(scope.get("extensions") or {}), EXTENSION: facts}
    try:
        yield
    finally:
        scope.pop("extensions")
        scope.update(before)


def _set_content_length(scope: Scope, length: int) -> None:
    """Set the Content-Length of the decoded body, after it was read. RFC 9112, section 7.1.3.

    Django and WSGI adapters read the headers after the body, and do not parse forms without a
    Content-Length. The list of headers is changed in place, so that copies of the scope get the new
    header, too.
    """
    lines = [line for line in scope["headers"] if line[0] != b"transfer-encoding"]
    lines.append((b"content-length", b"%d" % length))
    if isinstance(scope["headers"], list):
        scope["headers"][:] = lines
    else:
        scope["headers"] = lines
