"""hasten."""

from __future__ import annotations

from benchmarks.asgi import Application
from benchmarks.compression.contestant import PythonContestant


class Hasten(PythonContestant):
    title = "hasten"
    remark = "defaults"
    packages = ("hasten", "brotli", "isal")

    @staticmethod
    def wrap(app: Application) -> Application:
        from hasten.compression import CompressionMiddleware

        return CompressionMiddleware(app)


CONTESTANT = Hasten
