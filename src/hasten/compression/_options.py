"""Types of middleware options, and functions that validate and convert their values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from hasten._checks import check_choice, is_int_not_bool
from hasten._durations import Duration
from hasten.compression._breach import BreachGuard
from hasten.compression._head import ETagPolicy
from hasten.compression._level_policy import LEVELS
from hasten.compression._negotiation import Coding
from hasten.errors import InvalidOption

CompressionLevel: TypeAlias = Literal["auto"] | int | Mapping[str, int]
"""``"auto"`` (chosen by body size and load), one level for all encodings, or a level for each."""

FlushPolicy: TypeAlias = Literal["auto", "message", "never"] | Duration
"""When a compressed stream is flushed: see the option flush of `CompressionMiddleware`."""

BreachPolicy: TypeAlias = Literal["guard", "off"] | BreachGuard
"""The defence against BREACH: "guard" is `BreachGuard()`, "off" is none; or a `BreachGuard`."""

ResponseFilter: TypeAlias = Callable[
    [MutableMapping[str, Any], int, list[tuple[bytes, bytes]]], bool | None
]
"""A function of the ASGI scope, the status and the headers of a response.

It returns True to compress the response whatever its media type, False not to compress it, and None
to apply the other options.
"""


def to_codings(option: str, value: object) -> list[Coding]:
    """Convert the value of an option, such as ("zstd", "gzip"), to codings.

    option is the name of the option, for the error. Raises `InvalidOption`.
    """
    expected = f"a sequence of {', '.join(map(repr, map(str, Coding)))}"
    if isinstance(value, str) or not isinstance(value, Collection) or not value:
        raise InvalidOption(option, value, expected)
    try:
        return [Coding(name) for name in value]
    except ValueError:
        raise InvalidOption(option, value, expected) from None


def to_levels(value: object, codings: Sequence[Coding]) -> dict[Coding, int]:
    """Convert the option level to a level for each coding; {} for "auto".

    codings are all offered codings: a single number applies to each of them.
    """
    if value == "auto":
        return {}
    if is_int_not_bool(value):
        return {coding: _to_level("level", value, coding) for coding in codings}
    if not isinstance(value, Mapping):
        expected = "'auto', a level for all encodings, or a level for each, such as {'zstd': 3}"
        raise InvalidOption("level", value, expected)
    levels: dict[Coding, int] = {}
    for name, level in value.items():
        [coding] = to_codings("level", [name])
        levels[coding] = _to_level(f"level[{str(coding)!r}]", level, coding)
    return levels


def _to_level(option: str, level: object, coding: Coding) -> int:
    allowed = LEVELS[coding]
    if is_int_not_bool(level) and level in allowed:
        return level
    expected = f"a whole number from {allowed[0]} to {allowed[-1]} for {str(coding)!r}"
    raise InvalidOption(option, level, expected, code="out_of_range")


def to_live_stream_codings(value: object, codecs: Collection[Coding]) -> tuple[Coding, ...]:
    """Return the codings to offer for live streams: all installed ones, in order of preference.

    Those in value, the option stream_encodings, come first.
    """
    first = [coding for coding in to_codings("stream_encodings", value) if coding in codecs]
    return (*first, *(coding for coding in codecs if coding not in first))


def to_etag_policy(value: object, *, cache_recompresses: bool) -> ETagPolicy:
    """Return the option etag, or raise `InvalidOption` if it is unknown or conflicts.

    cache_recompresses is whether the cache may later replace a compressed body with a smaller one.
    A strong ETag would then name two different bodies, so only "weaken" and "drop" are allowed.
    """
    policy: ETagPolicy = check_choice("etag", value, get_args(ETagPolicy))
    if cache_recompresses and policy in {"keep", "suffix"}:
        expected = "'weaken' or 'drop', because the cache is CompressionCache(recompress=True)"
        raise InvalidOption("etag", value, expected, code="conflict")
    return policy


def to_breach_guard(value: object) -> BreachGuard | None:
    """Convert the option breach to a `BreachGuard`, or to None for "off"."""
    match value:
        case "guard":
            return BreachGuard()
        case "off":
            return None
        case BreachGuard():
            return value
    raise InvalidOption("breach", value, "'guard', 'off' or BreachGuard(…)")
