"""Releases of the application's code: how they are written and compared."""

from __future__ import annotations

import re
from typing import Final

from hasten.errors import InvalidOption

_RELEASE: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,5}")


def is_release(text: str) -> bool:
    """Return whether a string is a release, such as "2026.12.1"."""
    return _RELEASE.fullmatch(text) is not None


def check_release(option: str, value: object) -> str | None:
    """Check a release: numbers with dots between them, such as "2026.12.1". None stays None."""
    if value is None or (isinstance(value, str) and is_release(value)):
        return value
    raise InvalidOption(option, value, "a string of numbers separated by dots, such as '2026.12.1'")


def is_at_least(release: str, since: str) -> bool:
    """Return whether a release is the given one or later: "2026.12.1" is later than "2026.12"."""
    return _numbers(release) >= _numbers(since)


def _numbers(release: str) -> list[int]:
    numbers = [int(part) for part in release.split(".")]
    while numbers and numbers[-1] == 0:  # 2.0 is 2
        numbers.pop()
    return numbers
