"""The application without compression: what the others' costs are counted from."""

from __future__ import annotations

from benchmarks.asgi import Application
from benchmarks.compression.contestant import PythonContestant


class Bare(PythonContestant):
    title = "bare application"
    remark = "no compression"
    packages = ("uvicorn", "uvloop", "httptools")

    @staticmethod
    def wrap(app: Application) -> Application:
        return app


CONTESTANT = Bare
