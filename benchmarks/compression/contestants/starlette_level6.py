"""Starlette's GZipMiddleware at zlib's own default level."""

from __future__ import annotations

from benchmarks.asgi import Application
from benchmarks.compression.contestant import PythonContestant


class StarletteLevel6(PythonContestant):
    title = "Starlette, level 6"
    remark = "zlib's own default level, which most who tune it choose"
    packages = ("starlette",)

    @staticmethod
    def wrap(app: Application) -> Application:
        from starlette.middleware.gzip import GZipMiddleware

        return GZipMiddleware(app, compresslevel=6)


CONTESTANT = StarletteLevel6
