"""Estimate how many concurrent requests a process can serve, from how long requests take.

While a process has capacity, requests take as long as usual. When too many run at once, they wait
for each other and take longer. The ratio of the usual duration to the current one is the gradient:
the limit falls if it is low, and rises slowly otherwise.

This is the algorithm Gradient2 of Netflix's concurrency-limits with two changes. The usual duration
rises slowly, because in a long overload the long durations would otherwise become the usual ones.
And there is a second signal: the lag of the event loop, the first sign of saturation in Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

TOLERANCE: Final = 1.5
"""The limit falls when requests take longer than this many times the usual duration."""

PROBE: Final = 4
"""How many requests are added to the target of the limit in each window.

So the limit rises while requests take as long as usual.
"""

SMOOTHING: Final = 0.2
"""The share of the distance to its target that the limit moves in one window."""

MIN_GRADIENT: Final = 0.5
"""The lowest gradient, so that one window lowers the limit only moderately."""

LONG_WINDOWS: Final = 600
"""The usual duration is a moving average over this many windows, or fewer after the start."""

FIRST_WINDOWS: Final = 10
"""After this many windows, the usual duration rises slowly (see `RELUCTANCE`)."""

RELUCTANCE: Final = 10
"""How many times slower the usual duration rises than it falls.

Otherwise it would follow a long overload, and the limit would follow it up to its maximum.
"""

LAG_FACTOR: Final = 0.9
"""The limit is multiplied by this after a window in which the event loop lagged too much."""


@dataclass(frozen=True, slots=True)
class LimitBounds:
    """The lowest and highest limit, and the lag of the event loop above which the limit falls."""

    minimum: int
    maximum: int
    max_lag_us: int


class MeasurementWindow(NamedTuple):
    """The measurements of one window of time.

    - duration_us: the average duration of a request.
    - in_flight: the most requests that were in progress at once.
    - lag_us: the highest lag of the event loop.
    """

    duration_us: float
    in_flight: int
    lag_us: int = 0


class LimitEstimate(NamedTuple):
    """The current estimate of the limit, and what it is based on.

    - limit: how many requests may be in progress at once.
    - usual_us: the usual duration of a request, a moving average.
    - windows: how many windows this average includes.
    """

    limit: float
    usual_us: float = 0.0
    windows: int = 0


def adapt_limit(
    estimate: LimitEstimate, window: MeasurementWindow, bounds: LimitBounds
) -> LimitEstimate:
    """Return the estimate after one more window of measurements."""
    duration_us = max(1.0, window.duration_us)
    usual_us, windows = _update_usual_duration(estimate, duration_us)
    if usual_us > 2 * duration_us:
        # The process has recovered from a long overload: lower the average faster.
        usual_us *= 0.95
    if window.lag_us > bounds.max_lag_us:
        limit = max(bounds.minimum, estimate.limit * LAG_FACTOR)
        return LimitEstimate(limit, estimate.usual_us, estimate.windows)
    if window.in_flight < estimate.limit / 2:
        # Too few requests to see whether the limit is too high.
        return LimitEstimate(estimate.limit, usual_us, windows)
    gradient = min(1.0, max(MIN_GRADIENT, TOLERANCE * usual_us / duration_us))
    target = estimate.limit * gradient + PROBE
    limit = estimate.limit * (1 - SMOOTHING) + target * SMOOTHING
    return LimitEstimate(min(bounds.maximum, max(bounds.minimum, limit)), usual_us, windows)


def _update_usual_duration(estimate: LimitEstimate, duration_us: float) -> tuple[float, int]:
    """Return the new usual duration, and how many windows it includes."""
    windows = min(estimate.windows + 1, LONG_WINDOWS)
    share = max(1 / windows, 2 / (LONG_WINDOWS + 1))
    if duration_us > estimate.usual_us and estimate.windows >= FIRST_WINDOWS:
        share /= RELUCTANCE
    return estimate.usual_us + (duration_us - estimate.usual_us) * share, windows
