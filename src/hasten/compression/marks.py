"""Routes that say themselves that their answers are not to be coded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hasten._asgi import Scope

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__hasten_no_compression__"


def no_compression(endpoint: F) -> F:
    """Leave what this endpoint answers as it is: ``@no_compression`` below the route's decorator.

    For FastAPI, Starlette and Litestar, functions and classes. Frameworks that do not tell in the
    scope which endpoint was chosen (Django, Quart) set the response header ``Content-Encoding:
    identity``, which is understood everywhere and not sent on.
    """
    setattr(endpoint, _MARK, True)
    return endpoint


def is_marked(scope: Scope) -> bool:
    """Is the endpoint that the framework chose for this request marked?"""
    endpoint = scope.get("endpoint")
    if endpoint is not None:
        return hasattr(endpoint, _MARK)
    handler = scope.get("route_handler")  # Litestar's
    if handler is None:
        return False
    function = getattr(handler, "fn", handler)
    return hasattr(function, _MARK) or hasattr(getattr(function, "__self__", None), _MARK)
