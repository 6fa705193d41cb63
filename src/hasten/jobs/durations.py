"""Public durations are seconds or timedeltas; inside, and on the wire, they are whole ms."""

from __future__ import annotations

from datetime import timedelta

from hasten.errors import InvalidOption

Seconds = int | float | timedelta

MAX_MS = 100 * 366 * 24 * 3600 * 1000
"""A hundred years: a longer one is a mistake (milliseconds given for seconds, mostly)."""


def to_ms(option: str, value: object, *, at_least_ms: int = 0) -> int:
    """Convert a duration to whole milliseconds, rounded. Raises `InvalidOption`."""
    expected = "seconds (a number) or a timedelta"
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value
    else:
        raise InvalidOption(option, value, expected)
    # Compared before the multiplication, which overflows; a NaN is never between two numbers.
    if not 0 <= seconds <= MAX_MS / 1000 or round(seconds * 1000) < at_least_ms:
        least = f", at least {at_least_ms / 1000:g} s" if at_least_ms else ", not negative"
        raise InvalidOption(option, value, f"{expected}{least}, and less than a hundred years")
    return round(seconds * 1000)
