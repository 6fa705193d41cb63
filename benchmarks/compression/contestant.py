"""What a contestant is: a server of the same application with one way to compress."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Final

from benchmarks.compression.application import Application

FOLDER: Final = Path(__file__).parent


class Contestant:
    """What is known of a server before it runs.

    baseline names the contestant without compression on the same server: what a request costs
    over it is the price of compression.
    """

    title: ClassVar[str]
    remark: ClassVar[str]  # its settings, and why
    packages: ClassVar[tuple[str, ...]]  # the distributions whose versions belong to the result
    baseline: ClassVar[str] = "bare"

    @classmethod
    def command(cls) -> list[str]:
        """What serves. A folder of corpora and a JSON object of settings are appended.

        It listens on a port of its choice, and prints that in a line of its own.
        """
        raise NotImplementedError

    @classmethod
    def version(cls, package: str) -> str | None:
        """The installed version of one of `packages`, None if it is not installed."""
        raise NotImplementedError


class PythonContestant(Contestant, ABC):
    """A middleware around the bare application, served by uvicorn on uvloop with httptools."""

    @classmethod
    def command(cls) -> list[str]:
        return [sys.executable, "-m", "benchmarks.compression.serve", cls.__module__]

    @classmethod
    def version(cls, package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    @staticmethod
    @abstractmethod
    def wrap(app: Application) -> Application:
        """Import the library, and put its middleware around app."""


class NodeContestant(Contestant):
    """The same application on Express: see express.mjs."""

    baseline = "express_bare"
    compresses: ClassVar[bool]

    @classmethod
    def command(cls) -> list[str]:
        compresses = "yes" if cls.compresses else "no"
        return [shutil.which("node") or "node", str(FOLDER / "express.mjs"), compresses]

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
