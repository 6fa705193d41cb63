"""What a contestant is: a library that limits, by itself or around an application."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

from benchmarks.ratelimit.application import Application

FOLDER: Final = Path(__file__).parent


class Rate(NamedTuple):
    limit: int
    seconds: int


Hit: TypeAlias = Callable[[str], object | Awaitable[object]]
"""Takes one for a key. A function, or a coroutine function if the library has those."""

Paths: TypeAlias = Mapping[str, Sequence[Rate]]
"""The policies of each path, each a rate; for each client."""


class Contestant:
    """What is known of a library before it is loaded.

    algorithms are those it has where it is used by itself, the one that is compared first; none if
    it is a part of an application.
    """

    title: ClassVar[str]
    remark: ClassVar[str]  # its settings, and why
    packages: ClassVar[tuple[str, ...]]  # the distributions whose versions belong to the result
    algorithms: ClassVar[tuple[str, ...]] = ()
    has_application: ClassVar[bool] = True
    is_python: ClassVar[bool] = True
    uses_redis: ClassVar[bool] = True

    @classmethod
    def command(cls, work: str) -> list[str]:
        """What does a work (see `works/`). A JSON object of arguments is appended; prints JSON."""
        raise NotImplementedError

    @classmethod
    def version(cls, package: str) -> str | None:
        """The installed version of one of `packages`, None if it is not installed."""
        raise NotImplementedError


class PythonContestant(Contestant):
    """Its library is imported by the methods, in the process that does the work."""

    @classmethod
    def command(cls, work: str) -> list[str]:
        return [sys.executable, "-m", "benchmarks.ratelimit.work", cls.__module__, work]

    @classmethod
    def version(cls, package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    @classmethod
    def limiter(cls, rates: Sequence[Rate], *, algorithm: str, url: str | None = None) -> Hit:
        """Rates that hold together, in memory or on the Redis at url."""
        raise NotImplementedError

    @staticmethod
    def is_allowed(result: Any) -> bool:
        """What a hit has said."""
        return bool(result)

    @classmethod
    def application(cls, paths: Paths, *, url: str | None = None) -> Application:
        """The application, limited: each policy counted for each client's address."""
        raise NotImplementedError

    @classmethod
    def unlimited(cls, paths: Paths) -> Application:
        """The same without limits."""
        raise NotImplementedError

    @classmethod
    def logins(cls, app: Application, rate: Rate) -> Application | None:
        """An application around app that counts bad logins alone; None if it has no way to."""
        return None


class NodeContestant(Contestant):
    """See express.mjs."""

    is_python = False

    @classmethod
    def command(cls, work: str) -> list[str]:
        return [shutil.which("node") or "node", "--expose-gc", str(FOLDER / "express.mjs"), work]

    @classmethod
    def version(cls, package: str) -> str | None:
        node = shutil.which("node")
        if node is None:
            return None
        if package == "node":
            return subprocess.check_output([node, "--version"], text=True).strip()
        manifest = FOLDER / "node_modules" / package / "package.json"
        if not manifest.exists():
            return None
        return str(json.loads(manifest.read_text("utf-8"))["version"])
