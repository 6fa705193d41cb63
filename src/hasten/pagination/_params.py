"""What a request asks for: ``page``, ``limit``, ``sort``, ``cursor``.

Read as strictly as possible, before anything is asked of a database: what a client did not mean is
refused, with the parameter, its bounds and the remedy. Nothing is clamped in silence: a smaller
limit than the client counts with would shift every later page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from hasten.errors import InvalidOption, InvalidParameter
from hasten.fields._allowed import FieldSet
from hasten.pagination._cursor import Cursor, SigningKeys
from hasten.pagination._order import Order, SortKey, parse_sort

MAX_INT64: Final = 2**63 - 1
"""The largest number that the databases count with."""

Mode = Literal["page", "cursor", "both"]
"""What moves through the pages: numbers, cursors, or whichever the client sends."""

Pairs = Sequence[tuple[str, str]]
"""The query of a URL, decoded, in its order."""

# int() reads "1_0", " 1", "+1" and the digits of every script.
_WHOLE: Final = re.compile(r"[0-9]+")
_NEGATIVE: Final = re.compile(r"-[0-9]+")

_NAMES: Final = ("page", "limit", "sort", "cursor")


def names_of(mode: Mode) -> tuple[str, ...]:
    """The parameters that pages of this mode have."""
    unused = {"page": "cursor", "cursor": "page"}.get(mode)
    return tuple(name for name in _NAMES if name != unused)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be asked for. Raises `InvalidOption`."""

    default_limit: int = 20
    max_limit: int = 100
    max_offset: int | None = None
    """The number of rows that pages may skip; None for as many as the database can count."""
    mode: Mode = "page"

    def __post_init__(self) -> None:
        _check_count("max_limit", self.max_limit, 1, 2**31 - 1)
        _check_count("default_limit", self.default_limit, 1, self.max_limit)
        if self.max_offset is not None:
            _check_count("max_offset", self.max_offset, 0, MAX_INT64)
        if self.mode not in get_args(Mode):
            raise InvalidOption("mode", self.mode, "'page', 'cursor' or 'both'")


@dataclass(frozen=True, slots=True)
class PageParams:
    """One request for a page."""

    page: int | None
    """From 1; None if it moves by cursor."""
    limit: int
    order: Order
    """As asked for, or the default: not yet made total by a unique key."""
    cursor: Cursor | None
    """Of ours; None for the first page. That it belongs to this query is not yet known: `check`."""
    query: tuple[tuple[str, str], ...]
    """All parameters of the request, as they came."""
    fields: FieldSet | None = None
    """What each row shall hold; None if the client cannot choose."""
    if_none_match: str | None = None
    """Which versions of the answer the client has, as its header says."""

    @property
    def offset(self) -> int:
        """The number of rows before the page; 0 if it moves by cursor."""
        return 0 if self.page is None else (self.page - 1) * self.limit


def parse(
    pairs: Pairs,
    limits: Limits,
    *,
    sorts: Mapping[str, SortKey] | None = None,
    default_order: Order = (),
    keys: SigningKeys | None = None,
) -> PageParams:
    """Read the parameters of a page; the others are kept for links, and not looked at.

    sorts holds a key for each name that the client may sort by. keys are needed unless the mode is
    "page". Raises `InvalidParameter`: 422, or 400 for a cursor that is not ours.
    """
    given = _pick(pairs)
    limit = _parse_limit(given.get("limit"), limits)
    order = parse_sort(given["sort"], sorts or {}) if "sort" in given else default_order
    cursor: Cursor | None = None
    page: int | None = None
    if _moves_by_cursor(given, limits.mode):
        if token := given.get("cursor"):
            cursor = _needed(keys).read(token)
    else:
        page = _parse_page(given.get("page"), limit, limits)
    return PageParams(page, limit, order, cursor, tuple(pairs))


def _check_count(option: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidOption(option, value, f"a whole number from {least} to {most}")


def _needed(keys: SigningKeys | None) -> SigningKeys:
    assert keys is not None, "mode= needs the keys of cursors"
    return keys


def _pick(pairs: Pairs) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in pairs:
        if name in _NAMES:
            if name == "sort" and name in given:
                value = f"{given[name]},{value}"  # noqa: PLW2901 - as `fields` is, in turn
            elif name in given:
                raise InvalidParameter(name, value, "it is given twice", code="duplicate")
            given[name] = value
    return given


def _moves_by_cursor(given: Mapping[str, str], mode: Mode) -> bool:
    match mode:
        case "page":
            if given.get("cursor"):
                raise _not_here("cursor", "move by page=")
            return False
        case "cursor":
            if "page" in given:
                raise _not_here("page", "use cursor= from the previous response")
            return True
        case "both":
            if "page" in given and "cursor" in given:
                raise InvalidParameter(
                    "page", None, "not together with cursor: leave one out", code="conflict"
                )
            return "cursor" in given


def _not_here(parameter: str, remedy: str) -> InvalidParameter:
    return InvalidParameter(parameter, None, f"not used here: {remedy}", code="not_used")


def _parse_limit(text: str | None, limits: Limits) -> int:
    if text is None:
        return limits.default_limit
    highest = limits.max_limit
    number = _parse_whole(text)
    if number is None or not 1 <= number <= highest:
        raise _out_of_range("limit", text, highest, "; ask for several pages instead")
    return number


def _parse_page(text: str | None, limit: int, limits: Limits) -> int:
    if text is None:
        return 1
    number = _parse_whole(text)
    # One row more than the page is read, and the database adds offset and limit.
    highest = (MAX_INT64 - limit - 1) // limit + 1
    remedy = ""
    if limits.max_offset is not None and limits.max_offset // limit + 1 < highest:
        highest = limits.max_offset // limit + 1
        further = "move by cursor=" if limits.mode == "both" else "filter for less"
        remedy = f" for limit={limit}; {further} instead of going further"
    if number is None or not 1 <= number <= highest:
        raise _out_of_range("page", text, highest, remedy)
    return number


def _parse_whole(text: str) -> int | None:
    """A number that is too large for the database is MAX_INT64 + 1, a negative one is -1."""
    if _NEGATIVE.fullmatch(text):
        return -1
    if not _WHOLE.fullmatch(text):
        return None
    digits = text.lstrip("0")
    # Python refuses to read thousands of digits, and takes the square of their number for fewer.
    return int(digits or "0") if len(digits) < 20 else MAX_INT64 + 1


def _out_of_range(parameter: str, text: str, highest: int, remedy: str) -> InvalidParameter:
    is_number = _parse_whole(text) is not None
    form = "" if is_number else ", written in digits"
    return InvalidParameter(
        parameter,
        text,
        f"expected a whole number from 1 to {highest}{form}{remedy}",
        code="out_of_range" if is_number else "not_a_number",
        minimum=1,
        maximum=highest,
    )
