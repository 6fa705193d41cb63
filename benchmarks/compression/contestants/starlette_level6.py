"""Starlette's GZipMiddleware at zlib's own default level."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.compression.contestant import PythonContestant


class StarletteLevel6(PythonContestant):
    title = "Starlette, level 6"
    remark = "gzip at level 6, the default level of zlib"
    packages = ("starlette",)
    middleware = "starlette.middleware.gzip:GZipMiddleware"
    options: ClassVar = {"compresslevel": 6}


CONTESTANT = StarletteLevel6
