"""The names of query parameters: which are known, and which one a client may have meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Final, Literal, TypeAlias, get_args

from hasten.errors import InvalidOption, InvalidParameter

Unknown: TypeAlias = Literal["ignore", "refuse"]
"""What happens to query parameters that nobody knows."""

_ALIKE: Final = 0.7
"""From this ratio on, one name may be a misspelling of another: two letters are swapped in four."""

_MAX_CHARS: Final = 100
"""A longer name is cut in the error, and compared with no other."""


def to_unknown(value: object) -> Unknown:
    """Raises `InvalidOption`."""
    for choice in get_args(Unknown):
        if value == choice:
            found: Unknown = choice
            return found
    raise InvalidOption("unknown", value, "'ignore' or 'refuse'")


def check_names(
    pairs: Iterable[tuple[str, str]], names: Collection[str], more: Collection[str] = ()
) -> None:
    """Raise `InvalidParameter` for the first parameter that is in neither collection."""
    for name, value in pairs:
        if name not in names and name not in more:
            raise _unknown(name, value, [*names, *(each for each in more if each not in names)])


def _unknown(name: str, value: str, known: list[str]) -> InvalidParameter:
    shown = name[:_MAX_CHARS]
    near = get_close_matches(name, known, 1, _ALIKE) if len(name) <= _MAX_CHARS else []
    hint = f"did you mean {near[0]}? " if near else ""
    return InvalidParameter(
        shown,
        value,
        f"no such parameter; {hint}expected {', '.join(known)}",
        code="unknown_parameter",
        allowed=known,
    )
