"""Plans: limits that apply to requests together, and what is the same for all these requests."""

from __future__ import annotations

from typing import Final

from hasten.ratelimit._counter_store import Check, OnStoreError
from hasten.ratelimit._http.limit import Limit
from hasten.ratelimit._http.policy_headers import HeaderWriter, WriteHeaders

MAX_CACHED: Final = 10_000


class Plan:
    """Some limits that apply to requests together, in their order."""

    def __init__(
        self, limits: tuple[Limit, ...], writer: HeaderWriter, on_error: OnStoreError
    ) -> None:
        self.limits: Final = limits
        self.has_address_keys: Final = all(limit.has_address_key for limit in limits)
        """Whether the client's address is all that a store has to know of a request."""
        self.reserves: Final = any(limit.reserves for limit in limits)
        """Whether the outcome of a request matters."""
        self.has_fast_path: Final = all(limit.has_fast_path for limit in limits)
        """Whether there is no function to call."""
        self.single: Final = limits[0] if len(limits) == 1 == len(limits[0].rules) else None
        """The limit, if there is only one and it has only one rate."""
        self.write_headers: Final = _write_headers(limits, writer)
        """Writes the headers for the outcomes of all limits; None if the policies may differ."""
        self.groups_of: Final[dict[str, list[list[Check]]]] = {}
        """The results of `groups`, by client."""
        self._on_error: OnStoreError = on_error

    def groups(self, client: str) -> list[list[Check]]:
        """Return the checks for a client, if the plan has address keys."""
        groups = self.groups_of.get(client)
        if groups is None:
            if len(self.groups_of) >= MAX_CACHED:
                self.groups_of.clear()
            groups = self.groups_of[client] = [
                limit.checks(
                    client if limit.key == "ip" else "global",
                    limit.cost if isinstance(limit.cost, int) else 1,
                    limit.rules,
                    self._on_error,
                )
                for limit in self.limits
            ]
        return groups


def _write_headers(limits: tuple[Limit, ...], writer: HeaderWriter) -> WriteHeaders | None:
    if not all(limit.shows_headers and limit.rules for limit in limits):
        return None
    return writer.writer_of(
        tuple(limit.policy_of(rule) for limit in limits for rule in limit.rules)
    )
