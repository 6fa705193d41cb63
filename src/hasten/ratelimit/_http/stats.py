"""Counts of limits, for metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class LimitStats:
    """The decisions of one limit so far."""

    allowed: int = 0
    """Requests that passed."""
    limited: int = 0
    """Requests that were refused."""
    near_limit: int = 0
    """Of those that passed: with less than a fifth of the limit left."""
    shadow: int = 0
    """Of those that passed: refused if the limit were not `shadow`."""
    unavailable: int = 0
    """Decided by `on_store_error` ("allow" or "deny"), because the store was unavailable."""


class RateLimitStats(Mapping[str, LimitStats]):
    """The counts of a `RateLimitMiddleware`, by the names of its limits.

        stats = RateLimitStats()
        app.add_middleware(RateLimitMiddleware, limits=[Limit("5/h", name="login")], stats=stats)
        ...
        stats["login"].limited

    Use one object for one middleware of a process. It is empty until the framework makes the
    middleware, which Starlette and FastAPI do at the first request.
    """

    def __init__(self) -> None:
        self._of_limits: dict[str, LimitStats] = {}

    def __getitem__(self, name: str) -> LimitStats:
        return self._of_limits[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of_limits)

    def __len__(self) -> int:
        return len(self._of_limits)

    def __repr__(self) -> str:
        return f"RateLimitStats({self._of_limits!r})"

    def reset(self) -> None:
        """Set all counts to zero. This does not reset clients: `Limits.reset` does."""
        for each in self._of_limits.values():
            each.allowed = each.limited = each.near_limit = each.shadow = each.unavailable = 0

    def of(self, name: str) -> LimitStats:
        """Return the counts of a limit, and add them if they are new."""
        found = self._of_limits.get(name)
        return self._of_limits.setdefault(name, LimitStats()) if found is None else found
