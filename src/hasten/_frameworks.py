"""Recognize the web framework of an application, without importing any framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_FRAMEWORKS: Final[Mapping[str, str]] = {
    "starlette.applications.Starlette": "starlette",
    "starlette.routing.Router": "starlette",
    "litestar.app.Litestar": "litestar",
    "quart.app.Quart": "quart",
    "django.core.handlers.asgi.ASGIHandler": "django",
}
"""The framework by the class of the application. FastAPI's class inherits from Starlette's."""


def framework_of(app: object) -> str | None:
    """Return the framework of an application, such as "litestar", or None if it is unknown."""
    for base in type(app).__mro__:
        found = _FRAMEWORKS.get(f"{base.__module__}.{base.__qualname__}")
        if found is not None:
            return found
    return None
