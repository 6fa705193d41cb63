"""The installed compression libraries.

zstd is from the standard library (3.14 and newer) or backports.zstd, brotli from the package brotli
or brotlicffi, gzip from isal if that is installed, else from zlib.
"""

from __future__ import annotations

import sys
import zlib
from typing import Any, Final

from hasten._extras import require
from hasten.errors import MissingExtra

MAX_WINDOW_LOG: Final = 23
"""The largest window that all zstd decoders support: 8 MB. RFC 9659, section 3."""

GZIP_WBITS: Final = 16 + zlib.MAX_WBITS
ZLIB_WBITS: Final = zlib.MAX_WBITS


def _import_if_installed(module: str) -> Any:
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
    # Older versions cannot limit their output, which is needed to decode untrusted bodies.
    return (
        module if hasattr(getattr(module, "Decompressor", None), "can_accept_more_data") else None
    )


zstd: Final[Any] = _import_zstd()
brotli: Final[Any] = _import_brotli()
isal: Final[Any] = _import_if_installed("isal.isal_zlib")
