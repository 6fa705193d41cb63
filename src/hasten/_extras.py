"""Import optional dependencies when they are needed, with a helpful error if one is missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from hasten.errors import MissingExtra


def require(module: str, *, extra: str) -> ModuleType:
    """Import and return a module of an optional dependency.

    extra is the extra of hasten that installs the dependency. Raises `MissingExtra` if it is not
    installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name != module.partition(".")[0]:
            raise  # installed, but one of its own dependencies is missing
        raise MissingExtra(module, extra) from exc
