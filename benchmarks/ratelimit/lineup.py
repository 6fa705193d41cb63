"""Who takes part: a contestant that fails is left out with a word, and the others go on."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from benchmarks.ratelimit import contestants
from benchmarks.ratelimit.contestant import Contestant

OURS: Final = "hasten"
OUR_STORE: Final = "hasten_store"


class Failed(Exception):
    """A contestant's process ended without a result."""


def all_names() -> list[str]:
    """Ours first."""
    found = [module.name for module in pkgutil.iter_modules(contestants.__path__)]
    ours = [OURS, OUR_STORE]
    return [*ours, *sorted(name for name in found if name not in ours)]


def find(name: str) -> type[Contestant]:
    contestant: type[Contestant] = importlib.import_module(
        f"{contestants.__name__}.{name}"
    ).CONTESTANT
    return contestant


def is_python_peer(name: str) -> bool:
    return find(name).is_python and name not in (OURS, OUR_STORE)


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
        except Failed as failure:
            self.names.remove(name)
            self.left_out[name] = str(failure)
            sys.stderr.write(f"{name} is left out of {during}: {failure}\n")


def installed(names: Sequence[str]) -> list[str]:
    return [name for name in names if _is_installed(name)]


def _is_installed(name: str) -> bool:
    contestant = find(name)
    missing = [package for package in contestant.packages if contestant.version(package) is None]
    if missing:
        sys.stderr.write(f"{name} is left out: {', '.join(missing)} is not installed\n")
    return not missing


def versions(names: Sequence[str]) -> list[str]:
    """Of all contestants' libraries, each once, by what Python and Node call theirs."""
    found = [
        f"{package}{'' if contestant.is_python else ' (Node)'} {contestant.version(package)}"
        for contestant in map(find, names)
        for package in contestant.packages
    ]
    return list(dict.fromkeys(found))
