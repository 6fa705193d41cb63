"""When cron patterns match, especially when clocks change."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.jobs._cron import next_match_ms
from hasten.jobs._cron_canonical import to_canonical_pattern

ZONE = "Europe/Madrid"
SPRING = "2026-03-28T23:30"  # at 2:00 of the next day it is 3:00
AUTUMN = "2026-10-24T23:30"  # at 3:00 of the next day it is 2:00


def matches(pattern: str, after: str, count: int) -> list[str]:
    zone = ZoneInfo(ZONE)
    at_ms = round(datetime.fromisoformat(after).replace(tzinfo=zone).timestamp() * 1000)
    found = []
    for _ in range(count):
        at_ms = next_match_ms(pattern, at_ms, ZONE)
        found.append(datetime.fromtimestamp(at_ms / 1000, zone).strftime("%d %H:%M %z"))
    return found


class TestWhereClocksChange:
    def test_what_falls_into_the_missing_hour_runs_as_much_later(self) -> None:
        assert matches("30 2 * * *", SPRING, 2) == ["29 03:30 +0200", "30 02:30 +0200"]
        assert matches("*/20 2 * * *", SPRING, 4) == [
            "29 03:00 +0200", "29 03:20 +0200", "29 03:40 +0200", "30 02:00 +0200",
        ]  # fmt: skip

    def test_what_falls_into_the_repeated_hour_runs_once(self) -> None:
        assert matches("30 2 * * *", AUTUMN, 2) == ["25 02:30 +0200", "26 02:30 +0100"]

    def test_what_runs_each_hour_runs_in_both(self) -> None:
        assert matches("0 * * * *", AUTUMN, 5) == [
            "25 00:00 +0200", "25 01:00 +0200", "25 02:00 +0200", "25 02:00 +0100",
            "25 03:00 +0100",
        ]  # fmt: skip
        assert matches("0 * * * *", SPRING, 3) == [
            "29 00:00 +0100", "29 01:00 +0100", "29 03:00 +0200",
        ]  # fmt: skip

    @given(st.integers(1_700_000_000_000, 1_900_000_000_000))
    def test_a_match_is_later_than_what_it_follows(self, at_ms: int) -> None:
        for pattern in ("*/7 * * * *", "30 2 * * *", "15 3 * * 0"):
            assert next_match_ms(pattern, at_ms, ZONE) > at_ms


class TestDialect:
    @pytest.mark.parametrize(
        ("pattern", "found"),
        [
            ("0 0 L * *", "31 00:00 +0200"),  # the last day
            ("0 0 * * 5L", "24 00:00 +0200"),  # the last Friday: of April
            ("0 0 * * 1#2", "13 00:00 +0200"),  # the second Monday: of April
            ("0 0 13 * 5", "03 00:00 +0200"),  # a Friday, or the 13th
            ("0 0 * * 7", "29 00:00 +0100"),  # Sunday
            ("0 0 ? * MON", "30 00:00 +0200"),
            ("@monthly", "01 00:00 +0200"),
        ],
    )
    def test_is_that_of_bullmq(self, pattern: str, found: str) -> None:
        assert matches(pattern, SPRING, 1) == [found]

    def test_has_seconds_in_front(self) -> None:
        assert next_match_ms("*/5 * * * * *", 1_790_000_000_000, None) == 1_790_000_005_000

    @pytest.mark.parametrize(
        "pattern",
        ["", "* * * *", "0 0 H * *", "R * * * *", "0 0 1W * *", "0 0 31 2 *", "a b c d e"],
    )
    def test_what_it_does_not_have_is_refused(self, pattern: str) -> None:
        with pytest.raises(ValueError, match=r"^cron pattern"):
            next_match_ms(pattern, 0, None)

    def test_a_zone_that_does_not_exist_is_named(self) -> None:
        with pytest.raises(ValueError, match="time zone 'Mars/Olympus'"):
            next_match_ms("* * * * *", 0, "Mars/Olympus")


class TestCanonical:
    @pytest.mark.parametrize(
        ("pattern", "stored"),
        [
            ("0 7 * * mon-fri", "0 7 * * mon-fri"),
            ("  0  7 * *   *", "0 7 * * *"),
            ("*/5 0 9-17/2 L JAN,mar ?", "*/5 0 9-17/2 L JAN,mar ?"),
            ("0 0 * * mon-sun", "0 0 * * *"),
            ("0 0 * * fri-mon", "0 0 * * 0-1,5-6"),
            ("0 22-2/2 * * *", "0 0,2,22 * * *"),
            ("0 0 * * l5", "0 0 * * 5L"),
            ("1,1-5 * * * *", "1-5 * * * *"),
            ("@DAILY", "@daily"),
            ("@midnight", "@daily"),
            ("0 0 * * 1#2", "0 0 * * 1#2"),
        ],
    )
    def test_only_what_node_rejects_is_changed(self, pattern: str, stored: str) -> None:
        assert to_canonical_pattern(pattern) == stored

    @pytest.mark.parametrize("pattern", ["0 0 1 * 5L", "0 0 * * 5L,1", "0 0 * * 1#1,2#2"])
    def test_days_that_mean_something_else_in_node_are_refused(self, pattern: str) -> None:
        with pytest.raises(ValueError, match="day of the week"):
            to_canonical_pattern(pattern)
