"""Counters of the decisions of limits, for metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class LimitStats:
    """How many requests one limit has allowed and refused so far."""

    allowed: int = 0
    """Requests that passed the limit, including those of the next two counters."""
    limited: int = 0
    """Requests that were refused."""
    near_limit: int = 0
    """Requests that passed with less than a fifth of the limit left."""
    shadow: int = 0
    """Requests that exceeded the limit, but passed because it is a `shadow` limit."""
    unavailable: int = 0
    """Requests that `on_store_error` ("allow" or "deny") decided, as the store was unavailable."""


class RateLimitStats(Mapping[str, LimitStats]):
    """The counters of a `RateLimitMiddleware`, by the names of its limits.

        stats = RateLimitStats()
        app.add_middleware(RateLimitMiddleware, limits=[Limit("5/h", name="login")], stats=stats)
        ...
        stats["login"].limited

    Use each object for only one middleware. It is empty until the framework makes the middleware,
    which Starlette and FastAPI do at the first request.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, LimitStats] = {}

    def __getitem__(self, name: str) -> LimitStats:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return f"RateLimitStats({self._by_name!r})"

    def reset(self) -> None:
        """Set all counters to zero. The limits are not reset: use `Limits.reset` for that."""
        for each in self._by_name.values():
            each.allowed = each.limited = each.near_limit = each.shadow = each.unavailable = 0

    def get_or_add_limit(self, name: str) -> LimitStats:
        """Return the counters of a limit. Adds them if they do not exist."""
        found = self._by_name.get(name)
        return self._by_name.setdefault(name, LimitStats()) if found is None else found
