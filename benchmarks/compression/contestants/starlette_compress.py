"""starlette-compress."""

from __future__ import annotations

from benchmarks.asgi import Application
from benchmarks.compression.contestant import PythonContestant


class StarletteCompress(PythonContestant):
    title = "starlette-compress"
    remark = "defaults: zstd, brotli and gzip, all at level 4"
    packages = ("starlette-compress", "zstandard", "brotli")

    @staticmethod
    def wrap(app: Application) -> Application:
        from starlette_compress import CompressMiddleware

        wrapped: Application = CompressMiddleware(app)
        return wrapped


CONTESTANT = StarletteCompress
