"""Rewrite cron patterns so that croniter and cron-parser, BullMQ's parser, match the same times.

croniter accepts more than cron-parser does: ranges that wrap around (`22-2`, `fri-mon`), `mon-sun`,
values that are repeated (`1,1-5`), a lower-case `l`, `L5` for `5L`, names such as `@midnight` and
`@DAILY`. A worker in Node could not compute the next slot of such a pattern, so a schedule stores
the rewritten one.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from typing import Final

_ALIASES: Final = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
    "@minutely": "0 * * * * *",
    "@secondly": "* * * * * *",
    "@weekdays": "0 0 0 * * 1-5",
    "@weekends": "0 0 0 * * 0,6",
}

_LIMITS: Final = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_MONTH: Final = 4
_WEEKDAY: Final = 5
_NAMES: Final = {
    _MONTH: "jan feb mar apr may jun jul aug sep oct nov dec".split(),
    _WEEKDAY: "sun mon tue wed thu fri sat".split(),
}
_VALUES: Final = re.compile(r"(?:([*?])|(\w+)(?:-(\w+))?)(?:/(\d+))?", re.ASCII)
_LAST_WEEKDAY: Final = re.compile(r"l(\w+)|(\w+)l", re.ASCII | re.IGNORECASE)


def to_canonical_pattern(pattern: str) -> str:
    """Return a pattern as cron-parser accepts it. Raises `ValueError` if that is impossible.

    Only the fields that cron-parser rejects or understands differently are changed. Other mistakes
    in the pattern are kept: its parser reports them.
    """
    alias = pattern.strip().lower()
    if alias in _ALIASES:
        return "@daily" if alias == "@midnight" else alias
    fields = _to_canonical_fields(pattern)
    _reject_ambiguous_days(fields[-3], fields[-1])
    return " ".join(fields)


def _reject_ambiguous_days(days: str, weekdays: str) -> None:
    """Raise `ValueError` for days that croniter and cron-parser understand differently."""
    if "#" not in weekdays and "L" not in weekdays.upper():
        return
    if days not in {"*", "?"}:
        raise ValueError(
            f"day of the week {weekdays!r} cannot be combined with days of the month: {days!r}"
        )
    if "#" not in weekdays and not all(part.endswith("L") for part in weekdays.split(",")):
        raise ValueError(
            f"day of the week {weekdays!r}: a last weekday cannot be combined with other days. "
            "Use a schedule for each"
        )


@functools.lru_cache(maxsize=4_096)
def split_pattern(pattern: str) -> tuple[str, ...]:
    """Return the six canonical fields of a pattern, with the seconds first. Raises `ValueError`."""
    fields = _to_canonical_fields(_ALIASES.get(pattern.strip().lower(), pattern))
    return ("0", *fields) if len(fields) == 5 else tuple(fields)


def _to_canonical_fields(pattern: str) -> list[str]:
    fields = pattern.split()
    if len(fields) not in {5, 6} or re.search(r"[Ww]\b", fields[-3]) or _has_letter(pattern):
        raise ValueError(
            f"cron pattern {pattern!r}: expected five fields, or six with seconds first, "
            "without the letters H, R and W"
        )
    first = len(_LIMITS) - len(fields)
    return [_to_canonical_field(field, first + at) for at, field in enumerate(fields)]


def _has_letter(pattern: str) -> bool:
    """Return whether a pattern has H or R, a hashed or a random value."""
    return re.search(r"(?<![a-z])[hr](?![a-z])", pattern, re.IGNORECASE) is not None


def _to_canonical_field(field: str, index: int) -> str:
    """Return a field that cron-parser accepts. index is its place in a pattern with seconds."""
    if "#" in field:
        if re.search(r"[,/-]", field):
            raise ValueError(
                f"day of the week {field!r}: # cannot be combined with a list, a range or a step. "
                "Use a schedule for each day"
            )
        return field
    values: set[int] = set()
    others: list[str] = []
    is_plain = True
    for part in field.split(","):
        found = _read_values(part, index)
        if found is None:
            others.append(_to_canonical_last(part, index))
            continue
        numbers, is_part_plain = found
        is_plain = is_plain and is_part_plain and values.isdisjoint(numbers)
        values |= set(numbers)
    others = list(dict.fromkeys(others))
    least, most = _LIMITS[index]
    if len(values) == most - least + 1 and field != "?":
        return "*"
    if is_plain and len(set(field.split(","))) == len(field.split(",")):
        is_of_values = (_read_values(part, index) is not None for part in field.split(","))
        return ",".join(
            part if is_value else _to_canonical_last(part, index)
            for part, is_value in zip(field.split(","), is_of_values, strict=True)
        )
    return ",".join([*_join_values(values), *others])


def _read_values(part: str, index: int) -> tuple[Collection[int], bool] | None:
    """Return the values of a part of a field, and whether cron-parser understands it the same.

    Returns None if the part is invalid or has other letters.
    """
    match = _VALUES.fullmatch(part)
    if match is None:
        return None
    least, most = _LIMITS[index]
    step = int(match[4] or 1)
    if match[1] is not None:
        return range(least, most + 1, step) if step else (), True
    low = _to_number(match[2], index)
    high = low if match[3] is None else _to_number(match[3], index)
    if low is None or high is None or not step:
        return None
    if match[3] is None:
        if match[4] is None:
            return (low % 7 if index == _WEEKDAY else low,), True
        return range(low, most + 1, step), index != _WEEKDAY
    if low < high:
        values = range(low, high + 1, step)
        return {value % 7 for value in values} if index == _WEEKDAY else values, True
    if low == high:
        return (low % 7 if index == _WEEKDAY else low,), False
    count = most - least + 1
    values = range(low, high + count + 1, step)
    return {(value - least) % count + least for value in values}, False


def _to_number(text: str, index: int) -> int | None:
    """Return the number of a value, which may be the name of a month or a day of the week.

    None if it is neither, or outside the limits of the field.
    """
    names = _NAMES.get(index, [])
    least, most = _LIMITS[index]
    if text.lower() in names:
        return names.index(text.lower()) + least
    is_valid = text.isdecimal() and least <= int(text) <= most + (index == _WEEKDAY)
    return int(text) if is_valid else None


def _to_canonical_last(part: str, index: int) -> str:
    """Return `L`, or `5L` for the last Friday, as cron-parser writes it."""
    if part in {"l", "L"}:
        return "L"
    match = _LAST_WEEKDAY.fullmatch(part)
    day = None if match is None or index != _WEEKDAY else _to_number(match[1] or match[2], index)
    return part if day is None else f"{day}L"


def _join_values(values: Collection[int]) -> list[str]:
    """Return the parts of a field for values; those that follow each other are ranges."""
    runs: list[tuple[int, int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], value
        else:
            runs.append((value, value))
    return [str(low) if low == high else f"{low}-{high}" for low, high in runs]
