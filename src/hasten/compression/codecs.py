"""The compressors that are installed, behind one face.

zstd is the standard library's (3.14 and newer) or backports.zstd's, brotli is its own package's,
gzip is isal's where that is installed and zlib's else.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from hasten._extras import require
from hasten.compression.effort import BROTLI, ISAL, KIB, ZLIB, ZSTD, Effort, fixed_at
from hasten.compression.negotiation import Coding
from hasten.errors import MissingExtra

if TYPE_CHECKING:
    from types import ModuleType

MAX_WINDOW_LOG: Final = 23
"""What decoders of zstd have to take: windows of at most 8 MB. RFC 9659, section 3."""

Bytes = bytes | memoryview


class Encoder(Protocol):
    """One stream being coded. What a call returns is to be sent, and may be empty."""

    def write(self, data: Bytes) -> bytes: ...

    def flush(self) -> bytes:
        """After this, all that was written can be decoded."""

    def finish(self) -> bytes: ...


class Codec(Protocol):
    """One coding. Safe to use from several threads at once."""

    coding: Coding
    effort: Effort

    @property
    def live(self) -> Codec:
        """What codes live streams: itself, mostly."""

    def compress(self, body: Bytes, level: int) -> bytes:
        """Code a body as a whole.

        The same body gives the same bytes, and with isal nearly always: where several ways to code
        it are as good, what its memory held before may decide.
        """

    def encoder(self, level: int) -> Encoder:
        """Begin a stream of unknown length."""

    def live_encoder(self, level: int, memory: int) -> Encoder:
        """Begin a stream of events that takes about so many bytes of memory.

        Takes as little as it can where that is more.
        """


class BadData(Exception):
    """What was to be decoded is not what it should be."""


class Decoder(Protocol):
    """One coded body being decoded, piece by piece."""

    def decode(self, data: bytes, at_most: int) -> bytes:
        """Take more input and return output, about at_most bytes of it.

        Call it with b"" while `has_more`. Raises `BadData`.
        """

    @property
    def has_more(self) -> bool:
        """Is there output left that needs no more input?"""

    @property
    def at_end(self) -> bool:
        """Might the input end here?"""


class _EmptyMembers:
    """Members or frames without content in a row: each costs time, and yields nothing."""

    MOST: Final = 100

    def __init__(self) -> None:
        self._seen = 0

    def count(self) -> None:
        self._seen += 1
        if self._seen > self.MOST:
            raise BadData(f"more than {self.MOST} empty parts follow each other")

    def reset(self) -> None:
        self._seen = 0


def available(codings: Sequence[Coding], levels: Mapping[Coding, int]) -> dict[Coding, Codec]:
    """The codecs of these codings, in this order, without those whose package is not installed."""
    found: dict[Coding, Codec] = {}
    for coding in codings:
        codec = _codec(coding, levels.get(coding))
        if codec is not None:
            found[coding] = codec
    return found


def zstd_with(dictionary: bytes) -> Codec | None:
    """zstd with any bytes as its dictionary, None if it is not installed."""
    return Zstd(ZSTD, _zstd.ZstdDict(dictionary, is_raw=True)) if _zstd else None


def decoders(codings: Sequence[Coding]) -> dict[Coding, Callable[[], Decoder]]:
    """What begins the decoding of each coding, in this order, as far as it is installed."""
    makers: dict[Coding, Callable[[], Decoder] | None] = {
        Coding.ZSTD: _ZstdDecoder if _zstd else None,
        Coding.BROTLI: _BrotliDecoder if _brotli else None,
        Coding.GZIP: lambda: _ZlibDecoder(_GZIP_WBITS),
        Coding.DEFLATE: lambda: _ZlibDecoder(_ZLIB_WBITS),
    }
    return {coding: maker for coding in codings if (maker := makers[coding])}


def _codec(coding: Coding, level: int | None) -> Codec | None:
    match coding:
        case Coding.ZSTD:
            return Zstd(_chosen(ZSTD, level)) if _zstd else None
        case Coding.BROTLI:
            return Brotli(_chosen(BROTLI, level)) if _brotli else None
        case Coding.GZIP:
            # A level that was asked for is one of zlib's: isal has others.
            if _isal and level is None:
                return Isal(ISAL)
            return Zlib(coding, _chosen(ZLIB, level))
        case Coding.DEFLATE:
            return Zlib(coding, _chosen(ZLIB, level))


def _chosen(usual: Effort, level: int | None) -> Effort:
    return usual if level is None else fixed_at(level, usual)


def _installed(module: str) -> Any:
    try:
        return require(module, extra="compression")
    except MissingExtra:
        return None


def _import_zstd() -> Any:
    if sys.version_info >= (3, 14):
        try:
            return require("compression.zstd", extra="compression")
        except ImportError:  # a Python that was built without it
            return None
    return _installed("backports.zstd")


def _import_brotli() -> Any:
    module = _installed("brotli") or _installed("brotlicffi")
    # Older ones cannot bound their output, which decoding the bodies of strangers needs.
    return (
        module if hasattr(getattr(module, "Decompressor", None), "can_accept_more_data") else None
    )


_zstd: Final[Any] = _import_zstd()
_brotli: Final[Any] = _import_brotli()
_isal: Final[Any] = _installed("isal.isal_zlib")

_GZIP_WBITS: Final = 16 + zlib.MAX_WBITS
_ZLIB_WBITS: Final = zlib.MAX_WBITS


# zstd ---------------------------------------------------------------------------------------------


class Zstd:
    coding = Coding.ZSTD

    # Higher ones have tables of many megabytes, and take so long that making them does not count.
    MAX_KEPT_LEVEL: Final = 9

    # A megabyte is enough to find what repeats, and every browser grants it.
    STREAM_WINDOW_LOG: Final = 20

    def __init__(self, effort: Effort, dictionary: Any = None) -> None:
        self.effort = effort
        self._dictionary = dictionary
        self._idle: dict[int, list[Any]] = {level: [] for level in effort.levels}

    @property
    def live(self) -> Codec:
        return self

    def compress(self, body: Bytes, level: int) -> bytes:
        # To make a compressor costs more than to code a small body with it. Each is used by one
        # thread at a time and starts anew after FLUSH_FRAME; one that raised is not used again.
        idle = self._idle[level]
        try:
            compressor = idle.pop()
        except IndexError:
            compressor = _zstd_compressor(level, MAX_WINDOW_LOG, self._dictionary)
        coded: bytes = compressor.compress(body, 2)  # FLUSH_FRAME
        if level <= self.MAX_KEPT_LEVEL:
            idle.append(compressor)
        return coded

    def encoder(self, level: int) -> Encoder:
        return _ZstdEncoder(_zstd_compressor(level, self.STREAM_WINDOW_LOG))

    def live_encoder(self, level: int, memory: int) -> Encoder:
        p = _zstd.CompressionParameter
        if memory < 80 * KIB:
            small = {p.window_log: 12, p.hash_log: 11, p.chain_log: 11}
        elif memory < 128 * KIB:
            small = {p.window_log: 14, p.hash_log: 12, p.chain_log: 12}
        else:
            small = {p.window_log: 17}
        options = {p.compression_level: level, **small}
        return _ZstdEncoder(_zstd.ZstdCompressor(options=options))


def _zstd_compressor(level: int, window_log: int, dictionary: Any = None) -> Any:
    """A compressor whose window is at most so large, and as large as the level wants it else."""
    p = _zstd.CompressionParameter
    options = {p.compression_level: level}
    if level >= 1 and _WINDOW_LOGS[min(level, 22)] > window_log:
        options[p.window_log] = window_log
    return _zstd.ZstdCompressor(options=options, zstd_dict=dictionary)


# What a level takes for input of unknown length.
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


class _ZstdDecoder:
    """Frames one after the other are one body. RFC 8878, section 3.1."""

    def __init__(self) -> None:
        self._decompressor = self._new()
        self._rest = b""
        self._empty = _EmptyMembers()
        self.at_end = False

    @staticmethod
    def _new() -> Any:
        limit = {_zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
        return _zstd.ZstdDecompressor(options=limit)

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
            self._decompressor = self._new()
        try:
            plain: bytes = self._decompressor.decompress(data, at_most)
        except _zstd.ZstdError as exc:
            raise BadData(str(exc)) from exc
        if plain:
            self._empty.reset()
        self.at_end = self._decompressor.eof
        if self.at_end:
            self._rest = self._decompressor.unused_data
        return plain


# brotli -------------------------------------------------------------------------------------------


class Brotli:
    coding = Coding.BROTLI

    def __init__(self, effort: Effort) -> None:
        self.effort = effort

    @property
    def live(self) -> Codec:
        return self

    def compress(self, body: Bytes, level: int) -> bytes:
        coded: bytes = _brotli.compress(bytes(body), quality=level)
        return coded

    def encoder(self, level: int) -> Encoder:
        return _BrotliEncoder(_brotli.Compressor(quality=level, lgwin=20))

    def live_encoder(self, level: int, memory: int) -> Encoder:
        # No less than 300 kB, whatever the window. Qualities 2 to 4 take as much or more, for half
        # the ratio; 0 and 1 do not shrink events at all.
        return _BrotliEncoder(_brotli.Compressor(quality=max(level, 5), lgwin=14, lgblock=16))


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


class _BrotliDecoder:
    def __init__(self) -> None:
        self._decompressor = _brotli.Decompressor()
        self._filled = False
        self._is_bad = False
        self.at_end = False

    @property
    def has_more(self) -> bool:
        # It says that it takes more input while there is output that did not fit.
        if self.at_end or self._is_bad:
            return False
        return self._filled or not self._decompressor.can_accept_more_data()

    def decode(self, data: bytes, at_most: int) -> bytes:
        if self._is_bad or (self.at_end and data):
            raise BadData("there is data after its end" if self.at_end else "this is not brotli")
        try:
            plain: bytes = self._decompressor.process(data, output_buffer_limit=at_most)
            self.at_end = self._decompressor.is_finished()
        except _brotli.error as exc:
            self._is_bad = True
            raise BadData("this is not brotli") from exc
        self._filled = len(plain) >= at_most
        return plain


# gzip and deflate ---------------------------------------------------------------------------------


class Zlib:
    def __init__(self, coding: Coding, effort: Effort) -> None:
        self.coding = coding
        self.effort = effort
        self._wbits = _GZIP_WBITS if coding is Coding.GZIP else _ZLIB_WBITS

    @property
    def live(self) -> Codec:
        return self

    def compress(self, body: Bytes, level: int) -> bytes:
        return zlib.compress(body, level, self._wbits)

    def encoder(self, level: int) -> Encoder:
        return _ZlibEncoder(zlib.compressobj(level, zlib.DEFLATED, self._wbits), zlib)

    def live_encoder(self, level: int, memory: int) -> Encoder:
        window_log, memory_level = _zlib_sizes(memory)
        wbits = self._wbits - zlib.MAX_WBITS + window_log
        return _ZlibEncoder(zlib.compressobj(level, zlib.DEFLATED, wbits, memory_level), zlib)


def _zlib_sizes(memory: int) -> tuple[int, int]:
    """The largest window (as a logarithm) and memLevel that fit, by the formula in zconf.h."""
    for window_log, memory_level in ((15, 8), (14, 7), (13, 6), (13, 5), (12, 5), (12, 4), (11, 4)):
        if (1 << (window_log + 2)) + (1 << (memory_level + 9)) + 6 * KIB <= memory:
            return window_log, memory_level
    return 10, 4


class Isal:
    """gzip by ISA-L: an eighth of zlib's time, for some more bytes."""

    coding = Coding.GZIP

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        # zlib's window can be made small; and the events of live streams are.
        self.live: Codec = Zlib(Coding.GZIP, ZLIB)

    def compress(self, body: Bytes, level: int) -> bytes:
        coded: bytes = _isal.compress(body, level, _GZIP_WBITS)
        return coded

    def encoder(self, level: int) -> Encoder:
        return _ZlibEncoder(_isal.compressobj(level, _isal.DEFLATED, _GZIP_WBITS), _isal)

    def live_encoder(self, level: int, memory: int) -> Encoder:
        return self.live.live_encoder(level, memory)


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


class _ZlibDecoder:
    """Members of gzip one after the other are one body. RFC 1952, section 2.2."""

    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._decompressor = zlib.decompressobj(wbits)
        self._rest = b""
        self._empty = _EmptyMembers()
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
            if self._wbits == _ZLIB_WBITS:
                raise BadData("there is data after its end")
            self._empty.count()
            self._decompressor = zlib.decompressobj(self._wbits)
        try:
            plain = self._decompressor.decompress(data, at_most)
        except zlib.error as exc:
            raise BadData(str(exc)) from exc
        if plain:
            self._empty.reset()
        self.at_end = self._decompressor.eof
        self._rest = (
            self._decompressor.unused_data if self.at_end else self._decompressor.unconsumed_tail
        )
        # zlib may hold output back that filled the buffer to the brim.
        self._filled = len(plain) >= at_most
        return plain
