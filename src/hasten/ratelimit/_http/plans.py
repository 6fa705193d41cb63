"""Which limits a request is under, found once for all requests that are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from hasten._asgi import Headers, Scope
from hasten.ratelimit._counter_store import Check, OnStoreError, Outcome
from hasten.ratelimit._http.clients import Oddities
from hasten.ratelimit._http.exemptions import Exemptions
from hasten.ratelimit._http.limit import Limit
from hasten.ratelimit._http.paths import Paths
from hasten.ratelimit._http.policy_headers import Fields
from hasten.ratelimit._http.root_paths import RootPaths

MAX_KNOWN: Final = 10_000

MAX_KNOWN_CHARS: Final = 500
"""Longer paths are looked at each time, so that nobody can fill the memory with them."""


class Plan:
    """Some limits that requests are under together."""

    def __init__(
        self, limits: tuple[Limit, ...], fields: Fields, on_error: OnStoreError, processes: int
    ) -> None:
        self.limits: Final = limits
        self.is_plain: Final = all(limit.is_plain for limit in limits)
        """Whether the client's address is all that is to be known to ask the store."""
        self.only: Final = limits[0] if len(limits) == 1 and limits[0].is_plainest else None
        """The only limit, if there is but one, with one rate and nothing to call."""
        self.make_fields: Final = _maker(limits, fields)
        self._on_error: OnStoreError = on_error
        self._processes = processes
        self._groups: dict[str, list[list[Check]]] = {}

    def groups(self, client: str) -> list[list[Check]]:
        """What is asked of the store for one client, where the plan is plain."""
        groups = self._groups.get(client)
        if groups is None:
            if len(self._groups) >= MAX_KNOWN:
                self._groups.clear()
            groups = self._groups[client] = [
                limit.checks(
                    client if limit.key == "ip" else "global",
                    limit.cost if isinstance(limit.cost, int) else 1,
                    limit.rules,
                    self._on_error,
                    self._processes,
                )
                for limit in self.limits
            ]
        return groups


class Plans:
    """The plans for all requests. fields tell of them, on_error is for limits without their own."""

    def __init__(
        self,
        limits: Sequence[Limit],
        fields: Fields,
        on_error: OnStoreError,
        processes: int,
        root_paths: RootPaths,
        oddities: Oddities,
        exemptions: Exemptions,
    ) -> None:
        self._limits = tuple(limits)
        self._fields = fields
        self._on_error: OnStoreError = on_error
        self._processes = processes
        self._paths = Paths([limit.paths for limit in limits])
        self._plans: dict[tuple[Limit, ...], Plan] = {}
        self._root_paths = root_paths
        self._exemptions = exemptions
        self._oddities = oddities
        self._of_requests: dict[tuple[str, str, object], Plan | None] = {}
        self._has_messages = any(limit.per == "message" for limit in limits)

    def of_request(self, scope: Scope) -> Plan | None:
        """For a request of HTTP; None if no limit is for it."""
        asked = (scope["path"], scope["method"], scope.get("root_path", ""))
        try:
            plan = self._of_requests[asked]
        except KeyError:
            plan = self._remember(asked, scope)
        if plan is not None and asked[1] == "OPTIONS" and _is_preflight(scope):
            return None
        return plan

    def of_mounted_request(self, scope: Scope) -> Plan | None:
        """The same where Litestar has removed the path of a mount: it is one more thing to know."""
        place = scope.get("root_path", ""), self._root_paths.mounts_of(scope)
        asked = (scope["path"], scope["method"], place)
        known = self._of_requests
        plan = known[asked] if asked in known else self._remember(asked, scope)
        if plan is not None and asked[1] == "OPTIONS" and _is_preflight(scope):
            return None
        return plan

    def of_handshake(self, scope: Scope) -> Plan | None:
        """For a WebSocket that begins, which is a GET."""
        return self._find(scope, "GET", "request")

    def of_messages(self, scope: Scope) -> Plan | None:
        """For each message that comes over it."""
        return self._find(scope, "GET", "message") if self._has_messages else None

    def route_of(self, scope: Scope) -> str:
        """The path of a request, the same for all spellings of it that reach one handler."""
        return self._root_paths.forms(scope).route

    def of(self, limits: tuple[Limit, ...]) -> Plan:
        plan = self._plans.get(limits)
        if plan is None:
            plan = self._plans[limits] = Plan(limits, self._fields, self._on_error, self._processes)
        return plan

    def _remember(self, asked: tuple[str, str, object], scope: Scope) -> Plan | None:
        # In capitals, as Django and Quart read it, however it was sent.
        plan = self._find(scope, asked[1].upper(), "request")
        if len(asked[0]) <= MAX_KNOWN_CHARS:
            if len(self._of_requests) >= MAX_KNOWN:
                self._of_requests.clear()
            self._of_requests[asked] = plan
        return plan

    def _find(self, scope: Scope, method: str, per: str) -> Plan | None:
        forms = self._root_paths.forms(scope)
        if self._exemptions.has(scope, forms):
            return None
        places = self._paths.match(*forms.paths)
        if any(self._paths.match(*reading) != places for reading in forms.readings):
            code = "MOUNT_PATH" if self._root_paths.mounts_of(scope) else "ROOT_PATH"
            self._oddities.say(code, f"of {scope['path']!r}")
        found = tuple(
            limit
            for limit in (self._limits[place] for place in places)
            if limit.per == per and (limit.methods is None or method in limit.methods)
        )
        return self.of(found) if found else None


def _maker(
    limits: Sequence[Limit], fields: Fields
) -> Callable[[Sequence[Outcome]], Headers] | None:
    """What tells of the outcomes of all of them; None if that depends on the request."""
    if not all(limit.is_told and limit.rules for limit in limits):
        return None
    return fields.maker([limit.policies(rule) for limit in limits for rule in limit.rules])


def _is_preflight(scope: Scope) -> bool:
    """A browser asks whether it may: it does so by itself, and its user cannot help it."""
    names = {name.lower() for name, _ in scope["headers"]}
    return b"origin" in names and b"access-control-request-method" in names
