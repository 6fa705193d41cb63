"""In which order rows are paged through."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from hasten.errors import InvalidParameter

MAX_SORT_CHARS: Final = 2048
MAX_SORT_KEYS: Final = 8
"""A keyset has up to two branches a key: more keys are nobody's honest wish."""

Nulls = Literal["first", "last"]


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key of an order: a name that the client may know, never a text of SQL."""

    name: str
    descending: bool = False
    nullable: bool = False
    nulls: Nulls = "last"
    """Where rows without a value stand, whatever the direction. Of no meaning if not nullable."""


Order = tuple[SortKey, ...]
"""The first key decides; the last ones make it total: no two rows are equal in all of them."""


def parse_sort(value: str, allowed: Mapping[str, SortKey], *, parameter: str = "sort") -> Order:
    """The order that ``name,-created_at`` asks for: - descends, spaces around a name are nothing.

    allowed holds a key for each name that the client may sort by. Raises `InvalidParameter`, in
    the same words for a name that does not exist and for one that may not be known.
    """
    if len(value) > MAX_SORT_CHARS or value.count(",") >= MAX_SORT_KEYS:
        raise InvalidParameter(
            parameter,
            value,
            f"expected at most {MAX_SORT_KEYS} names",
            code="too_many",
            maximum=MAX_SORT_KEYS,
        )
    order: dict[str, SortKey] = {}
    for part in value.split(","):
        key = _parse_key(part.strip(" "), allowed, parameter)
        if key.name in order:
            raise InvalidParameter(
                parameter, value, f"{part.strip(' -')} is named twice", code="duplicate"
            )
        order[key.name] = key
    return tuple(order.values())


def check_sort(order: Order, allowed: Collection[str], *, parameter: str = "sort") -> None:
    """Raise `InvalidParameter` for a key that is not among these, as `parse_sort` does."""
    for key in order:
        if key.name not in allowed:
            raise _refused(key.name, allowed, parameter)


def _parse_key(text: str, allowed: Mapping[str, SortKey], parameter: str) -> SortKey:
    name = text.removeprefix("-")
    if name in allowed:
        return replace(allowed[name], descending=text != name)
    raise _refused(name, allowed, parameter)


def _refused(name: str, allowed: Collection[str], parameter: str) -> InvalidParameter:
    if not name:
        reason, code = f"a name is empty; leave {parameter} out for the usual order", "empty_name"
    elif not allowed:
        reason, code = "there is one order only; leave it out", "unknown_name"
    else:
        reason, code = f"not a name to sort by: these are {', '.join(allowed)}", "unknown_name"
    return InvalidParameter(parameter, name, reason, code=code, allowed=list(allowed))
