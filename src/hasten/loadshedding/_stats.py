"""Counts of load shedding, for metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class LoadSheddingStats:
    """What a `LoadSheddingMiddleware` has accepted and refused, and its current state.

        stats = LoadSheddingStats()
        app.add_middleware(LoadSheddingMiddleware, stats=stats)

    Use one object for one middleware of a process.
    """

    allowed: int = 0
    """Requests that were accepted."""
    shed: int = 0
    """Requests that were refused."""
    critical: int = 0
    """Accepted requests that were accepted only because they are critical."""
    in_flight: int = 0
    """Requests that the application is working on now."""
    limit: int = 0
    """How many requests at once are accepted now."""

    def reset(self) -> None:
        """Set the counts to zero. in_flight and limit keep their values."""
        self.allowed = self.shed = self.critical = 0
