"""A response body that is compressed and sent piece by piece."""

from __future__ import annotations

import os
from enum import Enum
from time import perf_counter
from typing import Final, TypeAlias

from hasten._asgi import Message, Send
from hasten.compression._codecs import Codec, Encoder
from hasten.compression._events import Compressed
from hasten.compression._shared_resources import SharedResources

SLICE_BYTES: Final = 256 * 1024
"""How much of a large body a thread compresses before other bodies get their turn."""


BytesRead: TypeAlias = int


class FlushMode(Enum):
    """What the compressor does after a piece of data: nothing, flush, or finish the body."""

    NONE = 0
    FLUSH = 1
    FINISH = 2


class CompressedStream:
    """Compresses the data that is written to it, and sends the result to the client.

    Only one task may write at a time.
    """

    def __init__(
        self,
        shared: SharedResources,
        send: Send,
        codec: Codec,
        level: int,
        encoder: Encoder,
        *,
        flushes: bool,
    ) -> None:
        """Create the stream, and count it in shared.open_streams.

        If flushes is true, each piece is flushed, so that the client can decode it at once.
        """
        self._shared = shared
        self._send = send
        self._codec = codec
        self._level = level
        self._encoder: Encoder | None = encoder
        self._flushes = flushes
        self._bytes_before = 0
        self._bytes_after = 0
        self._bytes_since_output = 0
        self._seconds = 0.0
        self.has_unflushed = False
        shared.open_streams += 1

    async def write(self, data: bytes | memoryview, *, more: bool) -> None:
        """Compress and send data, and end the stream unless there is more.

        Empty data with more sends everything that the compressor holds back.
        """
        flush_mode = FlushMode.NONE
        if not more:
            flush_mode = FlushMode.FINISH
        elif self._flushes or not data:
            flush_mode = FlushMode.FLUSH
        while len(data) > SLICE_BYTES:
            await self._send_piece(
                await self.compress_in_thread(data[:SLICE_BYTES], FlushMode.NONE)
            )
            data = data[SLICE_BYTES:]
        if not more:
            compressed = await self.compress(data, flush_mode)
            await self._send({"type": "http.response.body", "body": compressed})
            self.release()
        elif data or self.has_unflushed:
            await self._send_piece(await self.compress(data, flush_mode))

    async def flush(self) -> None:
        """Send everything that the compressor holds back, if there is anything."""
        if self.has_unflushed:
            await self._send_piece(await self.compress(b"", FlushMode.FLUSH))

    async def write_file(self, message: Message) -> BytesRead:
        """Read, compress and send the file of a pathsend or zerocopysend message.

        Without compression, the server would send the file itself. Returns the size of the data
        that was read, in bytes.
        """
        before = self._bytes_before
        path = message.get("path")
        if path is not None:
            file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        else:
            file = message["file"] if isinstance(message["file"], int) else message["file"].fileno()
        try:
            if message.get("offset") is not None:
                os.lseek(file, message["offset"], os.SEEK_SET)
            await self._write_open_file(file, message.get("count"))
        finally:
            if path is not None:
                os.close(file)
        return self._bytes_before - before

    async def compress(self, data: bytes | memoryview, flush_mode: FlushMode) -> bytes:
        """Compress data, and return the output without sending it.

        A small piece is compressed on the event loop, a large one in a thread.
        """
        # A compressor collects input, and may process all of it in this call.
        if not self._shared.is_quick_to_compress(
            self._codec, self._level, self._bytes_since_output + len(data)
        ):
            return await self.compress_in_thread(data, flush_mode)
        start = perf_counter()
        compressed = _compress_data(self._require_open_encoder, data, flush_mode)
        self._record_progress(start, data, compressed, flush_mode)
        return compressed

    async def compress_in_thread(self, data: bytes | memoryview, flush_mode: FlushMode) -> bytes:
        """Compress data in a thread, and return the output without sending it.

        This is for slices of a large body: each is quick, but all together would block the loop.
        """
        start = perf_counter()
        compressed = await self._shared.pool.run(
            _compress_data, self._require_open_encoder, data, flush_mode
        )
        self._record_progress(start, data, compressed, flush_mode)
        return compressed

    @property
    def _require_open_encoder(self) -> Encoder:
        assert self._encoder is not None, "the stream has ended"
        return self._encoder

    def _record_progress(
        self, start: float, data: bytes | memoryview, compressed: bytes, flush_mode: FlushMode
    ) -> None:
        self._seconds += perf_counter() - start
        self._bytes_before += len(data)
        self._bytes_after += len(compressed)
        self._bytes_since_output = 0 if compressed else self._bytes_since_output + len(data)
        self.has_unflushed = flush_mode is FlushMode.NONE

    def release(self) -> None:
        """Discard the encoder, and emit the `Compressed` event. Safe to call twice.

        This does not complete the body: only `write` with more=False does.
        """
        if self._encoder is not None:
            self.release_without_event()
            self._shared.emit(
                Compressed(
                    str(self._codec.coding),
                    self._level,
                    self._bytes_before,
                    self._bytes_after,
                    self._seconds,
                    streamed=True,
                )
            )

    def release_without_event(self) -> None:
        """Discard the encoder, but emit no event. Call it at most once."""
        self._encoder = None
        self._shared.open_streams -= 1

    async def _send_piece(self, compressed: bytes) -> None:
        if compressed:
            await self._send({"type": "http.response.body", "body": compressed, "more_body": True})

    async def _write_open_file(self, file_descriptor: int, byte_count: int | None) -> None:
        left = byte_count
        while left is None or left > 0:
            size = SLICE_BYTES if left is None else min(left, SLICE_BYTES)
            data = await self._shared.pool.run(os.read, file_descriptor, size)
            if not data:
                return
            if left is not None:
                left -= len(data)
            await self.write(data, more=True)


def _compress_data(encoder: Encoder, data: bytes | memoryview, flush_mode: FlushMode) -> bytes:
    compressed = encoder.write(data) if data else b""
    match flush_mode:
        case FlushMode.NONE:
            return compressed
        case FlushMode.FLUSH:
            return compressed + encoder.flush()
        case FlushMode.FINISH:
            return compressed + encoder.finish()
