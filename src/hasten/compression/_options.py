"""The options of the middlewares, checked when they are made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from inspect import iscoroutinefunction
from typing import Any, Literal, TypeAlias, TypeVar

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

F = TypeVar("F")
T = TypeVar("T")


def to_count(option: str, value: object, *, at_least: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= at_least:
        return value
    raise InvalidOption(option, value, f"a whole number, at least {at_least}")


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
    if isinstance(value, int) and not isinstance(value, bool):
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
    if isinstance(level, bool) or not isinstance(level, int) or level not in allowed:
        expected = f"from {allowed[0]} to {allowed[-1]} for {str(coding)!r}"
        raise InvalidOption(option, level, expected)
    return level


def to_threads(value: object) -> int | None:
    return None if value is None else to_count("threads", value, at_least=1)


def to_flag(option: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise InvalidOption(option, value, "True or False")


def to_function(option: str, value: F) -> F:
    if value is None or (callable(value) and not iscoroutinefunction(value)):
        return value
    raise InvalidOption(option, value, "a function that is not async, or None")


def to_instance(option: str, value: T, kind: type) -> T:
    if value is None or isinstance(value, kind):
        return value
    raise InvalidOption(option, value, f"{kind.__name__}(…) or None")


def to_names(option: str, value: object, expected: str) -> list[str]:
    if isinstance(value, Collection) and not isinstance(value, str):
        names = [name for name in value if isinstance(name, str)]
        if len(names) == len(value):
            return names
    raise InvalidOption(option, value, expected)


def to_choice(option: str, value: object, choices: Sequence[str]) -> str:
    if isinstance(value, str) and value in choices:
        return value
    raise InvalidOption(option, value, f"one of {', '.join(map(repr, choices))}")


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
