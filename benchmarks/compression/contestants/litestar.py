"""Litestar's middleware around the same application as the others, without Litestar's router."""

from __future__ import annotations

from typing import Any

from benchmarks.asgi import Application
from benchmarks.compression.contestant import PythonContestant


class Litestar(PythonContestant):
    title = "Litestar"
    remark = "brotli at its default level 5 (the encoding has no default); else gzip at level 9"
    packages = ("litestar", "brotli")

    @classmethod
    def wrap(cls, app: Application) -> Application:
        from litestar.config.compression import CompressionConfig
        from litestar.middleware.compression import CompressionMiddleware

        untyped: Any = app  # Litestar has other types for the same messages
        wrapped: Any = CompressionMiddleware(untyped, CompressionConfig(backend="brotli"))
        return wrapped  # type: ignore[no-any-return]


CONTESTANT = Litestar
