"""Share one middleware among the many that Litestar makes.

Litestar makes a middleware for each of its routes. They have to count together, so all of them use
the state of the first one that serves a request of their application.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeVar

from hasten._asgi import Scope
from hasten._frameworks import framework_of

T = TypeVar("T")

# Litestar applications cannot be referenced weakly. A process has one, its tests have many.
_firsts: Final[deque[tuple[object, object, object]]] = deque(maxlen=16)


def first_of(scope: Scope, own: T, definition: object) -> T:
    """Return the first object with this definition for the application of a request.

    Returns own for every framework but Litestar.
    """
    app = scope.get("app")
    if framework_of(app) != "litestar":
        return own
    for known_app, known_definition, first in _firsts:
        if known_app is app and known_definition == definition and isinstance(first, type(own)):
            return first
    _firsts.append((app, definition, own))
    return own
