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

# The application, the options and the first middleware instance. Not a WeakKeyDictionary, because
# Litestar applications cannot be referenced weakly. A process has one application, but its tests
# have many.
_firsts: Final[deque[tuple[object, object, object]]] = deque(maxlen=16)


def find_first_with_equal_options(scope: Scope, instance: T, options: object) -> T:
    """Return the middleware instance whose state this one must use.

    instance serves the request, and was created with these options. In Litestar, the first instance
    that has served a request of the same application and has equal options is returned: all of
    these instances share its state. In other frameworks, instance itself is returned.
    """
    app = scope.get("app")
    if framework_of(app) != "litestar":
        return instance
    for known_app, known_options, first in _firsts:
        if known_app is app and known_options == options and isinstance(first, type(instance)):
            return first
    _firsts.append((app, options, instance))
    return instance
