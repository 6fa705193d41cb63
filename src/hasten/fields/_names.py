"""The names of query parameters: reject unknown ones, and suggest a known one."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Final, Literal, TypeAlias, get_args

from hasten._checks import check_choice
from hasten.errors import InvalidParameter

Unknown: TypeAlias = Literal["ignore", "refuse"]
"""Whether unknown query parameters are ignored or rejected with 422."""

_ALIKE: Final = 0.7
"""The lowest ratio of a misspelling: two swapped letters of four."""

_MAX_CHARS: Final = 100
"""A longer name is cut in the error message, and no name is suggested for it."""


def to_unknown(value: object) -> Unknown:
    """Return the value if it is one of `Unknown`. Raises `InvalidOption`."""
    choices: tuple[Unknown, ...] = get_args(Unknown)
    return check_choice("unknown", value, choices)


def check_names(
    pairs: Iterable[tuple[str, str]], names: Collection[str], more: Collection[str] = ()
) -> None:
    """Raise `InvalidParameter` for the first parameter whose name is in neither collection."""
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
