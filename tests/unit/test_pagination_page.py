"""The shape of a response, with more keys only where they add information."""

from __future__ import annotations

import pytest

from hasten.errors import InvalidOption
from hasten.pagination._counts import NOT_COUNTED, Count
from hasten.pagination._page import CursorPage, Envelope, Page

ROWS: list[dict[str, object]] = [{"id": 1}]


def page(count: Count, *, has_more: bool = True) -> Page[dict[str, int]]:
    return Page(ROWS, page=1, limit=20, count=count, has_more=has_more)


class TestPage:
    def test_the_default_envelope_has_data_and_pagination(self) -> None:
        answer = Envelope().wrap(page(Count(42)))
        assert answer == {"data": ROWS, "pagination": {"page": 1, "limit": 20, "total": 42}}
        assert list(answer) == ["data", "pagination"]

    def test_an_empty_page_has_the_same_envelope(self) -> None:
        empty: Page[object] = Page([], page=1, limit=20, count=Count(0), has_more=False)
        assert Envelope().wrap(empty) == {
            "data": [],
            "pagination": {"page": 1, "limit": 20, "total": 0},
        }

    def test_a_capped_total_is_marked_gte(self) -> None:
        assert page(Count(10_000, "gte")).pagination() == {
            "page": 1,
            "limit": 20,
            "total": 10_000,
            "total_relation": "gte",
        }

    def test_an_estimated_total_is_marked_estimate(self) -> None:
        about = page(Count(10_000, "estimate")).pagination()
        assert about["total_relation"] == "estimate"

    @pytest.mark.parametrize("has_more", [True, False])
    def test_a_page_without_a_count_has_has_more(self, has_more: bool) -> None:
        assert page(NOT_COUNTED, has_more=has_more).pagination() == {
            "page": 1,
            "limit": 20,
            "has_more": has_more,
        }

    def test_a_page_has_its_total(self) -> None:
        assert (page(Count(5, "gte")).total, page(Count(5, "gte")).total_relation) == (5, "gte")


class TestCursorPage:
    def test_the_cursors_are_null_at_the_ends(self) -> None:
        first: CursorPage[object] = CursorPage(ROWS, 20, next_cursor="n", prev_cursor=None)
        assert Envelope().wrap(first) == {
            "data": ROWS,
            "pagination": {"limit": 20, "next_cursor": "n", "prev_cursor": None, "has_more": True},
        }
        last: CursorPage[object] = CursorPage(ROWS, 20, next_cursor=None, prev_cursor="p")
        assert (last.has_more, last.total) == (False, None)

    def test_a_requested_total_is_in_the_response(self) -> None:
        counted: CursorPage[object] = CursorPage(ROWS, 20, "n", "p", Count(7, "gte"))
        assert (counted.total, counted.total_relation) == (7, "gte")
        about = counted.pagination()
        assert (about["total"], about["total_relation"]) == (7, "gte")


class TestEnvelope:
    def test_an_envelope_may_have_other_names(self) -> None:
        envelope = Envelope("items", "meta", {"total": "count", "limit": "per_page"})
        assert envelope.wrap(page(Count(42))) == {
            "items": ROWS,
            "meta": {"page": 1, "per_page": 20, "count": 42},
        }

    @pytest.mark.parametrize(
        ("names", "option"),
        [({"totals": "count"}, "names='totals'"), ({"total": "limit"}, "names={'total'")],
    )
    def test_names_of_an_envelope_must_differ(self, names: dict[str, str], option: str) -> None:
        with pytest.raises(InvalidOption, match=option):
            Envelope(names=names)

    def test_data_and_pagination_must_have_different_names(self) -> None:
        with pytest.raises(InvalidOption, match="pagination='data'"):
            Envelope(pagination="data")
