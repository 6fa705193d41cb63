"""A total has a relation to the number of rows, and is never below the rows of the page."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten import Store
from hasten._durations import Duration
from hasten.errors import InvalidOption
from hasten.pagination._count_cache import CountCache
from hasten.pagination._counts import (
    NOT_COUNTED,
    Cached,
    Capped,
    Count,
    Relation,
    check_count_option,
)
from hasten.testing import ManualClock


class TestCapped:
    @pytest.mark.parametrize("found", [0, 1, 9_999, 10_000])
    def test_a_count_up_to_the_cap_is_exact(self, found: int) -> None:
        assert Capped(10_000)._to_capped_count(found) == Count(found, "eq")

    def test_a_count_beyond_the_cap_is_a_lower_bound(self) -> None:
        assert Capped(10_000)._to_capped_count(10_001) == Count(10_000, "gte")

    def test_a_page_within_the_cap_does_not_change_the_count(self) -> None:
        count = Count(10_000, "gte")
        assert count._correct_total_by_page(40, 20, has_more=True) == count

    def test_a_page_beyond_the_cap_raises_the_count(self) -> None:
        count = Count(10_000, "gte")._correct_total_by_page(20_000, 20, has_more=True)
        assert count == Count(20_021, "gte")

    @pytest.mark.parametrize("limit", [0, -1, True, 1.5, "10"])
    def test_a_cap_is_a_number(self, limit: int) -> None:
        with pytest.raises(InvalidOption, match="at least 1"):
            Capped(limit)


class TestEstimated:
    def test_an_estimate_below_the_rows_seen_is_raised(self) -> None:
        assert Count(7, "estimate")._correct_total_by_page(40, 20, has_more=True) == Count(
            61, "estimate"
        )

    def test_an_estimate_above_the_rows_seen_is_kept(self) -> None:
        assert Count(999, "estimate")._correct_total_by_page(40, 20, has_more=True) == Count(
            999, "estimate"
        )

    def test_the_estimate_of_an_unanalysed_table_is_raised_to_the_rows_seen(self) -> None:
        assert Count(-1, "estimate")._correct_total_by_page(20, 20, has_more=True) == Count(
            41, "estimate"
        )
        assert Count(-1, "estimate")._correct_total_by_page(20, 0, has_more=False) == Count(
            0, "estimate"
        )

    @pytest.mark.parametrize("relation", ["estimate", "gte"])
    def test_the_last_page_makes_the_total_exact(self, relation: Relation) -> None:
        assert Count(999, relation)._correct_total_by_page(40, 3, has_more=False) == Count(43)
        assert Count(999, relation)._correct_total_by_page(0, 0, has_more=False) == Count(0)


class TestExact:
    def test_an_empty_table_has_a_total_of_zero(self) -> None:
        assert Count(0)._correct_total_by_page(0, 0, has_more=False) == Count(0)

    def test_an_exact_total_is_kept_past_the_end(self) -> None:
        assert Count(43)._correct_total_by_page(1_000, 0, has_more=False) == Count(43)

    def test_rows_deleted_between_count_and_page_lower_the_total(self) -> None:
        assert Count(43)._correct_total_by_page(40, 1, has_more=False) == Count(41)
        assert Count(43)._correct_total_by_page(40, 0, has_more=False) == Count(40)

    def test_rows_added_between_count_and_page_raise_the_total(self) -> None:
        assert Count(40)._correct_total_by_page(20, 20, has_more=True) == Count(41)

    def test_a_page_does_not_change_a_missing_count(self) -> None:
        assert NOT_COUNTED._correct_total_by_page(0, 5, has_more=False) == NOT_COUNTED


@given(
    st.integers(-1, 200),
    st.sampled_from(["eq", "gte", "estimate"]),
    st.integers(0, 200),
    st.integers(0, 30),
    st.booleans(),
)
def test_a_total_never_contradicts_the_rows_seen(
    total: int, relation: Relation, offset: int, rows: int, has_more: bool
) -> None:
    count = Count(total, relation)._correct_total_by_page(offset, rows, has_more=has_more)
    assert count.total is not None
    assert count.total >= 0
    if rows:
        assert count.total >= offset + rows + has_more
    if relation == "eq":
        assert count.relation == "eq"


class TestLastPage:
    @pytest.mark.parametrize(
        ("total", "last"), [(0, 1), (1, 1), (20, 1), (21, 2), (40, 2), (41, 3)]
    )
    def test_an_exact_total_has_a_last_page(self, total: int, last: int) -> None:
        assert Count(total).last_page(20) == last

    @pytest.mark.parametrize(
        "count", [NOT_COUNTED, Count(10_000, "gte"), Count(10_000, "estimate")]
    )
    def test_an_inexact_total_has_no_last_page(self, count: Count) -> None:
        assert count.last_page(20) is None


class TestCounting:
    @pytest.mark.parametrize("value", ["exact", "estimated", "none", Capped(5)])
    def test_the_ways_to_count(self, value: object) -> None:
        assert check_count_option(value) == value

    @pytest.mark.parametrize("value", ["capped", "auto", 10_000, None, True, False])
    def test_other_ways_to_count_are_rejected(self, value: object) -> None:
        with pytest.raises(InvalidOption, match=r"count=.*: must be 'exact', 'estimated', 'none'"):
            check_count_option(value)


class TestCached:
    @pytest.mark.parametrize("ttl", [30, "30s", timedelta(seconds=30)])
    def test_a_total_expires_after_its_ttl(self, ttl: Duration) -> None:
        clock = ManualClock()
        cache = CountCache(Cached("exact", ttl, clock=clock))
        cache.put(b"key", Count(7))
        clock.advance(29.9)
        assert cache.get(b"key") == Count(7)
        clock.advance(0.1)
        assert cache.get(b"key") is None

    def test_the_system_s_clock_does_not_move_totals(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The system clock may be set back, and would then keep totals for too long."""
        cache = CountCache(Cached("exact", 30, clock=Store("memory://").clock))
        cache.put(b"key", Count(7))
        monkeypatch.setattr(time, "time_ns", lambda: 2**62)
        assert cache.get(b"key") == Count(7)

    def test_the_least_recently_used_total_is_removed_first(self) -> None:
        cache = CountCache(Cached("exact", 30, max_entries=2))
        cache.put(b"a", Count(1))
        cache.put(b"b", Count(2))
        assert cache.get(b"a") == Count(1)
        cache.put(b"c", Count(3))
        assert [cache.get(key) for key in (b"a", b"b", b"c")] == [Count(1), None, Count(3)]

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda: Cached("roughly", 30),  # type: ignore[arg-type]
            lambda: Cached("exact", True),
            lambda: Cached("exact", float("nan")),
            lambda: Cached("exact", 30, max_entries=0),
            lambda: Cached("exact", 30, clock=time.monotonic),  # type: ignore[arg-type]
        ],
    )
    def test_a_wrong_option_is_rejected(self, wrong: Callable[[], Cached]) -> None:
        with pytest.raises(InvalidOption):
            wrong()

    @pytest.mark.parametrize("ttl", [0, -1, "soon", None])
    def test_a_ttl_without_time_is_rejected(self, ttl: Any) -> None:
        with pytest.raises(
            InvalidOption, match=r"Cached\(ttl\)=.*: must be (seconds|at least 0\.000001 seconds)"
        ):
            Cached("exact", ttl)

    def test_a_cached_count_cannot_be_cached(self) -> None:
        with pytest.raises(
            InvalidOption, match=r"Cached\(count\)=.*: must be a way to count other than Cached"
        ):
            Cached(Cached("exact", 30), 30)  # type: ignore[arg-type]
