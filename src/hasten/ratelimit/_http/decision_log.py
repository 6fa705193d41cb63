"""Count the decisions of limits, and pass them to the function on_decision."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from hasten._decision import Decision
from hasten._repeated_errors import ThrottledErrorLog
from hasten.ratelimit._counter_store import Outcome
from hasten.ratelimit._http.limit import Limit
from hasten.ratelimit._http.stats import RateLimitStats

NEAR: Final = 1 - 0.8
"""A request after which less than this share of the limit is left counts as near the limit."""


IsRefused: TypeAlias = bool


class DecisionLog:
    """Counts the decisions of a middleware in `RateLimitStats`, and calls on_decision."""

    def __init__(
        self,
        limits: Iterable[Limit],
        stats: RateLimitStats,
        on_decision: Callable[[Decision], object] | None,
        errors: ThrottledErrorLog,
    ) -> None:
        self.stats: Final = stats
        self._stats_by_name: Final = {
            limit.name: stats.get_or_add_limit(limit.name) for limit in limits
        }
        self.on_decision: Final = on_decision
        self._errors = errors

    def count_outcome(self, limit: Limit, outcome: Outcome) -> IsRefused:
        """Count the decision for an outcome. Returns whether the request must be refused."""
        stats = self._stats_by_name.get(limit.name)
        if stats is None:
            stats = self._stats_by_name[limit.name] = self.stats.get_or_add_limit(limit.name)
        refuses = not (outcome.ok or limit.shadow)
        if refuses:
            stats.limited += 1
        else:
            stats.allowed += 1
            if not outcome.ok:
                stats.shadow += 1
            elif outcome.remaining < outcome.limit * NEAR:
                stats.near_limit += 1
        if outcome.unavailable:
            stats.unavailable += 1
        return refuses

    def report_decision(self, decision: Decision) -> None:
        """Call the function on_decision, if there is one. Its exceptions are logged."""
        if self.on_decision is None:
            return
        try:
            self.on_decision(decision)
        except Exception:  # noqa: BLE001  # raised by the application's function
            self._errors.exception(
                f"limit {decision.name!r}: on_decision() failed; the decision stands"
            )
