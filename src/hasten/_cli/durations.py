"""Durations on the command line: `15`, `15s`, `2m` or `1h30m`."""

from __future__ import annotations

import typer

from hasten._durations import to_seconds
from hasten.errors import InvalidOption


def parse_duration(text: object) -> float:
    """Return a duration in seconds. A text that is only a number counts as seconds.

    Raises `typer.BadParameter`, which names the option.
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
