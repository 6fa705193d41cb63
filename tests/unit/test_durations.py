"""Durations in seconds become whole milliseconds, and wrong ones are refused."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten._durations import MAX_MS, to_nearest_ms
from hasten.errors import InvalidOption

A_DURATION = "seconds (a number), a timedelta or a string such as '15m'"
TOO_SHORT = "must be at least 0 seconds"
TOO_LONG = "must be less than a hundred years; numbers are in seconds"


class TestToMs:
    @pytest.mark.parametrize(
        ("value", "ms"),
        [
            (0, 0),
            (-0.0, 0),
            (2, 2000),
            (0.25, 250),
            (0.0006, 1),
            (timedelta(minutes=1, milliseconds=5), 60_005),
            (MAX_MS // 1000, MAX_MS),
            ("15m", 900_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            (" 2 d ", 172_800_000),
            ("500ms", 500),
            ("1.5s", 1_500),
            ("1w", 604_800_000),
        ],
    )
    def test_a_duration_is_rounded_to_milliseconds(self, value: object, ms: int) -> None:
        assert to_nearest_ms("delay", value) == ms

    @given(st.integers(0, MAX_MS))
    def test_no_millisecond_is_lost(self, ms: int) -> None:
        """Options are stored as seconds and read again, without drift."""
        assert to_nearest_ms("delay", ms / 1000) == ms
        assert to_nearest_ms("delay", timedelta(milliseconds=ms)) == ms

    @pytest.mark.parametrize(
        "value", [None, True, "5", b"5", 1j, [1], "", "m", "5 minutes", "-5m", "5M", "1m" * 60]
    )
    def test_refuses_a_value_that_is_not_a_duration(self, value: object) -> None:
        with pytest.raises(InvalidOption) as caught:
            to_nearest_ms("delay", value)
        assert str(caught.value) == f"delay={value!r}: must be {A_DURATION}"

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (-1, TOO_SHORT),
            (-0.001, TOO_SHORT),
            (timedelta(seconds=-1), TOO_SHORT),
            (float("nan"), TOO_SHORT),
            (-float("inf"), TOO_SHORT),
            (float("inf"), TOO_LONG),
            (MAX_MS, TOO_LONG),  # milliseconds where seconds were meant
            (1e308, TOO_LONG),  # overflows when multiplied
            (10**400, TOO_LONG),  # overflows when made a float
            (timedelta.max, TOO_LONG),
        ],
    )
    def test_refuses_a_duration_out_of_bounds(self, value: object, reason: str) -> None:
        """The error is never an OverflowError."""
        with pytest.raises(InvalidOption) as caught:
            to_nearest_ms("delay", value)
        shown = repr(value) if len(repr(value)) <= 200 else f"{value!r}"[:200] + "…"
        assert str(caught.value) == f"delay={shown}: {reason}"

    def test_a_duration_has_a_minimum(self) -> None:
        """A time-out of 0 would end every run."""
        assert to_nearest_ms("timeout", 0.001, at_least_ms=1) == 1
        with pytest.raises(InvalidOption) as caught:
            to_nearest_ms("timeout", 0, at_least_ms=1)
        assert str(caught.value) == "timeout=0: must be at least 0.001 seconds"
        with pytest.raises(InvalidOption, match=r"^lease=0\.2: must be at least 1 second$"):
            to_nearest_ms("lease", 0.2, at_least_ms=1_000)
