"""zstd-asgi."""

from __future__ import annotations

from benchmarks.asgi import Application
from benchmarks.compression.contestant import PythonContestant


class ZstdAsgi(PythonContestant):
    title = "zstd-asgi"
    remark = "defaults: zstd at level 3, else gzip at level 9"
    packages = ("zstd-asgi",)

    @staticmethod
    def wrap(app: Application) -> Application:
        from zstd_asgi import ZstdMiddleware

        wrapped: Application = ZstdMiddleware(app)
        return wrapped


CONTESTANT = ZstdAsgi
