"""The order of the rows on pages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from hasten.errors import InvalidParameter

MAX_SORT_CHARS: Final = 2048
MAX_SORT_KEYS: Final = 8
"""Each key adds up to two ranges to a page by cursor. No useful order has more keys."""

Nulls = Literal["first", "last"]


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key of an order: a public name, never SQL."""

    name: str
    descending: bool = False
    nullable: bool = False
    nulls: Nulls = "last"
    """Where NULLs are sorted, whatever the direction. Has no effect if not nullable."""


Order = tuple[SortKey, ...]
"""Keys in order of precedence."""


def parse_sort(value: str, allowed: Mapping[str, SortKey], *, parameter: str = "sort") -> Order:
    """Parse an order such as ``name,-created_at``: "-" is descending; spaces are ignored.

    allowed holds a key for each name that the client may sort by. Raises `InvalidParameter`; the
    message is the same for unknown names and for names that the client may not know.
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
                parameter, value, f"{part.strip(' -')} is given twice", code="duplicate"
            )
        order[key.name] = key
    return tuple(order.values())


def check_sort(order: Order, allowed: Collection[str], *, parameter: str = "sort") -> None:
    """Raise `InvalidParameter` for a key that is not allowed, as `parse_sort` does."""
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
        reason, code = f"a name is empty; omit {parameter} for the default order", "empty_name"
    elif not allowed:
        reason, code = "there is only one order; omit it", "unknown_name"
    else:
        reason, code = (
            f"cannot be sorted by; allowed names are {', '.join(allowed)}",
            "unknown_name",
        )
    return InvalidParameter(parameter, name, reason, code=code, allowed=list(allowed))
