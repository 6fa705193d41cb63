"""brotli-asgi."""

from __future__ import annotations

from benchmarks.asgi import Application
from benchmarks.compression.contestant import PythonContestant


class BrotliAsgi(PythonContestant):
    title = "brotli-asgi"
    remark = "defaults: brotli at quality 4, else gzip at level 9"
    packages = ("brotli-asgi", "brotli")

    @staticmethod
    def wrap(app: Application) -> Application:
        from brotli_asgi import BrotliMiddleware

        wrapped: Application = BrotliMiddleware(app)
        return wrapped


CONTESTANT = BrotliAsgi
