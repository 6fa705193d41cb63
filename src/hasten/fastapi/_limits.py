"""Limits of routes as dependencies, and the refusals that they lead to in OpenAPI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Unpack, cast

from fastapi import FastAPI, HTTPException, routing
from fastapi.params import Depends
from fastapi.requests import HTTPConnection

from hasten._asgi import Scope
from hasten.errors import MissingMiddleware
from hasten.ratelimit import Limit, RateLimitMiddleware
from hasten.ratelimit._http.exemptions import is_exempt
from hasten.ratelimit._http.limit import RateOption, RouteOptions, paths_of
from hasten.ratelimit._http.limited_request import current
from hasten.ratelimit._http.paths import Paths
from hasten.ratelimit._http.policy_headers import STYLES_BY_DEFAULT
from hasten.ratelimit._http.route_limits import finders, limits_of, remember, route_limit


class RateLimited(Depends):
    """A dependency that limits a route: ``dependencies=[RateLimited("30/m", cost=2)]``.

    The options are those of `Limit`, except for path, methods and per. Of a router or an
    application, it limits each of the routes on its own; with a name, all of them together.
    `RateLimitMiddleware` has to be around the application; without it a request raises
    `MissingMiddleware`. It does not count the requests of a handler that is `exempt`.
    """

    def __init__(self, rate: RateOption, **options: Unpack[RouteOptions]) -> None:
        super().__init__(dependency=_Limited(rate, options), use_cache=False)


class _Limited:
    def __init__(self, rate: RateOption, options: RouteOptions) -> None:
        self._rate = rate
        self._options = options
        self.limit: Final = route_limit(rate, "", **options)
        if "name" in options:  # else each route has a count of its own, under a name of its own
            remember(self.limit)
        self._limits: dict[str, Limit] = {}

    async def __call__(self, connection: HTTPConnection) -> None:
        if is_exempt(connection.scope.get("endpoint")):
            return
        exchange = current.get()
        if exchange is None:
            raise MissingMiddleware(f"RateLimited of {self.limit.name!r}", "RateLimitMiddleware")
        if not await exchange.middleware.take(exchange, self.limit_of(connection.scope)):
            # The middleware answers in the place of this.
            raise HTTPException(exchange.denied.limit.status if exchange.denied else 429)

    def limit_of(self, scope: Scope) -> Limit:
        """The limit of the route that a request has led to."""
        route = _route_of(scope)
        limit = self._limits.get(route)
        if limit is None:
            limit = self._limits[route] = route_limit(self._rate, route, **self._options)
        return limit


def _route_of(scope: Scope) -> str:
    """The route of a request, the same whatever its parameters are.

    Not told by the root path, which has parameters as well where an application is mounted.
    """
    route = scope.get("route")
    # A router that is included in several places has the same routes in all of them; newer
    # versions of FastAPI tell apart here, older ones have a copy of the route for each place.
    included = scope.get("fastapi", {}).get("effective_route_context")
    path = getattr(included, "path", None) or getattr(route, "path", "")
    endpoint = scope.get("endpoint")
    name = f"{getattr(endpoint, '__module__', '')}.{getattr(endpoint, '__qualname__', '')}"
    methods = ",".join(sorted(getattr(route, "methods", None) or ["WEBSOCKET"]))
    return f"{methods} {path} {name}"


def _limits_of_dependencies(scope: Scope) -> Iterator[Limit]:
    route = scope.get("route")
    if is_exempt(scope.get("endpoint")):
        return
    included = scope.get("fastapi", {}).get("effective_route_context")
    for called in _dependencies(getattr(included, "dependant", getattr(route, "dependant", None))):
        if isinstance(called, _Limited):
            yield called.limit_of(scope)


def _dependencies(dependant: Any) -> Iterator[object]:
    for each in getattr(dependant, "dependencies", ()):
        yield each.call
        yield from _dependencies(each)


finders.append(_limits_of_dependencies)


# OpenAPI ------------------------------------------------------------------------------------------


def document_rate_limits(app: FastAPI) -> None:
    """Describe in OpenAPI how each limited route may be refused, and the headers that tell of it.

    To be called when limits and routes are installed. It wraps ``app.openapi``.
    """
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = described()
            for path, method, operation in _operations(schema):
                limits = _limits_of(app, path, method)
                if limits:
                    refusals = _refusals(limits, _headers(app))
                    operation.setdefault("responses", {}).update(refusals)
        return described()

    app.openapi = openapi  # type: ignore[method-assign]


def _operations(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in schema.get("paths", {}).items():
        for method, operation in methods.items():
            if isinstance(operation, dict):
                yield path, method.upper(), operation


def _limits_of(app: FastAPI, path: str, method: str) -> list[Limit]:
    routes = [
        route
        for route in _all_routes(app)
        if getattr(route, "path_format", None) == path and method in (route.methods or ())
    ]
    found = [limit for route in routes for limit in _of_route(route)]
    if not any(is_exempt(route.endpoint) for route in routes):
        found = [*_of_middleware(app, path, method), *found]
    return [limit for limit in found if not limit.shadow]


def _of_middleware(app: FastAPI, path: str, method: str) -> Iterator[Limit]:
    for options in _middlewares(app):
        excluded = options.get("exclude_paths") or ()
        if excluded and Paths([paths_of("exclude_paths", excluded)]).match(path):
            continue
        limits = cast("Sequence[Limit]", options.get("limits", ()))
        for place in Paths([limit.paths for limit in limits]).match(path):
            limit = limits[place]
            if limit.per == "request" and (limit.methods is None or method in limit.methods):
                yield limit


def _middlewares(app: FastAPI) -> Iterator[Mapping[str, Any]]:
    """The options of each."""
    for middleware in app.user_middleware:
        kind: object = middleware.cls
        if kind is RateLimitMiddleware:
            yield middleware.kwargs


def _of_route(route: Any) -> Iterator[Limit]:
    yield from limits_of(route.endpoint)
    for dependency in route.dependencies:
        if isinstance(dependency.dependency, _Limited) and not is_exempt(route.endpoint):
            yield dependency.dependency.limit


def _all_routes(app: FastAPI) -> Iterator[Any]:
    """With those of included routers, which newer versions of FastAPI keep to themselves."""
    contexts = getattr(routing, "iter_route_contexts", None)
    return iter(app.routes) if contexts is None else contexts(app.routes)


_TEXT: Final = {"type": "string"}
_NUMBER: Final = {"type": "integer", "minimum": 0}

_RETRY_AFTER: Final = {
    "Retry-After": {
        "description": "Seconds after which the same request passes.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
_POLICY: Final = {"description": "The limits of this request.", "schema": _TEXT}

_STYLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "standard": {
        "RateLimit": {
            "description": "What is left of each limit, and when more is.",
            "schema": _TEXT,
        },
        "RateLimit-Policy": _POLICY,
    },
    "draft-7": {
        "RateLimit": {
            "description": "What is left of the limit that is nearest to its end.",
            "schema": _TEXT,
        },
        "RateLimit-Policy": _POLICY,
    },
    "legacy": {
        "X-RateLimit-Limit": {"description": "How much passes at most.", "schema": _NUMBER},
        "X-RateLimit-Remaining": {"description": "How much is left.", "schema": _NUMBER},
        "X-RateLimit-Reset": {
            "description": "When more is left, in seconds since 1970.",
            "schema": _NUMBER,
        },
    },
}
"""The headers of each style, as `RateLimitMiddleware(headers=)` names them."""


def _headers(app: FastAPI) -> dict[str, Any]:
    """Those that tell of limits in the answers of this application."""
    found: dict[str, Any] = {}
    for options in _middlewares(app):
        for style in options.get("headers", STYLES_BY_DEFAULT):
            found |= _STYLES.get(style, {})
    return found


_PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": _TEXT,
        "violated-policies": {"type": "array", "items": _TEXT},
    },
}


def _refusals(limits: Sequence[Limit], headers: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for limit in limits:
        answer = found.setdefault(
            str(limit.status), {"description": "", "headers": dict(_RETRY_AFTER), "content": {}}
        )
        if limit.headers:
            answer["headers"].update(headers)
        answer["description"] += f"{'; ' if answer['description'] else ''}{limit.name}"
        match limit.message:
            case None:
                answer["content"]["application/problem+json"] = {"schema": _PROBLEM}
            case str():
                answer["content"]["text/plain"] = {"schema": _TEXT}
            case _:
                answer["content"]["application/json"] = {"schema": {}}
    for answer in found.values():
        answer["description"] = f"Too many requests: {answer['description']}."
    return found
