"""Parse durations on the command line, such as `15`, `15s`, `2m` or `1h30m`."""

from __future__ import annotations

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
