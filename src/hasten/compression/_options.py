"""The options of the middlewares, checked when they are made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from typing import Any, Literal, TypeAlias

from hasten._checks import is_whole_number
from hasten._durations import Duration
from hasten.compression._breach import Guard, Padding
from hasten.compression._effort import LEVELS
from hasten.compression._negotiation import Coding
from hasten.errors import InvalidOption

CompressionLevel: TypeAlias = Literal["auto"] | int | Mapping[str, int]
"""``"auto"`` (by size and load), one level for all encodings, or levels by encoding."""

FlushPolicy: TypeAlias = Literal["auto", "message", "never"] | Duration
"""When a stream is flushed: see the option flush of `CompressionMiddleware`."""

BreachPolicy: TypeAlias = Literal["guard", "off"] | Guard | Padding | Sequence[Guard | Padding]
"""What is done against BREACH: `Guard`, `Padding`, both in a tuple, or nothing."""

ResponseFilter: TypeAlias = Callable[
    [MutableMapping[str, Any], int, list[tuple[bytes, bytes]]], bool | None
]
"""Called with ASGI scope, status and headers of a response.

Returns True to compress it whatever its media type, False to leave it alone, None to decide
neither.
"""


def to_codings(option: str, value: object) -> list[Coding]:
    expected = f"a sequence of {', '.join(map(repr, map(str, Coding)))}"
    if isinstance(value, str) or not isinstance(value, Collection) or not value:
        raise InvalidOption(option, value, expected)
    try:
        return [Coding(name) for name in value]
    except ValueError:
        raise InvalidOption(option, value, expected) from None


def to_levels(value: object, codings: Sequence[Coding]) -> dict[Coding, int]:
    """The levels of these codings; {} for "auto"."""
    if value == "auto":
        return {}
    if is_whole_number(value):
        return {coding: _to_level("level", value, coding) for coding in codings}
    if not isinstance(value, Mapping):
        expected = "'auto', a number for all encodings, or numbers by encoding, as {'zstd': 3}"
        raise InvalidOption("level", value, expected)
    levels: dict[Coding, int] = {}
    for name, level in value.items():
        [coding] = to_codings("level", [name])
        levels[coding] = _to_level(f"level[{str(coding)!r}]", level, coding)
    return levels


def _to_level(option: str, level: object, coding: Coding) -> int:
    allowed = LEVELS[coding]
    if is_whole_number(level) and level in allowed:
        return level
    expected = f"a whole number from {allowed[0]} to {allowed[-1]} for {str(coding)!r}"
    raise InvalidOption(option, level, expected, code="out_of_range")


def to_breach(value: object) -> tuple[Guard | None, Padding | None]:
    match value:
        case "guard":
            return Guard(), None
        case "off":
            return None, None
        case Guard():
            return value, None
        case Padding():
            return None, value
        case (Guard() as guard, Padding() as padding) | (Padding() as padding, Guard() as guard):
            return guard, padding
    expected = "'guard', 'off', Guard(…), Padding(…) or both of them in a tuple"
    raise InvalidOption("breach", value, expected)
