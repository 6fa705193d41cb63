"""Public seconds become whole milliseconds, and mistakes do not."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten._durations import MAX_MS, to_ms
from hasten.errors import InvalidOption

A_DURATION = "seconds (a number), a timedelta or a text such as '15m'"
BELOW_ZERO_OR_TOO_LONG = f"expected {A_DURATION}, not negative, and less than a hundred years"


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
    def test_rounds_to_whole_milliseconds(self, value: object, ms: int) -> None:
        assert to_ms("delay", value) == ms

    @given(st.integers(0, MAX_MS))
    def test_keeps_every_millisecond(self, ms: int) -> None:
        """Options go to the wire and back through seconds: nothing may drift."""
        assert to_ms("delay", ms / 1000) == ms
        assert to_ms("delay", timedelta(milliseconds=ms)) == ms

    @pytest.mark.parametrize(
        "value", [None, True, "5", b"5", 1j, [1], "", "m", "5 minutes", "-5m", "5M", "1m" * 60]
    )
    def test_refuses_what_is_no_duration(self, value: object) -> None:
        with pytest.raises(InvalidOption) as caught:
            to_ms("delay", value)
        assert str(caught.value) == f"delay={value!r}: expected {A_DURATION}"

    @pytest.mark.parametrize(
        "value",
        [
            -1,
            -0.001,
            timedelta(seconds=-1),
            float("nan"),
            float("inf"),
            -float("inf"),
            MAX_MS,  # milliseconds where seconds were meant
            1e308,  # overflows when multiplied
            10**400,  # overflows when made a float
            timedelta.max,
        ],
    )
    def test_refuses_what_cannot_be_meant(self, value: object) -> None:
        """Whatever the number is, the answer is ours and not an OverflowError."""
        with pytest.raises(InvalidOption) as caught:
            to_ms("delay", value)
        shown = repr(value) if len(repr(value)) <= 200 else f"{value!r}"[:200] + "…"
        assert str(caught.value) == f"delay={shown}: {BELOW_ZERO_OR_TOO_LONG}"

    def test_holds_to_a_least_value(self) -> None:
        """A time-out of nothing would end every run."""
        assert to_ms("timeout", 0.001, at_least_ms=1) == 1
        with pytest.raises(InvalidOption) as caught:
            to_ms("timeout", 0, at_least_ms=1)
        assert str(caught.value) == (
            f"timeout=0: expected {A_DURATION}, at least 0.001 s, and less than a hundred years"
        )
