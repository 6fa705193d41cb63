"""hasten."""

from __future__ import annotations

from benchmarks.compression.contestant import PythonContestant


class Hasten(PythonContestant):
    title = "hasten"
    remark = "defaults"
    packages = ("hasten", "brotli", "isal")
    middleware = "hasten.compression:CompressionMiddleware"


CONTESTANT = Hasten
