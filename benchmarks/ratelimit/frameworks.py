"""The application in Starlette and FastAPI, for libraries that only work there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from benchmarks.ratelimit.application import BODY

Decorate: TypeAlias = Callable[[str, Any], Any]
"""A function that is called with a path and its endpoint, and returns the endpoint with limits."""


def starlette_application(paths: Iterable[str], decorate: Decorate | None = None) -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    def route(path: str) -> Route:
        async def endpoint(request: Request) -> Response:
            return Response(BODY, media_type="application/json")

        return Route(path, decorate(path, endpoint) if decorate else endpoint)

    return Starlette(routes=[route(path) for path in paths])


def fastapi_application(
    paths: Iterable[str],
    decorate: Decorate | None = None,
    *,
    dependencies: Callable[[str], list[Any]] = lambda path: [],
) -> Any:
    from fastapi import FastAPI, Request, Response

    app = FastAPI(openapi_url=None)
    for path in paths:

        async def endpoint(request: Request) -> Response:
            return Response(BODY, media_type="application/json")

        # FastAPI evaluates annotations when a route is added, and cannot evaluate these as strings.
        endpoint.__annotations__ = {"request": Request, "return": Response}
        decorated = decorate(path, endpoint) if decorate else endpoint
        app.get(path, dependencies=dependencies(path))(decorated)
    return app
