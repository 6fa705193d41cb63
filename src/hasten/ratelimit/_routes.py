"""Limits of single routes: a decorator that asks nothing of the signature of a handler.

The middleware is what counts and answers. A handler that is limited finds its request by a context
variable, which goes with it into threads. If it may not run, it returns what its framework takes
for a response; what is sent in the end is the refusal of the middleware.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from inspect import iscoroutinefunction
from typing import Any, Final, ParamSpec, TypeVar, Unpack, cast

from hasten._asgi import Scope
from hasten._frameworks import framework_of
from hasten.errors import InvalidOption, MissingMiddleware
from hasten.ratelimit._definitions import Limit, RateOption, RouteOptions
from hasten.ratelimit._exchange import Exchange, current

P = ParamSpec("P")
R = TypeVar("R")

_MARK: Final = "__hasten_limits__"

_BODY_REFUSED: Final = frozenset({400, 422})
"""With these frameworks refuse a body that they cannot read, before the handler is called."""

_known: Final[weakref.WeakSet[Limit]] = weakref.WeakSet()

in_use = False
"""Whether any handler is limited: only then the middleware looks after requests that none of its
own limits is for."""


def limit(
    rate: RateOption, **options: Unpack[RouteOptions]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Limit one handler: ``@limit("30/m")``, below what registers it with the framework.

    The options are those of `Limit`, except for path, methods and per. Works for Starlette,
    FastAPI, Litestar, Quart and Django, for ``async def`` and ``def``, with `RateLimitMiddleware`
    around the application.
    """

    def decorate(handler: Callable[P, R]) -> Callable[P, R]:
        own = route_limit(rate, f"{handler.__module__}.{handler.__qualname__}", **options)
        remember(own)
        if iscoroutinefunction(handler):
            waits = cast("Callable[P, Awaitable[Any]]", handler)

            @functools.wraps(handler)
            async def limited(*args: P.args, **kwargs: P.kwargs) -> Any:
                exchange = _exchange(own)
                if await exchange.middleware.take(exchange, own):
                    return await waits(*args, **kwargs)
                return _placeholder(exchange, args)

            return _marked(cast("Callable[P, R]", limited), own)

        @functools.wraps(handler)
        def limited_sync(*args: P.args, **kwargs: P.kwargs) -> R:
            exchange = _exchange(own)
            if exchange.middleware.take_sync(exchange, own):
                return handler(*args, **kwargs)
            return cast("R", _placeholder(exchange, args))

        return _marked(limited_sync, own)

    return decorate


def missed(scope: Scope, status: int, taken: Collection[Limit]) -> list[Limit]:
    """The limits of a route that has answered without asking them, since it could not read a body.

    They count such a request as well: reading it had its cost.
    """
    if status not in _BODY_REFUSED:
        return []
    handler = scope.get("endpoint") or getattr(scope.get("route_handler"), "fn", None)
    found = [*limits_of(handler)]
    for find in finders:
        found += find(scope)
    return [limit for limit in found if limit not in taken]


finders: Final[list[Callable[[Scope], Iterable[Limit]]]] = []
"""What else knows limits of the route of a request."""


def limits_of(handler: object) -> tuple[Limit, ...]:
    """The limits that decorators gave a handler."""
    found: tuple[Limit, ...] = getattr(handler, _MARK, ())
    return found


def route_limit(rate: RateOption, route: str, **options: Unpack[RouteOptions]) -> Limit:
    """A limit of one route, whose count is its own unless it has a name."""
    given: Mapping[str, object] = options
    for wrong in ("path", "methods", "per"):
        if wrong in given:
            raise InvalidOption(wrong, given[wrong], "the route to say that", code="conflict")
    global in_use  # noqa: PLW0603 - from now on there is a handler that is limited
    in_use = True
    found = Limit(rate, **options)
    if "name" not in options:
        found.bucket = f"{found.name}@{route}"
    return found


def remember(own: Limit) -> None:
    """Let it be found by its name, as long as a handler has it."""
    _known.add(own)


def known() -> list[Limit]:
    """The limits of routes whose counts any process can find."""
    return list(_known)


def _marked(handler: Callable[P, R], own: Limit) -> Callable[P, R]:
    setattr(handler, _MARK, (*limits_of(handler), own))
    return handler


def _exchange(own: Limit) -> Exchange:
    exchange = current.get()
    if exchange is None:
        raise MissingMiddleware(f"@limit of {own.name!r}", "RateLimitMiddleware")
    return exchange


def _placeholder(exchange: Exchange, args: tuple[object, ...]) -> object:
    """A response that the framework understands. It is replaced before it is sent."""
    if args and type(args[0]).__module__.startswith("django."):
        return _of("django.http", "HttpResponse")()
    match framework_of(exchange.scope.get("app")):
        case "litestar":
            return _of("litestar", "Response")(b"")
        case "starlette":
            return _of("starlette.responses", "Response")()
    # Quart and Flask take a tuple; whatever else there is takes what it can.
    return b"", 429


def _of(module: str, name: str) -> Any:
    """What a framework that is in use has loaded."""
    return getattr(sys.modules[module], name)
