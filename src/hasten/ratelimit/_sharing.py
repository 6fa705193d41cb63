"""One middleware where a framework makes many.

Litestar makes one for each of its routes. What they count is to be counted together, so the first
that serves a request of an application is the one that the others take their parts from.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeVar

from hasten._asgi import Scope
from hasten.ratelimit._root_paths import framework_of

T = TypeVar("T")

# The applications of Litestar cannot be referred to weakly. A process has one, its tests many.
_firsts: Final[deque[tuple[object, object, object]]] = deque(maxlen=16)


def first_of(scope: Scope, own: T, definition: object) -> T:
    """The first that was made by this definition for the application of a request: own, mostly."""
    app = scope.get("app")
    if framework_of(app) != "litestar":
        return own
    for known_app, known_definition, first in _firsts:
        if known_app is app and known_definition == definition and isinstance(first, type(own)):
            return first
    _firsts.append((app, definition, own))
    return own
