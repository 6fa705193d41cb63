"""Requests that no limit of a middleware counts, by their path or by their handler.

A middleware runs before the router. So this finds the handler of a request as the router would.
Whenever the handler is not certain, the request is counted: an exemption must never be a way to
bypass a limit.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

from hasten._asgi import Scope
from hasten._frameworks import framework_of
from hasten.ratelimit._http.paths import Paths
from hasten.ratelimit._http.registry import is_exempt, registry
from hasten.ratelimit._http.root_paths import RouterPaths, applications

MAX_DEPTH: Final = 8
"""How many levels of mounts are searched."""


class Exemptions:
    """The requests that a middleware does not count. app is the application behind it."""

    def __init__(self, paths: Sequence[str] | None, app: object) -> None:
        self._paths = None if paths is None else Paths([paths])
        self._app = app
        self._apps: list[object] | None = None

    def is_request_exempt(self, scope: Scope, forms: RouterPaths) -> bool:
        """Return whether no limit applies to a request."""
        if self._paths is not None and self._are_paths_excluded(self._paths, forms):
            return True
        return registry.has_exemptions and is_exempt(self._find_handler(scope))

    def _are_paths_excluded(self, paths: Paths, forms: RouterPaths) -> bool:
        """Return whether every path that a router may see is excluded."""
        seen = [path for alternative in forms.alternatives for path in alternative] or forms.paths
        return all(paths.match(path) and not _has_dot_segment(path) for path in seen)

    def _find_handler(self, scope: Scope) -> object:
        own = scope.get("route_handler")
        if own is not None:  # Litestar has found it already
            return getattr(own, "fn", own)
        if self._apps is None:
            self._apps = applications(self._app)
        apps = [*self._apps, scope.get("app")]
        for app in apps:
            match framework_of(app):
                case "starlette":
                    # A copy, because FastAPI records in the scope what it examines.
                    return _find_starlette_endpoint(getattr(app, "routes", ()), {**scope})
                case "quart":
                    return _find_quart_view(app, scope)
                case "django":
                    return _find_django_view(scope)
        return None


def _has_dot_segment(path: str) -> bool:
    """Return whether something behind the router might resolve ".." in the path."""
    return not {".", ".."}.isdisjoint(path.split("/"))


def _find_starlette_endpoint(routes: Iterable[Any], scope: Scope, depth: int = 0) -> object:
    """Return the endpoint of the first route that matches, as `starlette.routing.Router` does."""
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
            return _find_starlette_endpoint(included(), scope, depth + 1)
        endpoint: Any = found.get("endpoint")
        if framework_of(endpoint) == "starlette":
            return _find_starlette_endpoint(endpoint.routes, {**scope, **found}, depth + 1)
        return endpoint
    return None


def _is_matched_by_path(route: object) -> bool:
    """Return whether a route matches by the path alone, not by host or by custom code."""
    if hasattr(route, "host"):
        return False
    for each in (route, getattr(route, "original_router", route)):
        matches: Any = getattr(type(each), "matches", None)
        package = str(getattr(matches, "__module__", "")).partition(".")[0]
        if package not in ("starlette", "fastapi"):
            return False
    return True


def _find_quart_view(app: Any, scope: Scope) -> object:
    if scope["type"] != "http" or app.url_map.host_matching:
        return None
    path = "/" + scope["path"].removeprefix(scope.get("root_path", "")).lstrip("/")
    try:
        endpoint, _ = app.url_map.bind("localhost").match(path, method=scope["method"].upper())
    except Exception:  # noqa: BLE001  # no such route, another method, a redirect
        return None
    return app.view_functions.get(endpoint)


def _find_django_view(scope: Scope) -> object:
    urls: Any = sys.modules.get("django.urls")
    if urls is None or scope["type"] != "http":
        return None
    path = "/" + scope["path"].removeprefix(scope.get("root_path", "")).lstrip("/")
    try:
        return urls.resolve(path).func
    except Exception:  # noqa: BLE001  # no such route, or no URLs at all
        return None
