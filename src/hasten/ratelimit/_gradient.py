"""How many requests at once are good for this process, told by how long they take.

While a process has room, requests take as long as ever. Once too many are under way they wait for
each other, and take longer: the ratio of both times is the gradient by which the limit moves. This
is Gradient2 of Netflix's concurrency-limits with two changes. What is usual rises slowly, for in
an overload that lasts theirs becomes usual itself. And there is one more sign: how late the event
loop is, which is what saturation of Python looks like first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

TOLERANCE: Final = 1.5
"""Requests may take so many times as long as usual before the limit falls."""

QUEUE: Final = 4
"""So many more are tried where nothing speaks against it."""

SMOOTHING: Final = 0.2
"""How far the limit goes, in one step, to where it should be."""

STEEPEST: Final = 0.5

LONG_WINDOWS: Final = 600
"""What is usual is an average over so many windows, first over as many as there were."""

FIRST_WINDOWS: Final = 10

RELUCTANCE: Final = 10
"""What is usual rises so many times slower than it falls: else it would follow an overload that
lasts, and the limit would follow it, up to the most that there may be."""

LATE: Final = 0.9
"""What is left of the limit after a window in which the event loop was late."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between what the limit may move, and how late the event loop may be."""

    least: int
    most: int
    max_lag_us: int


class Window(NamedTuple):
    """What was seen in some time: how long requests took on average, and how many were under way at
    most; lag_us is how late the event loop was at worst."""

    took_us: float
    in_flight: int
    lag_us: int = 0


class Level(NamedTuple):
    """The limit, and what is usual so far. windows is how many that is an average of."""

    limit: float
    usual_us: float = 0.0
    windows: int = 0


def adapt(level: Level, window: Window, bounds: Bounds) -> Level:
    """The level after one more window."""
    took_us = max(1.0, window.took_us)
    usual_us, windows = _usual(level, took_us)
    if usual_us > 2 * took_us:
        usual_us *= 0.95  # it has recovered from a load that lasted: forget that faster
    if window.lag_us > bounds.max_lag_us:
        return Level(max(bounds.least, level.limit * LATE), level.usual_us, level.windows)
    if window.in_flight < level.limit / 2:
        return Level(level.limit, usual_us, windows)  # so few say nothing of what would be too many
    gradient = min(1.0, max(STEEPEST, TOLERANCE * usual_us / took_us))
    aim = level.limit * gradient + QUEUE
    limit = level.limit * (1 - SMOOTHING) + aim * SMOOTHING
    return Level(min(bounds.most, max(bounds.least, limit)), usual_us, windows)


def _usual(level: Level, took_us: float) -> tuple[float, int]:
    windows = min(level.windows + 1, LONG_WINDOWS)
    share = max(1 / windows, 2 / (LONG_WINDOWS + 1))
    if took_us > level.usual_us and level.windows >= FIRST_WINDOWS:
        share /= RELUCTANCE
    return level.usual_us + (took_us - level.usual_us) * share, windows
