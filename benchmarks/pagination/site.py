"""The paths of a contestant, each with its own application.

Routes are matched in order, so in a common application the last ones would be slower. That would be
unfair, because contestants have different numbers of routes.
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
        """Return a new application for a path, which has to be its only route.

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
