"""Starlette's GZipMiddleware, as it comes."""

from __future__ import annotations

from benchmarks.asgi import Application
from benchmarks.compression.contestant import PythonContestant


class Starlette(PythonContestant):
    title = "Starlette"
    remark = "defaults: gzip at level 9"
    packages = ("starlette",)

    @staticmethod
    def wrap(app: Application) -> Application:
        from starlette.middleware.gzip import GZipMiddleware

        return GZipMiddleware(app)


CONTESTANT = Starlette
