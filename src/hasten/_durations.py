"""Convert durations of public options to whole milliseconds or microseconds."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final, TypeAlias

from hasten._checks import is_int_or_float_not_bool
from hasten.errors import InvalidOption

Duration: TypeAlias = float | timedelta | str
"""Seconds as a number, a timedelta, or a string such as ``"15m"``, ``"1h30m"`` or ``"500ms"``.

The units are ms, s, m (minutes), h, d and w.
"""

MAX_SECONDS: Final = 100 * 366 * 24 * 3600
"""A hundred years. A longer duration is a mistake, usually milliseconds instead of seconds."""

MAX_MS: Final = MAX_SECONDS * 1000

_EXPECTED: Final = "seconds (a number), a timedelta or a string such as '15m'"

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_PIECE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*", re.ASCII)
_TEXT: Final = re.compile(rf"\s*(?:{_PIECE.pattern})+", re.ASCII)
_MAX_CHARS: Final = 100


def to_nearest_ms(option: str, value: object, *, at_least_ms: int = 0) -> int:
    """Convert a duration to milliseconds, rounded to the nearest whole number.

    Raises `InvalidOption`, also for a duration of less than at_least_ms.
    """
    return _to_whole_units(option, value, 1_000, at_least_ms)


def to_nearest_us(option: str, value: object, *, at_least_us: int = 0) -> int:
    """Convert a duration to microseconds, rounded to the nearest whole number.

    Raises `InvalidOption`, also for a duration of less than at_least_us.
    """
    if isinstance(value, timedelta):  # exact, while a float of seconds could be rounded
        whole = value // timedelta(microseconds=1)
        if at_least_us <= whole <= MAX_SECONDS * 1_000_000:
            return whole
    return _to_whole_units(option, value, 1_000_000, at_least_us)


def to_seconds(option: str, value: object) -> float:
    """Convert a duration to seconds. Raises `InvalidOption`, also for a negative duration."""
    return float(_checked_seconds(option, value, 0))


def is_duration(value: object) -> bool:
    """Return whether a value is a number, a timedelta or a string such as "15m"."""
    return _seconds_of(value) is not None


def _to_whole_units(option: str, value: object, units_per_second: int, at_least: int) -> int:
    seconds = _checked_seconds(option, value, at_least / units_per_second)
    converted = round(seconds * units_per_second)
    if converted < at_least:
        raise _too_short_error(option, value, at_least / units_per_second)
    return converted


def _checked_seconds(option: str, value: object, least_in_message: float) -> int | float:
    """Return the seconds of a duration. Raises `InvalidOption` if it is negative or too long.

    least_in_message is the minimum, in seconds, that the error message for a negative duration
    names. Only the caller checks it for other durations.
    """
    seconds = _seconds_of(value)
    if seconds is None:
        raise InvalidOption(option, value, _EXPECTED)
    if not seconds >= 0:  # negative or NaN
        raise _too_short_error(option, value, least_in_message)
    if seconds > MAX_SECONDS:
        raise InvalidOption(
            option, value, "less than a hundred years; numbers are in seconds", code="out_of_range"
        )
    return seconds


def _too_short_error(option: str, value: object, least: float) -> InvalidOption:
    number = f"{least:.6f}".rstrip("0").rstrip(".")
    unit = "second" if least == 1 else "seconds"
    return InvalidOption(option, value, f"at least {number} {unit}", code="out_of_range")


def _seconds_of(value: object) -> int | float | None:
    """Return the seconds of a duration, or None if the value is not a duration."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if is_int_or_float_not_bool(value):
        return value
    if isinstance(value, str) and len(value) <= _MAX_CHARS and _TEXT.fullmatch(value):
        return sum(float(number) * _UNITS[unit] for number, unit in _PIECE.findall(value))
    return None
