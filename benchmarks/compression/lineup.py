"""Who takes part: a contestant that fails is left out with a word, and the others go on."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from benchmarks.compression import contestants
from benchmarks.compression.contestant import Contestant
from benchmarks.compression.server import Failed

OURS: Final = "hasten"
RIVAL: Final = "starlette"  # the one that the targets are about


def all_names() -> list[str]:
    """Ours first, then the rival of the targets."""
    found = [module.name for module in pkgutil.iter_modules(contestants.__path__)]
    return [OURS, RIVAL, *sorted(name for name in found if name not in {OURS, RIVAL})]


def find(name: str) -> type[Contestant]:
    contestant: type[Contestant] = importlib.import_module(
        f"{contestants.__name__}.{name}"
    ).CONTESTANT
    return contestant


class Lineup:
    """The contestants that still take part in a part, and why the others do not."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.left_out: dict[str, str] = {}

    @contextmanager
    def leaving_out(self, name: str, *, during: str) -> Iterator[None]:
        """Leave a contestant out if what is done within fails."""
        try:
            yield
        except Exception as failure:  # noqa: BLE001  # whatever it is, it is that contestant's
            self.names.remove(name)
            reason = str(failure) if isinstance(failure, Failed) else repr(failure)
            self.left_out[name] = reason
            sys.stderr.write(f"{name} is left out of {during}: {reason}\n")


def installed(names: Sequence[str]) -> list[str]:
    """Those whose libraries are there, with the contestants that they are compared with."""
    wanted = {*names, *(find(name).baseline for name in names)}
    return [name for name in all_names() if name in wanted and _is_installed(name)]


def _is_installed(name: str) -> bool:
    contestant = find(name)
    missing = [package for package in contestant.packages if contestant.version(package) is None]
    if missing:
        sys.stderr.write(f"{name} is left out: {', '.join(missing)} is not installed\n")
    return not missing


def versions(names: Sequence[str]) -> list[str]:
    """Of all contestants' libraries, each once."""
    found = [
        f"{package} {contestant.version(package)}"
        for contestant in map(find, names)
        for package in contestant.packages
    ]
    return list(dict.fromkeys(found))
