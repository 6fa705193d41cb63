"""The parameters of a request for a page: ``page``, ``limit``, ``sort``, ``cursor``.

They are parsed strictly, before the database is used. An invalid value is rejected with the name of
the parameter, its bounds and the remedy. No limit is reduced silently: a page smaller than the
client expects would shift every later page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from hasten._checks import check_choice, check_whole_number
from hasten.errors import InvalidParameter
from hasten.fields._allowed import FieldSet
from hasten.pagination._cursor import Cursor, SigningKeys
from hasten.pagination._order import Order, SortKey, parse_sort

MAX_INT64: Final = 2**63 - 1
"""The largest integer of the databases."""

Mode = Literal["page", "cursor", "both"]
"""Whether pages are requested by number, by cursor, or by either of them."""

Pairs = Sequence[tuple[str, str]]
"""The decoded query of a URL, in its order."""

# int() reads "1_0", " 1", "+1" and the digits of every script.
_WHOLE: Final = re.compile(r"[0-9]+")
_NEGATIVE: Final = re.compile(r"-[0-9]+")

_NAMES: Final = ("page", "limit", "sort", "cursor")


def names_of(mode: Mode) -> tuple[str, ...]:
    """Return the names of the parameters of this mode."""
    unused = {"page": "cursor", "cursor": "page"}.get(mode)
    return tuple(name for name in _NAMES if name != unused)


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of the parameters. Raises `InvalidOption`."""

    default_limit: int = 20
    max_limit: int = 100
    max_offset: int | None = None
    """The number of rows that a page may skip; None for no bound."""
    mode: Mode = "page"

    def __post_init__(self) -> None:
        check_whole_number("max_limit", self.max_limit, 1, 2**31 - 1)
        check_whole_number("default_limit", self.default_limit, 1, self.max_limit)
        if self.max_offset is not None:
            check_whole_number("max_offset", self.max_offset, 0, MAX_INT64)
        check_choice("mode", self.mode, get_args(Mode))


@dataclass(frozen=True, slots=True)
class PageParams:
    """The parameters of one request for a page."""

    page: int | None
    """From 1; None for a page by cursor."""
    limit: int
    order: Order
    """The requested or default order, without the unique key that ends every order."""
    cursor: Cursor | None
    """None for the first page. Its signature is valid; `Cursor.check` checks its query."""
    query: tuple[tuple[str, str], ...]
    """All parameters of the request, unchanged."""
    fields: FieldSet | None = None
    """The requested fields; None if the client cannot choose them."""
    if_none_match: str | None = None
    """The If-None-Match header: the versions of the response that the client has."""

    @property
    def offset(self) -> int:
        """The number of rows before the page; 0 for a page by cursor."""
        return 0 if self.page is None else (self.page - 1) * self.limit


def parse(
    pairs: Pairs,
    limits: Limits,
    *,
    sorts: Mapping[str, SortKey] | None = None,
    default_order: Order = (),
    keys: SigningKeys | None = None,
) -> PageParams:
    """Parse the parameters of a page. Others are only kept for links.

    sorts holds a key for each name that the client may sort by. keys are required unless the mode
    is "page". Raises `InvalidParameter`: 422, or 400 for a cursor with an invalid signature.
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


def _needed(keys: SigningKeys | None) -> SigningKeys:
    assert keys is not None, "this mode requires keys for cursors"
    return keys


def _pick(pairs: Pairs) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in pairs:
        if name in _NAMES:
            if name == "sort" and name in given:
                value = f"{given[name]},{value}"  # noqa: PLW2901 - joined, as `fields` is
            elif name in given:
                raise InvalidParameter(name, value, "given twice", code="duplicate")
            given[name] = value
    return given


def _moves_by_cursor(given: Mapping[str, str], mode: Mode) -> bool:
    match mode:
        case "page":
            if given.get("cursor"):
                raise _not_used("cursor", "use page= to select a page")
            return False
        case "cursor":
            if "page" in given:
                raise _not_used("page", "use cursor= from the previous response")
            return True
        case "both":
            if "page" in given and "cursor" in given:
                raise InvalidParameter(
                    "page",
                    None,
                    "cannot be combined with cursor: omit one of them",
                    code="conflict",
                )
            return "cursor" in given


def _not_used(parameter: str, remedy: str) -> InvalidParameter:
    return InvalidParameter(parameter, None, f"not used here: {remedy}", code="not_used")


def _parse_limit(text: str | None, limits: Limits) -> int:
    if text is None:
        return limits.default_limit
    highest = limits.max_limit
    number = _parse_whole(text)
    if number is None or not 1 <= number <= highest:
        raise _out_of_range("limit", text, highest, "; request several pages instead")
    return number


def _parse_page(text: str | None, limit: int, limits: Limits) -> int:
    if text is None:
        return 1
    number = _parse_whole(text)
    # The database adds offset and limit, and one row more than the page is read.
    highest = (MAX_INT64 - limit - 1) // limit + 1
    remedy = ""
    if limits.max_offset is not None and limits.max_offset // limit + 1 < highest:
        highest = limits.max_offset // limit + 1
        further = "use cursor=" if limits.mode == "both" else "use a filter"
        remedy = f" for limit={limit}; {further} to reach later rows"
    if number is None or not 1 <= number <= highest:
        raise _out_of_range("page", text, highest, remedy)
    return number


def _parse_whole(text: str) -> int | None:
    """Parse a whole number; None if the text is not one.

    A number too large for the database becomes MAX_INT64 + 1, and a negative number -1.
    """
    if _NEGATIVE.fullmatch(text):
        return -1
    if not _WHOLE.fullmatch(text):
        return None
    digits = text.lstrip("0")
    # int() rejects thousands of digits, and takes quadratic time for fewer.
    return int(digits or "0") if len(digits) < 20 else MAX_INT64 + 1


def _out_of_range(parameter: str, text: str, highest: int, remedy: str) -> InvalidParameter:
    is_number = _parse_whole(text) is not None
    form = "" if is_number else ", in digits"
    return InvalidParameter(
        parameter,
        text,
        f"expected a whole number from 1 to {highest}{form}{remedy}",
        code="out_of_range" if is_number else "not_a_number",
        minimum=1,
        maximum=highest,
    )
