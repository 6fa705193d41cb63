"""The packages that code: what is there of them.

zstd is the standard library's (3.14 and newer) or backports.zstd's, brotli is its own package's,
gzip is isal's where that is installed and zlib's else.
"""

from __future__ import annotations

import sys
import zlib
from typing import Any, Final

from hasten._extras import require
from hasten.errors import MissingExtra

MAX_WINDOW_LOG: Final = 23
"""What decoders of zstd have to take: windows of at most 8 MB. RFC 9659, section 3."""

GZIP_WBITS: Final = 16 + zlib.MAX_WBITS
ZLIB_WBITS: Final = zlib.MAX_WBITS


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


zstd: Final[Any] = _import_zstd()
brotli: Final[Any] = _import_brotli()
isal: Final[Any] = _installed("isal.isal_zlib")
