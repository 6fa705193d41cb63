"""Decode responses, to check that they are correct."""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Callable
from typing import Any, Final

from benchmarks.compression.client import Response
from benchmarks.contestants import Failed

_ZSTD: Final = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
_GZIP_WINDOW: Final = zlib.MAX_WBITS + 16


def new_decoder(coding: str) -> Callable[[bytes], bytes]:
    """Return a function that is called with each piece of a body and returns its decoded bytes."""
    match coding:
        case "identity":
            return bytes
        case "gzip":
            return zlib.decompressobj(_GZIP_WINDOW).decompress
        case "br":
            brotli: Any = importlib.import_module("brotli")
            process: Callable[[bytes], bytes] = brotli.Decompressor().process
            return process
        case "zstd":
            zstd: Any = importlib.import_module(_ZSTD)
            decompress: Callable[[bytes], bytes] = zstd.ZstdDecompressor().decompress
            return decompress
        case _:
            raise Failed(f"unknown Content-Encoding {coding!r}")


def check(response: Response, expected: bytes, what: str) -> None:
    """Raise `Failed` unless the response can be decoded to the expected body."""
    if response.status != 200:
        raise Failed(f"{what}: status {response.status}")
    if new_decoder(response.coding)(response.body) != expected:
        raise Failed(f"{what}: wrong body")
