"""The optional compression libraries as modules: zstd, brotli and isal. None if not installed.

zstd is compression.zstd of the standard library (Python 3.14 and newer) or backports.zstd, and
brotli is the package brotli or brotlicffi. isal compresses gzip faster than zlib.
"""

from __future__ import annotations

import sys
import zlib
from typing import Any, Final

from hasten._extras import require
from hasten.errors import MissingExtra

MAX_WINDOW_LOG: Final = 23
"""log2 of the largest window that every zstd decoder must support: 8 MB. RFC 9659, section 3."""

GZIP_WBITS: Final = 16 + zlib.MAX_WBITS
ZLIB_WBITS: Final = zlib.MAX_WBITS


def _import_if_installed(module: str) -> Any:
    """Return a module of the extra compression, None if it is not installed."""
    try:
        return require(module, extra="compression")
    except MissingExtra:
        return None


def _import_zstd() -> Any:
    if sys.version_info >= (3, 14):
        try:
            return require("compression.zstd", extra="compression")
        except ImportError:  # this Python was built without it
            return None
    return _import_if_installed("backports.zstd")


def _import_brotli() -> Any:
    module = _import_if_installed("brotli") or _import_if_installed("brotlicffi")
    # Older versions cannot limit the output of a step, so a bomb would fill the memory.
    return (
        module if hasattr(getattr(module, "Decompressor", None), "can_accept_more_data") else None
    )


zstd: Final[Any] = _import_zstd()
brotli: Final[Any] = _import_brotli()
isal: Final[Any] = _import_if_installed("isal.isal_zlib")
