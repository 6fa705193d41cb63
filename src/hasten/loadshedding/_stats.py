"""Counters of load shedding, for metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class LoadSheddingStats:
    """The requests that a `LoadSheddingMiddleware` has accepted and refused, and its current limit.

        stats = LoadSheddingStats()
        app.add_middleware(LoadSheddingMiddleware, stats=stats)

    Use each object for only one middleware.
    """

    allowed: int = 0
    """Requests that were accepted."""
    shed: int = 0
    """Requests that were refused."""
    critical: int = 0
    """Requests that were accepted only because they are critical. allowed includes them."""
    in_flight: int = 0
    """Requests that the application is working on now."""
    limit: int = 0
    """How many concurrent requests are allowed now."""

    def reset(self) -> None:
        """Set allowed, shed and critical to zero. in_flight and limit keep their values."""
        self.allowed = self.shed = self.critical = 0
