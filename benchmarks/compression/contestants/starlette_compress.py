"""starlette-compress."""

from __future__ import annotations

from benchmarks.compression.contestant import PythonContestant


class StarletteCompress(PythonContestant):
    title = "starlette-compress"
    remark = "defaults: zstd, brotli and gzip, all at level 4"
    packages = ("starlette-compress", "zstandard", "brotli")
    middleware = "starlette_compress:CompressMiddleware"


CONTESTANT = StarletteCompress
