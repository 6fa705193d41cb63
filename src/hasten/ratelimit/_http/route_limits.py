"""`@limit`: a decorator that limits one route. It does not change the signature of the handler.

The decorated handler finds its request in a context variable, which is also set in threads. If the
limit refuses the request, it returns an empty response of the framework instead of calling the
handler, and the middleware replaces this response with the refusal.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any, ParamSpec, TypeVar, Unpack, cast

from hasten._frameworks import framework_of
from hasten.ratelimit._http.limit import RateOption, RouteLimit, RouteOptions
from hasten.ratelimit._http.limited_request import LimitedRequest, require_active_request
from hasten.ratelimit._http.registry import add_limit_to_handler, registry

P = ParamSpec("P")
R = TypeVar("R")


def limit(
    rate: RateOption, **options: Unpack[RouteOptions]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Limit one handler: ``@limit("30/m")``, below the decorator that registers the route.

    The options are those of `Limit`, except for path, methods and per. Works for Starlette,
    FastAPI, Litestar, Quart and Django, for ``async def`` and ``def``. The application needs
    `RateLimitMiddleware`.
    """

    def decorate(handler: Callable[P, R]) -> Callable[P, R]:
        own = RouteLimit(rate, f"{handler.__module__}.{handler.__qualname__}", **options)
        registry.add_limit(own, is_named=True)
        what = f"@limit of {own.name!r}"
        if iscoroutinefunction(handler):
            async_handler = cast("Callable[P, Awaitable[Any]]", handler)

            @functools.wraps(handler)
            async def limited(*args: P.args, **kwargs: P.kwargs) -> Any:
                request = require_active_request(what)
                if await request.enforce_limit(own):
                    return await async_handler(*args, **kwargs)
                return _make_placeholder_response(request, args)

            return add_limit_to_handler(cast("Callable[P, R]", limited), own)

        @functools.wraps(handler)
        def limited_sync(*args: P.args, **kwargs: P.kwargs) -> R:
            request = require_active_request(what)
            if request.enforce_limit_sync(own):
                return handler(*args, **kwargs)
            return cast("R", _make_placeholder_response(request, args))

        return add_limit_to_handler(limited_sync, own)

    return decorate


def _make_placeholder_response(request: LimitedRequest, handler_args: tuple[object, ...]) -> object:
    """Return an empty response of the framework, which the middleware replaces with the refusal.

    The first of handler_args shows whether the framework is Django.
    """
    if handler_args and type(handler_args[0]).__module__.startswith("django."):
        return _get_loaded_class("django.http", "HttpResponse")()
    match framework_of(request.scope.get("app")):
        case "litestar":
            return _get_loaded_class("litestar", "Response")(b"")
        case "starlette":
            return _get_loaded_class("starlette.responses", "Response")()
    # Quart and Flask accept a tuple. For an unknown framework it is the best guess.
    return b"", 429


def _get_loaded_class(module: str, name: str) -> Any:
    """Return a class from a module of a framework that is imported already."""
    return getattr(sys.modules[module], name)
