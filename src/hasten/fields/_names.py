"""Reject unknown query parameters, and suggest the name that the client may have meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Final, Literal, TypeAlias, get_args

from hasten._checks import check_choice
from hasten.errors import InvalidParameter

Unknown: TypeAlias = Literal["ignore", "refuse"]
"""Whether unknown query parameters are ignored, or refused with a 422 response."""

_MIN_SIMILARITY: Final = 0.7
"""How similar a name must be to be suggested, from 0 to 1. "pgae" and "page" have 0.75."""

_MAX_CHARS: Final = 100
"""A longer unknown name is truncated in the error message, and no name is suggested."""


def check_unknown_names_policy(value: object) -> Unknown:
    """Check the value of an option ``unknown=``, and return it. Raises `InvalidOption`."""
    choices: tuple[Unknown, ...] = get_args(Unknown)
    return check_choice("unknown", value, choices)


def check_parameter_names(
    pairs: Iterable[tuple[str, str]],
    known_names: Collection[str],
    more_known_names: Collection[str] = (),
) -> None:
    """Raise `InvalidParameter` for a query parameter in neither known_names nor more_known_names.

    pairs are the names and values of the query.
    """
    for name, value in pairs:
        if name not in known_names and name not in more_known_names:
            known = [*known_names, *(each for each in more_known_names if each not in known_names)]
            raise _unknown_parameter_error(name, value, known)


def _unknown_parameter_error(name: str, value: str, known: list[str]) -> InvalidParameter:
    shown = name[:_MAX_CHARS]
    near = get_close_matches(name, known, 1, _MIN_SIMILARITY) if len(name) <= _MAX_CHARS else []
    hint = f"did you mean {near[0]}? " if near else ""
    return InvalidParameter(
        shown,
        value,
        f"no such parameter; {hint}expected {', '.join(known)}",
        code="unknown_parameter",
        allowed=known,
    )
