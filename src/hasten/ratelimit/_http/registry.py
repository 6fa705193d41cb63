"""What `@limit`, `@exempt` and `RateLimited` have registered in this process.

Decorators run before there is a middleware, so middlewares look here. As long as nothing is
registered, a request that no limit of a middleware applies to costs them almost nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable
from typing import Final, TypeVar

from hasten._asgi import Scope
from hasten.errors import InvalidOption
from hasten.ratelimit._http.limit import Limit

T = TypeVar("T")

_LIMITS: Final = "__hasten_limits__"
_EXEMPT: Final = "__hasten_exempt__"

_BODY_REFUSED: Final = frozenset({400, 422})
"""The statuses of frameworks for a body that they cannot parse, before they call the handler."""

FindLimits = Callable[[Scope], Iterable[Limit]]


class Registry:
    """The limited and the exempt handlers."""

    def __init__(self) -> None:
        self.has_limits = False
        """Whether any route has a limit of its own."""
        self.has_exemptions = False
        """Whether any handler is exempt."""
        self.finders: Final[list[FindLimits]] = []
        """Functions that find more limits of the route of a request."""
        self._named: Final[weakref.WeakSet[Limit]] = weakref.WeakSet()

    def add_limit(self, limit: Limit, *, is_named: bool) -> None:
        """Register a limit of a route. A named one can be reset by its name."""
        self.has_limits = True
        if is_named:
            self._named.add(limit)

    def named_limits(self) -> list[Limit]:
        """Return the limits of routes that can be reset by their names."""
        return list(self._named)

    def limits_of_refused_body(self, scope: Scope, status: int) -> list[Limit]:
        """Return the limits of a route whose handler was not called, as its body is malformed.

        Such a request counts as well: parsing the body had its cost.
        """
        if status not in _BODY_REFUSED:
            return []
        handler = scope.get("endpoint") or getattr(scope.get("route_handler"), "fn", None)
        found = [*limits_of(handler)]
        for find in self.finders:
            found += find(scope)
        return found


registry: Final = Registry()


def mark_limited(handler: T, limit: Limit) -> T:
    """Record a limit on a handler."""
    setattr(handler, _LIMITS, (*limits_of(handler), limit))
    return handler


def limits_of(handler: object) -> Collection[Limit]:
    """Return the limits that decorators gave a handler."""
    found: Collection[Limit] = getattr(handler, _LIMITS, ())
    return found


def exempt(handler: T) -> T:
    """Exempt one handler from limits: ``@exempt``, below the decorator that registers the route.

    No limit of `RateLimitMiddleware` and no `RateLimited` of a router counts its requests. A
    ``@limit`` of its own still does. Works for Starlette, FastAPI, Quart and Django, and for
    Litestar if the application has the middleware; otherwise use `exclude_paths`. Raises
    `InvalidOption`.
    """
    try:
        setattr(handler, _EXEMPT, True)
    except (AttributeError, TypeError):
        raise InvalidOption("handler", handler, "a function or a class") from None
    registry.has_exemptions = True
    return handler


def is_exempt(handler: object) -> bool:
    """Return whether a handler, or the class of a view, is exempt."""
    is_marked = getattr(handler, _EXEMPT, False) or getattr(
        getattr(handler, "view_class", None), _EXEMPT, False
    )
    return bool(is_marked)
