"""Optional dependencies: imported late, in one place, their absence explained."""

from __future__ import annotations

import importlib
from types import ModuleType

from hasten.errors import MissingExtra


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional dependency, or say how to install it. Raises `MissingExtra`."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name != module.partition(".")[0]:
            raise  # it is installed, but something that it needs is not
        raise MissingExtra(module, extra) from exc
