"""The decorator that excludes an endpoint from compression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hasten._asgi import Scope

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__hasten_no_compression__"


def no_compression(endpoint: F) -> F:
    """Exclude an endpoint from compression: put ``@no_compression`` below the route decorator.

    It works for functions and classes in FastAPI, Starlette and Litestar. Django and Quart do not
    store the endpoint in the ASGI scope. There, set the response header ``Content-Encoding:
    identity``: the response is not compressed, and the middleware removes the header.
    """
    setattr(endpoint, _MARK, True)
    return endpoint


def has_opted_out(scope: Scope) -> bool:
    """Return whether the endpoint of this request is decorated with `no_compression`."""
    endpoint = scope.get("endpoint")
    if endpoint is not None:
        return hasattr(endpoint, _MARK)
    handler = scope.get("route_handler")  # where Litestar stores the endpoint
    if handler is None:
        return False
    function = getattr(handler, "fn", handler)
    return hasattr(function, _MARK) or hasattr(getattr(function, "__self__", None), _MARK)
