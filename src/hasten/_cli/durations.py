"""Parse and format durations of the command line, such as `15`, `15s`, `2m` or `1h30m`."""

from __future__ import annotations

from typing import Final

import typer

from hasten._durations import to_seconds
from hasten.errors import InvalidOption


def parse_duration(text: object) -> float:
    """Return the seconds of a duration such as "1h30m". A number without a unit is in seconds.

    Raises `typer.BadParameter`; typer adds the name of the option to its message.
    """
    value = str(text)
    try:
        return to_seconds("duration", float(value) if _is_number(value) else value)
    except InvalidOption:
        raise typer.BadParameter(
            f"{value!r}: must be a number of seconds or a duration, such as 15, 15s, 2m or 1h30m"
        ) from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_UNITS: Final = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def format_duration(seconds: float, *, units: int | None = None) -> str:
    """Return a duration as text, such as "1h30m".

    units is how many units to show at most, the largest ones; None shows all. Fractions of a second
    are shown only if the duration is less than a minute.
    """
    if seconds < 60 and units is None:
        return f"{round(seconds, 3):g}s"
    parts = []
    left = round(seconds)
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:units]) or "0s"
