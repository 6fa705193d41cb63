"""Rate limits for FastAPI: as dependencies of routes, and in the OpenAPI description."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Unpack, cast

from fastapi import FastAPI, HTTPException, routing
from fastapi.params import Depends
from fastapi.requests import HTTPConnection

from hasten._asgi import Scope
from hasten.ratelimit import Limit, RateLimitMiddleware
from hasten.ratelimit._http.limit import RateOption, RouteLimit, RouteOptions
from hasten.ratelimit._http.limit_options import check_paths
from hasten.ratelimit._http.limited_request import require_active_request
from hasten.ratelimit._http.paths import LimitPaths
from hasten.ratelimit._http.policy_headers import DEFAULT_STYLES
from hasten.ratelimit._http.registry import get_handler_limits, is_exempt, registry


class RateLimited(Depends):
    """A dependency that limits a route: ``dependencies=[RateLimited("30/m", cost=2)]``.

    The options are those of `Limit`, except for path, methods and per. As a dependency of a router
    or an application, it counts the requests of each route separately. With the option name, it
    counts those of all routes together. Requests to an `exempt` handler are not counted. The
    application needs `RateLimitMiddleware`: without it, a request raises `MissingMiddleware`.
    """

    def __init__(self, rate: RateOption, **options: Unpack[RouteOptions]) -> None:
        super().__init__(dependency=_RateLimitDependency(rate, options), use_cache=False)


class _RateLimitDependency:
    """The function behind `RateLimited`: it counts each request, and rejects it above the limit."""

    def __init__(self, rate: RateOption, options: RouteOptions) -> None:
        self._rate = rate
        self._options = options
        self.limit: Final = RouteLimit(rate, "", **options)
        # Without a name, each route has its own count. Its key is known only at the first request.
        registry.add_limit(self.limit, is_named=options.get("name") is not None)
        self._limits: dict[str, Limit] = {}

    async def __call__(self, connection: HTTPConnection) -> None:
        if is_exempt(connection.scope.get("endpoint")):
            return
        request = require_active_request(f"RateLimited of {self.limit.name!r}")
        if not await request.enforce_limit(self.get_route_limit(connection.scope)):
            # The exception only stops the handler: RateLimitMiddleware sends its own response.
            raise HTTPException(request.denied.limit.status if request.denied else 429)

    def get_route_limit(self, scope: Scope) -> Limit:
        """Return the limit that counts the requests of the current route.

        It is created at the first request of the route.
        """
        route = _make_route_key(scope)
        limit = self._limits.get(route)
        if limit is None:
            limit = self._limits[route] = RouteLimit(self._rate, route, **self._options)
        return limit


def _make_route_key(scope: Scope) -> str:
    """Return a text that identifies the route of a request: methods, path template and handler.

    The root path is left out: if the application is mounted, it may contain path parameters, and
    each of their values would get its own count.
    """
    route = scope.get("route")
    # If a router is included several times, newer versions of FastAPI use the same route objects
    # for all inclusions, and store the full path here. Older versions copy the routes.
    included = scope.get("fastapi", {}).get("effective_route_context")
    path = getattr(included, "path", None) or getattr(route, "path", "")
    endpoint = scope.get("endpoint")
    name = f"{getattr(endpoint, '__module__', '')}.{getattr(endpoint, '__qualname__', '')}"
    methods = ",".join(sorted(getattr(route, "methods", None) or ["WEBSOCKET"]))
    return f"{methods} {path} {name}"


def _find_dependency_limits(scope: Scope) -> Iterator[Limit]:
    """Yield the limits of all `RateLimited` dependencies of the route of a request."""
    route = scope.get("route")
    if is_exempt(scope.get("endpoint")):
        return
    included = scope.get("fastapi", {}).get("effective_route_context")
    for called in _iter_dependency_functions(
        getattr(included, "dependant", getattr(route, "dependant", None))
    ):
        if isinstance(called, _RateLimitDependency):
            yield called.get_route_limit(scope)


def _iter_dependency_functions(dependant: Any) -> Iterator[object]:
    """Yield the functions of all direct and indirect dependencies of FastAPI's dependant."""
    for each in getattr(dependant, "dependencies", ()):
        yield each.call
        yield from _iter_dependency_functions(each)


registry.finders.append(_find_dependency_limits)


# OpenAPI ------------------------------------------------------------------------------------------


def document_rate_limits(app: FastAPI) -> None:
    """Add the error responses and headers of rate limits to the OpenAPI description of each route.

    Call it after all routes and middlewares were added. It replaces ``app.openapi`` with a
    function that calls the original one.
    """
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = described()
            for path, method, operation in _iter_operations(schema):
                limits = _find_limits_of_operation(app, path, method)
                if limits:
                    refusals = _describe_refusals(limits, _describe_headers(app))
                    operation.setdefault("responses", {}).update(refusals)
        return described()

    app.openapi = openapi  # type: ignore[method-assign]


def _iter_operations(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the path, the method and the description of each operation in an OpenAPI schema."""
    for path, methods in schema.get("paths", {}).items():
        for method, operation in methods.items():
            if isinstance(operation, dict):
                yield path, method.upper(), operation


def _find_limits_of_operation(app: FastAPI, path: str, method: str) -> list[Limit]:
    """Return the limits that can reject a request to this path, from middlewares and routes."""
    routes = [
        route
        for route in _iter_routes(app)
        if getattr(route, "path_format", None) == path and method in (route.methods or ())
    ]
    found = [limit for route in routes for limit in _find_route_limits(route)]
    if not any(is_exempt(route.endpoint) for route in routes):
        found = [*_find_middleware_limits(app, path, method), *found]
    return [limit for limit in found if not limit.shadow]


def _find_middleware_limits(app: FastAPI, path: str, method: str) -> Iterator[Limit]:
    for options in _iter_middleware_options(app):
        excluded = options.get("exclude_paths") or ()
        if excluded and LimitPaths(
            [check_paths("exclude_paths", excluded)]
        ).find_indexes_of_matching_limits(path):
            continue
        limits = cast("Sequence[Limit]", options.get("limits", ()))
        for i in LimitPaths([limit.paths for limit in limits]).find_indexes_of_matching_limits(
            path
        ):
            limit = limits[i]
            if limit.per == "request" and (limit.methods is None or method in limit.methods):
                yield limit


def _iter_middleware_options(app: FastAPI) -> Iterator[Mapping[str, Any]]:
    """Yield the keyword arguments of each `RateLimitMiddleware` of the application."""
    for middleware in app.user_middleware:
        kind: object = middleware.cls
        if kind is RateLimitMiddleware:
            yield middleware.kwargs


def _find_route_limits(route: Any) -> Iterator[Limit]:
    yield from get_handler_limits(route.endpoint)
    for dependency in route.dependencies:
        if isinstance(dependency.dependency, _RateLimitDependency) and not is_exempt(
            route.endpoint
        ):
            yield dependency.dependency.limit


def _iter_routes(app: FastAPI) -> Iterator[Any]:
    """Return all routes of the application, including those of included routers."""
    contexts = getattr(routing, "iter_route_contexts", None)
    return iter(app.routes) if contexts is None else contexts(app.routes)


_TEXT_SCHEMA: Final = {"type": "string"}
_NUMBER_SCHEMA: Final = {"type": "integer", "minimum": 0}

_RETRY_AFTER_HEADER: Final = {
    "Retry-After": {
        "description": "How many seconds to wait before retrying the request.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
_POLICY_HEADER: Final = {
    "description": "The limits that apply to this request.",
    "schema": _TEXT_SCHEMA,
}

_HEADERS_BY_STYLE: Final[Mapping[str, Mapping[str, Any]]] = {
    "standard": {
        "RateLimit": {
            "description": (
                "The remaining requests of each limit, and the seconds until more are available."
            ),
            "schema": _TEXT_SCHEMA,
        },
        "RateLimit-Policy": _POLICY_HEADER,
    },
    "draft-7": {
        "RateLimit": {
            "description": "The state of the limit with the fewest remaining requests.",
            "schema": _TEXT_SCHEMA,
        },
        "RateLimit-Policy": _POLICY_HEADER,
    },
    "legacy": {
        "X-RateLimit-Limit": {
            "description": "The maximum number of requests.",
            "schema": _NUMBER_SCHEMA,
        },
        "X-RateLimit-Remaining": {
            "description": "The number of remaining requests.",
            "schema": _NUMBER_SCHEMA,
        },
        "X-RateLimit-Reset": {
            "description": "When more requests are available, in seconds since the epoch.",
            "schema": _NUMBER_SCHEMA,
        },
    },
}
"""OpenAPI descriptions of the headers, by the style that `RateLimitMiddleware(headers=)` names."""


def _describe_headers(app: FastAPI) -> dict[str, Any]:
    """Return OpenAPI descriptions of the rate limit headers that this application sends."""
    found: dict[str, Any] = {}
    for options in _iter_middleware_options(app):
        for style in options.get("headers", DEFAULT_STYLES):
            found |= _HEADERS_BY_STYLE.get(style, {})
    return found


_PROBLEM_SCHEMA: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": _TEXT_SCHEMA,
        "status": {"type": "integer"},
        "detail": _TEXT_SCHEMA,
        "violated-policies": {"type": "array", "items": _TEXT_SCHEMA},
    },
}


def _describe_refusals(limits: Sequence[Limit], headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return OpenAPI descriptions of the error responses of these limits, by status.

    headers are the descriptions of the rate limit headers.
    """
    found: dict[str, Any] = {}
    for limit in limits:
        answer = found.setdefault(
            str(limit.status),
            {"description": "", "headers": dict(_RETRY_AFTER_HEADER), "content": {}},
        )
        if limit.headers:
            answer["headers"].update(headers)
        answer["description"] += f"{'; ' if answer['description'] else ''}{limit.name}"
        match limit.message:
            case None:
                answer["content"]["application/problem+json"] = {"schema": _PROBLEM_SCHEMA}
            case str():
                answer["content"]["text/plain"] = {"schema": _TEXT_SCHEMA}
            case _:
                answer["content"]["application/json"] = {"schema": {}}
    for answer in found.values():
        answer["description"] = f"Too many requests: {answer['description']}."
    return found
