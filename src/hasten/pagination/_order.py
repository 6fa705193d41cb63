"""The sort order that a client requests, such as ``?sort=name,-created_at``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from hasten.errors import InvalidParameter

MAX_SORT_CHARS: Final = 2048
MAX_SORT_KEYS: Final = 8
"""The maximum number of keys in one order. A page by cursor reads up to two index ranges per key,
so that more keys make it slow."""

Nulls = Literal["first", "last"]


@dataclass(frozen=True, slots=True)
class SortKey:
    """One field to sort by, and its direction."""

    name: str
    """The public name of the field, never SQL."""
    descending: bool = False
    nullable: bool = False
    nulls: Nulls = "last"
    """Where NULLs are sorted, in both directions. Ignored if the field is not nullable."""


Order = tuple[SortKey, ...]
"""Sort keys. A later key orders the rows that are equal in all earlier ones."""


def parse_sort(value: str, allowed: Mapping[str, SortKey], *, parameter: str = "sort") -> Order:
    """Parse a sort order such as ``name,-created_at``, where "-" means descending.

    Spaces around names are ignored. allowed has a key for each name that the client may sort by.
    Raises `InvalidParameter`; the message does not reveal whether a rejected name exists.
    """
    if len(value) > MAX_SORT_CHARS or value.count(",") >= MAX_SORT_KEYS:
        raise InvalidParameter(
            parameter,
            value,
            f"expected at most {MAX_SORT_KEYS} names and {MAX_SORT_CHARS} characters",
            code="too_many",
            maximum=MAX_SORT_KEYS,
        )
    order: dict[str, SortKey] = {}
    for part in value.split(","):
        key = _parse_key(part.strip(" "), allowed, parameter)
        if key.name in order:
            raise InvalidParameter(
                parameter, value, f"{part.strip(' -')} is given twice", code="duplicate"
            )
        order[key.name] = key
    return tuple(order.values())


def check_sort(order: Order, allowed: Collection[str], *, parameter: str = "sort") -> None:
    """Raise the `InvalidParameter` of `parse_sort` if an order has a key that is not allowed."""
    for key in order:
        if key.name not in allowed:
            raise _unknown_name_error(key.name, allowed, parameter)


def _parse_key(text: str, allowed: Mapping[str, SortKey], parameter: str) -> SortKey:
    name = text.removeprefix("-")
    if name in allowed:
        return replace(allowed[name], descending=text != name)
    raise _unknown_name_error(name, allowed, parameter)


def _unknown_name_error(name: str, allowed: Collection[str], parameter: str) -> InvalidParameter:
    """Return the error for a name that the client may not sort by, or that is empty."""
    if not name:
        reason, code = f"a name is empty; omit {parameter} for the default order", "empty_name"
    elif not allowed:
        reason, code = "the order cannot be chosen; omit this parameter", "unknown_name"
    else:
        reason, code = (
            f"cannot be sorted by; allowed names are {', '.join(allowed)}",
            "unknown_name",
        )
    return InvalidParameter(parameter, name, reason, code=code, allowed=list(allowed))
