"""The options of the middlewares, checked when they are made."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, TypeVar

from hasten._durations import Duration
from hasten.compression.breach import Guard, Padding
from hasten.compression.effort import LEVELS
from hasten.compression.negotiation import Coding
from hasten.errors import InvalidOption

Level = Literal["auto"] | Mapping[str, int]

Flush = Literal["auto", "message", "never"] | Duration

Breach = Literal["guard", "off"] | Guard | Padding | Sequence[Guard | Padding]

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


def to_levels(value: object) -> dict[Coding, int]:
    """The levels that were asked for; {} for "auto"."""
    if value == "auto":
        return {}
    if not isinstance(value, Mapping):
        raise InvalidOption("level", value, "'auto' or levels by coding, as {'zstd': 3}")
    levels: dict[Coding, int] = {}
    for name, level in value.items():
        [coding] = to_codings("level", [name])
        allowed = LEVELS[coding]
        if isinstance(level, bool) or not isinstance(level, int) or level not in allowed:
            raise InvalidOption(
                f"level[{str(coding)!r}]", level, f"from {allowed[0]} to {allowed[-1]}"
            )
        levels[coding] = level
    return levels


def to_flag(option: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise InvalidOption(option, value, "True or False")


def to_callable(option: str, value: F) -> F:
    if value is None or callable(value):
        return value
    raise InvalidOption(option, value, "a function or None")


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
