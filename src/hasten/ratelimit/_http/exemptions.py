"""Find the requests that are exempt from limits, by `exclude_paths` or by `@exempt`.

A middleware runs before the router, so it does not know the handler of a request. This module finds
the handler as the router of each framework will. If that is uncertain, the request is counted: an
exemption must never be a way to bypass a limit.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

from hasten._asgi import Scope
from hasten._frameworks import framework_of
from hasten.ratelimit._http.paths import LimitPaths
from hasten.ratelimit._http.registry import is_exempt, registry
from hasten.ratelimit._http.root_paths import RouterPaths, find_wrapped_applications

MAX_DEPTH: Final = 8
"""How many levels of mounted applications and included routers are searched for a handler."""


class Exemptions:
    """Decides which requests are exempt from all limits of a middleware.

    paths are the excluded paths, None if there are none. app is the application that the middleware
    wraps.
    """

    def __init__(self, paths: Sequence[str] | None, app: object) -> None:
        self._paths = None if paths is None else LimitPaths([paths])
        self._app = app
        self._apps: list[object] | None = None

    def is_request_exempt(self, scope: Scope, router_paths: RouterPaths) -> bool:
        """Return whether a request is exempt from all limits of the middleware."""
        if self._paths is not None and self._are_paths_excluded(self._paths, router_paths):
            return True
        return registry.has_exemptions and is_exempt(self._find_handler(scope))

    def _are_paths_excluded(self, paths: LimitPaths, router_paths: RouterPaths) -> bool:
        """Return whether all paths that the router may see for the request are excluded."""
        seen = [
            path for alternative in router_paths.alternatives for path in alternative
        ] or router_paths.paths
        return all(
            paths.find_indexes_of_matching_limits(path) and not _has_dot_segment(path)
            for path in seen
        )

    def _find_handler(self, scope: Scope) -> object:
        own = scope.get("route_handler")
        if own is not None:  # Litestar runs its middlewares after the router
            return getattr(own, "fn", own)
        if self._apps is None:
            self._apps = find_wrapped_applications(self._app)
        apps = [*self._apps, scope.get("app")]
        for app in apps:
            match framework_of(app):
                case "starlette":
                    # A copy of the scope, because FastAPI writes to it while it searches.
                    return _find_starlette_endpoint(getattr(app, "routes", ()), {**scope})
                case "quart":
                    return _find_quart_view(app, scope)
                case "django":
                    return _find_django_view(scope)
        return None


def _has_dot_segment(path: str) -> bool:
    """Return whether the path has a segment "." or "..", which the application might resolve.

    Then it could reach a path that is not excluded.
    """
    return not {".", ".."}.isdisjoint(path.split("/"))


def _find_starlette_endpoint(routes: Iterable[Any], scope: Scope, depth: int = 0) -> object:
    """Return the endpoint that `starlette.routing.Router` will call; None if that is uncertain."""
    for route in routes:
        if not _is_matched_by_path_alone(route):
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


def _is_matched_by_path_alone(route: object) -> bool:
    """Return whether a route is matched by its path alone, not by a host or by custom code."""
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
