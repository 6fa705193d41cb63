"""Requests that no limit of a middleware counts: by the path, or by the handler that they lead to.

A middleware is asked before the router. So it finds out by itself which handler a request would
lead to, as the router would. Wherever that cannot be known for certain, the request is counted: an
exemption must never be a way around a limit.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

from hasten._asgi import Scope
from hasten._frameworks import framework_of
from hasten.errors import InvalidOption
from hasten.ratelimit._paths import Paths
from hasten.ratelimit._root_paths import Forms, applications

T = TypeVar("T")

_MARK: Final = "__hasten_exempt__"

MAX_DEPTH: Final = 8
"""So many mounts inside of each other are looked into."""

in_use = False
"""Whether any handler is exempt."""


def exempt(handler: T) -> T:
    """Exempt one handler from limits: ``@exempt``, below what registers it with the framework.

    No limit of `RateLimitMiddleware` and no `RateLimited` of a router counts its requests. Its own
    ``@limit`` still does. Works for Starlette, FastAPI, Quart and Django, and for Litestar where
    the middleware is one of the application's; elsewhere use `exclude_paths`. Raises
    `InvalidOption`.
    """
    global in_use  # noqa: PLW0603 - from now on handlers are looked for
    in_use = True
    try:
        setattr(handler, _MARK, True)
    except (AttributeError, TypeError):
        raise InvalidOption("handler", handler, "a function or a class") from None
    return handler


def is_exempt(handler: object) -> bool:
    """Whether a handler, or the class of a view, is marked."""
    marked = getattr(handler, _MARK, False) or getattr(
        getattr(handler, "view_class", None), _MARK, False
    )
    return bool(marked)


class Exemptions:
    """The requests that a middleware leaves out. app is the application behind it."""

    def __init__(self, paths: Sequence[str] | None, app: object) -> None:
        self._paths = None if paths is None else Paths([paths])
        self._app = app
        self._apps: list[object] | None = None

    def has(self, scope: Scope, forms: Forms) -> bool:
        """Whether no limit is for this request."""
        if self._paths is not None and self._is_excluded(self._paths, forms):
            return True
        return in_use and is_exempt(self._handler(scope))

    def _is_excluded(self, paths: Paths, forms: Forms) -> bool:
        """All that a router may take the path for has to be excluded."""
        read = [path for reading in forms.readings for path in reading] or forms.paths
        return all(paths.match(path) and not _has_dots(path) for path in read)

    def _handler(self, scope: Scope) -> object:
        own = scope.get("route_handler")
        if own is not None:  # Litestar has found it already
            return getattr(own, "fn", own)
        if self._apps is None:
            self._apps = applications(self._app)
        apps = [*self._apps, scope.get("app")]
        for app in apps:
            match framework_of(app):
                case "starlette":
                    # FastAPI notes in a scope what it looks at.
                    return _of_starlette(getattr(app, "routes", ()), {**scope})
                case "quart":
                    return _of_quart(app, scope)
                case "django":
                    return _of_django(scope)
        return None


def _has_dots(path: str) -> bool:
    """Something behind the router may go up by ".."."""
    return not {".", ".."}.isdisjoint(path.split("/"))


def _of_starlette(routes: Iterable[Any], scope: Scope, depth: int = 0) -> object:
    """As `starlette.routing.Router`, which takes the first route that matches."""
    for route in routes:
        if not _is_matched_by_path(route):
            return None
        match, found = route.matches(scope)
        if match.name != "FULL":
            continue
        if depth >= MAX_DEPTH:
            return None
        included = getattr(route, "effective_candidates", None)
        if included is not None:  # a router that FastAPI has included
            return _of_starlette(included(), scope, depth + 1)
        endpoint: Any = found.get("endpoint")
        if framework_of(endpoint) == "starlette":
            return _of_starlette(endpoint.routes, {**scope, **found}, depth + 1)
        return endpoint
    return None


def _is_matched_by_path(route: object) -> bool:
    """Not by its host, nor by a rule of the application's own that may read headers."""
    if hasattr(route, "host"):
        return False
    for each in (route, getattr(route, "original_router", route)):
        matches: Any = getattr(type(each), "matches", None)
        package = str(getattr(matches, "__module__", "")).partition(".")[0]
        if package not in ("starlette", "fastapi"):
            return False
    return True


def _of_quart(app: Any, scope: Scope) -> object:
    if scope["type"] != "http" or app.url_map.host_matching:
        return None
    path = "/" + scope["path"].removeprefix(scope.get("root_path", "")).lstrip("/")
    try:
        endpoint, _ = app.url_map.bind("localhost").match(path, method=scope["method"].upper())
    except Exception:  # noqa: BLE001  # no such route, another method, a redirect
        return None
    return app.view_functions.get(endpoint)


def _of_django(scope: Scope) -> object:
    urls: Any = sys.modules.get("django.urls")
    if urls is None or scope["type"] != "http":
        return None
    path = "/" + scope["path"].removeprefix(scope.get("root_path", "")).lstrip("/")
    try:
        return urls.resolve(path).func
    except Exception:  # noqa: BLE001  # no such route, or no URLs at all
        return None
