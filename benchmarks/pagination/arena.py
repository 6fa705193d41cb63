"""A loaded database, and the contestants that serve from it."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.pagination import contestants
from benchmarks.pagination.calls import Application
from benchmarks.pagination.contestant import SHARED_PACKAGES, Contestant
from benchmarks.pagination.database import Database

OURS: Final = "hasten"
RIVAL: Final = "fastapi_pagination"
BY_HAND: Final = "handwritten"
FLOOR: Final = "raw"


@dataclass(frozen=True, slots=True)
class Arena:
    database: Database
    rows: int
    contestants: Mapping[str, Contestant]
    applications: Mapping[str, Application]


def all_names() -> list[str]:
    """Ours first, then those that the targets are about."""
    first = [OURS, RIVAL, BY_HAND, FLOOR]
    found = [module.name for module in pkgutil.iter_modules(contestants.__path__)]
    return [*first, *sorted(set(found) - set(first))]


def installed(names: Sequence[str]) -> dict[str, Contestant]:
    """Those whose libraries are there."""
    found: dict[str, Contestant] = {}
    for name in names:
        try:
            found[name] = importlib.import_module(f"{contestants.__name__}.{name}").CONTESTANT()
        except ModuleNotFoundError as error:
            sys.stderr.write(f"{name} is left out: {error.name} is not installed\n")
    return found


async def build(database: Database, rows: int, known: Mapping[str, Contestant]) -> Arena:
    applications = {name: await each.build(database) for name, each in known.items()}
    return Arena(database, rows, known, applications)


def versions(known: Mapping[str, Contestant]) -> list[str]:
    """Of all libraries, each once."""
    packages = [*SHARED_PACKAGES, *(each for one in known.values() for each in one.packages)]
    return [f"{package} {Contestant.version(package)}" for package in dict.fromkeys(packages)]
