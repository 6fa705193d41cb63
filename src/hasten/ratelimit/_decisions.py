"""What limits decide, counted and reported to observers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from hasten._decision import Decision
from hasten._repeated_errors import RepeatedErrors
from hasten.ratelimit._definitions import Limit
from hasten.ratelimit._exchange import Exchange, Taken
from hasten.ratelimit._stats import RateLimitStats

NEAR: Final = 0.8
"""From this share of a limit on, a client is near it."""


class Decisions:
    """Counts them, by the names of limits, and calls on_decision."""

    def __init__(
        self,
        limits: Iterable[Limit],
        on_decision: Callable[[Decision], object] | None,
        errors: RepeatedErrors,
        stats: RateLimitStats,
    ) -> None:
        self._errors = errors
        self._stats: Final = {each.name: stats.of(each.name) for each in limits}
        self._all = stats
        self._on_decision = on_decision

    def refuses(self, taken: Taken, exchange: Exchange) -> bool:
        """Whether a limit refuses, which is counted and reported."""
        limit, told = taken.limit, taken.told
        stats = self._stats.get(limit.name)
        if stats is None:
            stats = self._stats[limit.name] = self._all.of(limit.name)
        refuses = not (told.ok or limit.shadow)
        if refuses:
            stats.limited += 1
        else:
            stats.allowed += 1
            if not told.ok:
                stats.shadow += 1
            elif told.remaining < told.limit * (1 - NEAR):
                stats.near_limit += 1
        if told.unavailable:
            stats.unavailable += 1
        if self._on_decision is not None:
            self._report(self._on_decision, taken.decision(exchange.request))
        return refuses

    def _report(self, on_decision: Callable[[Decision], object], decision: Decision) -> None:
        try:
            on_decision(decision)
        except Exception:  # noqa: BLE001  # of the application's own function
            self._errors.exception(f"{decision.name}: on_decision failed")
