"""The contestants of a benchmark: hasten and the libraries that it is compared with.

This module only imports the standard library, because some contestants run in a virtual environment
that has nothing but the library they measure.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import pkgutil
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Generic, TypeVar


class Failed(Exception):
    """A contestant did not start, ended too early, or returned a wrong result."""


class Contestant:
    """A library that is measured, and its settings. The class can be used without the library.

    environment is the name of the virtual environment that the library is installed in (a file in
    requirements/rivals), or None for the environment that runs the benchmark.
    """

    title: ClassVar[str]
    remark: ClassVar[str]  # the settings of the library, and the reasons for them
    packages: ClassVar[tuple[str, ...]]  # the distributions whose versions are printed
    environment: ClassVar[str | None] = None

    @classmethod
    def version(cls, package: str) -> str | None:
        """Return the installed version of one of `packages`, None if it is not installed."""
        path = sys.path
        if cls.environment is not None:
            prefix = str(_prefix(cls.environment))
            variables = {"base": prefix, "platbase": prefix}
            path = [sysconfig.get_path(kind, vars=variables) for kind in ("purelib", "platlib")]
        found = importlib.metadata.Distribution.discover(name=package, path=path)
        return next((distribution.version for distribution in found), None)

    @classmethod
    def python(cls) -> str:
        """Return the path of the Python interpreter that can import the library."""
        if cls.environment is None:
            return sys.executable
        return str(_prefix(cls.environment) / "bin" / "python")


class NodePackages:
    """A mixin for contestants that run in Node. In the bases, it has to precede `Contestant`."""

    @classmethod
    def folder(cls) -> Path:
        """Return the folder of the benchmark, which contains its Node program and package.json."""
        found = sys.modules[cls.__module__].__file__
        assert found is not None
        return Path(found).parents[1]

    @classmethod
    def node(cls, *arguments: str) -> list[str]:
        """Return the command that runs Node with these arguments."""
        return [shutil.which("node") or "node", *arguments]

    @classmethod
    def version(cls, package: str) -> str | None:
        node = shutil.which("node")
        if node is None:
            return None
        if package == "node":
            return subprocess.check_output([node, "--version"], text=True).strip()
        manifest = cls.folder() / "node_modules" / package / "package.json"
        if not manifest.exists():
            return None
        return str(json.loads(manifest.read_text("utf-8"))["version"]) + " (Node)"


C = TypeVar("C", bound=Contestant)


class Contestants(Generic[C]):
    """The contestants of a benchmark: the modules of a package, each with a class `CONTESTANT`.

    first are the names of the modules that come first in every list: that of hasten, and those that
    hasten is compared with in targets.
    """

    def __init__(self, package: str, *first: str) -> None:
        self.package = package
        self._first = first

    def names(self) -> list[str]:
        """Return the names of all contestants."""
        package = importlib.import_module(self.package)
        found = {module.name for module in pkgutil.iter_modules(package.__path__)}
        return [*self._first, *sorted(found - set(self._first))]

    def find(self, name: str) -> type[C]:
        """Return a contestant. Raises `ModuleNotFoundError` if it imports a missing module."""
        found: type[C] = importlib.import_module(f"{self.package}.{name}").CONTESTANT
        return found

    def title(self, name: str) -> str:
        return self.find(name).title

    def installed(self, names: Iterable[str]) -> list[str]:
        """Return the names of contestants whose libraries are installed. Report the other ones."""
        return [name for name in names if self._is_installed(name)]

    def _is_installed(self, name: str) -> bool:
        try:
            contestant = self.find(name)
            packages = contestant.packages
            missing = [each for each in packages if contestant.version(each) is None]
        except ModuleNotFoundError as error:
            missing = [str(error.name)]
        if missing:
            sys.stderr.write(f"{name} is not measured: {', '.join(missing)} is not installed\n")
        return not missing

    def versions(self, names: Iterable[str]) -> list[str]:
        """Return the distributions of these contestants with their versions, each once."""
        found = [
            f"{package} {contestant.version(package)}"
            for contestant in map(self.find, names)
            for package in contestant.packages
        ]
        return list(dict.fromkeys(found))


class Lineup:
    """The contestants that are still measured, and why other contestants were left out."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.left_out: dict[str, str] = {}

    @contextmanager
    def leaving_out(self, name: str, *, during: str) -> Iterator[None]:
        """Leave a contestant out if the block raises an exception. The exception is not raised."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # any error of the contestant
            reason = str(error) if isinstance(error, Failed) else repr(error)
            self.names.remove(name)
            self.left_out[name] = reason
            sys.stderr.write(f"{name} is left out of {during}: {reason}\n")


def _prefix(environment: str) -> Path:
    """Return the folder of a virtual environment that `make bench` has created for a library."""
    return Path(sys.prefix) / "rivals" / environment
