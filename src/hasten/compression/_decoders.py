"""Decoding piece by piece, with a limit on the output of each step."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from hasten.compression import _libraries as libraries
from hasten.compression._libraries import GZIP_WBITS, MAX_WINDOW_LOG, ZLIB_WBITS
from hasten.compression._negotiation import Coding

DATA_AFTER_END: Final = "data after the end of the compressed body"


class BadData(Exception):
    """The compressed data is malformed."""


class Decoder(Protocol):
    """The decoder of one compressed body."""

    def decode(self, data: bytes, at_most: int) -> bytes:
        """Decode more input and return about at_most bytes of output.

        Call it with b"" while `has_more`. Raises `BadData`.
        """

    @property
    def has_more(self) -> bool:
        """Whether more output is available without more input."""

    @property
    def at_end(self) -> bool:
        """Whether the input may end here."""


def available(codings: Sequence[Coding]) -> dict[Coding, Callable[[], Decoder]]:
    """Return a factory of decoders for each installed coding, in this order."""
    makers: dict[Coding, Callable[[], Decoder] | None] = {
        Coding.ZSTD: _ZstdDecoder if libraries.zstd else None,
        Coding.BROTLI: _BrotliDecoder if libraries.brotli else None,
        Coding.GZIP: lambda: _ZlibDecoder(GZIP_WBITS),
        Coding.DEFLATE: lambda: _ZlibDecoder(ZLIB_WBITS),
    }
    return {coding: maker for coding in codings if (maker := makers[coding])}


class _EmptyMemberCounter:
    """Counts empty members or frames in a row: each costs time and has no output."""

    LIMIT: Final = 100

    def __init__(self) -> None:
        self._seen = 0

    def count(self) -> None:
        self._seen += 1
        if self._seen > self.LIMIT:
            raise BadData(f"more than {self.LIMIT} empty gzip members or zstd frames in a row")

    def reset(self) -> None:
        self._seen = 0


class _ZstdDecoder:
    """Several frames in sequence are one body. RFC 8878, section 3.1."""

    def __init__(self) -> None:
        self._decompressor = self._new_decompressor()
        self._rest = b""
        self._empty = _EmptyMemberCounter()
        self.at_end = False

    @staticmethod
    def _new_decompressor() -> Any:
        limit = {libraries.zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
        return libraries.zstd.ZstdDecompressor(options=limit)

    @property
    def has_more(self) -> bool:
        return bool(self._rest) or not (self._decompressor.needs_input or self._decompressor.eof)

    def decode(self, data: bytes, at_most: int) -> bytes:
        data = self._rest + data
        self._rest = b""
        if self._decompressor.eof:
            if not data:
                return b""
            self._empty.count()
            self._decompressor = self._new_decompressor()
        try:
            decoded: bytes = self._decompressor.decompress(data, at_most)
        except libraries.zstd.ZstdError as exc:
            raise BadData(f"malformed zstd: {exc}") from exc
        if decoded:
            self._empty.reset()
        self.at_end = self._decompressor.eof
        if self.at_end:
            self._rest = self._decompressor.unused_data
        return decoded


class _BrotliDecoder:
    def __init__(self) -> None:
        self._decompressor = libraries.brotli.Decompressor()
        self._filled = False
        self._is_bad = False
        self.at_end = False

    @property
    def has_more(self) -> bool:
        # can_accept_more_data() is true even while there is output that did not fit.
        if self.at_end or self._is_bad:
            return False
        return self._filled or not self._decompressor.can_accept_more_data()

    def decode(self, data: bytes, at_most: int) -> bytes:
        if self._is_bad or (self.at_end and data):
            raise BadData(DATA_AFTER_END if self.at_end else "malformed brotli")
        try:
            decoded: bytes = self._decompressor.process(data, output_buffer_limit=at_most)
            self.at_end = self._decompressor.is_finished()
        except libraries.brotli.error as exc:
            self._is_bad = True
            raise BadData("malformed brotli") from exc
        self._filled = len(decoded) >= at_most
        return decoded


class _ZlibDecoder:
    """Several gzip members in sequence are one body. RFC 1952, section 2.2."""

    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._decompressor = zlib.decompressobj(wbits)
        self._rest = b""
        self._empty = _EmptyMemberCounter()
        self._filled = False
        self.at_end = False

    @property
    def has_more(self) -> bool:
        return bool(self._rest) or (self._filled and not self.at_end)

    def decode(self, data: bytes, at_most: int) -> bytes:
        data = self._rest + data
        if self._decompressor.eof:
            if not data:
                return b""
            if self._wbits == ZLIB_WBITS:
                raise BadData(DATA_AFTER_END)
            self._empty.count()
            self._decompressor = zlib.decompressobj(self._wbits)
        try:
            decoded = self._decompressor.decompress(data, at_most)
        except zlib.error as exc:
            raise BadData(f"malformed gzip or deflate: {exc}") from exc
        if decoded:
            self._empty.reset()
        self.at_end = self._decompressor.eof
        self._rest = (
            self._decompressor.unused_data if self.at_end else self._decompressor.unconsumed_tail
        )
        # If the output filled the buffer exactly, zlib may hold back more.
        self._filled = len(decoded) >= at_most
        return decoded
