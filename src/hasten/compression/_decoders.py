"""Decoders for compressed request bodies, which return a limited amount of output at a time."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from hasten.compression import _libraries as libraries
from hasten.compression._libraries import GZIP_WBITS, MAX_WINDOW_LOG, ZLIB_WBITS
from hasten.compression._negotiation import Coding

DATA_AFTER_END: Final = "data after the end of the compressed body"


class MalformedBody(Exception):
    """The compressed body of a request is malformed, incomplete or has too many parts."""


class Decoder(Protocol):
    """Decodes one compressed body, in steps whose output is limited."""

    def decode(self, data: bytes, max_output_bytes: int) -> bytes:
        """Decode more input, and return not much more than max_output_bytes of output.

        While `has_pending_output` is true, call it with b"" to get the rest of the output.

        Raises `MalformedBody`.
        """

    @property
    def has_pending_output(self) -> bool:
        """Whether the next call of `decode` has output to return even without new input."""

    @property
    def is_body_complete(self) -> bool:
        """Whether the input so far is a complete compressed body."""


def find_decoder_factories(codings: Sequence[Coding]) -> dict[Coding, Callable[[], Decoder]]:
    """Return a function for each coding that creates a decoder of it, in the given order.

    Codings whose library is not installed are left out.
    """
    makers: dict[Coding, Callable[[], Decoder] | None] = {
        Coding.ZSTD: _ZstdDecoder if libraries.zstd else None,
        Coding.BROTLI: _BrotliDecoder if libraries.brotli else None,
        Coding.GZIP: lambda: _ZlibDecoder(GZIP_WBITS),
        Coding.DEFLATE: lambda: _ZlibDecoder(ZLIB_WBITS),
    }
    return {coding: maker for coding in codings if (maker := makers[coding])}


class _EmptyMemberCounter:
    """Limits how many gzip members or zstd frames in a row may be empty.

    Each of them takes time to start, so a body of many empty ones would be an attack.
    """

    LIMIT: Final = 100

    def __init__(self) -> None:
        self._seen = 0

    def count_member_start(self) -> None:
        """Count the start of another member or frame.

        Raises `MalformedBody` if too many have started since the last output.
        """
        self._seen += 1
        if self._seen > self.LIMIT:
            raise MalformedBody(
                f"more than {self.LIMIT} empty gzip members or zstd frames in a row"
            )

    def reset(self) -> None:
        """Set the count to zero. Call it when a member or frame has output."""
        self._seen = 0


class _ZstdDecoder:
    """Decodes zstd. A body may consist of several frames: RFC 8878, section 3.1."""

    def __init__(self) -> None:
        self._decompressor = self._make_decompressor()
        self._rest = b""
        self._empty = _EmptyMemberCounter()
        self.is_body_complete = False

    @staticmethod
    def _make_decompressor() -> Any:
        limit = {libraries.zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
        return libraries.zstd.ZstdDecompressor(options=limit)

    @property
    def has_pending_output(self) -> bool:
        return bool(self._rest) or not (self._decompressor.needs_input or self._decompressor.eof)

    def decode(self, data: bytes, max_output_bytes: int) -> bytes:
        data = self._rest + data
        self._rest = b""
        if self._decompressor.eof:
            if not data:
                return b""
            self._empty.count_member_start()
            self._decompressor = self._make_decompressor()
        try:
            decoded: bytes = self._decompressor.decompress(data, max_output_bytes)
        except libraries.zstd.ZstdError as exc:
            raise MalformedBody(f"malformed zstd: {exc}") from exc
        if decoded:
            self._empty.reset()
        self.is_body_complete = self._decompressor.eof
        if self.is_body_complete:
            self._rest = self._decompressor.unused_data
        return decoded


class _BrotliDecoder:
    """Decodes brotli."""

    def __init__(self) -> None:
        self._decompressor = libraries.brotli.Decompressor()
        self._filled = False
        self._is_bad = False
        self.is_body_complete = False

    @property
    def has_pending_output(self) -> bool:
        # _filled is needed, too: can_accept_more_data() may be true although output is left.
        if self.is_body_complete or self._is_bad:
            return False
        return self._filled or not self._decompressor.can_accept_more_data()

    def decode(self, data: bytes, max_output_bytes: int) -> bytes:
        if self._is_bad or (self.is_body_complete and data):
            raise MalformedBody(DATA_AFTER_END if self.is_body_complete else "malformed brotli")
        try:
            decoded: bytes = self._decompressor.process(data, output_buffer_limit=max_output_bytes)
            self.is_body_complete = self._decompressor.is_finished()
        except libraries.brotli.error as exc:
            self._is_bad = True
            raise MalformedBody("malformed brotli") from exc
        self._filled = len(decoded) >= max_output_bytes
        return decoded


class _ZlibDecoder:
    """Decodes gzip or deflate. A gzip body may have several members: RFC 1952, section 2.2."""

    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._decompressor = zlib.decompressobj(wbits)
        self._rest = b""
        self._empty = _EmptyMemberCounter()
        self._filled = False
        self.is_body_complete = False

    @property
    def has_pending_output(self) -> bool:
        return bool(self._rest) or (self._filled and not self.is_body_complete)

    def decode(self, data: bytes, max_output_bytes: int) -> bytes:
        data = self._rest + data
        if self._decompressor.eof:
            if not data:
                return b""
            if self._wbits == ZLIB_WBITS:
                raise MalformedBody(DATA_AFTER_END)
            self._empty.count_member_start()
            self._decompressor = zlib.decompressobj(self._wbits)
        try:
            decoded = self._decompressor.decompress(data, max_output_bytes)
        except zlib.error as exc:
            raise MalformedBody(f"malformed gzip or deflate: {exc}") from exc
        if decoded:
            self._empty.reset()
        self.is_body_complete = self._decompressor.eof
        self._rest = (
            self._decompressor.unused_data
            if self.is_body_complete
            else self._decompressor.unconsumed_tail
        )
        # If the output has exactly the maximum size, zlib may have more of it.
        self._filled = len(decoded) >= max_output_bytes
        return decoded
