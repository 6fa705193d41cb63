"""Optional dependencies: imported late, with a helpful error if they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from hasten.errors import MissingExtra


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional dependency. Raises `MissingExtra`, which says how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name != module.partition(".")[0]:
            raise  # installed, but one of its own dependencies is missing
        raise MissingExtra(module, extra) from exc
