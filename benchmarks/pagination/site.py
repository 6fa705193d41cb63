"""A contestant's paths, each with an application of its own.

Routes are tried in order: in one application the last ones would be slower, and contestants have
different numbers of routes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from benchmarks.asgi import Application


class Site:
    def __init__(self) -> None:
        self._apps: dict[str, FastAPI] = {}

    def at(self, path: str) -> FastAPI:
        """Return a new application for the requests of this path, which will be its only route.

        The path may end with one parameter: ``/one/{id}``.
        """
        app = self._apps[path.partition("/{")[0]] = FastAPI()
        return app

    def __iter__(self) -> Iterator[FastAPI]:
        return iter(self._apps.values())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path: str = scope["path"]
        app: Application = self._apps.get(path) or self._apps[path.rpartition("/")[0]]
        await app(scope, receive, send)
