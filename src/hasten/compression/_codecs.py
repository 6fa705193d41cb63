"""A common interface to the installed compression libraries, and the codecs that implement it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from hasten.compression import _libraries as libraries
from hasten.compression._level_policy import (
    BROTLI,
    ISAL,
    KIB,
    ZLIB,
    ZSTD,
    LevelPolicy,
    with_fixed_level,
)
from hasten.compression._libraries import GZIP_WBITS, MAX_WINDOW_LOG, ZLIB_WBITS
from hasten.compression._negotiation import Coding

if TYPE_CHECKING:
    from types import ModuleType

Bytes = bytes | memoryview


class Encoder(Protocol):
    """Compresses one stream. Each method returns output to send, which may be empty."""

    def write(self, data: Bytes) -> bytes:
        """Compress data. The compressor may keep the output until a later call."""

    def flush(self) -> bytes:
        """Return the output kept so far, so that the client can decode everything written."""

    def finish(self) -> bytes:
        """End the stream, and return the rest of the output."""


class Codec(Protocol):
    """Compresses bodies and streams with one content coding. It is thread-safe."""

    coding: Coding
    level_policy: LevelPolicy

    @property
    def codec_for_live_streams(self) -> Codec:
        """The codec that compresses live streams in this coding: usually this codec itself."""

    def compress(self, body: Bytes, level: int) -> bytes:
        """Compress a whole body.

        Equal bodies give equal results. A rare exception is isal, where uninitialized memory may
        decide between two equally good outputs.
        """

    def make_encoder(self, level: int) -> Encoder:
        """Return an encoder for a stream of unknown length."""

    def make_live_stream_encoder(self, level: int, memory_bytes: int) -> Encoder:
        """Return an encoder for a live stream, which uses about that much memory.

        If the codec needs more than that, it uses its minimum.
        """


def make_codecs(codings: Sequence[Coding], levels: Mapping[Coding, int]) -> dict[Coding, Codec]:
    """Return a codec for each coding whose library is installed, in the given order.

    A coding in levels has one level for all body sizes. For the others, the size decides.
    """
    found: dict[Coding, Codec] = {}
    for coding in codings:
        codec = _make_codec(coding, levels.get(coding))
        if codec is not None:
            found[coding] = codec
    return found


def make_zstd_codec_with_dictionary(dictionary: bytes) -> Codec | None:
    """Return a zstd codec that uses any bytes as its dictionary, None if zstd is not installed."""
    return Zstd(ZSTD, libraries.zstd.ZstdDict(dictionary, is_raw=True)) if libraries.zstd else None


def _make_codec(coding: Coding, level: int | None) -> Codec | None:
    match coding:
        case Coding.ZSTD:
            return Zstd(_choose_level_policy(ZSTD, level)) if libraries.zstd else None
        case Coding.BROTLI:
            return Brotli(_choose_level_policy(BROTLI, level)) if libraries.brotli else None
        case Coding.GZIP:
            # A level from the user is a zlib level: the levels of isal differ.
            if libraries.isal and level is None:
                return Isal(ISAL)
            return Zlib(coding, _choose_level_policy(ZLIB, level))
        case Coding.DEFLATE:
            return Zlib(coding, _choose_level_policy(ZLIB, level))


def _choose_level_policy(default: LevelPolicy, fixed_level: int | None) -> LevelPolicy:
    return default if fixed_level is None else with_fixed_level(fixed_level, default)


# zstd ---------------------------------------------------------------------------------------------


class Zstd:
    """Compresses to zstd, optionally with a dictionary."""

    coding = Coding.ZSTD

    # Compressors up to this level are reused. Those of higher levels occupy many megabytes, and are
    # so slow that the time to create them does not matter.
    MAX_KEPT_LEVEL: Final = 9

    # log2 of the window: 1 MB is enough to find repetitions, and every browser supports it.
    STREAM_WINDOW_LOG: Final = 20

    def __init__(self, level_policy: LevelPolicy, dictionary: Any = None) -> None:
        self.level_policy = level_policy
        self._dictionary = dictionary
        self._idle: dict[int, list[Any]] = {level: [] for level in level_policy.levels}

    @property
    def codec_for_live_streams(self) -> Codec:
        return self

    def compress(self, body: Bytes, level: int) -> bytes:
        # Compressors are reused, because creating one costs more than compressing a small body. A
        # thread takes one from the list and puts it back after FLUSH_FRAME, which resets it. A
        # compressor that raised an exception is not put back.
        idle = self._idle[level]
        try:
            compressor = idle.pop()
        except IndexError:
            compressor = _make_zstd_compressor(level, MAX_WINDOW_LOG, self._dictionary)
        coded: bytes = compressor.compress(body, 2)  # FLUSH_FRAME
        if level <= self.MAX_KEPT_LEVEL:
            idle.append(compressor)
        return coded

    def make_encoder(self, level: int) -> Encoder:
        return _ZstdEncoder(_make_zstd_compressor(level, self.STREAM_WINDOW_LOG))

    def make_live_stream_encoder(self, level: int, memory_bytes: int) -> Encoder:
        p = libraries.zstd.CompressionParameter
        if memory_bytes < 80 * KIB:
            small = {p.window_log: 12, p.hash_log: 11, p.chain_log: 11}
        elif memory_bytes < 128 * KIB:
            small = {p.window_log: 14, p.hash_log: 12, p.chain_log: 12}
        else:
            small = {p.window_log: 17}
        options = {p.compression_level: level, **small}
        return _ZstdEncoder(libraries.zstd.ZstdCompressor(options=options))


def _make_zstd_compressor(level: int, window_log: int, dictionary: Any = None) -> Any:
    """Return a zstd compressor whose window is the default of its level, or smaller.

    window_log is log2 of the largest allowed window, in bytes.
    """
    p = libraries.zstd.CompressionParameter
    options = {p.compression_level: level}
    if level >= 1 and _WINDOW_LOGS[min(level, 22)] > window_log:
        options[p.window_log] = window_log
    return libraries.zstd.ZstdCompressor(options=options, zstd_dict=dictionary)


# log2 of the default window of levels 0 to 22, for input of unknown length.
_WINDOW_LOGS: Final = (
    (19, 19, 20, 21, 21, 21, 21, 21, 21, 22, 22, 22, 22, 22, 22, 22, 22, 22, 23, 23, 25, 26, 27)
)  # fmt: skip


class _ZstdEncoder:
    __slots__ = ("_compressor",)

    def __init__(self, compressor: Any) -> None:
        self._compressor = compressor

    def write(self, data: Bytes) -> bytes:
        coded: bytes = self._compressor.compress(data)
        return coded

    def flush(self) -> bytes:
        coded: bytes = self._compressor.flush(self._compressor.FLUSH_BLOCK)
        return coded

    def finish(self) -> bytes:
        coded: bytes = self._compressor.flush(self._compressor.FLUSH_FRAME)
        return coded


# brotli -------------------------------------------------------------------------------------------


class Brotli:
    """Compresses to brotli."""

    coding = Coding.BROTLI

    def __init__(self, level_policy: LevelPolicy) -> None:
        self.level_policy = level_policy

    @property
    def codec_for_live_streams(self) -> Codec:
        return self

    def compress(self, body: Bytes, level: int) -> bytes:
        coded: bytes = libraries.brotli.compress(bytes(body), quality=level)
        return coded

    def make_encoder(self, level: int) -> Encoder:
        return _BrotliEncoder(libraries.brotli.Compressor(quality=level, lgwin=20))

    def make_live_stream_encoder(self, level: int, memory_bytes: int) -> Encoder:
        # Brotli needs at least 300 kB, whatever the window is. Qualities 2 to 4 use as much or more
        # memory than 5, for half its compression ratio. 0 and 1 do not make events smaller.
        return _BrotliEncoder(
            libraries.brotli.Compressor(quality=max(level, 5), lgwin=14, lgblock=16)
        )


class _BrotliEncoder:
    __slots__ = ("_compressor",)

    def __init__(self, compressor: Any) -> None:
        self._compressor = compressor

    def write(self, data: Bytes) -> bytes:
        coded: bytes = self._compressor.process(bytes(data))
        return coded

    def flush(self) -> bytes:
        coded: bytes = self._compressor.flush()
        return coded

    def finish(self) -> bytes:
        coded: bytes = self._compressor.finish()
        return coded


# gzip and deflate ---------------------------------------------------------------------------------


class Zlib:
    """Compresses to gzip or deflate with the zlib of the standard library."""

    def __init__(self, coding: Coding, level_policy: LevelPolicy) -> None:
        self.coding = coding
        self.level_policy = level_policy
        self._wbits = GZIP_WBITS if coding is Coding.GZIP else ZLIB_WBITS

    @property
    def codec_for_live_streams(self) -> Codec:
        return self

    def compress(self, body: Bytes, level: int) -> bytes:
        return zlib.compress(body, level, self._wbits)

    def make_encoder(self, level: int) -> Encoder:
        return _ZlibEncoder(zlib.compressobj(level, zlib.DEFLATED, self._wbits), zlib)

    def make_live_stream_encoder(self, level: int, memory_bytes: int) -> Encoder:
        window_log, memory_level = _choose_zlib_window_log_and_mem_level(memory_bytes)
        wbits = self._wbits - zlib.MAX_WBITS + window_log
        return _ZlibEncoder(zlib.compressobj(level, zlib.DEFLATED, wbits, memory_level), zlib)


def _choose_zlib_window_log_and_mem_level(max_memory_bytes: int) -> tuple[int, int]:
    """Return the log2 of the window size and the memLevel for zlib to use at most this memory.

    The formula is in zlib's zconf.h.
    """
    for window_log, memory_level in ((15, 8), (14, 7), (13, 6), (13, 5), (12, 5), (12, 4), (11, 4)):
        if (1 << (window_log + 2)) + (1 << (memory_level + 9)) + 6 * KIB <= max_memory_bytes:
            return window_log, memory_level
    return 10, 4


class Isal:
    """Compresses to gzip with Intel's ISA-L (package isal).

    It takes a fifth to a tenth of the time of zlib's level 6. Its output is 15 to 30 % larger.
    """

    coding = Coding.GZIP

    def __init__(self, level_policy: LevelPolicy) -> None:
        self.level_policy = level_policy
        # zlib compresses live streams, because it supports small windows, which save memory.
        self.codec_for_live_streams: Codec = Zlib(Coding.GZIP, ZLIB)

    def compress(self, body: Bytes, level: int) -> bytes:
        coded: bytes = libraries.isal.compress(body, level, GZIP_WBITS)
        return coded

    def make_encoder(self, level: int) -> Encoder:
        return _ZlibEncoder(
            libraries.isal.compressobj(level, libraries.isal.DEFLATED, GZIP_WBITS), libraries.isal
        )

    def make_live_stream_encoder(self, level: int, memory_bytes: int) -> Encoder:
        return self.codec_for_live_streams.make_live_stream_encoder(level, memory_bytes)


class _ZlibEncoder:
    __slots__ = ("_compressor", "_module")

    def __init__(self, compressor: Any, module: ModuleType) -> None:
        self._compressor = compressor
        self._module = module

    def write(self, data: Bytes) -> bytes:
        coded: bytes = self._compressor.compress(data)
        return coded

    def flush(self) -> bytes:
        coded: bytes = self._compressor.flush(self._module.Z_SYNC_FLUSH)
        return coded

    def finish(self) -> bytes:
        coded: bytes = self._compressor.flush(self._module.Z_FINISH)
        return coded
