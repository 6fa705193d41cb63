"""Plans: the limits that apply to a kind of request, and what is the same for all such requests."""

from __future__ import annotations

from typing import Final

from hasten.ratelimit._counter_store import Check, OnStoreError
from hasten.ratelimit._http.limit import Limit
from hasten.ratelimit._http.policy_headers import HeaderWriter, WriteHeaders

MAX_CACHED: Final = 10_000


class LimitPlan:
    """The limits that apply to a kind of request, in their order.

    A request that several limits apply to has one plan, and requests with equal limits share it.
    """

    def __init__(
        self, limits: tuple[Limit, ...], writer: HeaderWriter, on_error: OnStoreError
    ) -> None:
        self.limits: Final = limits
        self.has_address_keys: Final = all(limit.has_address_key for limit in limits)
        """Whether the checks depend only on the client's address, so that they can be cached."""
        self.reserves: Final = any(limit.reserves for limit in limits)
        """Whether any of the limits counts a request by how it ends."""
        self.has_fast_path: Final = all(limit.has_fast_path for limit in limits)
        """Whether no function of the application must be called to enforce the limits."""
        self.single: Final = limits[0] if len(limits) == 1 == len(limits[0].rules) else None
        """The limit, if there is only one and it has only one rate."""
        self.write_headers: Final = _make_header_function(limits, writer)
        """Writes the headers for the outcomes of all limits.

        None if some limit has no headers or a rate that differs from request to request.
        """
        self.cached_groups: Final[dict[str, list[list[Check]]]] = {}
        """A cache of the results of `make_check_groups`, by client."""
        self._on_error: OnStoreError = on_error

    def make_check_groups(self, client: str) -> list[list[Check]]:
        """Return a group of checks for each limit, for a request of a client (its address key).

        Only for plans whose checks depend only on the client's address (has_address_keys).
        """
        groups = self.cached_groups.get(client)
        if groups is None:
            if len(self.cached_groups) >= MAX_CACHED:
                self.cached_groups.clear()
            groups = self.cached_groups[client] = [
                limit.make_checks(
                    client if limit.key == "ip" else "global",
                    limit.cost if isinstance(limit.cost, int) else 1,
                    limit.rules,
                    self._on_error,
                )
                for limit in self.limits
            ]
        return groups


def _make_header_function(limits: tuple[Limit, ...], writer: HeaderWriter) -> WriteHeaders | None:
    if not all(limit.shows_headers and limit.rules for limit in limits):
        return None
    return writer.get_write_function(
        tuple(limit.make_policy(rule) for limit in limits for rule in limit.rules)
    )
