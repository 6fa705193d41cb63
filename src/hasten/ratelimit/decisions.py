"""What limits decide, told to who watches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from hasten.ratelimit.exchange import Taken
from hasten.ratelimit.limit import Limit
from hasten.ratelimit.repeated import RepeatedErrors

NEAR: Final = 0.8
"""From this share of a limit on, a client is near it."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What a limit made of one request or message, for `on_decision`."""

    limit: str
    ok: bool
    remaining: int
    retry_after: float
    """Seconds; 0 if it may pass."""
    shadow: bool
    unavailable: bool
    """There was no store to ask."""


@dataclass(slots=True)
class Counters:
    """What one limit has done so far."""

    allowed: int = 0
    limited: int = 0
    near_limit: int = 0
    """Of those allowed: with less than a fifth left."""
    shadow: int = 0
    """Of those allowed: which would have been refused."""
    unavailable: int = 0
    """Decided without the store."""


class Decisions:
    """Counts them, by the names of limits, and tells on_decision."""

    def __init__(
        self,
        limits: Iterable[Limit],
        on_decision: Callable[[Decided], object] | None,
        errors: RepeatedErrors,
    ) -> None:
        self._errors = errors
        self.counters: Final[dict[str, Counters]] = {each.name: Counters() for each in limits}
        self._on_decision = on_decision

    def refuses(self, taken: Taken) -> bool:
        """Whether a limit refuses, which is counted and told."""
        limit, told = taken.limit, taken.told
        counters = self.counters.get(limit.name)
        if counters is None:
            counters = self.counters.setdefault(limit.name, Counters())
        refuses = not (told.ok or limit.shadow)
        if refuses:
            counters.limited += 1
        else:
            counters.allowed += 1
            if not told.ok:
                counters.shadow += 1
            elif told.remaining < told.limit * (1 - NEAR):
                counters.near_limit += 1
        if told.unavailable:
            counters.unavailable += 1
        if self._on_decision is not None:
            self._tell(self._on_decision, taken)
        return refuses

    def _tell(self, on_decision: Callable[[Decided], object], taken: Taken) -> None:
        limit, told = taken.limit, taken.told
        retry_after = told.retry_us / 1_000_000
        decided = Decided(
            limit.name, told.ok, told.remaining, retry_after, limit.shadow, told.unavailable
        )
        try:
            on_decision(decided)
        except Exception:  # noqa: BLE001  # of the application's own function
            self._errors.exception(f"{limit.name}: on_decision failed")
