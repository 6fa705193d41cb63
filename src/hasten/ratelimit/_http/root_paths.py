"""Find the paths that the router of an application may see for a request.

A router does not match the whole path of a request. It first removes a root path, which the server,
a mount or the application itself defines. Each framework removes it in its own way, so several
spellings of a path can reach one handler, and limits must apply to all of them.

This module imitates the frameworks. If the application belongs to no known framework, limits are
matched with and without the root path.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from types import FunctionType, MethodType
from typing import Any, Final, NamedTuple

from hasten._asgi import Scope
from hasten._frameworks import framework_of
from hasten.ratelimit._http.paths import normalize_path, strip_root_path

MAX_VISITED: Final = 200
"""How many objects are searched for the application that other middlewares wrap."""


class RouterPaths(NamedTuple):
    """The paths that a router may see for a request, normalized by `paths.normalize_path`."""

    paths: tuple[str, ...]
    route: str
    """The path for limits with key="route": the same for all spellings that reach one handler."""
    alternatives: tuple[tuple[str, ...], ...] = ()
    """The possible sets of paths, if it is unknown which of them the router sees."""


class RouterPathFinder:
    """Finds the paths that a router may see for a request, with and without root paths.

    app is the application that the middleware wraps.
    """

    def __init__(self, app: object) -> None:
        self._app = app
        self._frameworks: frozenset[str] | None = None
        """The frameworks of the wrapped applications; None before the first request."""
        self._own: tuple[str, ...] = ()
        """Root paths that are set in the applications, not by the server."""
        self._mounts: tuple[str, ...] = ()
        """The paths of the mounts of a Litestar application that the middleware wraps."""
        self._mounts_of_handlers: dict[int, tuple[object, tuple[str, ...]]] = {}

    def find_router_paths(self, scope: Scope) -> RouterPaths:
        """Return the paths that the router may see for a request."""
        if self._frameworks is None:
            self._inspect_applications(scope)
        path, root_path = scope["path"], scope.get("root_path", "")
        outer_mounts = self.find_mount_paths(scope)
        if not (root_path or outer_mounts or self._own or self._mounts):  # most applications
            only = normalize_path(path)
            return RouterPaths((only,), only)
        alternatives = [
            self._add_mounted_paths(each, root_path)
            for each in self._strip_root_path_per_framework(scope, path, root_path)
        ]
        inner = {each for alternative in alternatives for each in alternative}
        if not outer_mounts:
            plain_ones = tuple(map(_normalize_paths, alternatives)) if len(alternatives) > 1 else ()
            paths = _normalize_paths(inner)
            return RouterPaths(paths, _shortest_path(paths), plain_ones)
        # Limits of the Litestar application have whole paths, and limits of a mounted application
        # have paths relative to the mount.
        whole = _normalize_paths(f"{mount}{slash}{each}" for mount in outer_mounts for each in inner
                           for slash in ("", "/"))  # fmt: skip
        return RouterPaths((*whole, *_normalize_paths(inner)), _shortest_path(whole), (whole,))

    def find_mount_paths(self, scope: Scope) -> tuple[str, ...]:
        """Return the paths at which Litestar has mounted the application that handles a request.

        Returns () if there is no mount. If the application is mounted several times, all paths are
        returned: Litestar removes the path of the mount without recording which one it was.
        """
        if not is_mounted(scope):
            return ()
        handler = scope["route_handler"]
        known = self._mounts_of_handlers.get(id(handler))
        if known is None:
            mounts = tuple(_iter_litestar_mounts(scope.get("app"), handler))
            known = self._mounts_of_handlers[id(handler)] = handler, mounts
        return known[1]

    def _strip_root_path_per_framework(
        self, scope: Scope, path: str, root_path: str
    ) -> list[set[str]]:
        """Return the path without the root path, as one set of paths for each possible router.

        There is one set if the framework of the router is known.
        """
        frameworks = self._frameworks
        assert frameworks is not None
        outer_websocket = framework_of(scope.get("app"))
        if not root_path or (
            outer_websocket == "litestar" and not frameworks and not self.find_mount_paths(scope)
        ):
            return [{path}]  # Litestar has removed the root path already
        if len(frameworks) == 1:
            (framework,) = frameworks
            return [_RULES[framework](path, root_path)]
        if not frameworks and outer_websocket == "starlette":
            return [_strip_like_starlette(path, root_path)]
        removed = {strip_root_path(path, root_path), *_strip_like_starlette(path, root_path)}
        if root_path in path:
            rest = path.split(root_path, 1)[1]
            removed |= {rest, "/" + rest}
        return [{path}, removed]

    def _add_mounted_paths(self, paths: set[str], root_path: str) -> set[str]:
        """Return the paths with and without the prefixes that applications and mounts remove.

        An application removes its root path, and a mount the path at which it is mounted.
        """
        found = paths | {path.replace(own, "", 1) for own in self._own for path in paths}
        mounted = set()
        for path, mount in product(map(normalize_path, found), self._mounts):
            # A mount of Litestar gets every path that begins with its own: "/admin" gets "/adminx".
            if path.startswith(mount):
                rest = path[len(mount) :]
                mounted.add(f"{mount}/{rest}")
                if root_path:  # the mounted application may also remove root_path
                    mounted.add(f"{mount}/{rest.split(root_path, 1)[-1]}")
        return found | mounted

    def _inspect_applications(self, scope: Scope) -> None:
        """Find and store the frameworks, root paths and mounts of the wrapped applications."""
        apps = find_wrapped_applications(self._app)
        self._frameworks = frozenset(filter(None, map(framework_of, apps)))
        outer_websocket = scope.get("app")
        own = {own for app in (*apps, outer_websocket) for own in _iter_root_path_options(app)}
        if self._frameworks in (frozenset(), {"django"}):
            own |= _find_django_script_name()
        self._own = tuple(sorted(own))
        self._mounts = tuple(mount for app in apps for mount in _iter_litestar_mounts(app))


def is_mounted(scope: Scope) -> bool:
    """Return whether an application that Litestar mounts handles a request."""
    return bool(getattr(scope.get("route_handler"), "is_mount", False))


# What remains of a path in each framework ---------------------------------------------------------


def _strip_like_starlette(path: str, root_path: str) -> set[str]:
    """Return the path without the root path, as `starlette._utils.get_route_path` removes it.

    The result also has the path that `strip_root_path` returns.
    """
    left = path
    if path.startswith(root_path) and path[len(root_path) : len(root_path) + 1] in ("", "/"):
        left = path[len(root_path) :]
    return {left, strip_root_path(path, root_path)}


def _strip_like_litestar(path: str, root_path: str) -> set[str]:
    """Return the path after the first occurrence of the root path, as Litestar removes it."""
    return {"/" + path.split(root_path, maxsplit=1)[-1]}


def _strip_like_quart_and_django(path: str, root_path: str) -> set[str]:
    """Return the path without the root path, even if that ends within a segment of the path."""
    return {"/" + path.removeprefix(root_path)}


_RULES: Final[Mapping[str, Callable[[str, str], set[str]]]] = {
    "starlette": _strip_like_starlette,
    "litestar": _strip_like_litestar,
    "quart": _strip_like_quart_and_django,
    "django": _strip_like_quart_and_django,
}


# What a middleware wraps --------------------------------------------------------------------------


def find_wrapped_applications(app: object) -> list[object]:
    """Return app if it is of a known framework, else such applications that it wraps.

    Middlewares may wrap each other in any depth.
    """
    found: list[object] = []
    seen: set[int] = set()
    waiting = [app]
    while waiting and len(seen) < MAX_VISITED:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if framework_of(each) is not None:
            found.append(each)
        else:
            waiting += _find_wrapped_objects(each)
    return found


def _find_wrapped_objects(wrapper: Any) -> Iterable[object]:
    match wrapper:
        case MethodType():
            return [wrapper.__self__]
        case partial():
            return [wrapper.func, *wrapper.args, *wrapper.keywords.values()]
        case FunctionType():
            named = (wrapper.__globals__.get(name) for name in wrapper.__code__.co_names)
            return [
                *_iter_closure_callables(wrapper),
                *(one for one in named if framework_of(one) is not None),
            ]
    attributes = getattr(wrapper, "__dict__", None)
    if isinstance(wrapper, type) or not isinstance(attributes, dict):
        return ()
    return [value for name, value in attributes.items() if "app" in name and callable(value)]


def _iter_closure_callables(function: FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # no value has been assigned yet
            continue
        if callable(value) and not isinstance(value, type):
            yield value


def _iter_root_path_options(app: object, depth: int = 0) -> Iterator[str]:
    """Yield the option root_path of an application, such as FastAPI, and of all that it mounts."""
    if framework_of(app) not in ("starlette", "litestar") or depth > 8:
        return
    own = getattr(app, "root_path", None)
    if isinstance(own, str) and own.strip("/"):
        yield own
    for route in getattr(app, "routes", None) or ():
        for mounted in _iter_mounted_applications(route):
            for each in find_wrapped_applications(mounted):
                yield from _iter_root_path_options(each, depth + 1)


def _iter_mounted_applications(route: Any) -> Iterator[object]:
    """Yield the application that a route of Starlette or Litestar mounts, if it mounts one."""
    handler = getattr(route, "route_handler", None)
    if handler is not None:
        if getattr(handler, "is_mount", False):
            yield getattr(handler, "fn", None)
    elif not hasattr(route, "endpoint"):
        yield getattr(route, "app", None)


def _iter_litestar_mounts(app: Any, handler: object = None) -> Iterator[str]:
    """Yield the paths at which a Litestar application mounts applications.

    handler restricts them to the mounts of this handler.
    """
    if framework_of(app) != "litestar":
        return
    for route in app.routes:
        found = getattr(route, "route_handler", None)
        if getattr(found, "is_mount", False) and handler in (None, found):
            yield route.path


def _find_django_script_name() -> set[str]:
    conf: Any = sys.modules.get("django.conf")
    if conf is None or not conf.settings.configured:
        return set()
    return set(filter(None, [getattr(conf.settings, "FORCE_SCRIPT_NAME", None)]))


def _normalize_paths(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({normalize_path(path) for path in paths}))


def _shortest_path(paths: Sequence[str]) -> str:
    return min(paths, key=len)
