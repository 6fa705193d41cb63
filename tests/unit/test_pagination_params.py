"""Each parameter of a page is parsed or rejected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.errors import InvalidOption, InvalidParameter
from hasten.pagination._cursor import Cursor, SigningKeys, compute_fingerprint
from hasten.pagination._order import SortKey, parse_sort
from hasten.pagination._params import MAX_INT64, Mode, PageLimits, PageParams, parse_page_params

KEYS = SigningKeys(b"0f1e2d3c4b5a6978")
QUERY = compute_fingerprint("posts")
CURSOR = Cursor((7, "x"))
TOKEN = KEYS.sign(CURSOR, QUERY)
SORTS = {
    "created_at": SortKey("created_at"),
    "score": SortKey("score", nullable=True, nulls="first"),
}

NUMBERS = [
    "abc", "1.5", "1e3", "", "0x10", "1_0", " 10", "10 ", "+10", "1,0", "٣", "１０", "²", "1\n",
    "--1", "-", "\0", "\udc80", "NaN", "true",
]  # fmt: skip


def read(*pairs: tuple[str, str], mode: Mode = "page", max_offset: int | None = None) -> PageParams:
    limits = PageLimits(mode=mode, max_offset=max_offset)
    return parse_page_params(
        pairs, limits, sorts=SORTS, default_order=(SortKey("id"),), signing_keys=KEYS
    )


def refusal(
    *pairs: tuple[str, str], mode: Mode = "page", max_offset: int | None = None
) -> InvalidParameter:
    with pytest.raises(InvalidParameter) as info:
        read(*pairs, mode=mode, max_offset=max_offset)
    return info.value


class TestPage:
    def test_no_parameters_select_the_first_page_of_20(self) -> None:
        assert read() == PageParams(1, 20, (SortKey("id"),), None, ())
        assert read().offset == 0

    @pytest.mark.parametrize("page", ["0", "00", "-1", "-0", "-99999999999999999999999"])
    def test_a_page_below_one_is_refused(self, page: str) -> None:
        error = refusal(("page", page))
        assert (error.status, error.code, error.minimum) == (422, "out_of_range", 1)

    @pytest.mark.parametrize("page", NUMBERS)
    def test_a_page_that_is_not_written_in_digits_is_refused(self, page: str) -> None:
        error = refusal(("page", page))
        assert (error.status, error.code, error.parameter) == (422, "not_a_number", "page")
        assert ", in digits" in str(error)

    @pytest.mark.parametrize(
        "page", ["99999999999999999999999", "9223372036854775808", "9" * 5000, "1" + "0" * 50_000]
    )
    def test_a_page_beyond_int64_is_refused(self, page: str) -> None:
        error = refusal(("page", page))
        assert (error.status, error.code) == (422, "out_of_range")
        assert error.maximum == (MAX_INT64 - 21) // 20 + 1

    @pytest.mark.parametrize("limit", [1, 2, 3, 20, 99, 100])
    def test_an_offset_beyond_int64_is_refused(self, limit: int) -> None:
        """The offset must fit, and so must the number of the row after the page."""
        pairs = ("limit", str(limit))
        highest = refusal(("page", str(MAX_INT64)), pairs).maximum
        assert highest is not None
        last = read(("page", str(highest)), pairs)
        assert last.offset + limit + 1 <= MAX_INT64 < last.offset + 2 * limit + 1
        refusal(("page", str(highest + 1)), pairs)

    def test_a_page_past_the_end_is_accepted(self) -> None:
        assert read(("page", "1000000")).offset == 19_999_980

    def test_an_offset_over_the_maximum_is_refused(self) -> None:
        assert read(("page", "501"), max_offset=10_000).offset == 10_000
        error = refusal(("page", "502"), max_offset=10_000)
        assert str(error) == (
            "page='502': expected a whole number from 1 to 501 for limit=20; "
            "use a filter to reach later rows"
        )

    def test_a_refused_offset_recommends_a_cursor_if_there_is_one(self) -> None:
        error = refusal(("page", "2"), mode="both", max_offset=0)
        assert str(error) == (
            "page='2': expected a whole number from 1 to 1 for limit=20; "
            "use cursor= to reach later rows"
        )

    def test_leading_zeros_are_ignored(self) -> None:
        assert read(("page", "0" * 9000 + "7"), ("limit", "007")).offset == 42


class TestLimit:
    @pytest.mark.parametrize("limit", ["0", "-5", *NUMBERS])
    @pytest.mark.parametrize("mode", ["page", "cursor", "both"])
    def test_a_limit_that_is_no_positive_number_is_refused(self, limit: str, mode: Mode) -> None:
        error = refusal(("limit", limit), mode=mode)
        assert (error.status, error.parameter) == (422, "limit")

    @pytest.mark.parametrize("limit", ["101", "9" * 5000])
    @pytest.mark.parametrize("mode", ["page", "cursor", "both"])
    def test_a_limit_over_the_maximum_is_refused(self, limit: str, mode: Mode) -> None:
        error = refusal(("limit", limit), mode=mode)
        assert (error.code, error.minimum, error.maximum) == ("out_of_range", 1, 100)
        assert str(error).endswith(
            ": expected a whole number from 1 to 100; request several pages instead"
        )

    def test_the_maximum_limit_is_accepted(self) -> None:
        assert read(("limit", "100")).limit == 100


class TestTogether:
    @pytest.mark.parametrize("name", ["page", "limit", "sort", "cursor"])
    def test_a_repeated_parameter_is_refused(self, name: str) -> None:
        value = "score" if name == "sort" else "1"
        error = refusal((name, value), (name, value), mode="both")
        assert (error.status, error.code, error.parameter) == (422, "duplicate", name)

    @pytest.mark.parametrize("token", [TOKEN, "", "junk"])
    def test_page_and_cursor_together_are_refused(self, token: str) -> None:
        error = refusal(("page", "1"), ("cursor", token), mode="both")
        assert (error.status, error.code) == (422, "conflict")

    def test_unknown_parameters_are_kept_for_links(self) -> None:
        pairs = (("q", "a b"), ("page", "2"), ("q", ""), ("Page", "x"), ("page[]", "7"))
        assert read(*pairs).query == pairs


class TestModes:
    def test_a_page_by_number(self) -> None:
        params = read(("page", "3"), ("limit", "10"), mode="both")
        assert (params.page, params.cursor, params.offset) == (3, None, 20)

    @pytest.mark.parametrize("mode", ["cursor", "both"])
    def test_a_page_by_cursor(self, mode: Mode) -> None:
        params = read(("cursor", TOKEN), mode=mode)
        assert (params.page, params.cursor, params.offset) == (None, CURSOR, 0)
        assert params.cursor is not None
        params.cursor.check(QUERY)

    @pytest.mark.parametrize("mode", ["cursor", "both"])
    def test_a_foreign_cursor_is_refused(self, mode: Mode) -> None:
        error = refusal(("cursor", TOKEN[:-1]), mode=mode)
        assert (error.status, error.code) == (400, "invalid_cursor")

    def test_a_cursor_accepts_any_limit(self) -> None:
        params = read(("cursor", TOKEN), ("limit", "3"), mode="cursor")
        assert (params.cursor, params.limit) == (CURSOR, 3)

    @pytest.mark.parametrize("mode", ["cursor", "both"])
    def test_an_empty_cursor_selects_the_first_page(self, mode: Mode) -> None:
        params = read(("cursor", ""), mode=mode)
        assert (params.page, params.cursor) == (None, None)

    def test_an_empty_cursor_is_ignored_where_pages_have_numbers(self) -> None:
        assert read(("cursor", "")).page == 1

    def test_a_parameter_of_another_mode_is_rejected(self) -> None:
        """If it was ignored, the first page would come again and again."""
        assert refusal(("page", "2"), mode="cursor").code == "not_used"
        assert (
            str(refusal(("cursor", TOKEN))) == "cursor: not used here: use page= to select a page"
        )


class TestSort:
    def test_sort_takes_names_and_directions(self) -> None:
        assert read(("sort", "score, -created_at")).order == (
            SortKey("score", nullable=True, nulls="first"),
            SortKey("created_at", descending=True),
        )

    def test_a_plus_before_a_name_sorts_ascending(self) -> None:
        assert read(("sort", " score")).order == (SORTS["score"],)

    @pytest.mark.parametrize(
        "sort",
        [
            "password_hash", "nonsense", "author", "metadata", "__table__", "registry",
            "created_at.desc()", "Score", "created_at\0", "--score", "- score", "\udc80",
        ],
    )  # fmt: skip
    def test_a_name_that_is_not_sortable_is_refused_with_the_allowed(self, sort: str) -> None:
        error = refusal(("sort", f"score,{sort}"))
        name = sort.removeprefix("-")
        assert error.problem() == {
            "type": "about:blank",
            "title": "Unprocessable Content",
            "status": 422,
            "detail": f"sort={name!r}: cannot be sorted by; allowed names are created_at, score",
            "code": "unknown_name",
            "parameter": "sort",
            "allowed": ["created_at", "score"],
        }

    @pytest.mark.parametrize(
        "sort", ["score asc", "score:desc", "score,(case when 1=1 then 1 end)", "score;drop", "'"]
    )
    def test_a_direction_in_sql_is_refused(self, sort: str) -> None:
        assert refusal(("sort", sort)).code == "unknown_name"

    @pytest.mark.parametrize("sort", ["score,score", "score,-score", "-score,created_at, score"])
    def test_a_repeated_name_is_refused(self, sort: str) -> None:
        error = refusal(("sort", sort))
        assert (error.status, error.code) == (422, "duplicate")
        assert str(error).endswith(": score is given twice")

    def test_two_names_of_one_key_are_refused_together(self) -> None:
        with pytest.raises(InvalidParameter, match="b is given twice"):
            parse_sort("a,-b", {"a": SortKey("x"), "b": SortKey("x")})

    @pytest.mark.parametrize("sort", ["", " ", "-", "score,", ",score", "score,,created_at"])
    def test_an_empty_name_is_refused(self, sort: str) -> None:
        error = refusal(("sort", sort))
        assert (error.status, error.code) == (422, "empty_name")

    @pytest.mark.parametrize("sort", [",".join("abcdefghi"), "x" * 2049, "," * 100_000])
    def test_a_sort_that_is_too_long_is_rejected(self, sort: str) -> None:
        error = refusal(("sort", sort))
        assert (error.status, error.code, error.maximum) == (422, "too_many", 8)

    def test_sort_is_rejected_where_there_is_only_one_order(self) -> None:
        with pytest.raises(InvalidParameter, match="the order cannot be chosen; omit"):
            parse_page_params([("sort", "id")], PageLimits())

    def test_a_minus_descends_whatever_the_usual_direction(self) -> None:
        keys = {"a": SortKey("a", descending=True)}
        assert parse_sort("-a", keys) == (SortKey("a", descending=True),)
        assert parse_sort("a", keys) == (SortKey("a"),)


class TestLimits:
    @pytest.mark.parametrize(
        "options",
        [
            {"max_limit": 0},
            {"max_limit": 2**31},
            {"max_limit": True},
            {"default_limit": 0},
            {"default_limit": 101},
            {"default_limit": 1.5},
            {"max_offset": -1},
            {"mode": "pages"},
        ],
        ids=repr,
    )
    def test_wrong_options_are_rejected_at_start_up(self, options: dict[str, object]) -> None:
        [name] = options
        with pytest.raises(InvalidOption, match=f"^{name}="):
            PageLimits(**options)  # type: ignore[arg-type]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["page", "limit", "sort", "cursor", "q"]),
            st.one_of(
                st.text(max_size=30),
                st.integers().map(str),
                st.from_regex(r"-?(score|created_at|x)?(,-?(score|created_at|x))*", fullmatch=True),
                st.just(TOKEN),
            ),
        ),
        max_size=5,
    ),
    st.sampled_from(["page", "cursor", "both"]),
)
def test_any_query_is_parsed_or_rejected(pairs: list[tuple[str, str]], mode: Mode) -> None:
    try:
        params = read(*pairs, mode=mode)
    except InvalidParameter as refused:
        error = refused
    else:
        assert 1 <= params.limit <= 100
        assert 0 <= params.offset <= params.offset + params.limit < MAX_INT64
        assert params.order
        assert {key.name for key in params.order} <= {"id", *SORTS}
        return
    assert error.status == (400 if error.code == "invalid_cursor" else 422)
    assert str(error.problem()).encode()
