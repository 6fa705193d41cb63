"""The query parameters of a request for a page: ``page``, ``limit``, ``sort``, ``cursor``.

They are parsed strictly, before the database is used. The error for an invalid value contains the
name of the parameter, its bounds and a remedy. A limit that is too high is rejected, not reduced: a
client that computes page numbers from its own limit would miss rows.
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
"""The largest integer that the supported databases can store."""

Mode = Literal["page", "cursor", "both"]
"""How clients may request pages: by number ("page"), by cursor, or both ways."""

Pairs = Sequence[tuple[str, str]]
"""The decoded names and values of a URL query, in their order."""

# Not int(), which also accepts "1_0", " 1", "+1" and digits of other scripts.
_WHOLE: Final = re.compile(r"[0-9]+")
_NEGATIVE: Final = re.compile(r"-[0-9]+")

_NAMES: Final = ("page", "limit", "sort", "cursor")


def parameter_names(mode: Mode) -> tuple[str, ...]:
    """Return the names of the query parameters that a mode uses."""
    unused = {"page": "cursor", "cursor": "page"}.get(mode)
    return tuple(name for name in _NAMES if name != unused)


@dataclass(frozen=True, slots=True)
class PageLimits:
    """The bounds of ``page`` and ``limit``. Raises `InvalidOption` if one is invalid."""

    default_limit: int = 20
    max_limit: int = 100
    max_offset: int | None = None
    """How many rows a page by number may skip; None for no bound."""
    mode: Mode = "page"

    def __post_init__(self) -> None:
        check_whole_number("max_limit", self.max_limit, 1, 2**31 - 1)
        check_whole_number("default_limit", self.default_limit, 1, self.max_limit)
        if self.max_offset is not None:
            check_whole_number("max_offset", self.max_offset, 0, MAX_INT64)
        check_choice("mode", self.mode, get_args(Mode))


@dataclass(frozen=True, slots=True)
class PageParams:
    """The parsed parameters of one request for a page."""

    page: int | None
    """The page number, from 1; None for a page by cursor."""
    limit: int
    """The maximum number of rows on the page."""
    order: Order
    """The requested or default order, before the unique key is appended."""
    cursor: Cursor | None
    """The cursor; None for the first page, and for pages by number.

    Its signature is verified. `Cursor.check` verifies later that it belongs to the query.
    """
    query: tuple[tuple[str, str], ...]
    """All query parameters of the request, unchanged."""
    fields: FieldSet | None = None
    """The requested fields; None if the client cannot choose fields."""
    if_none_match: str | None = None
    """The If-None-Match header: the ETags of the responses that the client has cached."""

    @property
    def offset(self) -> int:
        """The number of rows to skip before the page; 0 for a page by cursor."""
        return 0 if self.page is None else (self.page - 1) * self.limit


def parse_page_params(
    query_pairs: Pairs,
    limits: PageLimits,
    *,
    sorts: Mapping[str, SortKey] | None = None,
    default_order: Order = (),
    signing_keys: SigningKeys | None = None,
) -> PageParams:
    """Parse the query parameters of a request for a page.

    Other parameters are kept unparsed, for links. sorts has a key for each name that the client may
    sort by. signing_keys verify cursors; they are required unless the mode is "page". Raises
    `InvalidParameter`: 422, or 400 for a cursor with an invalid signature.
    """
    given = _pick_page_parameters(query_pairs)
    limit = _parse_limit(given.get("limit"), limits)
    order = parse_sort(given["sort"], sorts or {}) if "sort" in given else default_order
    cursor: Cursor | None = None
    page: int | None = None
    if _is_by_cursor(given, limits.mode):
        if token := given.get("cursor"):
            assert signing_keys is not None, "this mode requires keys for cursors"
            cursor = signing_keys.decode_and_verify_signature(token)
    else:
        page = _parse_page(given.get("page"), limit, limits)
    return PageParams(page, limit, order, cursor, tuple(query_pairs))


def _pick_page_parameters(query_pairs: Pairs) -> dict[str, str]:
    """Return the ``page``, ``limit``, ``sort`` and ``cursor`` that a query has, as text.

    Several ``sort`` are joined by commas. Raises `InvalidParameter` if ``page``, ``limit`` or
    ``cursor`` is repeated.
    """
    given: dict[str, str] = {}
    for name, value in query_pairs:
        if name in _NAMES:
            if name == "sort" and name in given:
                value = f"{given[name]},{value}"  # noqa: PLW2901 - joined, like several fields=
            elif name in given:
                raise InvalidParameter(
                    name, value, "this parameter is given twice; send it once", code="duplicate"
                )
            given[name] = value
    return given


def _is_by_cursor(parameters: Mapping[str, str], mode: Mode) -> bool:
    """Return whether the request is for a page by cursor, not by number.

    Raises `InvalidParameter` for a parameter that this mode does not use, and if ``page`` and
    ``cursor`` are both given.
    """
    match mode:
        case "page":
            if parameters.get("cursor"):
                raise _make_wrong_mode_error("cursor", "use page= to select a page")
            return False
        case "cursor":
            if "page" in parameters:
                raise _make_wrong_mode_error("page", "use cursor= from the previous response")
            return True
        case "both":
            if "page" in parameters and "cursor" in parameters:
                raise InvalidParameter(
                    "page",
                    None,
                    "cannot be combined with cursor: omit one of them",
                    code="conflict",
                )
            return "cursor" in parameters


def _make_wrong_mode_error(parameter: str, remedy: str) -> InvalidParameter:
    return InvalidParameter(parameter, None, f"not used here: {remedy}", code="not_used")


def _parse_limit(text: str | None, limits: PageLimits) -> int:
    if text is None:
        return limits.default_limit
    highest = limits.max_limit
    number = _parse_whole_number(text)
    if number is None or not 1 <= number <= highest:
        raise _make_number_error("limit", text, highest, "; request several pages instead")
    return number


def _parse_page(text: str | None, limit: int, limits: PageLimits) -> int:
    if text is None:
        return 1
    number = _parse_whole_number(text)
    # The sum of offset and limit must fit into 64 bits. The limit is one row more than the page.
    highest = (MAX_INT64 - limit - 1) // limit + 1
    remedy = ""
    if limits.max_offset is not None and limits.max_offset // limit + 1 < highest:
        highest = limits.max_offset // limit + 1
        further = "use cursor=" if limits.mode == "both" else "use a filter"
        remedy = f" for limit={limit}; {further} to reach later rows"
    if number is None or not 1 <= number <= highest:
        raise _make_number_error("page", text, highest, remedy)
    return number


def _parse_whole_number(text: str) -> int | None:
    """Parse a whole number; return None if the text is not a whole number.

    Returns `MAX_INT64` + 1 for every number that is too large for the database, and -1 for every
    negative number.
    """
    if _NEGATIVE.fullmatch(text):
        return -1
    if not _WHOLE.fullmatch(text):
        return None
    digits = text.lstrip("0")
    # int() raises an error for more than 4,300 digits, and takes quadratic time for fewer.
    return int(digits or "0") if len(digits) < 20 else MAX_INT64 + 1


def _make_number_error(parameter: str, text: str, maximum: int, remedy: str) -> InvalidParameter:
    """Return the error for a value that is out of range or is not a whole number."""
    is_int_or_float_not_bool = _parse_whole_number(text) is not None
    form = "" if is_int_or_float_not_bool else ", in digits"
    return InvalidParameter(
        parameter,
        text,
        f"expected a whole number from 1 to {maximum}{form}{remedy}",
        code="out_of_range" if is_int_or_float_not_bool else "not_a_number",
        minimum=1,
        maximum=maximum,
    )
