"""zstd-asgi."""

from __future__ import annotations

from benchmarks.compression.contestant import PythonContestant


class ZstdAsgi(PythonContestant):
    title = "zstd-asgi"
    remark = "defaults: zstd at level 3, else gzip at level 9"
    packages = ("zstd-asgi",)
    middleware = "zstd_asgi:ZstdMiddleware"


CONTESTANT = ZstdAsgi
