"""A body that is compressed and sent piece by piece."""

from __future__ import annotations

import os
from enum import Enum
from time import perf_counter
from typing import Final

from hasten._asgi import Message, Send
from hasten.compression._codecs import Codec, Encoder
from hasten.compression._events import Compressed
from hasten.compression._workload import Workload

SLICE_BYTES: Final = 256 * 1024
"""How much a thread compresses at a time. Large bodies take turns, slice by slice."""


class End(Enum):
    """What to do after a piece was written."""

    NONE = 0
    FLUSH = 1
    FINISH = 2


class CodedStream:
    """Compresses and sends what is written to it. For one writer at a time."""

    def __init__(
        self,
        workload: Workload,
        send: Send,
        codec: Codec,
        level: int,
        encoder: Encoder,
        *,
        flushes: bool,
    ) -> None:
        """With flushes, each piece is flushed, so that the client can decode it at once."""
        self._workload = workload
        self._send = send
        self._codec = codec
        self._level = level
        self._encoder: Encoder | None = encoder
        self._flushes = flushes
        self._bytes_before = 0
        self._bytes_after = 0
        self._gathered = 0
        self._seconds = 0.0
        self.has_unflushed = False
        workload.open_streams += 1

    async def write(self, data: bytes | memoryview, *, more: bool) -> None:
        """Compress and send data. Empty data is an explicit flush, unless it is the end."""
        end = End.NONE
        if not more:
            end = End.FINISH
        elif self._flushes or not data:
            end = End.FLUSH
        while len(data) > SLICE_BYTES:
            await self._send_piece(await self.advance_off_loop(data[:SLICE_BYTES], End.NONE))
            data = data[SLICE_BYTES:]
        if not more:
            coded = await self.advance(data, end)
            await self._send({"type": "http.response.body", "body": coded})
            self.close()
        elif data or self.has_unflushed:
            await self._send_piece(await self.advance(data, end))

    async def flush(self) -> None:
        if self.has_unflushed:
            await self._send_piece(await self.advance(b"", End.FLUSH))

    async def write_file(self, message: Message) -> int:
        """Compress a file that the server would send itself (pathsend, zerocopysend).

        Returns the number of bytes before compression.
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

    async def advance(self, data: bytes | memoryview, end: End) -> bytes:
        """Compress data without sending it."""
        # The compressor may process all input since its last output at once.
        if not self._workload.is_quick(self._codec, self._level, self._gathered + len(data)):
            return await self.advance_off_loop(data, end)
        start = perf_counter()
        coded = _advance(self._open_encoder, data, end)
        return self._advanced(start, data, coded, end)

    async def advance_off_loop(self, data: bytes | memoryview, end: End) -> bytes:
        """Compress a slice of a large body in a thread, without sending it.

        Each slice is quick, but all slices together would block the event loop.
        """
        start = perf_counter()
        coded = await self._workload.pool.run(_advance, self._open_encoder, data, end)
        return self._advanced(start, data, coded, end)

    @property
    def _open_encoder(self) -> Encoder:
        assert self._encoder is not None, "the stream has ended"
        return self._encoder

    def _advanced(self, start: float, data: bytes | memoryview, coded: bytes, end: End) -> bytes:
        self._seconds += perf_counter() - start
        self._bytes_before += len(data)
        self._bytes_after += len(coded)
        self._gathered = 0 if coded else self._gathered + len(data)
        self.has_unflushed = end is End.NONE
        return coded

    def close(self) -> None:
        """Free the encoder, without finishing the stream. Safe to call twice."""
        if self._encoder is not None:
            self.forget()
            self._workload.emit(
                Compressed(
                    str(self._codec.coding),
                    self._level,
                    self._bytes_before,
                    self._bytes_after,
                    self._seconds,
                    streamed=True,
                )
            )

    def forget(self) -> None:
        """Free the encoder without an event."""
        self._encoder = None
        self._workload.open_streams -= 1

    async def _send_piece(self, coded: bytes) -> None:
        if coded:
            await self._send({"type": "http.response.body", "body": coded, "more_body": True})

    async def _write_open_file(self, file: int, count: int | None) -> None:
        left = count
        while left is None or left > 0:
            size = SLICE_BYTES if left is None else min(left, SLICE_BYTES)
            data = await self._workload.pool.run(os.read, file, size)
            if not data:
                return
            if left is not None:
                left -= len(data)
            await self.write(data, more=True)


def _advance(encoder: Encoder, data: bytes | memoryview, end: End) -> bytes:
    coded = encoder.write(data) if data else b""
    match end:
        case End.NONE:
            return coded
        case End.FLUSH:
            return coded + encoder.flush()
        case End.FINISH:
            return coded + encoder.finish()
