"""Numbers for metrics: what the middlewares have counted, for those who gave them the object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class LimitStats:
    """What one limit has decided so far."""

    allowed: int = 0
    limited: int = 0
    """Refused."""
    near_limit: int = 0
    """Of those allowed: with less than a fifth left."""
    shadow: int = 0
    """Of those allowed: which would have been refused, were the limit no `shadow`."""
    unavailable: int = 0
    """Decided by `on_store_error` ("allow" or "deny"), without a store."""


class RateLimitStats(Mapping[str, LimitStats]):
    """What a `RateLimitMiddleware` has counted, by the names of its limits.

        stats = RateLimitStats()
        app.add_middleware(RateLimitMiddleware, limits=[Limit("5/h", name="login")], stats=stats)
        ...
        stats["login"].limited

    One object is for one middleware of a process. It is empty until the framework makes the
    middleware, which Starlette and FastAPI do with the first request.
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
        """Begin at zero again. What clients have used up stays: `Limits.reset` is for that."""
        for each in self._of_limits.values():
            each.allowed = each.limited = each.near_limit = each.shadow = each.unavailable = 0

    def of(self, name: str) -> LimitStats:
        """Those of a limit, which is added if it is new."""
        found = self._of_limits.get(name)
        return self._of_limits.setdefault(name, LimitStats()) if found is None else found
