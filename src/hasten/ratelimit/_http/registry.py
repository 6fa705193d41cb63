"""The registry of what `@limit`, `@exempt` and `RateLimited` have declared in this process.

Decorators run before there is a middleware, so they register here what middlewares need to know. As
long as nothing is registered, a request without limits costs a middleware almost nothing.
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
"""The statuses with which frameworks refuse a malformed body without calling the handler."""

FindLimits = Callable[[Scope], Iterable[Limit]]


class RouteLimitRegistry:
    """The limits of routes in this process, and whether any route has a limit or an exemption."""

    def __init__(self) -> None:
        self.has_limits = False
        """Whether any route has a limit of its own."""
        self.has_exemptions = False
        """Whether any handler is exempt."""
        self.finders: Final[list[FindLimits]] = []
        """Functions that return limits of the route of a request which are not on its handler."""
        self._named: Final[weakref.WeakSet[Limit]] = weakref.WeakSet()

    def add_limit(self, limit: Limit, *, is_named: bool) -> None:
        """Register a limit of a route. is_named: `Limits.reset` can find it by its name."""
        self.has_limits = True
        if is_named:
            self._named.add(limit)

    def get_named_limits(self) -> list[Limit]:
        """Return the limits of routes that `Limits.reset` can find by their names."""
        return list(self._named)

    def get_limits_if_body_refused(self, scope: Scope, status: int) -> list[Limit]:
        """Return the limits of the route if the framework has refused the body of a request.

        status is the status of the response; [] is returned unless it is that of a refused body.
        Then the handler was not called, so its limits were not applied. Such a request is counted,
        too: parsing its body took time.
        """
        if status not in _BODY_REFUSED:
            return []
        handler = scope.get("endpoint") or getattr(scope.get("route_handler"), "fn", None)
        found = [*get_handler_limits(handler)]
        for find in self.finders:
            found += find(scope)
        return found


registry: Final = RouteLimitRegistry()


def add_limit_to_handler(handler: T, limit: Limit) -> T:
    """Add a limit to those that a handler is marked with, and return the handler."""
    setattr(handler, _LIMITS, (*get_handler_limits(handler), limit))
    return handler


def get_handler_limits(handler: object) -> Collection[Limit]:
    """Return the limits that a handler is marked with (see `add_limit_to_handler`)."""
    found: Collection[Limit] = getattr(handler, _LIMITS, ())
    return found


def exempt(handler: T) -> T:
    """Exempt a handler from limits: ``@exempt``, below the decorator that registers the route.

    The limits of `RateLimitMiddleware` and `RateLimited` do not count its requests. A ``@limit``
    of the handler still does. Works for Starlette, FastAPI, Quart and Django, and for
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
    """Return whether a handler, or the view class that it belongs to, is marked as `exempt`."""
    is_marked = getattr(handler, _EXEMPT, False) or getattr(
        getattr(handler, "view_class", None), _EXEMPT, False
    )
    return bool(is_marked)
