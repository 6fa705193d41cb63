"""What a contestant is: a server of the same application with one way to compress."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from benchmarks import contestants
from benchmarks.asgi import Application
from benchmarks.contestants import Contestants, NodePackages

OURS: Final = "hasten"
RIVAL: Final = "starlette"  # the one that the targets are about


class Contestant(contestants.Contestant):
    """baseline names the contestant without compression on the same server: what a request costs
    more than there is the price of compression."""

    baseline: ClassVar[str] = "bare"

    @classmethod
    def command(cls) -> list[str]:
        """Return what serves: a folder of corpora and a JSON object of settings are appended.

        It listens on a port of its choice, and prints the port in a line of its own.
        """
        raise NotImplementedError


class PythonContestant(Contestant):
    """A middleware around the bare application, served by uvicorn on uvloop with httptools.

    middleware names the class, as "module:class"; options are its keyword arguments.
    """

    middleware: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def command(cls) -> list[str]:
        return [cls.python(), "-m", "benchmarks.compression.serve", cls.__module__]

    @classmethod
    def wrap(cls, app: Application) -> Application:
        """Import the library, and put its middleware around app."""
        module, _, name = cls.middleware.partition(":")
        wrapped: Application = getattr(importlib.import_module(module), name)(app, **cls.options)
        return wrapped


class NodeContestant(NodePackages, Contestant):
    """The same application on Express: see express.mjs."""

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
