"""brotli-asgi."""

from __future__ import annotations

from benchmarks.compression.contestant import PythonContestant


class BrotliAsgi(PythonContestant):
    title = "brotli-asgi"
    remark = "defaults: brotli at quality 4, else gzip at level 9"
    packages = ("brotli-asgi", "brotli")
    middleware = "brotli_asgi:BrotliMiddleware"


CONTESTANT = BrotliAsgi
