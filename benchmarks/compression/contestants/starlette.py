"""Starlette's GZipMiddleware with its defaults."""

from __future__ import annotations

from benchmarks.compression.contestant import PythonContestant


class Starlette(PythonContestant):
    title = "Starlette"
    remark = "defaults: gzip at level 9"
    packages = ("starlette",)
    middleware = "starlette.middleware.gzip:GZipMiddleware"


CONTESTANT = Starlette
