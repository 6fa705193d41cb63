"""How many concurrent requests a process can serve, derived from how long they take.

While a process has capacity, requests take as long as usual. When too many run at once they wait
for each other and take longer. The ratio of the two durations is the gradient that moves the limit.
This is Gradient2 of Netflix's concurrency-limits with two changes. The usual duration rises slowly,
because in a long overload the long durations would otherwise become the usual ones. And there is a
second signal: the lag of the event loop, which is the first sign of saturation in Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

TOLERANCE: Final = 1.5
"""The limit falls when requests take longer than this many times the usual duration."""

PROBE: Final = 4
"""How many more requests each window tries to allow while durations stay usual."""

SMOOTHING: Final = 0.2
"""The share of the distance to the target that the limit moves in one window."""

MIN_GRADIENT: Final = 0.5

LONG_WINDOWS: Final = 600
"""The usual duration is an average over this many windows, at first over those seen so far."""

FIRST_WINDOWS: Final = 10

RELUCTANCE: Final = 10
"""How many times slower the usual duration rises than it falls.

Otherwise it would follow a long overload, and the limit would follow it up to its maximum.
"""

LAG_FACTOR: Final = 0.9
"""The factor of the limit after a window in which the event loop was late."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of the limit, and the highest lag of the event loop that is accepted."""

    minimum: int
    maximum: int
    max_lag_us: int


class Window(NamedTuple):
    """One window of measurements.

    duration_us is the average duration of a request, in_flight the most requests at once, lag_us
    the highest lag of the event loop.
    """

    duration_us: float
    in_flight: int
    lag_us: int = 0


class LimitEstimate(NamedTuple):
    """The limit and the usual duration. windows is how many windows the average includes."""

    limit: float
    usual_us: float = 0.0
    windows: int = 0


def adapt_limit(level: LimitEstimate, window: Window, bounds: Bounds) -> LimitEstimate:
    """Return the level after one more window."""
    duration_us = max(1.0, window.duration_us)
    usual_us, windows = _update_usual_duration(level, duration_us)
    if usual_us > 2 * duration_us:
        usual_us *= 0.95  # the process recovered from a long load: forget its durations faster
    if window.lag_us > bounds.max_lag_us:
        limit = max(bounds.minimum, level.limit * LAG_FACTOR)
        return LimitEstimate(limit, level.usual_us, level.windows)
    if window.in_flight < level.limit / 2:
        return LimitEstimate(level.limit, usual_us, windows)  # too few requests to judge the limit
    gradient = min(1.0, max(MIN_GRADIENT, TOLERANCE * usual_us / duration_us))
    target = level.limit * gradient + PROBE
    limit = level.limit * (1 - SMOOTHING) + target * SMOOTHING
    return LimitEstimate(min(bounds.maximum, max(bounds.minimum, limit)), usual_us, windows)


def _update_usual_duration(level: LimitEstimate, duration_us: float) -> tuple[float, int]:
    windows = min(level.windows + 1, LONG_WINDOWS)
    share = max(1 / windows, 2 / (LONG_WINDOWS + 1))
    if duration_us > level.usual_us and level.windows >= FIRST_WINDOWS:
        share /= RELUCTANCE
    return level.usual_us + (duration_us - level.usual_us) * share, windows
