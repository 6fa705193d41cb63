"""Share the state of one middleware among the many instances that Litestar creates.

Litestar creates an instance of each middleware for each route. To count the requests of all routes
together, all instances use the state of the instance that has served the first request of the
application.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeVar

from hasten._asgi import Scope
from hasten._frameworks import framework_of

T = TypeVar("T")

# The application, the definition and the middleware. Not a WeakKeyDictionary, because Litestar
# applications cannot be referenced weakly. A process has one application, but its tests have many.
_firsts: Final[deque[tuple[object, object, object]]] = deque(maxlen=16)


def get_shared_middleware(scope: Scope, own: T, definition: object) -> T:
    """Return the instance of a middleware that has the state for the application of a request.

    own is the instance that serves the request, and definition the options it was created with. In
    Litestar, the first instance of the application with an equal definition is returned. In other
    frameworks, own is returned.
    """
    app = scope.get("app")
    if framework_of(app) != "litestar":
        return own
    for known_app, known_definition, first in _firsts:
        if known_app is app and known_definition == definition and isinstance(first, type(own)):
            return first
    _firsts.append((app, definition, own))
    return own
