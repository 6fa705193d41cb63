"""Parse rates such as "100/15m", "10 per second" or "10/s burst 20, 1000/h"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from hasten._checks import check_whole_number
from hasten._durations import Duration, to_nearest_us
from hasten.errors import InvalidOption

MAX_LIMIT: Final = 2**31 - 1

SECOND_US: Final = 1_000_000

# For each unit of time: its seconds, its letter, its name in response headers, all its spellings.
_UNITS: Final = (
    (7 * 24 * 3600, "w", "week", ("w", "week", "weeks")),
    (24 * 3600, "d", "day", ("d", "day", "days")),
    (3600, "h", "hr", ("h", "hr", "hrs", "hour", "hours")),
    (60, "m", "min", ("m", "min", "mins", "minute", "minutes")),
    (1, "s", "sec", ("s", "sec", "secs", "second", "seconds")),
)
_SECONDS: Final = {word: seconds for seconds, _, _, words in _UNITS for word in words}

_SEPARATOR: Final = re.compile(r"\s*[,;|]\s*|\s+and\s+", re.IGNORECASE)
_RATE: Final = re.compile(
    r"(\d+)\s*(?:/|\s+per\s+|\s+in\s+)\s*(\d+)?\s*([a-z]+)(?:\s+burst\s+(\d+))?",
    re.IGNORECASE | re.ASCII,
)
_EXPECTED: Final = (
    "a rate such as '100/15m', '5 per hour' or '10/s burst 20': a whole number, '/', and a time in "
    "s, m, h, d or w; several rates are separated by commas"
)


@dataclass(frozen=True, slots=True)
class Rate:
    """How many requests, or units of cost, are allowed in a span of time.

    - limit: the highest number in one span. 0 allows nothing.
    - per: the length of the span, at least a millisecond.
    - burst: how many requests may arrive at once. After them, requests must be evenly spaced, so a
      rate with a burst is counted by GCRA.
    """

    limit: int
    per: Duration
    burst: int | None = None

    def __post_init__(self) -> None:
        check_whole_number("limit", self.limit, 0, MAX_LIMIT)
        to_nearest_us("per", self.per, at_least_us=1_000)
        if self.burst is not None:
            check_whole_number("burst", self.burst, 1, MAX_LIMIT)

    @property
    def window_us(self) -> int:
        """The length of the span (`per`), in microseconds."""
        return to_nearest_us("per", self.per)

    @property
    def name(self) -> str:
        """The rate as response headers name it, such as "100-in-15min"."""
        amount, _, word = self._split_span_and_unit()
        return f"{self.limit}-in-{amount}{word}"

    def __str__(self) -> str:
        """Return a string such as "100/15m".

        `parse_rates` accepts it if the span is whole seconds.
        """
        amount, letter, _ = self._split_span_and_unit()
        burst = "" if self.burst is None else f" burst {self.burst}"
        return f"{self.limit}/{'' if amount == '1' else amount}{letter}{burst}"

    def _split_span_and_unit(self) -> tuple[str, str, str]:
        """Return the span as a number of the largest unit that divides it.

        The result is that number, the letter of the unit, and the name of the unit in headers.
        """
        for seconds, letter, word, _ in _UNITS:
            count, rest = divmod(self.window_us, seconds * SECOND_US)
            if not rest:
                return str(count), letter, word
        return f"{self.window_us / 1000:g}", "ms", "ms"


Rates = tuple[Rate, ...]
"""Rates that apply together: a request must fit into all of them, or none of them counts it."""


def to_rates(option: str, value: object) -> Rates:
    """Convert the value of an option (a string, a `Rate` or several) to rates.

    option is the name of the option, for the error. Raises `InvalidOption`.
    """
    match value:
        case Rate():
            return (value,)
        case str():
            return parse_rates(value, option=option)
        case tuple() | list() if value and all(isinstance(rate, Rate) for rate in value):
            return tuple(value)
    raise InvalidOption(option, value, f"a Rate(…), a list of them, or {_EXPECTED}")


def parse_rates(text: str, *, option: str = "rate") -> Rates:
    """Parse one or several rates from a string.

    option is the name of the option that the string was passed as, for the error. Raises
    `InvalidOption`.
    """
    return tuple(_parse_rate(part, text, option) for part in _SEPARATOR.split(text.strip()))


def _parse_rate(part: str, text: str, option: str) -> Rate:
    found = _RATE.fullmatch(part)
    if found is None:
        raise InvalidOption(option, text, _EXPECTED)
    limit, count, unit, burst = found.groups()
    seconds = _SECONDS.get(unit.lower())
    if seconds is None:
        raise InvalidOption(option, text, f"{_EXPECTED}; {unit!r} is not a unit of time")
    try:
        per = timedelta(seconds=seconds * int(count or 1))
        return Rate(int(limit), per, None if burst is None else int(burst))
    except (InvalidOption, OverflowError, ValueError) as exc:  # a number that is too large
        raise InvalidOption(option, text, f"{_EXPECTED}; {exc}") from exc
