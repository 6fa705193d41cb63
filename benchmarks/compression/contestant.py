"""The interface of a contestant: a server of the application, with or without compression."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from benchmarks import contestants
from benchmarks.asgi import Application
from benchmarks.contestants import Contestants, NodePackages

OURS: Final = "hasten"
RIVAL: Final = "starlette"  # the contestant that hasten is compared with in targets


class Contestant(contestants.Contestant):
    """A server with one way to compress.

    baseline is the name of the contestant without compression on the same server. The cost of
    compression is the difference between the two.
    """

    baseline: ClassVar[str] = "bare"

    @classmethod
    def command(cls) -> list[str]:
        """Return the command that starts the server.

        A folder of corpora and a JSON object of settings are appended. The server listens on a free
        port, and prints its number on a line.
        """
        raise NotImplementedError


class PythonContestant(Contestant):
    """A middleware around the application, served by uvicorn with uvloop and httptools.

    middleware is its class, as "module:class", and options are the keyword arguments.
    """

    middleware: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def command(cls) -> list[str]:
        return [cls.python(), "-m", "benchmarks.compression.serve", cls.__module__]

    @classmethod
    def wrap(cls, app: Application) -> Application:
        """Import the library, and return app inside its middleware."""
        module, _, name = cls.middleware.partition(":")
        wrapped: Application = getattr(importlib.import_module(module), name)(app, **cls.options)
        return wrapped


class NodeContestant(NodePackages, Contestant):
    """The same application in Express, in express.mjs."""

    baseline = "express_bare"
    compresses: ClassVar[bool]

    @classmethod
    def command(cls) -> list[str]:
        return cls.node(str(cls.folder() / "express.mjs"), "yes" if cls.compresses else "no")


CONTESTANTS: Final[Contestants[Contestant]] = Contestants(
    "benchmarks.compression.contestants", OURS, RIVAL
)


def baseline(name: str) -> str:
    return CONTESTANTS.find(name).baseline
