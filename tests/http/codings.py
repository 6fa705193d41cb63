"""Decoders that do not use the library under test."""

from __future__ import annotations

import importlib
import sys
import zlib
from typing import Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

brotli: Any = importlib.import_module("brotli")  # it has no types

CODINGS = ("gzip", "br", "zstd")

DCZ_MAGIC = b"\x5e\x2a\x4d\x18\x20\x00\x00\x00"


class BadCoding(AssertionError):
    """The bytes are not one whole, valid body in that coding."""


def decode(coding: str, data: bytes) -> bytes:
    """Decode a whole body. Truncated bodies and trailing bytes are errors."""
    try:
        match coding:
            case "gzip" | "x-gzip":
                return _inflate(data, zlib.MAX_WBITS | 16)
            case "deflate":
                return _inflate(data, zlib.MAX_WBITS)
            case "br":
                return bytes(brotli.decompress(data))
            case "zstd":
                return zstd.decompress(data)
            case _:
                raise BadCoding(f"no decoder for {coding!r}")
    except (zlib.error, brotli.error, zstd.ZstdError) as error:
        raise BadCoding(f"not a whole {coding} body: {error}") from error


def decode_beginning(coding: str, data: bytes) -> bytes:
    """Decode the beginning of a body as far as possible."""
    match coding:
        case "gzip":
            return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data)
        case "br":
            # In small pieces, because it holds back a part of the output of a large one.
            decoder = brotli.Decompressor()
            pieces = (data[start : start + 64] for start in range(0, len(data), 64))
            return b"".join(decoder.process(piece) for piece in pieces)
        case "zstd":
            decompressor = zstd.ZstdDecompressor()
            return decompressor.decompress(data)
        case "identity":
            return data
        case _:
            raise BadCoding(f"no decoder for {coding!r}")


def decode_dcz(data: bytes, dictionary: bytes) -> bytes:
    """Decode Dictionary-Compressed Zstandard. RFC 9842, section 5."""
    return zstd.decompress(data[40:], zstd_dict=zstd.ZstdDict(dictionary, is_raw=True))


def encode(coding: str, data: bytes) -> bytes:
    match coding:
        case "gzip" | "x-gzip":
            return _deflate(data, zlib.MAX_WBITS | 16)
        case "deflate":
            return _deflate(data, zlib.MAX_WBITS)
        case "br":
            return bytes(brotli.compress(data, quality=4))
        case "zstd":
            return zstd.compress(data)
        case _:
            raise ValueError(coding)


def zstd_with_window(data: bytes, window_log: int) -> bytes:
    """Return a frame of unknown length that declares this window."""
    options: dict[int, int] = {zstd.CompressionParameter.window_log: window_log}
    compressor = zstd.ZstdCompressor(options=options)
    return compressor.compress(data) + compressor.flush()


def zstd_window_bytes(frame: bytes) -> int:
    """Return the window that the header of a frame declares. RFC 8878, section 3.1.1.1."""
    assert frame[:4] == b"\x28\xb5\x2f\xfd"
    descriptor = frame[4]
    if not descriptor & 0b0010_0000:
        exponent, mantissa = frame[5] >> 3, frame[5] & 7
        base = 1 << (10 + exponent)
        return base + (base // 8) * mantissa
    start = 5 + (0, 1, 2, 4)[descriptor & 3]
    width = (1, 2, 4, 8)[descriptor >> 6]
    size = int.from_bytes(frame[start : start + width], "little")
    return size + 256 if width == 2 else size


def _inflate(data: bytes, wbits: int) -> bytes:
    decompressor = zlib.decompressobj(wbits)
    plain = decompressor.decompress(data) + decompressor.flush()
    if not decompressor.eof:
        raise BadCoding("the body was cut off")
    if decompressor.unused_data:
        raise BadCoding(f"{len(decompressor.unused_data)} bytes follow the end")
    return plain


def _deflate(data: bytes, wbits: int) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, wbits)
    return compressor.compress(data) + compressor.flush()
