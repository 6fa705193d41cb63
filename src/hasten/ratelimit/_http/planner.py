"""Find the limits that apply to a request, and cache them by path and method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hasten._asgi import Scope
from hasten.ratelimit._http.enforcer import Enforcer
from hasten.ratelimit._http.exemptions import Exemptions
from hasten.ratelimit._http.limit import Limit
from hasten.ratelimit._http.paths import LimitPaths
from hasten.ratelimit._http.plans import LimitPlan
from hasten.ratelimit._http.root_paths import RouterPathFinder, is_mounted

MAX_CACHED: Final = 10_000

MAX_CACHED_CHARS: Final = 500
"""Longer paths are not cached, so that clients cannot fill the memory with them."""


class LimitPlanner:
    """Finds the plan for each request: the limits that apply to it.

    app is the application that the middleware wraps.
    """

    def __init__(
        self,
        limits: Sequence[Limit],
        enforcer: Enforcer,
        app: object,
        excluded_paths: Sequence[str] | None,
    ) -> None:
        self.plans: Final[dict[tuple[object, ...], LimitPlan | None]] = {}
        """A cache of the results of `find_http_plan`, by path, method and root path."""
        self._enforcer = enforcer
        self._limits = tuple(limits)
        self._paths = LimitPaths([limit.paths for limit in limits])
        self._root_paths = RouterPathFinder(app)
        self._exemptions = Exemptions(excluded_paths, app)
        self._limits_messages = any(limit.per == "message" for limit in limits)

    def find_http_plan(self, scope: Scope) -> LimitPlan | None:
        """Return the plan for an HTTP request; None if no limit applies to it."""
        path, method, root_path = scope["path"], scope["method"], scope.get("root_path", "")
        key: tuple[object, ...] = path, method, root_path
        if method == "OPTIONS" or is_mounted(scope):
            # The plan depends on more than these three. The longer key keeps the middleware from
            # finding it in `plans`, so that this method is always called.
            key = *key, self._root_paths.find_mount_paths(scope)
        if key in self.plans:
            plan = self.plans[key]
        else:
            # Upper case, because Django and Quart accept methods in any case.
            plan = self._find_plan(scope, method.upper(), "request")
            if len(path) <= MAX_CACHED_CHARS:
                if len(self.plans) >= MAX_CACHED:
                    self.plans.clear()
                self.plans[key] = plan
        return None if method == "OPTIONS" and _is_preflight(scope) else plan

    def find_handshake_plan(self, scope: Scope) -> LimitPlan | None:
        """Return the plan for a WebSocket handshake (a GET request); None if no limit applies."""
        return self._find_plan(scope, "GET", "request")

    def find_message_plan(self, scope: Scope) -> LimitPlan | None:
        """Return the plan for each message of a WebSocket client; None if no limit applies."""
        return self._find_plan(scope, "GET", "message") if self._limits_messages else None

    def find_route_path(self, scope: Scope) -> str:
        """Return the path of a request for limits with key="route".

        It is the same for all spellings that reach one handler.
        """
        return self._root_paths.find_router_paths(scope).route

    def _find_plan(self, scope: Scope, method: str, per: str) -> LimitPlan | None:
        router_paths = self._root_paths.find_router_paths(scope)
        if self._exemptions.is_request_exempt(scope, router_paths):
            return None
        indexes = self._paths.find_indexes_of_matching_limits(*router_paths.paths)
        if any(
            self._paths.find_indexes_of_matching_limits(*alternative) != indexes
            for alternative in router_paths.alternatives
        ):
            code = "MOUNT_PATH" if self._root_paths.find_mount_paths(scope) else "ROOT_PATH"
            self._enforcer.warnings.warn_once(code, f"the path is {scope['path']!r}")
        found = tuple(
            limit
            for limit in (self._limits[i] for i in indexes)
            if limit.per == per and (limit.methods is None or method in limit.methods)
        )
        return self._enforcer.get_plan(found) if found else None


def _is_preflight(scope: Scope) -> bool:
    """Return whether a request is a CORS preflight, which no limit counts."""
    names = {name.lower() for name, _ in scope["headers"]}
    return b"origin" in names and b"access-control-request-method" in names
