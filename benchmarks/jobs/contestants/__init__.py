"""The contestants: each module in this folder is one, and names its class `CONTESTANT`.

Their libraries are imported when an object is made, in the process that measures it; so the
classes can be read where a library is missing.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Final

from benchmarks.jobs.contestant import Contestant

OURS: Final = "hasten_sqlite"


def names() -> list[str]:
    """The names of all contestants, ours first: it is the one that the ratios compare."""
    found = [module.name for module in pkgutil.iter_modules(__path__)]
    return sorted(found, key=lambda name: (name != OURS, name))


def find(name: str) -> type[Contestant]:
    module = importlib.import_module(f"{__name__}.{name}")
    contestant: type[Contestant] = module.CONTESTANT
    return contestant
