"""The application without compression, the baseline of the other contestants in Python."""

from __future__ import annotations

from benchmarks.asgi import Application
from benchmarks.compression.contestant import PythonContestant


class Bare(PythonContestant):
    title = "bare application"
    remark = "no compression"
    packages = ("uvicorn", "uvloop", "httptools")

    @classmethod
    def wrap(cls, app: Application) -> Application:
        return app


CONTESTANT = Bare
